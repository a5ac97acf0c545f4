//! How long a task runs: what is known of its function on a class of nodes, else what its work takes there.
//!
//! Owns the estimate and what it learns from. Leaves to the caller which nodes are alike: it names a class
//! by a number of its own.
//!
//! ```text
//! runs of this spec anywhere          ─▶ their middle, as work of a core of one UCU ÷ the class's UCU
//! and on this class ≥ 3               ─▶ so much more or less as their middle differs by more than chance
//! else declared flops and bytes       ─▶ the longer of both at the class's rates (roofline)
//! else                                ─▶ a guess, the same for every node
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::Digest;
use farlane_units::{Micros, MilliUcu};

/// A task of which nothing is known yet. Source: none; it only has to be the same for every node.
pub const UNKNOWN: Micros = Micros(100_000);
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

/// What is known of one spec's run time, for one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// On a core of one UCU.
    pub reference: Micros,
    /// By class, where enough was seen.
    pub by_class: Arc<[(u64, Micros)]>,
}

impl Work {
    /// The same on every node of one UCU a core.
    pub fn of(reference: Micros) -> Self {
        Self {
            reference,
            by_class: Arc::new([]),
        }
    }

    /// On a node of this class, whose cores have this rate.
    pub(crate) fn on(&self, class: u64, core: MilliUcu) -> Micros {
        if let Ok(at) = self.by_class.binary_search_by_key(&class, |known| known.0) {
            return self.by_class[at].1;
        }
        let core = u128::from(core.0.max(1));
        let micros = u128::from(self.reference.0) * 1000 / core;
        Micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// A median that follows its runs, and how far they lie from it.
#[derive(Debug, Clone, Copy, Default)]
struct Median {
    micros: f64,
    /// Mean distance.
    spread: f64,
    seen: u32,
}

impl Median {
    fn see(&mut self, micros: f64) {
        self.seen = self.seen.saturating_add(1);
        if self.seen <= ENOUGH {
            // So few are kept by their average.
            self.micros += (micros - self.micros) / f64::from(self.seen);
        } else {
            let step = (self.micros * STEP).max(1.0);
            self.micros += ((micros - self.micros) * GAIN).clamp(-step, step);
        }
        let distance = (micros - self.micros).abs().min(FAR * self.micros);
        self.spread += (distance - self.spread) / f64::from(self.seen.min(MEMORY));
    }

    /// How far the median of all runs ever may lie from it. Source: the error of a median is 1.25 × that of a
    /// mean, and a mean distance near enough a deviation.
    fn error(&self) -> f64 {
        1.25 * self.spread / f64::from(self.seen.clamp(1, MEMORY)).sqrt()
    }

    /// What others say, moved as far towards this as it surely differs.
    fn beside(&self, others: f64) -> f64 {
        let differs = self.micros - others;
        let sure = (differs.abs() - SURE * self.error()).max(0.0);
        others + sure.copysign(differs)
    }
}

/// Runs on one class.
#[derive(Debug, Clone, Copy)]
struct OnClass {
    class: u64,
    core: MilliUcu,
    median: Median,
}

#[derive(Debug)]
struct Known {
    reference: Median,
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
    /// A task of `spec` ran for so long on a node of this class, whose cores have this rate.
    pub fn learn(&mut self, spec: Digest, class: u64, core: MilliUcu, ran: Micros) {
        if self.specs.len() >= MAX_SPECS && !self.specs.contains_key(&spec) {
            self.specs.clear();
        }
        let micros = ran.0 as f64;
        let reference = micros * core.0.max(1) as f64 / 1000.0;
        let known = self.specs.entry(spec).or_insert_with(|| Known {
            reference: Median::default(),
            classes: Vec::new(),
            work: None,
        });
        known.work = None;
        known.reference.see(reference);
        let at = match known.classes.binary_search_by_key(&class, |c| c.class) {
            Ok(at) => at,
            Err(at) if known.classes.len() < MAX_CLASSES => {
                let median = Median::default();
                known.classes.insert(
                    at,
                    OnClass {
                        class,
                        core,
                        median,
                    },
                );
                at
            }
            Err(_) => return,
        };
        known.classes[at].median.see(micros);
    }

    /// What is known of a spec now; `declared` is what to take where nothing ran yet.
    pub fn work(&mut self, spec: &Digest, declared: Option<Micros>) -> Work {
        let Some(known) = self.specs.get_mut(spec) else {
            return Work::of(declared.unwrap_or(UNKNOWN));
        };
        if let Some(work) = &known.work {
            return work.clone();
        }
        let reference = known.reference.micros;
        let believed = known.classes.iter().filter(|c| c.median.seen >= ENOUGH);
        let on = |c: &OnClass| {
            let promised = reference * 1000.0 / c.core.0.max(1) as f64;
            (c.class, Micros(c.median.beside(promised) as u64))
        };
        let work = Work {
            reference: Micros(reference as u64),
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
    const ONE: MilliUcu = MilliUcu(1000);
    const TWO: MilliUcu = MilliUcu(2000);

    #[test]
    fn what_ran_on_a_slow_core_is_expected_sooner_on_a_fast_one() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.work(&SPEC, None).on(7, ONE), UNKNOWN);
        assert_eq!(
            estimates.work(&SPEC, Some(Micros(40))).on(7, TWO),
            Micros(20)
        );
        for _ in 0..10 {
            estimates.learn(SPEC, 1, ONE, Micros(8000));
        }
        let work = estimates.work(&SPEC, None);
        assert_eq!(
            (work.on(1, ONE), work.on(2, TWO)),
            (Micros(8000), Micros(4000))
        );
        // There it takes longer than its cores promise: what was seen there counts.
        for _ in 0..ENOUGH {
            estimates.learn(SPEC, 2, TWO, Micros(9000));
        }
        assert_eq!(estimates.work(&SPEC, None).on(2, TWO), Micros(9000));
    }

    #[test]
    fn runs_that_scatter_do_not_make_one_class_faster_than_its_like() {
        let mut estimates = Estimates::default();
        let scattered = [400, 900, 1000, 1100, 7000];
        for n in 0..400u64 {
            let class = n % 8;
            let ran = scattered[(n * 7 / 3 % 5) as usize];
            estimates.learn(SPEC, class, ONE, Micros(ran));
        }
        let work = estimates.work(&SPEC, None);
        let all: Vec<u64> = (0..8).map(|class| work.on(class, ONE).0).collect();
        let (least, most) = all
            .iter()
            .fold((u64::MAX, 0), |(a, b), x| (a.min(*x), b.max(*x)));
        assert!(most - least <= work.reference.0 / 20, "{all:?}");
    }

    #[test]
    fn one_run_that_hangs_changes_little_and_a_lasting_change_is_followed() {
        let mut estimates = Estimates::default();
        (0..100).for_each(|_| estimates.learn(SPEC, 1, ONE, Micros(1000)));
        estimates.learn(SPEC, 1, ONE, Micros(3_600_000_000));
        let after = estimates.work(&SPEC, None).on(1, ONE);
        assert!(after.0 <= 1060, "{after:?}");
        (0..100).for_each(|_| estimates.learn(SPEC, 1, ONE, Micros(5000)));
        let after = estimates.work(&SPEC, None).on(1, ONE);
        assert!((4500..=5500).contains(&after.0), "{after:?}");
    }
}
