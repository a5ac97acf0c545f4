//! How long a task runs: what is known of its function on a class of nodes, else what its work takes there.
//!
//! Owns the estimate and what it learns from. Leaves to the caller which nodes are alike: it names a class
//! by a number of its own.
//!
//! ```text
//! runs of this spec anywhere          ─▶ their middle, over what the work takes there × what it takes here
//! and on this class ≥ 3               ─▶ so much more or less as their middle differs by more than chance
//! else declared flops and bytes       ─▶ the longer of both at the class's rates (roofline)
//! else                                ─▶ a guess, over the rate of the class's cores
//! ```
//! What the work takes on a class is its roofline where flops or bytes are declared, else one over the rate of its
//! cores; of tasks that hold accelerators, one over the rate of these, which is their data sheet's until it is measured. A node that was not measured has the rates of the reference node's cores: nominal figures are never mixed
//! with measured ones.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::{Declared, Digest, Measured, REFERENCE, TaskSpec, WorkKind};
use farlane_units::{Micros, MilliCpu, MilliGpu, MilliUcu};

/// A task of which nothing is known yet. Source: none; it only has to be the same for every node.
pub const UNKNOWN: Micros = Micros(100_000);
/// An accelerator on which a task of which nothing is known takes [`UNKNOWN`], thousands of millions of operations a
/// second. Source: an A100's dense bf16 rate; it only has to be the same for every node.
const REFERENCE_GPU: f64 = 312_000.0;
/// Runs on a class before their middle is believed more than what other classes say. Source: below three a
/// median is no more than an average.
const ENOUGH: u32 = 3;
/// Specs remembered; beyond it all are forgotten. Source: 64 k × 200 B is 13 MB.
const MAX_SPECS: usize = 65_536;
/// Classes remembered of one spec.
const MAX_CLASSES: usize = 256;
/// A step of the running median, as a share of it: each run moves it by so much towards itself at most.
/// Source: settles within 10 % after 30 runs, and one run in a hundred that hangs moves it by 5 % once.
const STEP: f64 = 0.05;
/// Part of its distance by which a run nearer than that moves it. Source: choice; what runs scatter by is then
/// halved twice in the median.
const GAIN: f64 = 0.1;
/// Runs that a running median rests on at most. Source: with steps and gain as above it scatters as the median
/// of 30 to 50 would.
const MEMORY: u32 = 30;
/// Errors of a class's median by which it must differ from what other classes say. Source: of eight classes that
/// are alike one in three would otherwise look faster than it is.
const SURE: f64 = 2.0;
/// Largest distance of a run from the median that its spread counts, in medians.
const FAR: f64 = 4.0;
/// The least that a middle moves by, so that one of nothing is left again: a microsecond.
const LEAST_MICROS: f64 = 1.0;
/// The same of a factor, where [`UNKNOWN`] is 1.
const LEAST_FACTOR: f64 = LEAST_MICROS / UNKNOWN.0 as f64;

/// What one core of a node sustains, in cores of the reference node, for each kind of work; and what one of its
/// accelerators does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rates {
    cores: [MilliUcu; 4],
    /// Thousands of millions of operations a second; 0 where there is none.
    gpu: u64,
}

impl Rates {
    /// A core of the reference node, and of every node that was not measured.
    pub const REFERENCE: Self = Self::all(MilliUcu(1000));

    /// Of one core, by the whole node's figures.
    pub fn of(measured: &Measured) -> Self {
        let cores = u64::from(measured.cores.max(1));
        let rate = |kind| MilliUcu(measured.ucu(kind).thousandths() / cores);
        Self {
            cores: WorkKind::ALL.map(rate),
            gpu: 0,
        }
    }

    /// The same of every kind of work.
    pub const fn all(core: MilliUcu) -> Self {
        Self {
            cores: [core; 4],
            gpu: 0,
        }
    }

    /// Of one kind.
    pub const fn rate(&self, kind: WorkKind) -> MilliUcu {
        self.cores[kind as usize]
    }

    /// Those of cores as `change` makes each.
    pub(crate) fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            cores: self.cores.map(|rate| MilliUcu(change(rate.0))),
            ..self
        }
    }

    /// With accelerators of this rate, thousands of millions of operations a second; 0 for none.
    pub fn with_gpus(self, gflops: u64) -> Self {
        Self {
            gpu: gflops,
            ..self
        }
    }
}

/// Of what work a spec's run time is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    declared: Option<Declared>,
    cpus: MilliCpu,
    gpus: MilliGpu,
}

