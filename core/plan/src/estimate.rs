//! How long a task runs: what is known of its function on a class of nodes, else what its work takes there.
//!
//! Owns the estimate and what it learns from. Leaves to the caller which nodes are alike: it names a class
//! by a number of its own.
//!
//! ```text
//! runs of this spec on this class ≥ 3 ─▶ their middle
//! else runs of this spec anywhere     ─▶ their middle, as work of a core of one UCU ÷ the class's UCU
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

/// A median that follows its runs.
#[derive(Debug, Clone, Copy)]
struct Median {
    micros: f64,
    seen: u32,
}

impl Median {
    fn first(micros: f64) -> Self {
        Self { micros, seen: 1 }
    }

    fn see(&mut self, micros: f64) {
        self.seen = self.seen.saturating_add(1);
        if self.seen <= ENOUGH {
            // So few are kept by their average.
            self.micros += (micros - self.micros) / f64::from(self.seen);
            return;
        }
        let step = (self.micros * STEP).max(1.0);
        self.micros += (micros - self.micros).clamp(-step, step);
    }
}

#[derive(Debug)]
struct Known {
    reference: Median,
    /// Sorted by class.
    classes: Vec<(u64, Median)>,
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
            reference: Median {
                micros: 0.0,
                seen: 0,
            },
            classes: Vec::new(),
            work: None,
        });
        known.work = None;
        match known.reference.seen {
            0 => known.reference = Median::first(reference),
            _ => known.reference.see(reference),
        }
        match known.classes.binary_search_by_key(&class, |c| c.0) {
            Ok(at) => known.classes[at].1.see(micros),
            Err(at) if known.classes.len() < MAX_CLASSES => {
                known.classes.insert(at, (class, Median::first(micros)));
            }
            Err(_) => {}
        }
    }

    /// What is known of a spec now; `declared` is what to take where nothing ran yet.
    pub fn work(&mut self, spec: &Digest, declared: Option<Micros>) -> Work {
        let Some(known) = self.specs.get_mut(spec) else {
            return Work::of(declared.unwrap_or(UNKNOWN));
        };
        if let Some(work) = &known.work {
            return work.clone();
        }
        let believed = known.classes.iter().filter(|(_, m)| m.seen >= ENOUGH);
        let work = Work {
            reference: Micros(known.reference.micros as u64),
            by_class: believed
                .map(|(class, m)| (*class, Micros(m.micros as u64)))
                .collect(),
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
