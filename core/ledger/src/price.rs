//! Price × time, in integers.

use farlane_units::{MilliCpu, Millis, UsdFemtos, UsdMicros};

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
    cost_with(time, price, UsdFemtos::ZERO)
}

/// The same with what bytes cost, rounded once: five thousandth-core milliseconds at a price are as eighteen of its
/// quadrillionths.
pub fn cost_with(time: CoreTime, price: UsdMicros, egress: UsdFemtos) -> UsdMicros {
    const BOTH: i128 = 5 * CORE_HOUR;
    let held = (i128::from(time.0) * i128::from(price.0)).saturating_mul(5);
    let exact = held.saturating_add(i128::from(egress.0) * 18);
    let half = if exact < 0 { -BOTH / 2 } else { BOTH / 2 };
    let rounded = exact.saturating_add(half) / BOTH;
    let held = rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    UsdMicros(i64::try_from(held).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_units::ByteCount;

    #[test]
    fn an_hour_of_a_core_costs_its_price() {
        let hour = CoreTime::of(Millis(3_600_000), MilliCpu(1000));
        assert_eq!(cost(hour, UsdMicros(48_000)), UsdMicros(48_000));
        let half_core = CoreTime::of(Millis(3_600_000), MilliCpu(500));
        assert_eq!(cost(half_core, UsdMicros(48_000)), UsdMicros(24_000));
    }

    #[test]
    fn bytes_and_time_are_rounded_together() {
        // A quarter of a millionth in time, and as much in bytes: 5,000 at $0.05 a GB.
        let quarter = CoreTime::of(Millis(1), MilliCpu(1000));
        let (price, bytes) = (
            UsdMicros(900_000),
            UsdFemtos::of(ByteCount(5_000), UsdMicros(50_000)),
        );
        assert_eq!(bytes.picos().0, 250_000);
        assert_eq!(cost(quarter, price), UsdMicros(0));
        assert_eq!(cost_with(quarter, price, bytes), UsdMicros(1));
        let gigabyte = UsdFemtos::of(ByteCount(1_000_000_000), UsdMicros(50_000));
        assert_eq!(cost_with(CoreTime(0), price, gigabyte), UsdMicros(50_000));
        assert_eq!(
            cost_with(CoreTime(u64::MAX), UsdMicros(i64::MAX), UsdFemtos::MAX),
            UsdMicros(i64::MAX)
        );
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
