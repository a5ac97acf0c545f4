//! Unified compute units, in two profiles that never meet.
//!
//! Owns the two types and how they read. Leaves what they are reckoned from to `farlane-model`.
//! Neither converts to the other, and nominal ones never to money. Thousandths of nominal ones come out for display and transport
//! alone; of measured ones, also for estimates of run times and for price books.

use std::fmt;

use serde::{Deserialize, Serialize};

/// UCU by the data sheet: for planning, and for machines that are not measured yet. Figures of devices of
/// different kinds are not commensurable, so two are never added; [`times`](Self::times) counts alike ones.
/// Its display names the profile: `12.800 UCU (nominal)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NominalUcu(u64);

impl NominalUcu {
    /// From thousandths of a UCU.
    pub const fn from_thousandths(thousandths: u64) -> Self {
        Self(thousandths)
    }
    /// Thousandths of a UCU, for display and JSON.
    pub const fn thousandths(self) -> u64 {
        self.0
    }
    /// So many devices of the same kind and model; `None` where it does not fit.
    pub const fn times(self, count: u64) -> Option<Self> {
        match self.0.checked_mul(count) {
            Some(all) => Some(Self(all)),
            None => None,
        }
    }
}

impl fmt::Display for NominalUcu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UCU (nominal)", Thousandths(self.0))
    }
}

/// UCU by calibration, for one kind of work: how many cores of the reference node do as much. Figures for
/// different kinds of work are never added. Its display names the profile, and whoever shows it the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeasuredUcu(u64);

impl MeasuredUcu {
    /// A rate over the reference core's, in the same unit; rounded down to a thousandth, held at the bound.
    /// `None` where the reference is zero.
    pub const fn of_rates(rate: u64, reference: u64) -> Option<Self> {
        if reference == 0 {
            return None;
        }
        let thousandths = rate as u128 * 1000 / reference as u128;
        match thousandths > u64::MAX as u128 {
            true => Some(Self(u64::MAX)),
            false => Some(Self(thousandths as u64)),
        }
    }
    /// Thousandths of a UCU.
    pub const fn thousandths(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MeasuredUcu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UCU (measured)", Thousandths(self.0))
    }
}

struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_display_names_its_profile() {
        let nominal = NominalUcu::from_thousandths(12_800);
        assert_eq!(nominal.to_string(), "12.800 UCU (nominal)");
        assert_eq!(
            NominalUcu::from_thousandths(5).to_string(),
            "0.005 UCU (nominal)"
        );
        let measured = MeasuredUcu::of_rates(3, 2).map(|ucu| ucu.to_string());
        assert_eq!(measured.as_deref(), Some("1.500 UCU (measured)"));
    }

    #[test]
    fn counting_alike_devices_does_not_wrap() {
        let one = NominalUcu::from_thousandths(5_529_600);
        assert_eq!(one.times(8), Some(NominalUcu::from_thousandths(44_236_800)));
        assert_eq!(one.times(0), Some(NominalUcu::from_thousandths(0)));
        assert_eq!(one.times(u64::MAX), None);
    }

    #[test]
    fn a_rate_over_none_is_no_figure() {
        assert_eq!(MeasuredUcu::of_rates(5, 0), None);
        let most = MeasuredUcu::of_rates(u64::MAX, 1).map(MeasuredUcu::thousandths);
        assert_eq!(most, Some(u64::MAX));
        let none = MeasuredUcu::of_rates(0, 7).map(MeasuredUcu::thousandths);
        assert_eq!(none, Some(0));
    }
}
