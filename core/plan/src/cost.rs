//! The expected bill of a place, term by term.

use farlane_units::{Micros, MilliCpu, MilliUcu, Ppm, UsdMicros};

use crate::view::Group;

const MICROS_AN_HOUR: f64 = 3_600_000_000.0;
/// Grams of CO2e a kWh where nobody knows a region's. Source: the world's average of 2023, 480 g/kWh
/// (Ember, Global Electricity Review 2024).
const UNKNOWN_CARBON: u32 = 480;
/// What a busy core draws where nobody knows, thousandths of a watt. Source: choice; servers of 32 to 64
/// cores draw 200 to 500 W under load.
const UNKNOWN_MILLIWATTS: u32 = 8_000;

/// What time, carbon and risk are worth; the only thing that policies differ in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// An hour of waiting, micro-dollars.
    pub hour_usd_micros: f64,
    /// A tonne of CO2e in dollars, which is a gram in micro-dollars.
    pub tonne_usd: f64,
    /// Of a lost attempt's cost, how much its chance counts.
    pub risk: f64,
}

impl Policy {
    /// The default. Source: design.md, "Placement" leaves the prices to the policy; half a dollar is ten
    /// core-hours at a common spot price of $0.05, and $50 a tonne is near what emission trading asks.
    pub const BALANCED: Self = Self {
        hour_usd_micros: 500_000.0,
        tonne_usd: 50.0,
        risk: 1.0,
    };
    /// As soon as can be, at nearly any price: an engineer's hour.
    pub const FAST: Self = Self {
        hour_usd_micros: 50_000_000.0,
        tonne_usd: 0.0,
        risk: 1.0,
    };
    /// As little money as can be; a queue of a night is worth a few cents.
    pub const CHEAP: Self = Self {
        hour_usd_micros: 5_000.0,
        tonne_usd: 0.0,
        risk: 1.0,
    };
    /// As little carbon as can be. A core emits a few grams an hour and costs a few cents: from some $20,000 a
    /// tonne on carbon decides, and money where it is alike.
    pub const GREEN: Self = Self {
        hour_usd_micros: 50_000.0,
        tonne_usd: 100_000.0,
        risk: 1.0,
    };
}

/// An expected cost by its terms. *Units*: micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bill {
    /// Run time × cores × price.
    pub price: f64,
    /// Value of the time that it runs.
    pub run: f64,
    /// Of the time that it waits on the node.
    pub queue: f64,
    /// Of the way there and back.
    pub round_trip: f64,
    /// Of what is emitted.
    pub carbon: f64,
    /// Of doing it again, times the chance of that.
    pub risk: f64,
}

impl Bill {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.price + self.run + self.queue + self.round_trip + self.carbon + self.risk
    }
}

/// One term of a cost, as people read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// `price`, `run`, `queue`, `round trip`, `carbon`, `risk`.
    pub name: &'static str,
    /// Micro-dollars.
    pub usd_micros: f64,
    /// With its units: "0.120 s × 1 core × $0.050000 a core-hour".
    pub detail: String,
}

/// What of a class decides its cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Names the hardware, for estimates.
    pub hardware: u64,
    pub cpus: MilliCpu,
    /// Rate of one core.
    pub core: MilliUcu,
    pub price: UsdMicros,
    pub round_trip: Micros,
    pub carbon: Option<u32>,
    pub milliwatts_core: u32,
    pub risk: Ppm,
}

impl Traits {
    fn run_micros(&self, group: &Group) -> f64 {
        group.work.on(self.hardware, self.core).0 as f64
    }

    /// How many such tasks run here at once.
    fn slots(&self, group: &Group) -> f64 {
        let each = f64::from(group.spec.resources.cpus.0.max(1));
        (f64::from(self.cpus.0) / each).max(1.0)
    }

    fn grams(&self, group: &Group) -> f64 {
        let milliwatts = match self.milliwatts_core {
            0 => UNKNOWN_MILLIWATTS,
            known => known,
        };
        let cores = f64::from(group.spec.resources.cpus.0) / 1000.0;
        let hours = self.run_micros(group) / MICROS_AN_HOUR;
        let kwh = f64::from(milliwatts) / 1_000_000.0 * cores * hours;
        kwh * f64::from(self.carbon.unwrap_or(UNKNOWN_CARBON))
    }

    /// Expected cost of one more task here; `ahead` are those that wait here already.
    pub fn bill(&self, group: &Group, ahead: u32) -> Bill {
        let policy = &group.policy;
        let worth = |micros: f64| micros / MICROS_AN_HOUR * policy.hour_usd_micros;
        let run = self.run_micros(group);
        let cores = f64::from(group.spec.resources.cpus.0) / 1000.0;
        let price = run / MICROS_AN_HOUR * cores * self.price.0 as f64;
        let again = price + worth(run + self.round_trip.0 as f64);
        Bill {
            price,
            run: worth(run),
            queue: worth(run * f64::from(ahead) / self.slots(group)),
            round_trip: worth(self.round_trip.0 as f64),
            carbon: self.grams(group) * policy.tonne_usd,
            risk: f64::from(self.risk.0) / 1_000_000.0 * again * policy.risk,
        }
    }

    /// The same, spelled out.
    pub fn terms(&self, group: &Group, ahead: u32) -> Vec<Term> {
        let bill = self.bill(group, ahead);
        let policy = &group.policy;
        let seconds = |micros: f64| micros / 1_000_000.0;
        let run = self.run_micros(group);
        let hour = policy.hour_usd_micros / 1e6;
        let waiting =
            |micros: f64| format!("{:.6} s × ${hour:.2} an hour of waiting", seconds(micros));
        let term = |name, usd_micros, detail| Term {
            name,
            usd_micros,
            detail,
        };
        vec![
            term(
                "price",
                bill.price,
                format!(
                    "{:.6} s × {:.3} cores × {} a core-hour",
                    seconds(run),
                    f64::from(group.spec.resources.cpus.0) / 1000.0,
                    self.price
                ),
            ),
            term("run", bill.run, waiting(run)),
            term(
                "queue",
                bill.queue,
                waiting(run * f64::from(ahead) / self.slots(group)),
            ),
            term(
                "round trip",
                bill.round_trip,
                waiting(self.round_trip.0 as f64),
            ),
            term("carbon", bill.carbon, self.carbon_detail(group)),
            term(
                "risk",
                bill.risk,
                format!(
                    "{:.2} % chance of doing it again",
                    f64::from(self.risk.0) / 10_000.0
                ),
            ),
        ]
    }

    fn carbon_detail(&self, group: &Group) -> String {
        let (of, known) = match self.carbon {
            Some(known) => (known, ""),
            None => (UNKNOWN_CARBON, " (the region's own is not known)"),
        };
        format!(
            "{:.6} g CO2e at {of} g/kWh{known} × ${:.0} a tonne",
            self.grams(group),
            group.policy.tonne_usd
        )
    }
}