impl Shape {
    /// Of a spec.
    pub const fn of(spec: &TaskSpec) -> Self {
        Self {
            declared: spec.work,
            cpus: spec.resources.cpus,
            gpus: spec.resources.gpus,
        }
    }

    /// Microseconds that its work takes where accelerators have this rate: its operations, or, where nothing is
    /// declared, [`UNKNOWN`] over how they compare with [`REFERENCE_GPU`].
    fn on_gpus(&self, gflops: u64) -> f64 {
        let gflops = gflops as f64;
        let Some(work) = self.declared.filter(|work| work.flops > 0) else {
            return UNKNOWN.0 as f64 * REFERENCE_GPU / gflops;
        };
        let held = f64::from(self.gpus.0) / 1000.0;
        (work.flops as f64 / (gflops * 1000.0 * held)).max(1.0)
    }

    /// Microseconds that its work takes on cores of these rates: the longer of operations and bytes, or, where
    /// nothing is declared, [`UNKNOWN`] over the rate of a core. What holds accelerators goes by theirs.
    fn on(&self, rates: &Rates) -> f64 {
        if self.gpus.0 > 0 && rates.gpu > 0 {
            return self.on_gpus(rates.gpu);
        }
        let rate = |kind| rates.rate(kind).0.max(1) as f64 / 1000.0;
        let Some(work) = self.declared else {
            return UNKNOWN.0 as f64 / rate(WorkKind::Fp32);
        };
        let cores = f64::from(self.cpus.0.max(1)) / 1000.0;
        // Millions of operations a second are operations a microsecond.
        let operations = REFERENCE.rate(work.kind) as f64 * rate(work.kind) * cores;
        let mebibytes = REFERENCE.rate(WorkKind::Memory) as f64 * rate(WorkKind::Memory) * cores;
        let bytes = mebibytes * 1_048_576.0 / 1e6;
        let longer = (work.flops as f64 / operations).max(work.bytes as f64 / bytes);
        longer.max(1.0)
    }
}

/// What is known of one spec's run time, for one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    shape: Shape,
    /// Run times seen, over what its work takes where they were seen. 1 where none were.
    factor: f64,
    /// By class, where enough was seen.
    by_class: Arc<[(u64, Micros)]>,
}

impl Work {
    /// The same on every node of one UCU a core.
    pub fn of(reference: Micros) -> Self {
        Self {
            shape: Shape {
                declared: None,
                cpus: MilliCpu(1000),
                gpus: MilliGpu::ZERO,
            },
            factor: reference.0 as f64 / UNKNOWN.0 as f64,
            by_class: Arc::new([]),
        }
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_guess(&self) -> bool {
        self.factor == 1.0 && self.by_class.is_empty() && self.shape.declared.is_none()
    }

    /// On a node of this class, whose cores have these rates.
    pub fn on(&self, class: u64, rates: &Rates) -> Micros {
        if let Ok(at) = self.by_class.binary_search_by_key(&class, |known| known.0) {
            return self.by_class[at].1;
        }
        Micros((self.factor * self.shape.on(rates) + 0.5) as u64)
    }
}

/// A median that follows its runs, and how far they lie from it.
#[derive(Debug, Clone, Copy, Default)]
struct Median {
    middle: f64,
    /// Mean distance.
    spread: f64,
    seen: u32,
}

impl Median {
    fn see(&mut self, value: f64, least: f64) {
        self.seen = self.seen.saturating_add(1);
        if self.seen <= ENOUGH {
            // So few are kept by their average.
            self.middle += (value - self.middle) / f64::from(self.seen);
        } else {
            let step = (self.middle * STEP).max(least);
            self.middle += ((value - self.middle) * GAIN).clamp(-step, step);
        }
        let distance = (value - self.middle).abs().min(FAR * self.middle);
        self.spread += (distance - self.spread) / f64::from(self.seen.min(MEMORY));
    }

    /// How far the median of all runs ever may lie from it. Source: the error of a median is 1.25 × that of a
    /// mean, and a mean distance near enough a deviation.
    fn error(&self) -> f64 {
        1.25 * self.spread / f64::from(self.seen.clamp(1, MEMORY)).sqrt()
    }

