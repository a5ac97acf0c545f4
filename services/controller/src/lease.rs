//! Leases of nodes, in the leader's memory.
//!
//! Owns who has been heard of, and until when. Leaves what follows from an expired lease to the
//! timers, and what was leased to the state.
//!
//! ```text
//! attach ─▶ live until 10 s after the last heartbeat ─▶ expired once ─▶ (attach again)
//! ```
//! Agents count from the moment of sending, this room from the moment of receipt, so an agent always
//! gives up first.

use std::collections::HashMap;

use farlane_model::{BootId, NodeId};
use farlane_units::{Micros, Millis};

/// How long a node is trusted to hold what it was given after its last heartbeat. Source: design.md,
/// "The life of a task".
pub const LEASE: Millis = Millis(10_000);
/// How often agents send one. Source: design.md, "The life of a task".
pub const HEARTBEAT: Millis = Millis(3_000);

/// What was last heard of a node.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Its start, when it has attached since this leader began.
    pub boot: Option<BootId>,
    /// On the steady clock.
    pub ends: Micros,
    /// Its control stream is here.
    pub attached: bool,
    /// As the agent measured it last.
    pub round_trip: Micros,
    /// Cluster time of the last heartbeat; 0 never.
    pub seen: Millis,
}

/// All leases of this leader.
#[derive(Debug, Default)]
pub struct Leases {
    nodes: HashMap<NodeId, Lease>,
}

fn end(now: Micros) -> Micros {
    now.saturating_add(Micros(LEASE.0 * 1000))
}

impl Leases {
    /// A node whose attempts this leader found in the state gets a full term.
    pub fn inherit(&mut self, node: NodeId, now: Micros) {
        let round_trip = Micros::ZERO;
        let lease = Lease {
            boot: None,
            ends: end(now),
            attached: false,
            round_trip,
            seen: Millis::ZERO,
        };
        self.nodes.entry(node).or_insert(lease);
    }

    /// Its control stream has opened.
    pub fn attach(&mut self, node: NodeId, boot: BootId, now: Micros, cluster: Millis) {
        let round_trip = self.nodes.get(&node).map_or(Micros::ZERO, |l| l.round_trip);
        let lease = Lease {
            boot: Some(boot),
            ends: end(now),
            attached: true,
            round_trip,
            seen: cluster,
        };
        self.nodes.insert(node, lease);
    }

    /// A heartbeat came; only of the start that is attached.
    pub fn renew(
        &mut self,
        node: NodeId,
        boot: BootId,
        now: Micros,
        cluster: Millis,
        round_trip: Micros,
    ) {
        if let Some(lease) = self.nodes.get_mut(&node)
            && lease.boot == Some(boot)
        {
            lease.ends = end(now);
            lease.seen = cluster;
            if round_trip != Micros::ZERO {
                lease.round_trip = round_trip;
            }
        }
    }

    /// Its control stream has ended; what it holds it holds until the lease ends.
    pub fn detach(&mut self, node: NodeId, boot: BootId) {
        if let Some(lease) = self.nodes.get_mut(&node)
            && lease.boot == Some(boot)
        {
            lease.attached = false;
        }
    }

    /// Takes out those whose term is over.
    pub fn take_expired(&mut self, now: Micros) -> Vec<NodeId> {
        let mut over: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, l)| l.ends <= now)
            .map(|(node, _)| *node)
            .collect();
        over.sort_unstable();
        for node in &over {
            self.nodes.remove(node);
        }
        over
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<Lease> {
        self.nodes.get(&node).copied()
    }
    /// Whether work may be placed there.
    pub fn is_online(&self, node: NodeId, now: Micros) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|l| l.attached && l.ends > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_ten_seconds_after_the_last_heartbeat_and_only_once() {
        let (node, boot) = (NodeId([1; 32]), BootId([2; 16]));
        let at = |seconds: u64| Micros(seconds * 1_000_000);
        let mut leases = Leases::default();
        leases.attach(node, boot, at(0), Millis(1));
        leases.renew(node, boot, at(6), Millis(6), Micros(250));
        leases.renew(node, BootId([3; 16]), at(9), Millis(9), Micros(1));
        assert!(leases.take_expired(at(15)).is_empty());
        assert_eq!(leases.get(node).map(|l| l.round_trip), Some(Micros(250)));
        leases.detach(node, boot);
        assert!(!leases.is_online(node, at(15)));
        assert_eq!(leases.take_expired(at(16)), [node]);
        assert!(leases.take_expired(at(17)).is_empty());
    }

    #[test]
    fn a_new_leader_gives_a_full_term_and_does_not_shorten_one() {
        let (node, boot) = (NodeId([1; 32]), BootId([2; 16]));
        let mut leases = Leases::default();
        leases.inherit(node, Micros(0));
        assert!(!leases.is_online(node, Micros(1)));
        leases.attach(node, boot, Micros(5_000_000), Millis(1));
        leases.inherit(node, Micros(5_000_001));
        assert!(leases.is_online(node, Micros(5_000_001)));
        assert_eq!(leases.take_expired(Micros(15_000_000)), [node]);
    }
}
