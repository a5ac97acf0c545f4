//! The expected bill of a place, term by term.

use std::ops::{Index, IndexMut};

use farlane_model::{PolicyName, PolicyPrices, TermKind};
use farlane_units::{
    ByteCount, ByteRate, MicroGramsCo2, Micros, MilliCpu, MilliGpu, Ppm, UsdMicros, UsdPicos,
};

use crate::company::Here;
use crate::estimate::Rates;
use crate::view::{Egress, Group, Heat};

const MICROS_AN_HOUR: f64 = 3_600_000_000.0;
/// Bytes of what egress is priced by. Source: price books, 10^9 bytes.
const GB: f64 = 1_000_000_000.0;
/// Bandwidth to the servers where nobody knows it. Source: choice; 100 Mbit/s, which most lines have and few exceed
/// by far.
const UNKNOWN_BANDWIDTH: ByteRate = ByteRate(12_500_000);
/// Grams of CO2e a kWh where nobody knows a region's. Source: the world's average of 2023, 480 g/kWh
/// (Ember, Global Electricity Review 2024).
const UNKNOWN_CARBON: u32 = 480;
/// What a busy core draws where nobody knows, thousandths of a watt. Source: choice; servers of 32 to 64
/// cores draw 200 to 500 W under load.
const UNKNOWN_MILLIWATTS: u32 = 8_000;

/// A wish that is not met, and each of its kind that is there already, weigh so many parts of what the task costs
/// there anyway. Source: choice; a place a tenth dearer is taken for one wish.
const WISH: f64 = 10.0;

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
    /// What so much waiting is worth.
    pub(crate) fn worth(&self, micros: f64) -> f64 {
        micros / MICROS_AN_HOUR * self.hour_usd_micros
    }

    /// `balanced`.
    pub const BALANCED: Self = Self::of(PolicyName::Balanced.prices());
    /// `fast`.
    pub const FAST: Self = Self::of(PolicyName::Fast.prices());
    /// `cheap`.
    pub const CHEAP: Self = Self::of(PolicyName::Cheap.prices());
    /// `green`.
    pub const GREEN: Self = Self::of(PolicyName::Green.prices());

    /// For reckoning with.
    pub const fn of(prices: PolicyPrices) -> Self {
        Self {
            hour_usd_micros: prices.hour.0 as f64,
            tonne_usd: prices.tonne.0 as f64 / 1e6,
            risk: prices.risk.0 as f64 / 1e6,
        }
    }

    /// For keeping: to the millionth.
    pub fn prices(&self) -> PolicyPrices {
        PolicyPrices {
            hour: UsdMicros(self.hour_usd_micros as i64),
            tonne: UsdMicros((self.tonne_usd * 1e6 + 0.5) as i64),
            risk: Ppm((self.risk * 1e6 + 0.5) as u32),
        }
    }
}

/// An expected cost by its terms. *Units*: micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bill([f64; TermKind::COUNT]);

impl Bill {
    /// All of it, added in the order of the terms.
    pub fn total(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, term| sum + term)
    }

    /// Every term that is something, in their order.
    pub fn terms(&self) -> impl Iterator<Item = (TermKind, f64)> {
        let all = TermKind::ALL.into_iter().zip(self.0);
        all.filter(|(_, usd_micros)| *usd_micros > 0.0)
    }

    /// The same to keep: to the trillionth of a dollar, without those that come to less.
    pub fn kept(&self) -> Vec<(TermKind, UsdPicos)> {
        let kept = self.terms().map(|(kind, cost)| (kind, picos(cost)));
        kept.filter(|(_, cost)| *cost > UsdPicos::ZERO).collect()
    }
}

/// To the nearest trillionth of a dollar, held at the bounds.
pub(crate) fn picos(usd_micros: f64) -> UsdPicos {
    UsdPicos((usd_micros * 1e6 + 0.5) as u64)
}

impl Index<TermKind> for Bill {
    type Output = f64;
    fn index(&self, kind: TermKind) -> &f64 {
        &self.0[kind as usize]
    }
}

impl IndexMut<TermKind> for Bill {
    fn index_mut(&mut self, kind: TermKind) -> &mut f64 {
        &mut self.0[kind as usize]
    }
}

/// One term of a cost, as people read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// Which.
    pub kind: TermKind,
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
    pub gpus: MilliGpu,
    /// Of one core, and of one accelerator.
    pub rates: Rates,
    /// Runs take so much longer than by its claim; 1000 is as claimed.
    pub slowdown_milli: u32,
    pub heat: Heat,
    pub price: UsdMicros,
    pub round_trip: Micros,
    pub bandwidth: Option<ByteRate>,
    pub egress: Egress,
    pub carbon: Option<u32>,
    pub milliwatts_core: u32,
    pub milliwatts_gpu: u32,
    pub risk: Ppm,
}

