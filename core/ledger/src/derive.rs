//! A price derived from what a machine costs: purchase over its life, power, network.

use farlane_units::{MilliWatts, Ppm, UsdMicros};

/// Hours of five years, the life that a machine is paid off in unless set. Chosen: as long as a server's
/// warranty can be had.
pub const LIFE_HOURS: u64 = 5 * 365 * 24;
/// Share of its full power that a machine draws unless set. Chosen: a network's machine works
/// most of the time, and seldom to its last watt.
pub const LOAD: Ppm = Ppm(850_000);
/// Power that a site takes for each watt of its machines, unless set. Source: Uptime Institute, Global Data
/// Center Survey 2024: 1.56 on average.
pub const PUE: Ppm = Ppm(1_560_000);

/// What a machine costs its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// For the whole machine.
    pub purchase: UsdMicros,
    /// Hours of its life; at least one.
    pub life_hours: u64,
    /// Full power.
    pub tdp: MilliWatts,
    /// Share of it that is drawn.
    pub load: Ppm,
    /// Of the site.
    pub pue: Ppm,
    /// Of a kilowatt-hour.
    pub tariff: UsdMicros,
    /// Of a gigabyte that leaves the region.
    pub egress_gb: UsdMicros,
    /// Gigabytes that leave the region in an hour, thousandths.
    pub milli_gb_hour: u64,
    /// Cores over which the price of the machine is spread; at least one.
    pub cores: u64,
}

/// What an hour of a machine costs its owner, each part by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// Purchase ÷ life.
    pub purchase: UsdMicros,
    /// Power × load × PUE × tariff.
    pub power: UsdMicros,
    /// Gigabytes out × price of one.
    pub network: UsdMicros,
    /// All parts.
    pub hour: UsdMicros,
    /// Of one core.
    pub core_hour: UsdMicros,
}

/// `numerator` ÷ `denominator`, to the nearest, halves up, held at the bound.
fn nearest(numerator: u128, denominator: u128) -> UsdMicros {
    let denominator = denominator.max(1);
    let rounded = numerator.saturating_add(denominator / 2) / denominator;
    UsdMicros(i64::try_from(rounded).unwrap_or(i64::MAX))
}

fn whole(price: UsdMicros) -> u128 {
    u128::try_from(price.0).unwrap_or(0)
}

/// The price that an owner must ask to lose nothing, in parts. Negative prices count as nothing.
pub fn derive(of: &Ownership) -> Derived {
    let purchase = nearest(whole(of.purchase), u128::from(of.life_hours));
    // Thousandths of a watt for an hour are 10^-6 kWh; load and PUE are 10^-6 each.
    let energy = u128::from(of.tdp.0)
        .saturating_mul(u128::from(of.load.0))
        .saturating_mul(u128::from(of.pue.0));
    let power = nearest(
        energy.saturating_mul(whole(of.tariff)),
        1_000_000_000_000_000_000,
    );
    let network = nearest(
        u128::from(of.milli_gb_hour).saturating_mul(whole(of.egress_gb)),
        1000,
    );
    let hour = purchase.saturating_add(power).saturating_add(network);
    Derived {
        purchase,
        power,
        network,
        hour,
        core_hour: nearest(whole(hour), u128::from(of.cores)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ownership = Ownership {
        purchase: UsdMicros(10_950_000_000),
        life_hours: LIFE_HOURS,
        tdp: MilliWatts(500_000),
        load: LOAD,
        pue: Ppm(1_200_000),
        tariff: UsdMicros(150_000),
        egress_gb: UsdMicros(50_000),
        milli_gb_hour: 2000,
        cores: 64,
    };

    #[test]
    fn parts_are_as_reckoned_by_hand() {
        // $10,950 ÷ 43,800 h = $0.25 · 0.5 kW × 0.85 × 1.2 × $0.15 = 0.51 kWh × $0.15 = $0.0765 · 2 GB × $0.05 = $0.10
        let derived = Derived {
            purchase: UsdMicros(250_000),
            power: UsdMicros(76_500),
            network: UsdMicros(100_000),
            hour: UsdMicros(426_500),
            // $0.4265 ÷ 64 = $0.0066640625
            core_hour: UsdMicros(6_664),
        };
        assert_eq!(derive(&SERVER), derived);
        // An H100: $30,000 ÷ 43,800 h = $0.684931506… · 0.7 kW × 0.85 × 1.56 × $0.10 = 0.9282 kWh × $0.10 = $0.09282
        let gpu = Ownership {
            purchase: UsdMicros(30_000_000_000),
            tdp: MilliWatts(700_000),
            pue: PUE,
            tariff: UsdMicros(100_000),
            milli_gb_hour: 0,
            cores: 1,
            ..SERVER
        };
        let derived = derive(&gpu);
        assert_eq!(
            (
                derived.purchase.0,
                derived.power.0,
                derived.network.0,
                derived.hour.0
            ),
            (684_932, 92_820, 0, 777_752)
        );
    }

    #[test]
    fn absurd_figures_are_held_and_nothing_divides_by_zero() {
        let absurd = Ownership {
            purchase: UsdMicros::MAX,
            life_hours: 0,
            tdp: MilliWatts::MAX,
            load: Ppm::MAX,
            pue: Ppm::MAX,
            tariff: UsdMicros::MAX,
            egress_gb: UsdMicros(-1),
            milli_gb_hour: u64::MAX,
            cores: 0,
        };
        let derived = derive(&absurd);
        assert_eq!(
            (derived.hour, derived.network),
            (UsdMicros::MAX, UsdMicros::ZERO)
        );
    }
}
