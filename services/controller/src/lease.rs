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

use farlane_model::NodeId;
use farlane_units::{Micros, Millis};

/// How long a node is trusted to hold what it was given after its last heartbeat. Source: farlane-wire, `hello`.
pub const LEASE: Millis = Millis(10_000);
/// How often agents send one. Source: likewise.
pub const HEARTBEAT: Millis = Millis(3_000);

/// What was last heard of a node.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// On the steady clock.
    pub ends: Micros,
    /// Its control stream is here.
    pub attached: bool,
    /// Which stream that is, or was: a node that comes back may open the next before the last has ended.
    pub stream: u64,
    /// Cluster time of the last heartbeat; 0 never.
    pub seen: Millis,
}

/// All leases of this leader.
#[derive(Debug, Default)]
pub struct Leases {
    nodes: HashMap<NodeId, Lease>,
    /// Nodes of which a planner should look at what is known again.
    changed: Vec<NodeId>,
}

fn end(now: Micros) -> Micros {
    now.saturating_add(Micros(LEASE.0 * 1000))
}

impl Leases {
    /// A node whose attempts this leader found in the state gets a full term.
    pub fn inherit(&mut self, node: NodeId, now: Micros) {
        let lease = Lease {
            ends: end(now),
            attached: false,
            stream: 0,
            seen: Millis::ZERO,
        };
        self.nodes.entry(node).or_insert(lease);
    }

    /// Its control stream has opened.
    pub fn attach(&mut self, node: NodeId, stream: u64, now: Micros, cluster: Millis) {
        let lease = Lease {
            ends: end(now),
            attached: true,
            stream,
            seen: cluster,
        };
        self.nodes.insert(node, lease);
        self.changed.push(node);
    }

    /// A heartbeat came over this stream. True when the lease was renewed: one that has ended, or that
    /// a later stream took over, is not.
    pub fn renew(&mut self, node: NodeId, stream: u64, now: Micros, cluster: Millis) -> bool {
        let lease = self.nodes.get_mut(&node);
        let Some(lease) = lease.filter(|l| l.stream == stream && l.attached) else {
            return false;
        };
        // Answers of the quorum may overtake each other.
        lease.ends = lease.ends.max(end(now));
        lease.seen = lease.seen.max(cluster);
        true
    }

    /// Its control stream has ended; what it holds it holds until the lease ends.
    pub fn detach(&mut self, node: NodeId, stream: u64) {
        if let Some(lease) = self.nodes.get_mut(&node)
            && lease.stream == stream
        {
            lease.attached = false;
            self.changed.push(node);
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
        self.changed.extend_from_slice(&over);
        over
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.changed
            .extend(self.nodes.drain().map(|(node, _)| node));
    }

    /// Nodes that came or went since this was asked last.
    pub fn take_changed(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.changed)
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
        let node = NodeId([1; 32]);
        let at = |seconds: u64| Micros(seconds * 1_000_000);
        let mut leases = Leases::default();
        leases.attach(node, 1, at(0), Millis(1));
        assert!(leases.renew(node, 1, at(6), Millis(6)));
        assert!(!leases.renew(node, 2, at(9), Millis(9)));
        assert!(leases.renew(node, 1, at(3), Millis(3)));
        assert!(leases.take_expired(at(15)).is_empty());
        leases.detach(node, 1);
        assert!(!leases.is_online(node, at(15)));
        assert_eq!(leases.take_expired(at(16)), [node]);
        assert!(leases.take_expired(at(17)).is_empty());
        assert_eq!(leases.take_changed(), [node; 3], "came, left, ended");
        assert!(!leases.renew(node, 1, at(17), Millis(17)));
    }

    #[test]
    fn the_end_of_an_earlier_stream_does_not_detach_a_later_one_of_the_same_boot() {
        let node = NodeId([1; 32]);
        let mut leases = Leases::default();
        leases.attach(node, 1, Micros(0), Millis(1));
        leases.attach(node, 2, Micros(10), Millis(1));
        leases.detach(node, 1);
        assert!(leases.is_online(node, Micros(20)));
        leases.detach(node, 2);
        assert!(!leases.is_online(node, Micros(20)));
    }

    #[test]
    fn a_new_leader_gives_a_full_term_and_does_not_shorten_one() {
        let node = NodeId([1; 32]);
        let mut leases = Leases::default();
        leases.inherit(node, Micros(0));
        assert!(!leases.is_online(node, Micros(1)));
        leases.attach(node, 1, Micros(5_000_000), Millis(1));
        leases.inherit(node, Micros(5_000_001));
        assert!(leases.is_online(node, Micros(5_000_001)));
        assert_eq!(leases.take_expired(Micros(15_000_000)), [node]);
    }
}
