//! How hot nodes say they are.
//!
//! Owns what their heartbeats said last, in the leader's memory, rounded to a step. Leaves reading sensors to the agents,
//! and what it costs to `farlane-plan`. A node that makes itself hotter than it is gets less work; one that makes itself
//! cooler is found out by the run times of its tasks, as any that claims too much.

use std::collections::{BTreeSet, HashMap};

use farlane_model::NodeId;
use farlane_plan::Heat;
use farlane_units::Ppm;
use farlane_wire::hello::{HEAT_MOST_PPM, HEAT_STEP_PPM};

/// All nodes that are hot.
#[derive(Debug, Default)]
pub(crate) struct Heats {
    nodes: HashMap<NodeId, Heat>,
    /// Each once, however long nobody asks.
    changed: BTreeSet<NodeId>,
}

fn step(ppm: u32) -> Ppm {
    Ppm(ppm.min(HEAT_MOST_PPM) / HEAT_STEP_PPM * HEAT_STEP_PPM)
}

impl Heats {
    /// What a heartbeat says of its processors and accelerators.
    pub fn told(&mut self, node: NodeId, cores: u32, gpus: u32) {
        let heat = Heat {
            cores: step(cores),
            gpus: step(gpus),
        };
        let before = match heat == Heat::default() {
            true => self.nodes.remove(&node),
            false => self.nodes.insert(node, heat),
        };
        if before.unwrap_or_default() != heat {
            self.changed.insert(node);
        }
    }

    /// Its lease has ended.
    pub fn forget(&mut self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.told(*node, 0, 0));
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Nodes that are hotter or cooler than before, since this was asked last.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// What is known of a node.
    pub fn of(&self, node: &NodeId) -> Heat {
        self.nodes.get(node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_looked_at_again_when_its_step_changes_and_only_then() {
        let (mut heats, node) = (Heats::default(), NodeId([1; 32]));
        heats.told(node, 0, 0);
        assert!(heats.take_changed().is_empty());
        heats.told(node, 260_000, 0);
        assert_eq!(heats.of(&node).cores, Ppm(250_000));
        assert_eq!(heats.take_changed().len(), 1);
        heats.told(node, 300_000, 100_000);
        assert!(heats.take_changed().is_empty());
        // No node is believed to be stopped by its heat.
        heats.told(node, u32::MAX, u32::MAX);
        let hottest = Ppm(HEAT_MOST_PPM);
        assert_eq!(
            (heats.of(&node).cores, heats.of(&node).gpus),
            (hottest, hottest)
        );
        heats.forget(&[node]);
        assert_eq!(heats.of(&node), Heat::default());
        assert_eq!(heats.take_changed().len(), 1);
        assert!(heats.nodes.is_empty());
    }
}
