//! What goes between the servers' region and nodes in others, as this leader sees it.
//!
//! Owns the count, in the leader's memory, until an attempt's end is proposed with it. Leaves prices to the state, and
//! rounding to where attempts are billed.
//!
//! ```text
//! node takes a blob for an attempt ─▶ bytes sent, at most the blob ─┐
//! payload in a row, with the assignment ────────────────────────────┴▶ there ─┐
//! result in a row, with the completion ─────────────────────────────┬▶ back  ─┴▶ Completion::moved
//! node puts a blob ─▶ bytes that came ──────────────────────────────┘
//! ```
//! A node says for which attempt it takes a blob, and is believed where the attempt is its own and names that blob. What
//! a leader saw before it lost its lead is charged to nobody.

use std::collections::HashMap;

use farlane_model::{AttemptRef, BlobRef, Digest, NodeId, Sealed};
use farlane_state::{
    CompleteBatch, EgressPrice, LiveTask, Moved, Rows, State, Table, TaskEnvelopeRow, keys,
};
use farlane_units::ByteCount;

use crate::Controller;

/// Attempts, and blobs that came, whose bytes are remembered. Source: as many attempts as are known to run
/// (agent.rs, `MAX_STARTED`).
const MOST: usize = 100_000;

/// Bytes that no end was told of yet.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    /// Of each blob that was taken for an attempt.
    there: HashMap<AttemptRef, Vec<(Digest, ByteCount)>>,
    /// By who put them.
    back: HashMap<(NodeId, Digest), ByteCount>,
}

impl Moving {
    fn gave(&mut self, attempt: AttemptRef, blob: Digest, bytes: ByteCount) {
        let taken = self.there.entry(attempt).or_default();
        match taken.iter_mut().find(|(known, _)| *known == blob) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => taken.push((blob, bytes)),
        }
    }

    /// What was taken for an attempt, of these blobs and no more than they are.
    fn take_there(&mut self, attempt: &AttemptRef, of: &[BlobRef]) -> ByteCount {
        let taken = self.there.remove(attempt).unwrap_or_default();
        let counted = taken.iter().filter_map(|(blob, bytes)| {
            let known = of.iter().find(|known| known.digest == *blob)?;
            Some(known.size.min(*bytes))
        });
        counted.fold(ByteCount::ZERO, ByteCount::saturating_add)
    }
}

impl Controller {
    /// The region that this server stands in; `None` where nobody said.
    pub(crate) fn home(&self) -> Option<&str> {
        let own = self.homes.iter().find(|(id, _)| *id == self.server);
        own.map(|(_, region)| &**region)
    }

    /// A node was sent so much of a blob, for an attempt of its own where it says so.
    pub fn gave(&self, node: NodeId, blob: BlobRef, bytes: ByteCount, of: Option<AttemptRef>) {
        if bytes >= blob.size {
            self.took(blob.digest, node);
        }
        let Some(attempt) = of.filter(|_| self.home().is_some()) else {
            return;
        };
        self.consensus.read(|state| {
            if held(state, &node, &attempt).is_some() && crosses(state, &node) {
                let mut moving = self.moving.lock();
                if moving.there.len() >= MOST && !moving.there.contains_key(&attempt) {
                    moving.there.retain(|attempt, _| state.is_current(attempt));
                }
                if moving.there.len() < MOST {
                    moving.gave(attempt, blob.digest, bytes);
                }
            }
        });
    }

    /// A node has put a blob.
    pub fn was_put(&self, node: NodeId, blob: BlobRef) {
        if self.home().is_none() || !self.consensus.read(|state| crosses(state, &node)) {
            return;
        }
        let back = &mut self.moving.lock().back;
        if back.len() >= MOST {
            back.clear();
        }
        back.insert((node, blob.digest), blob.size);
    }

    /// Says of each end what went between regions for it.
    pub(crate) fn count_moved(&self, order: &mut CompleteBatch) {
        if self.home().is_none() || !self.consensus.read(|state| crosses(state, &order.node)) {
            return;
        }
        let rows = self.consensus.rows();
        for item in &mut order.items {
            let task = item.attempt.task;
            let spec = self.consensus.read(|state| {
                let live = held(state, &order.node, &item.attempt)?;
                Some(live.spec.task.clone())
            });
            // Of what is not its own a node says nothing that counts.
            let Some(spec) = spec else { continue };
            let row = rows.get(Table::Tasks, &keys::task(task));
            let envelope = row.and_then(TaskEnvelopeRow::from_bytes);
            let mut blobs: Vec<BlobRef> = vec![spec.code];
            blobs.extend(spec.environment.as_ref().map(|wanted| wanted.lock));
            let mut there = ByteCount::ZERO;
            if let Some(envelope) = envelope {
                blobs.extend(envelope.refs);
                match envelope.payload {
                    Sealed::Inline(bytes) => there = ByteCount(bytes.len() as u64),
                    Sealed::Blob(blob) => blobs.push(blob),
                }
            }
            let mut moving = self.moving.lock();
            let back = match &item.sealed {
                None => None,
                Some(Sealed::Inline(bytes)) => Some(ByteCount(bytes.len() as u64)),
                Some(Sealed::Blob(blob)) => moving.back.remove(&(order.node, blob.digest)),
            };
            item.moved = Moved {
                there: there.saturating_add(moving.take_there(&item.attempt, &blobs)),
                back: back.unwrap_or_default(),
            };
        }
    }
}

/// The task of an attempt that runs or waits on this node.
pub(crate) fn held<'a>(
    state: &'a State,
    node: &NodeId,
    attempt: &AttemptRef,
) -> Option<LiveTask<'a>> {
    let live = state.task(attempt.task)?;
    let own = live.placed?.node.id == *node && live.attempt_ref() == *attempt;
    own.then_some(live)
}

/// Whether bytes on their way to a node cost anything now.
fn crosses(state: &State, node: &NodeId) -> bool {
    let node = state.node(node);
    node.is_some_and(|node| node.egress_at(state.now()) != EgressPrice::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::SessionId;

    #[test]
    fn a_blob_counts_once_for_an_attempt_and_only_where_its_task_names_it() {
        let blob = |n: u8, size: u64| BlobRef {
            digest: Digest([n; 32]),
            size: ByteCount(size),
        };
        let attempt = AttemptRef {
            task: SessionId::new(1, [0; 5]).task(1),
            attempt: 1,
            epoch: 1,
        };
        let mut moving = Moving::default();
        let (code, argument) = (blob(1, 100), blob(2, 1000));
        moving.gave(attempt, code.digest, ByteCount(100));
        moving.gave(attempt, code.digest, ByteCount(100));
        moving.gave(attempt, argument.digest, ByteCount(400));
        moving.gave(attempt, Digest([9; 32]), ByteCount(5000));
        assert_eq!(
            moving.take_there(&attempt, &[code, argument]),
            ByteCount(500)
        );
        assert_eq!(
            moving.take_there(&attempt, &[code, argument]),
            ByteCount::ZERO
        );
        assert!(moving.there.is_empty());
    }
}
