//! Price × time, in integers.

use std::collections::BTreeMap;

use farlane_model::NodeId;
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

/// The prices a node has had, each from a moment on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceBook {
    prices: BTreeMap<(NodeId, Millis), UsdMicros>,
}

impl PriceBook {
    /// Notes that `node` costs `price` for a core-hour from `since` on.
    pub fn set(&mut self, node: NodeId, since: Millis, price: UsdMicros) {
        self.prices.insert((node, since), price);
    }

    /// The price in force at `when`; `None` where the node had none yet.
    pub fn at(&self, node: NodeId, when: Millis) -> Option<UsdMicros> {
        self.prices
            .range((node, Millis::ZERO)..=(node, when))
            .next_back()
            .map(|(_, price)| *price)
    }
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

    #[test]
    fn the_price_in_force_is_the_last_one_set_before() {
        let mut book = PriceBook::default();
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        book.set(a, Millis(100), UsdMicros(5));
        book.set(a, Millis(200), UsdMicros(7));
        book.set(b, Millis(50), UsdMicros(9));
        assert_eq!(book.at(a, Millis(99)), None);
        assert_eq!(book.at(a, Millis(100)), Some(UsdMicros(5)));
        assert_eq!(book.at(a, Millis(199)), Some(UsdMicros(5)));
        assert_eq!(book.at(a, Millis(200)), Some(UsdMicros(7)));
        assert_eq!(book.at(b, Millis(60)), Some(UsdMicros(9)));
    }
}