    /// What others say, moved as far towards this as it surely differs.
    fn beside(&self, others: f64) -> f64 {
        let differs = self.middle - others;
        let sure = (differs.abs() - SURE * self.error()).max(0.0);
        others + sure.copysign(differs)
    }
}

/// Runs on one class.
#[derive(Debug, Clone, Copy)]
struct OnClass {
    class: u64,
    /// What the work takes there.
    takes: f64,
    /// Microseconds.
    median: Median,
}

#[derive(Debug)]
struct Known {
    /// Run times over what the work takes there.
    factor: Median,
    /// Sorted by class.
    classes: Vec<OnClass>,
    /// As it was last asked for.
    work: Option<Work>,
}

/// What was learned of all specs.
#[derive(Debug, Default)]
pub struct Estimates {
    specs: HashMap<Digest, Known>,
}

impl Estimates {
    /// A task of `spec` ran for so long on a node of this class, whose cores have these rates.
    pub fn learn(&mut self, spec: Digest, shape: Shape, class: u64, rates: &Rates, ran: Micros) {
        if self.specs.len() >= MAX_SPECS && !self.specs.contains_key(&spec) {
            self.specs.clear();
        }
        let (micros, takes) = (ran.0 as f64, shape.on(rates));
        let known = self.specs.entry(spec).or_insert_with(|| Known {
            factor: Median::default(),
            classes: Vec::new(),
            work: None,
        });
        known.work = None;
        known.factor.see(micros / takes, LEAST_FACTOR);
        let at = match known.classes.binary_search_by_key(&class, |c| c.class) {
            Ok(at) => at,
            Err(at) if known.classes.len() < MAX_CLASSES => {
                let fresh = OnClass {
                    class,
                    takes,
                    median: Median::default(),
                };
                known.classes.insert(at, fresh);
                at
            }
            Err(_) => return,
        };
        known.classes[at].median.see(micros, LEAST_MICROS);
    }

