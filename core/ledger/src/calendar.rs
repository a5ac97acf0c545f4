//! Dates as people write them, and moments as the ledger keeps them. UTC throughout.

use farlane_units::Millis;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// First and last year that is taken for a date. Chosen: what is outside is a slip of the finger.
const YEARS: std::ops::RangeInclusive<u16> = 1970..=2199;

/// Days since 1970-01-01, from civil fields. *Source*: H. Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`.
fn days(year: u16, month: u8, day: u8) -> u64 {
    let year = u64::from(year) - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let month = (u64::from(month) + 9) % 12;
    let of_year = (153 * month + 2) / 5 + u64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn length(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// The moment of a civil date and time of day, in UTC; `None` where there is no such day or hour, or the
/// year is not of 1970 to 2199.
pub fn moment(date: (u16, u8, u8), time: (u8, u8, u8)) -> Option<Millis> {
    let ((year, month, day), (hour, minute, second)) = (date, time);
    let real = YEARS.contains(&year) && (1..=length(year, month)).contains(&day);
    if !real || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = u64::from(hour) * 3600 + u64::from(minute) * 60 + u64::from(second);
    Some(Millis(days(year, month, day) * DAY_MS + seconds * 1000))
}

/// The same where clocks are `offset` minutes ahead of UTC.
pub fn moment_at(date: (u16, u8, u8), time: (u8, u8, u8), offset: i16) -> Option<Millis> {
    let local = moment(date, time)?;
    let ahead = i64::from(offset) * 60_000;
    local.0.checked_add_signed(-ahead).map(Millis)
}

/// A moment as `2026-12-01`, or `2026-12-01T13:30:00Z` where it is not midnight; milliseconds are left out.
///
/// *Source*: as for [`moment`], `civil_from_days`.
pub fn date(at: Millis) -> String {
    let (whole, rest) = (at.0 / DAY_MS, at.0 % DAY_MS / 1000);
    let shifted = whole + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    match rest {
        0 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            rest / 3600,
            rest % 3600 / 60,
            rest % 60
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_and_dates_are_each_others() {
        // Reckoned by `date -u -d`.
        for (fields, seconds, text) in [
            (((1970, 1, 1), (0, 0, 0)), 0, "1970-01-01"),
            (((2000, 2, 29), (0, 0, 0)), 951_782_400, "2000-02-29"),
            (((2026, 12, 1), (0, 0, 0)), 1_796_083_200, "2026-12-01"),
            (
                ((2026, 12, 1), (13, 30, 5)),
                1_796_131_805,
                "2026-12-01T13:30:05Z",
            ),
            (((2199, 12, 31), (0, 0, 0)), 7_258_032_000, "2199-12-31"),
        ] {
            let at = moment(fields.0, fields.1).unwrap();
            assert_eq!((at, date(at).as_str()), (Millis(seconds * 1000), text));
        }
        for day in 0..80_000 {
            let at = Millis(day * DAY_MS);
            let text = date(at);
            let part = |range: std::ops::Range<usize>| text[range].parse::<u16>().unwrap();
            let fields = (part(0..4), part(5..7) as u8, part(8..10) as u8);
            assert_eq!(moment(fields, (0, 0, 0)), Some(at), "{text}");
        }
    }

    #[test]
    fn days_that_are_not_are_none() {
        for date in [
            (2026, 2, 29),
            (2026, 13, 1),
            (2026, 0, 1),
            (2026, 4, 31),
            (2026, 1, 0),
            (1969, 1, 1),
            (2200, 1, 1),
        ] {
            assert_eq!(moment(date, (0, 0, 0)), None, "{date:?}");
        }
        assert_eq!(moment((2026, 1, 1), (24, 0, 0)), None);
    }
}
