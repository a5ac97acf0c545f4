//! Where environments are ready, how long making one ready takes, and which nodes lose what they are given.
//!
//! Owns the leader's memory of both, which no log keeps: a new leader learns anew, and plans meanwhile by what is
//! usual. Leaves what it is worth to `farlane-plan`.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::{
    Digest, ExitKind, LostCause, NodeId, ProjectId, PythonVersion, TaskSpec, Tier,
};
use farlane_plan::MAX_WARM;
use farlane_units::{Micros, Ppm};

/// Environments remembered; beyond it all are forgotten. Source: at 64 nodes each 32 MiB.
const MAX_KEYS: usize = 16_384;
/// What making an environment ready takes where it was not seen yet. Source: measured with cargo xtask demo on
/// 2026-11-22: half a minute for scikit-learn from a cache of wheels.
const BUILD: Micros = Micros(30_000_000);
/// The same for the bare interpreter: a template's start. Source: docs/design/worker-recycling.md, a quarter of a second
/// with its sandbox.
const BARE: Micros = Micros(250_000);
/// Share of a new time in the mean. Source: choice; the last ten or so count.
const GAIN: f64 = 0.1;

/// What must be the same for workers to fork from one template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    project: ProjectId,
    environment: Option<Digest>,
    python: PythonVersion,
    tier: Tier,
}

impl Key {
    fn of(spec: &TaskSpec) -> Self {
        Self {
            project: spec.project,
            environment: spec.environment.map(|e| e.id),
            python: spec.node.python,
            tier: spec.node.tier,
        }
    }
}

/// What is known of one environment.
#[derive(Debug, Default)]
struct Ready {
    /// Sorted.
    nodes: Arc<[NodeId]>,
    /// Which of them makes way for the next.
    hand: usize,
    /// From placement to start, microseconds: where it was not ready, and where it was.
    cold: Option<f64>,
    warm: Option<f64>,
}

/// One more of a bounded number of nodes; `hand` says which of them makes way.
pub(crate) fn note(nodes: &mut Arc<[NodeId]>, hand: &mut usize, node: NodeId) {
    let mut all = nodes.to_vec();
    if all.len() >= MAX_WARM {
        *hand = (*hand + 1) % all.len();
        all.remove(*hand);
    }
    let at = all.partition_point(|known| *known < node);
    all.insert(at, node);
    *nodes = all.into();
}

/// Environments that nodes have run of late.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    ready: HashMap<Key, Ready>,
}

impl Warmth {
    /// A task ran on a node, so long after it was placed there. Some of that it may have waited for others: where the
    /// environment was ready this counts as usual, and makes the difference smaller.
    pub fn ran(&mut self, spec: &TaskSpec, node: NodeId, waited: Micros) {
        let key = Key::of(spec);
        if self.ready.len() >= MAX_KEYS && !self.ready.contains_key(&key) {
            self.ready.clear();
        }
        let ready = self.ready.entry(key).or_default();
        let found = ready.nodes.binary_search(&node);
        let mean = match found {
            Ok(_) => &mut ready.warm,
            Err(_) => &mut ready.cold,
        };
        let waited = waited.0 as f64;
        *mean = Some(mean.map_or(waited, |mean| mean + (waited - mean) * GAIN));
        if found.is_err() {
            note(&mut ready.nodes, &mut ready.hand, node);
        }
    }

    /// How long it takes where the environment is not ready, and where it is.
    pub fn of(&self, spec: &TaskSpec) -> (Micros, Arc<[NodeId]>) {
        let usual = match spec.environment {
            Some(_) => BUILD,
            None => BARE,
        };
        let Some(ready) = self.ready.get(&Key::of(spec)) else {
            return (usual, Arc::new([]));
        };
        let start = ready.cold.map_or(usual, |cold| {
            let more = cold - ready.warm.unwrap_or(0.0);
            Micros(more.max(0.0) as u64)
        });
        (start, ready.nodes.clone())
    }
}

/// Attempts, faded: lost by the node's fault, and all.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    lost: f64,
    all: f64,
}