    /// What is known of a spec now.
    pub fn work(&mut self, spec: &Digest, shape: Shape) -> Work {
        let Some(known) = self.specs.get_mut(spec) else {
            return Work {
                shape,
                factor: 1.0,
                by_class: Arc::new([]),
            };
        };
        if let Some(work) = &known.work {
            return work.clone();
        }
        let factor = known.factor.middle;
        let believed = known.classes.iter().filter(|c| c.median.seen >= ENOUGH);
        let on = |c: &OnClass| (c.class, Micros(c.median.beside(factor * c.takes) as u64));
        let work = Work {
            shape,
            factor,
            by_class: believed.map(on).collect(),
        };
        known.work = Some(work.clone());
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Digest = Digest([1; 32]);
    const ONE: Rates = Rates::REFERENCE;
    const TWO: Rates = Rates::all(MilliUcu(2000));
    const PLAIN: Shape = Shape {
        declared: None,
        cpus: MilliCpu(1000),
        gpus: MilliGpu::ZERO,
    };

    fn work(estimates: &mut Estimates) -> Work {
        estimates.work(&SPEC, PLAIN)
    }

    #[test]
    fn what_ran_on_a_slow_core_is_expected_sooner_on_a_fast_one() {
        let mut estimates = Estimates::default();
        assert_eq!(work(&mut estimates).on(7, &ONE), UNKNOWN);
        assert_eq!(work(&mut estimates).on(7, &TWO).0 * 2, UNKNOWN.0);
        for _ in 0..10 {
            estimates.learn(SPEC, PLAIN, 1, &ONE, Micros(8000));
        }
        let known = work(&mut estimates);
        assert_eq!(
            (known.on(1, &ONE), known.on(2, &TWO)),
            (Micros(8000), Micros(4000))
        );
        // There it takes longer than its cores promise: what was seen there counts.
        for _ in 0..ENOUGH {
            estimates.learn(SPEC, PLAIN, 2, &TWO, Micros(9000));
        }
        assert_eq!(work(&mut estimates).on(2, &TWO), Micros(9000));
    }

    #[test]
    fn runs_that_scatter_do_not_make_one_class_faster_than_its_like() {
        let mut estimates = Estimates::default();
        let scattered = [400, 900, 1000, 1100, 7000];
        for n in 0..400u64 {
            let class = n % 8;
            let ran = scattered[(n * 7 / 3 % 5) as usize];
            estimates.learn(SPEC, PLAIN, class, &ONE, Micros(ran));
        }
        let known = work(&mut estimates);
        let all: Vec<u64> = (0..8).map(|class| known.on(class, &ONE).0).collect();
        let (least, most) = all
            .iter()
            .fold((u64::MAX, 0), |(a, b), x| (a.min(*x), b.max(*x)));
        assert!(most - least <= known.on(99, &ONE).0 / 20, "{all:?}");
    }

    #[test]
    fn one_run_that_hangs_changes_little_and_a_lasting_change_is_followed() {
        let mut estimates = Estimates::default();
        let mut learn = |ran| estimates.learn(SPEC, PLAIN, 1, &ONE, Micros(ran));
        (0..100).for_each(|_| learn(1000));
        learn(3_600_000_000);
        let after = work(&mut estimates).on(1, &ONE);
        assert!(after.0 <= 1060, "{after:?}");
        let mut learn = |ran| estimates.learn(SPEC, PLAIN, 1, &ONE, Micros(ran));
        (0..100).for_each(|_| learn(5000));
        let after = work(&mut estimates).on(1, &ONE);
        assert!((4500..=5500).contains(&after.0), "{after:?}");
    }

    #[test]
    fn declared_work_takes_the_longer_of_its_operations_and_its_bytes() {
        let shape = |flops, kind, bytes, cpus| Shape {
            declared: Some(Declared { flops, kind, bytes }),
            cpus: MilliCpu(cpus),
            gpus: MilliGpu::ZERO,
        };
        let mut estimates = Estimates::default();
        let mut on = |shape, rates: &Rates| estimates.work(&SPEC, shape).on(1, rates).0;
        // A second of one reference core's fp32, and half of one of two.
        let second = REFERENCE.fp32 * 1_000_000;
        assert_eq!(on(shape(second, WorkKind::Fp32, 0, 1000), &ONE), 1_000_000);
        assert_eq!(on(shape(second, WorkKind::Fp32, 0, 2000), &ONE), 500_000);
        assert_eq!(on(shape(second, WorkKind::Fp32, 0, 1000), &TWO), 500_000);
        // A machine that is only better at bytes does not help.
        let bf16 = Rates {
            cores: [1000, 500, 4000, 1000].map(MilliUcu),
            ..ONE
        };
        assert_eq!(on(shape(second, WorkKind::Bf16, 0, 1000), &bf16), 2_000_000);
        // Two seconds of bytes outlast one of operations.
        let bytes = 2 * REFERENCE.memory_mib_s * 1_048_576;
        let both = shape(second, WorkKind::Fp32, bytes, 1000);
        assert_eq!(on(both, &ONE), 2_000_000);
    }

    #[test]
    fn what_was_seen_takes_the_place_of_what_was_declared() {
        let declared = Declared {
            flops: REFERENCE.fp32 * 1_000_000,
            kind: WorkKind::Fp32,
            bytes: 0,
        };
        let shape = Shape {
            declared: Some(declared),
            cpus: MilliCpu(1000),
            gpus: MilliGpu::ZERO,
        };
        let mut estimates = Estimates::default();
        // It reaches half of what a product of matrices does: so it will on other machines.
        for _ in 0..ENOUGH {
            estimates.learn(SPEC, shape, 1, &ONE, Micros(2_000_000));
        }
        let known = estimates.work(&SPEC, shape);
        assert_eq!(known.on(1, &ONE), Micros(2_000_000));
        assert_eq!(known.on(2, &TWO), Micros(1_000_000));
    }

    #[test]
    fn what_holds_accelerators_is_expected_by_their_data_sheets_until_it_ran() {
        let gpus = |gflops| Rates { gpu: gflops, ..ONE };
        let (slow, fast) = (gpus(121_000), gpus(989_000));
        let shape = Shape {
            gpus: MilliGpu(1000),
            ..PLAIN
        };
        let mut estimates = Estimates::default();
        let known = estimates.work(&SPEC, shape);
        assert_eq!(known.on(1, &gpus(312_000)), UNKNOWN);
        // What ran on one is expected on the other as much sooner as its sheet says, until it ran there, too.
        (0..ENOUGH).for_each(|_| estimates.learn(SPEC, shape, 1, &slow, Micros(989_000)));
        assert_eq!(estimates.work(&SPEC, shape).on(2, &fast), Micros(121_000));
        (0..ENOUGH).for_each(|_| estimates.learn(SPEC, shape, 2, &fast, Micros(400_000)));
        assert_eq!(estimates.work(&SPEC, shape).on(2, &fast), Micros(400_000));
        // A second of operations on one, and on half of one.
        let declared = |gpus| Shape {
            declared: Some(Declared {
                flops: 121_000_000_000_000,
                kind: WorkKind::Bf16,
                bytes: 0,
            }),
            gpus: MilliGpu(gpus),
            ..PLAIN
        };
        let on = |gpus| {
            Estimates::default()
                .work(&SPEC, declared(gpus))
                .on(1, &slow)
                .0
        };
        assert_eq!((on(1000), on(500)), (1_000_000, 2_000_000));
    }
}
