//! Calendar months, in UTC.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01. Source: as for [`Month::of`].
const EPOCH_DAYS: u64 = 719_468;

/// A month of the Gregorian calendar, as those counted since January of year 0. UTC.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Month(pub u32);

impl Month {
    /// The month that a moment lies in.
    ///
    /// *Source*: H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
    pub const fn of(at: Millis) -> Self {
        // The last year that fits; nobody's clock gets there.
        let days = at.0 / DAY_MS + EPOCH_DAYS;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        // Months since March of that year.
        let shifted = (5 * of_year + 2) / 153;
        let months = (era * 400 + year) * 12 + shifted + 2;
        Self(if months > u32::MAX as u64 {
            u32::MAX
        } else {
            months as u32
        })
    }
}

impl std::fmt::Display for Month {
    /// As `2026-11`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_at_their_midnight() {
        let of = |ms| Month::of(Millis(ms)).to_string();
        assert_eq!(of(0), "1970-01");
        // 2026-12-01T00:00:00Z, and a millisecond before.
        assert_eq!(of(1_796_083_200_000), "2026-12");
        assert_eq!(of(1_796_083_199_999), "2026-11");
        // 2024-02-29 and the day after; 1999-12-31 and the day after.
        assert_eq!(of(1_709_164_800_000), "2024-02");
        assert_eq!(of(1_709_251_200_000), "2024-03");
        assert_eq!(
            (of(946_598_400_000), of(946_684_800_000)),
            ("1999-12".into(), "2000-01".into())
        );
        assert_eq!(Month::of(Millis::MAX).0, Month::of(Millis(u64::MAX - 1)).0);
    }

    #[test]
    fn months_never_go_back() {
        let days = (0..80_000).map(|day| Month::of(Millis(day * DAY_MS)));
        assert!(days.is_sorted());
    }
}