fn cores(group: &Group) -> f64 {
    f64::from(group.spec.resources.cpus.0) / 1000.0
}

/// What must be moved there: what the task takes with it, less what the node holds.
fn lacks(group: &Group, here: &Here) -> ByteCount {
    group.bytes_there.saturating_sub(here.held)
}

impl Traits {
    /// How long such a task is expected to run here.
    pub fn run(&self, group: &Group) -> Micros {
        let claimed = group.work.on(self.hardware, &self.rates);
        let longer = u128::from(self.slowdown_milli.max(1000));
        let micros = u128::from(claimed.0) * longer / 1000;
        Micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// What an hour of it emits here; `None` where nobody knows.
    pub fn emits(&self, group: &Group) -> Option<MicroGramsCo2> {
        let carbon = self.carbon.filter(|_| self.milliwatts_core > 0)?;
        let held = &group.spec.resources;
        if held.gpus.0 > 0 && self.milliwatts_gpu == 0 {
            return None;
        }
        // Thousandths of a watt × thousandths of what it holds × g/kWh: a billion of them are a gram an hour.
        let draws = |each: u32, held: u32| u128::from(each) * u128::from(held);
        let draws =
            draws(self.milliwatts_core, held.cpus.0) + draws(self.milliwatts_gpu, held.gpus.0);
        let rate = draws * u128::from(carbon);
        u64::try_from(rate / 1000).ok().map(MicroGramsCo2)
    }

    fn start_micros(&self, group: &Group, here: &Here) -> f64 {
        match here.warm {
            true => 0.0,
            false => group.start.0 as f64,
        }
    }

    pub(crate) fn run_micros(&self, group: &Group) -> f64 {
        self.run(group).0 as f64
    }

    /// How many such tasks run here at once.
    fn slots(&self, group: &Group) -> f64 {
        let need = &group.spec.resources;
        let of = |all: u32, each: u32| f64::from(all) / f64::from(each.max(1));
        let cores = of(self.cpus.0, need.cpus.0);
        match need.gpus.0 {
            0 => cores.max(1.0),
            gpus => cores.min(of(self.gpus.0, gpus)).max(1.0),
        }
    }

    /// How long one more waits here behind so many, microseconds.
    pub fn wait(&self, group: &Group, ahead: u32) -> f64 {
        self.run_micros(group) * f64::from(ahead) / self.slots(group)
    }

    fn grams(&self, group: &Group) -> f64 {
        let milliwatts = match self.milliwatts_core {
            0 => UNKNOWN_MILLIWATTS,
            known => known,
        };
        let hours = self.run_micros(group) / MICROS_AN_HOUR;
        let gpus = f64::from(group.spec.resources.gpus.0) / 1000.0;
        let draws = f64::from(milliwatts) * cores(group) + f64::from(self.milliwatts_gpu) * gpus;
        let kwh = draws / 1_000_000.0 * hours;
        kwh * f64::from(self.carbon.unwrap_or(UNKNOWN_CARBON))
    }

    /// How long it takes to move what the node lacks, and the result.
    fn transfer_micros(&self, group: &Group, here: &Here) -> f64 {
        let bytes = lacks(group, here).0 as f64 + group.bytes_back.0 as f64;
        let rate = self.bandwidth.unwrap_or(UNKNOWN_BANDWIDTH);
        bytes * 1_000_000.0 / rate.0.max(1) as f64
    }

    /// What these bytes cost.
    fn egress(&self, group: &Group, here: &Here) -> f64 {
        let of = |bytes: u64, price: UsdMicros| bytes as f64 / GB * price.0 as f64;
        of(lacks(group, here).0, self.egress.there) + of(group.bytes_back.0, self.egress.back)
    }

    /// What is expected to be lost to its heat, as a part of what a run costs here. *Source*: what the agent reads of
    /// its sensors (`farlane-daemon`, heat.rs); run times of the class do not hold it, for it comes and goes.
    fn slower(&self, group: &Group) -> f64 {
        f64::from(self.heat.of(&group.spec.resources).0) / 1_000_000.0
    }

    /// Expected cost of one more task here; `ahead` are those that wait here already.
    pub fn bill(&self, group: &Group, ahead: u32, here: &Here) -> Bill {
        let policy = &group.policy;
        let worth = |micros| policy.worth(micros);
        let run = self.run_micros(group);
        let price = run / MICROS_AN_HOUR * cores(group) * self.price.0 as f64;
        let (transfer, egress) = (self.transfer_micros(group, here), self.egress(group, here));
        let start = self.start_micros(group, here);
        let way = self.round_trip.0 as f64 + transfer;
        let again = price + egress + worth(run + start + way);
        let wish = (price + worth(run)) / WISH;
        let mut bill = Bill::default();
        bill[TermKind::Price] = price;
        bill[TermKind::Run] = worth(run);
        bill[TermKind::Queue] = worth(self.wait(group, ahead));
        bill[TermKind::RoundTrip] = worth(self.round_trip.0 as f64);
        bill[TermKind::Transfer] = worth(transfer);
        bill[TermKind::Egress] = egress;
        bill[TermKind::Start] = worth(start);
        bill[TermKind::Thermal] = self.slower(group) * (price + worth(run));
        bill[TermKind::Spread] = f64::from(here.crowd) * wish;
        bill[TermKind::Affinity] = f64::from(here.unmet) * wish;
        bill[TermKind::Link] = worth(here.link.0 as f64);
        bill[TermKind::Carbon] = self.grams(group) * policy.tonne_usd;
        bill[TermKind::Risk] = f64::from(self.risk.0) / 1_000_000.0 * again * policy.risk;
        bill
    }

    /// The same, spelled out: every term that there is, whatever it comes to.
    pub fn terms(&self, group: &Group, ahead: u32, here: &Here) -> Vec<Term> {
        let bill = self.bill(group, ahead, here);
        let term = |kind| {
            let detail = self.detail(kind, group, ahead, here)?;
            let usd_micros = bill[kind];
            Some(Term {
                kind,
                usd_micros,
                detail,
            })
        };
        TermKind::ALL.into_iter().filter_map(term).collect()
    }

    /// What a term is made of here; `None` where there is no such term.
    fn detail(&self, kind: TermKind, group: &Group, ahead: u32, here: &Here) -> Option<String> {
        let seconds = |micros: f64| micros / 1_000_000.0;
        let run = self.run_micros(group);
        let hour = group.policy.hour_usd_micros / 1e6;
        let waiting =
            |micros: f64| format!("{:.6} s × ${hour:.2} an hour of waiting", seconds(micros));
        let detail = match kind {
            TermKind::Price => format!(
                "{:.6} s × {:.3} cores × {} a core-hour",
                seconds(run),
                cores(group),
                self.price
            ),
            TermKind::Run => waiting(run),
            TermKind::Queue => waiting(self.wait(group, ahead)),
            TermKind::RoundTrip => waiting(self.round_trip.0 as f64),
            TermKind::Transfer => self.transfer_detail(group, here),
            TermKind::Egress => self.egress_detail(group, here),
            TermKind::Carbon => self.carbon_detail(group),
            TermKind::Risk => format!(
                "{:.2} % chance of doing it again",
                f64::from(self.risk.0) / 10_000.0
            ),
            TermKind::Start if group.start > Micros::ZERO => {
                waiting(self.start_micros(group, here))
            }
            TermKind::Thermal if self.slower(group) > 0.0 => {
                let percent = self.slower(group) * 100.0;
                format!("{percent:.1} % longer for its heat × (price + run)")
            }
            TermKind::Link if here.link > Micros::ZERO => waiting(here.link.0 as f64),
            TermKind::Spread if group.spec.company.spread.is_some() => {
                format!(
                    "{} of its kind there × a tenth of price and run",
                    here.crowd
                )
            }
            TermKind::Affinity if !group.spec.company.affinities.is_empty() => {
                format!("{} wishes not met × a tenth of price and run", here.unmet)
            }
            TermKind::Start
            | TermKind::Thermal
            | TermKind::Spread
            | TermKind::Affinity
            | TermKind::Link => return None,
        };
        Some(detail)
    }

    fn transfer_detail(&self, group: &Group, here: &Here) -> String {
        let (there, back) = (lacks(group, here), group.bytes_back);
        let held = match group.bytes_there.0 - there.0 {
            0 => String::new(),
            held => format!(" ({} are there already)", ByteCount(held)),
        };
        let (rate, known) = match self.bandwidth {
            Some(known) => (known, ""),
            None => (UNKNOWN_BANDWIDTH, " (not measured yet)"),
        };
        let hour = group.policy.hour_usd_micros / 1e6;
        format!(
            "{there} there{held} and {back} back at {rate}{known}: {:.6} s × ${hour:.2} an hour of waiting",
            self.transfer_micros(group, here) / 1_000_000.0
        )
    }

    fn egress_detail(&self, group: &Group, here: &Here) -> String {
        let (there, back) = (lacks(group, here), group.bytes_back);
        format!(
            "{there} there at {} and {back} back at {} a GB",
            self.egress.there, self.egress.back
        )
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
