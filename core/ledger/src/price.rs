//! Price × time, in integers.

use farlane_units::{MilliCpu, Millis, UsdMicros};

/// Thousandth-core milliseconds of one core for an hour: 1000 × 3,600,000.
const CORE_HOUR: i128 = 1000 * 3_600_000;

/// Cores × time, in thousandth-core milliseconds: fine enough that nothing is lost before rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreTime(pub u64);

impl CoreTime {
    /// `cpus` held for `time`, held at the bound (584 million core-hours).
    pub fn of(time: Millis, cpus: MilliCpu) -> Self {
        Self(time.0.saturating_mul(u64::from(cpus.0)))
    }

    /// Sum, held at the bound.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// What `time` costs at `price` for one core for an hour: to the nearest millionth of a dollar,
/// halves away from zero, held at the bounds.
pub fn cost(time: CoreTime, price: UsdMicros) -> UsdMicros {
    let exact = i128::from(time.0) * i128::from(price.0);
    let half = if exact < 0 {
        -CORE_HOUR / 2
    } else {
        CORE_HOUR / 2
    };
    let rounded = (exact + half) / CORE_HOUR;
    let held = rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    UsdMicros(i64::try_from(held).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_a_core_costs_its_price() {
        let hour = CoreTime::of(Millis(3_600_000), MilliCpu(1000));
        assert_eq!(cost(hour, UsdMicros(48_000)), UsdMicros(48_000));
        let half_core = CoreTime::of(Millis(3_600_000), MilliCpu(500));
        assert_eq!(cost(half_core, UsdMicros(48_000)), UsdMicros(24_000));
    }

    #[test]
    fn rounding_is_to_the_nearest_and_bounds_hold() {
        let millisecond = CoreTime::of(Millis(1), MilliCpu(1000));
        assert_eq!(cost(millisecond, UsdMicros(1_799_999)), UsdMicros(0));
        assert_eq!(cost(millisecond, UsdMicros(1_800_000)), UsdMicros(1));
        assert_eq!(cost(millisecond, UsdMicros(-1_800_000)), UsdMicros(-1));
        assert_eq!(
            cost(CoreTime(u64::MAX), UsdMicros(i64::MAX)),
            UsdMicros(i64::MAX)
        );
    }
}
