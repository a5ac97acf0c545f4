//! How long functions take on one node beside how long they take on others.
//!
//! A node is slow where most functions that others run too take longer there than on them: both by the clock, and
//! by the clock times the speed that each node claims. Only both together say something: a function that waits for
//! a network takes as long on a fast node as on a slow one, and one that computes takes longer on a slower node,
//! which is no fault of either.

use std::collections::{BTreeMap, HashMap};

use farlane_model::{Digest, NodeId, Standing};
use farlane_units::{Micros, MilliUcu};

/// Functions remembered; beyond it all are forgotten. Source: with [`MOST_NODES`] at most 26 MB, and a few hundred
/// kB where functions run on ten nodes each.
const MOST_FUNCTIONS: usize = 4096;
/// Nodes remembered of each function; later ones are not looked at.
const MOST_NODES: usize = 128;
/// Runs of a function on a node before their middle counts.
const RUNS: u32 = 8;
/// Other nodes that a function must have run on. Source: the middle of fewer than three is anybody's word.
const OTHERS: usize = 3;
/// Functions that must say the same of a node.
const FUNCTIONS: usize = 2;
/// Longer by this than on others, thousandths, is outside the band. Source: between machines of one model run times
/// differ by a tenth, with neighbours by a third (Farley et al., "More for your money", SoCC 2012: up to 1.6 on one
/// cloud's machines of a kind for memory-bound work, most below 1.3).
const BAND_MILLI: u64 = 1500;
/// And from here on it gets no work.
const WORST_MILLI: u64 = 5000;
/// A step of the running middle, as a share of it: 1 / 16.
const STEP: u64 = 16;

/// What takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// So much longer, thousandths: the middle over functions.
    pub times_milli: u64,
    /// That say so.
    pub functions: u32,
}

impl Slow {
    /// What follows from it.
    pub fn standing(&self) -> Standing {
        // By whole halves, so that a figure that moves a little is not news.
        let times = self.times_milli.min(WORST_MILLI) / 500 * 500;
        let reason = format!(
            "functions take at least {}.{} times as long on it as on other nodes",
            times / 1000,
            times % 1000 / 100
        );
        match times < WORST_MILLI {
            true => Standing::Marked {
                slowdown_milli: times as u32,
                reason,
            },
            false => Standing::Quarantined {
                reason,
                lifts: true,
            },
        }
    }
}

/// A running middle.
#[derive(Debug, Clone, Copy)]
struct Middle {
    micros: u64,
    runs: u32,
    core: MilliUcu,
}

impl Middle {
    /// Moves towards a run by a sixteenth, or less where it is nearer: one that hangs moves it no further than any
    /// other.
    fn learn(&mut self, micros: u64, core: MilliUcu) {
        let step = (self.micros / STEP).max(1);
        self.micros = match micros > self.micros {
            true => self.micros.saturating_add(step).min(micros),
            false => self.micros.saturating_sub(step).max(micros),
        };
        self.runs = self.runs.saturating_add(1);
        self.core = core;
    }

    /// What it would take on a core of one UCU, by the claim.
    fn claimed(&self) -> u64 {
        self.micros.saturating_mul(self.core.0.max(1)) / 1000
    }
}

/// Run times by function and node.
#[derive(Debug, Default)]
pub struct Pace {
    functions: HashMap<Digest, BTreeMap<NodeId, Middle>>,
}

impl Pace {
    /// A run, or the mean of some, of a spec on a node whose cores claim this rate.
    pub fn learn(&mut self, spec: Digest, node: NodeId, core: MilliUcu, took: Micros) {
        if self.functions.len() >= MOST_FUNCTIONS && !self.functions.contains_key(&spec) {
            self.functions.clear();
        }
        let nodes = self.functions.entry(spec).or_default();
        let full = nodes.len() >= MOST_NODES;
        match nodes.get_mut(&node) {
            Some(middle) => middle.learn(took.0, core),
            None if full => {}
            None => {
                let first = Middle {
                    micros: took.0,
                    runs: 1,
                    core,
                };
                nodes.insert(node, first);
            }
        }
    }

    /// Forgets a node, for instance once its claim is another.
    pub fn forget(&mut self, node: &NodeId) {
        for nodes in self.functions.values_mut() {
            nodes.remove(node);
        }
        self.functions.retain(|_, nodes| !nodes.is_empty());
    }

