//! Tasks whose result this client awaits, and the keys that open them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use farlane_model::{Digest, NodeId, NodeRequest, TaskId};
use farlane_seal::TaskKey;
use farlane_wire::v1;

/// Task ids are dense and our own: folding them is hash enough.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FOLD);
        }
    }
    fn write_u128(&mut self, n: u128) {
        let folded = (n as u64) ^ ((n >> 64) as u64).rotate_left(32);
        self.0 = (self.0 ^ folded).wrapping_mul(FOLD);
        self.0 ^= self.0 >> 29;
    }
}

/// 2⁶⁴ ÷ golden ratio, odd. Source: Knuth, TAOCP 3, 6.4.
const FOLD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Where a live task is, as the server last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Not yet acknowledged, or waits for a node.
    #[default]
    Queued,
    /// Leased to a node.
    Placed,
    /// Begun.
    Running,
    /// Ended; the result is here or on its way.
    Finished,
}

/// Which nodes this side has given a task's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Holder {
    #[default]
    Nobody,
    One(NodeId),
    Several,
}

impl Holder {
    /// A node is given it.
    pub fn add(&mut self, node: NodeId) {
        *self = match *self {
            Self::Nobody => Self::One(node),
            Self::One(one) if one == node => Self::One(one),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

/// One awaited task.
pub(crate) struct Live {
    pub key: TaskKey,
    pub holder: Holder,
    pub spec: Digest,
    pub payload_digest: Digest,
    /// Most attempts that may be granted.
    pub grants: u32,
    /// Where it may run; `None` for what another session submitted.
    pub place: Option<Arc<NodeRequest>>,
    pub token: u64,
    pub phase: Phase,
    pub attempt: u32,
    pub node: Option<NodeId>,
}

/// Every awaited task of a client.
pub(crate) type LiveMap = HashMap<TaskId, Live, BuildHasherDefault<IdHasher>>;

/// Takes what the server says of tasks.
pub(crate) fn take_news(live: &mut LiveMap, news: v1::TaskNews) {
    for change in news.changes {
        let Ok(task) = TaskId::from_slice(&change.task) else {
            continue;
        };
        let Some(entry) = live.get_mut(&task) else {
            continue;
        };
        entry.phase = match change.phase() {
            v1::TaskPhase::Placed => Phase::Placed,
            v1::TaskPhase::Running => Phase::Running,
            v1::TaskPhase::Finished | v1::TaskPhase::Cancelled => Phase::Finished,
            v1::TaskPhase::Queued | v1::TaskPhase::Unspecified => Phase::Queued,
        };
        entry.attempt = change.attempt;
        entry.node = NodeId::from_slice(&change.node).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::SessionId;
    use std::collections::HashSet;
    use std::hash::Hash;

    #[test]
    fn a_key_that_two_nodes_have_vouches_for_neither() {
        let [a, b] = [1, 2].map(|n| NodeId([n; 32]));
        let mut holder = Holder::default();
        for (node, after) in [
            (a, Holder::One(a)),
            (a, Holder::One(a)),
            (b, Holder::Several),
            (a, Holder::Several),
        ] {
            holder.add(node);
            assert_eq!(holder, after);
        }
    }

    #[test]
    fn dense_ids_do_not_collide_in_their_low_bits() {
        let session = SessionId::new(1_700_000_000_000, [9, 8, 7, 6, 5]);
        let low: HashSet<u64> = (1..=4096u64)
            .map(|seq| {
                let mut hasher = IdHasher::default();
                session.task(seq).hash(&mut hasher);
                hasher.finish() & 0xFFFF
            })
            .collect();
        assert!(low.len() > 3900, "{} of 4096 are distinct", low.len());
    }
}