/// What an older attempt weighs against the next. Source: choice; the last hundred count.
const FADES: f64 = 0.99;
/// What is thought of a node of which nothing is known, in attempts: one in a thousand is lost, with the weight of
/// twenty. Source: choice; a machine that reboots once a week loses about as much of hour-long work.
const PRIOR: History = History {
    lost: 0.02,
    all: 20.0,
};
/// Nodes remembered; beyond it all are forgotten. Source: as many as one cell holds.
const MAX_NODES: usize = 131_072;

/// How often each node lost what it was given.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    nodes: HashMap<NodeId, History>,
}

impl Histories {
    /// An attempt ended there. What its own code did is not the node's.
    pub fn ended(&mut self, node: NodeId, exit: ExitKind) {
        let lost = match exit {
            ExitKind::Lost(cause) => match cause {
                LostCause::LeaseExpired | LostCause::NodeRestarted | LostCause::NodeRemoved => 1.0,
                LostCause::Sandbox => 1.0,
                _ => return,
            },
            _ => 0.0,
        };
        if lost == 0.0 && !self.nodes.contains_key(&node) {
            // Nearly all: what never lost anything is no better than what is thought anyway.
            return;
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            self.nodes.clear();
        }
        let history = self.nodes.entry(node).or_default();
        history.lost = history.lost * FADES + lost;
        history.all = history.all * FADES + 1.0;
    }

    /// Chance that an attempt is lost there: never less than what is thought of any.
    pub fn risk(&self, node: &NodeId) -> Ppm {
        let known = self.nodes.get(node).copied().unwrap_or_default();
        let of = |history: History| (history.lost + PRIOR.lost) / (history.all + PRIOR.all);
        let chance = of(known).max(of(History::default()));
        Ppm((chance * 1e6) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::{BlobRef, EnvRef};
    use farlane_units::ByteCount;

    fn spec(environment: u8) -> TaskSpec {
        let blob = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let environment = (environment > 0).then_some(EnvRef {
            id: Digest([environment; 32]),
            lock: blob,
        });
        TaskSpec {
            environment,
            ..TaskSpec::new(ProjectId::new(0, [0; 10]), blob, python)
        }
    }

    #[test]
    fn nodes_that_ran_an_environment_are_ready_for_it_and_its_build_is_learned() {
        let mut warmth = Warmth::default();
        assert_eq!(warmth.of(&spec(0)).0, BARE);
        let (start, nodes) = warmth.of(&spec(1));
        assert_eq!((start, nodes.len()), (BUILD, 0));
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        warmth.ran(&spec(1), b, Micros(9_000_000));
        warmth.ran(&spec(1), b, Micros(1_000_000));
        warmth.ran(&spec(1), a, Micros(9_000_000));
        let (start, nodes) = warmth.of(&spec(1));
        assert_eq!((start, &nodes[..]), (Micros(8_000_000), &[a, b][..]));
        // Another environment is not ready there.
        assert_eq!(warmth.of(&spec(2)).1.len(), 0);
    }

    #[test]
    fn a_bounded_number_of_nodes_is_known() {
        let mut warmth = Warmth::default();
        for n in 0..200u8 {
            warmth.ran(&spec(0), NodeId([n; 32]), Micros(1));
        }
        let (_, nodes) = warmth.of(&spec(0));
        assert!(nodes.len() == MAX_WARM && nodes.is_sorted());
        assert!(nodes.contains(&NodeId([199; 32])));
    }

    #[test]
    fn a_node_that_loses_work_is_a_risk_until_it_has_kept_some() {
        let mut histories = Histories::default();
        let (bad, good) = (NodeId([1; 32]), NodeId([2; 32]));
        let usual = histories.risk(&good);
        assert_eq!(usual, Ppm(1000));
        for _ in 0..10 {
            histories.ended(bad, ExitKind::Lost(LostCause::LeaseExpired));
            histories.ended(good, ExitKind::Returned);
            histories.ended(good, ExitKind::Lost(LostCause::OutOfMemory));
        }
        assert_eq!(histories.risk(&good), usual);
        let after = histories.risk(&bad);
        assert!(after > Ppm(200_000), "{after:?}");
        (0..500).for_each(|_| histories.ended(bad, ExitKind::Returned));
        assert!(histories.risk(&bad) < Ppm(3000));
    }
}