    /// Every node outside its band.
    ///
    /// *Cost*: each function on each of its nodes, sorted once.
    pub fn slow(&self) -> BTreeMap<NodeId, Slow> {
        let mut times: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for nodes in self.functions.values() {
            let known = nodes.iter().filter(|(_, middle)| middle.runs >= RUNS);
            let known: Vec<(&NodeId, &Middle)> = known.collect();
            if known.len() <= OTHERS {
                continue;
            }
            let by_clock = against(&known, |middle| middle.micros);
            let by_claim = against(&known, Middle::claimed);
            for (at, (node, _)) in known.iter().enumerate() {
                let times = times.entry(**node).or_default();
                times.push(by_clock[at].min(by_claim[at]));
            }
        }
        let slow = times.into_iter().filter_map(|(node, mut times)| {
            times.sort_unstable();
            let middle = times[(times.len() - 1) / 2];
            let functions = times.iter().filter(|t| **t >= BAND_MILLI).count();
            let out = middle >= BAND_MILLI && functions >= FUNCTIONS;
            let found = Slow {
                times_milli: middle,
                functions: functions as u32,
            };
            out.then_some((node, found))
        });
        slow.collect()
    }
}

/// Each over the middle of the others, thousandths.
fn against(all: &[(&NodeId, &Middle)], of: impl Fn(&Middle) -> u64) -> Vec<u64> {
    let mut sorted: Vec<u64> = all.iter().map(|(_, middle)| of(middle)).collect();
    sorted.sort_unstable();
    let others = sorted.len() - 1;
    let own = all.iter().map(|(_, middle)| of(middle));
    own.map(|own| {
        // The middle of the rest, rounded down, is where it lies without this one.
        let at = sorted.partition_point(|other| *other < own);
        let middle = others.saturating_sub(1) / 2;
        let middle = sorted[if at <= middle { middle + 1 } else { middle }];
        own.saturating_mul(1000) / middle.max(1)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }
    fn function(n: u8) -> Digest {
        Digest([n; 32])
    }

    /// Every function on every node: what a run takes by function, claimed speed and node.
    fn ran(claims: &[u64], took: impl Fn(u8, usize) -> u64) -> Pace {
        let mut pace = Pace::default();
        for f in 0..3 {
            for (n, core) in claims.iter().enumerate() {
                for _ in 0..20 {
                    let took = Micros(took(f, n));
                    pace.learn(function(f), node(n as u8), MilliUcu(*core), took);
                }
            }
        }
        pace
    }

    #[test]
    fn a_node_slower_than_its_like_is_found() {
        let pace = ran(&[1000; 5], |_, n| if n == 2 { 18_000 } else { 10_000 });
        let slow = Slow {
            times_milli: 1800,
            functions: 3,
        };
        assert_eq!(pace.slow(), [(node(2), slow)].into());
        assert_eq!(slow.standing().slowdown_milli(), 1500);
    }

    #[test]
    fn a_slow_model_that_says_so_is_no_fault() {
        let pace = ran(&[4000, 4000, 4000, 1000], |_, n| {
            if n == 3 { 40_000 } else { 10_000 }
        });
        assert!(pace.slow().is_empty());
    }

    #[test]
    fn waiting_takes_as_long_on_a_fast_node_and_is_no_fault_of_it() {
        let pace = ran(&[1000, 1000, 1000, 8000], |_, _| 50_000);
        assert!(pace.slow().is_empty());
    }

    #[test]
    fn one_function_alone_or_too_few_others_say_nothing() {
        let one = ran(
            &[1000; 5],
            |f, n| if (f, n) == (0, 1) { 90_000 } else { 10_000 },
        );
        assert!(one.slow().is_empty());
        let few = ran(&[1000; 3], |_, n| if n == 1 { 90_000 } else { 10_000 });
        assert!(few.slow().is_empty());
    }

    #[test]
    fn one_that_hangs_moves_the_middle_by_a_step() {
        let mut pace = ran(&[1000; 5], |_, _| 10_000);
        pace.learn(function(0), node(1), MilliUcu(1000), Micros(u64::MAX));
        assert!(pace.slow().is_empty());
    }

    #[test]
    fn a_node_five_times_slower_gets_nothing_and_one_that_is_forgotten_is_new() {
        let mut pace = ran(&[1000; 4], |_, n| if n == 0 { 60_000 } else { 10_000 });
        let slow = pace.slow();
        assert!(slow.values().all(|s| s.standing().is_quarantined()) && slow.len() == 1);
        pace.forget(&node(0));
        assert!(pace.slow().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pace = Pace::default();
        for n in 0..=255u8 {
            pace.learn(function(0), node(n), MilliUcu(1000), Micros(1));
        }
        assert_eq!(pace.functions[&function(0)].len(), MOST_NODES);
        for n in 0..MOST_FUNCTIONS as u64 + 1 {
            let mut name = [1; 32];
            name[..8].copy_from_slice(&n.to_le_bytes());
            pace.learn(Digest(name), node(0), MilliUcu(1000), Micros(1));
        }
        assert!(pace.functions.len() <= MOST_FUNCTIONS);
    }
}
