//! Results on their way out: gathered a session at a time, signed, journalled, sent, acknowledged.
//!
//! Sent at once while fewer than two batches are under way, else gathered: batches form by
//! themselves. After a reconnect everything unacknowledged is sent again, with its old number.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, Digest, NodeId, SessionId};
use farlane_seal::{NodeIdentity, batch};
use farlane_wire::hello::{BATCH_BYTES, BATCH_TASKS};
use farlane_wire::v1::agent_frame::Body;
use farlane_wire::{id, v1};
use prost::Message;

use super::Engine;
use super::journal::Journal;

/// Batches under way before results gather. Source: docs/design/spine.md, "One call".
const UNDER_WAY: usize = 2;

/// One result, with its leaf.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) completion: v1::Completion,
    pub(super) leaf: Digest,
}

/// Everything that has ended here and is not acknowledged.
#[derive(Debug)]
pub(super) struct Outbox {
    pending: HashMap<SessionId, VecDeque<Item>>,
    /// Sessions with something pending, longest waiting first.
    turns: VecDeque<SessionId>,
    under_way: BTreeMap<u64, v1::CompleteBatch>,
    /// Of those, which were sent on this connection.
    sent: HashSet<u64>,
    held: HashSet<AttemptRef>,
    journal: Journal,
    next: u64,
}

impl Outbox {
    /// With what an earlier process left behind.
    pub(super) fn open(path: PathBuf) -> Self {
        let (journal, left) = Journal::open(&path);
        let next = left.keys().next_back().map_or(1, |last| last + 1);
        let under_way: BTreeMap<_, _> = left
            .into_iter()
            .filter_map(|(number, body)| Some((number, v1::CompleteBatch::decode(body).ok()?)))
            .collect();
        let held = under_way.values().flat_map(attempts).collect();
        let (pending, turns, sent) = (HashMap::new(), VecDeque::new(), HashSet::new());
        Self {
            pending,
            turns,
            under_way,
            sent,
            held,
            journal,
            next,
        }
    }

    /// Adds a result.
    pub(super) fn push(&mut self, at: AttemptRef, item: Item) {
        self.held.insert(at);
        let session = at.task.session();
        let queue = self.pending.entry(session).or_default();
        if queue.is_empty() {
            self.turns.push_back(session);
        }
        queue.push_back(item);
    }

    /// Attempts that have ended here.
    pub(super) fn held(&self) -> impl Iterator<Item = AttemptRef> + '_ {
        self.held.iter().copied()
    }

    /// The same, for the wire.
    pub(super) fn ended(&self) -> Vec<v1::AttemptRef> {
        self.held.iter().map(|at| (*at).into()).collect()
    }

    /// The control plane does not know that this attempt has ended: its batch goes again.
    pub(super) fn report(&mut self, at: &AttemptRef) {
        let batch = self
            .under_way
            .iter()
            .find(|(_, batch)| attempts(batch).any(|a| a == *at));
        if let Some((number, _)) = batch {
            self.sent.remove(number);
        }
    }

    /// A batch is durable at the control plane: the attempts that were in it.
    pub(super) fn acknowledged(&mut self, number: u64) -> Vec<AttemptRef> {
        let Some(batch) = self.under_way.remove(&number) else {
            return Vec::new();
        };
        self.sent.remove(&number);
        let all: Vec<_> = attempts(&batch).collect();
        for at in &all {
            self.held.remove(at);
        }
        let none_left = self.under_way.is_empty();
        self.journal.acknowledged(number, none_left);
        if self.journal.is_long() {
            let outstanding = self.under_way.iter();
            let outstanding = outstanding.map(|(number, batch)| (*number, batch.encode_to_vec()));
            self.journal.write_anew(outstanding);
        }
        all
    }

    /// A new connection: whatever is under way must be sent again.
    pub(super) fn reconnected(&mut self) {
        self.sent.clear();
    }

    /// The next batch to send: first what is under way already, then what is pending.
    fn next(&mut self, signer: &Signer<'_>, connected: bool) -> Option<v1::CompleteBatch> {
        if connected {
            let again = self
                .under_way
                .iter()
                .find(|(number, _)| !self.sent.contains(number));
            if let Some((number, batch)) = again {
                self.sent.insert(*number);
                return Some(batch.clone());
            }
            if self.under_way.len() >= UNDER_WAY {
                return None;
            }
        }
        let session = self.turns.pop_front()?;
        let queue = self.pending.get_mut(&session)?;
        let (mut items, mut leaves, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(item) = queue.front() {
            let size = item.completion.encoded_len() + batch::LEAF_BYTES;
            if items.len() == BATCH_TASKS || (!items.is_empty() && bytes + size > BATCH_BYTES) {
                break;
            }
            bytes += size;
            let Some(Item { completion, leaf }) = queue.pop_front() else {
                break;
            };
            leaves.push(leaf);
            items.push(completion);
        }
        if queue.is_empty() {
            self.pending.remove(&session);
        } else {
            self.turns.push_back(session);
        }
        let number = self.next;
        self.next += 1;
        let batch = signer.sign(session, number, items, &leaves);
        self.journal.keep(number, &batch.encode_to_vec());
        self.under_way.insert(number, batch.clone());
        if connected {
            self.sent.insert(number);
        }
        Some(batch)
    }
}

fn attempts(batch: &v1::CompleteBatch) -> impl Iterator<Item = AttemptRef> + '_ {
    batch
        .items
        .iter()
        .filter_map(|item| item.attempt.as_ref()?.try_into().ok())
}

struct Signer<'a> {
    identity: &'a NodeIdentity,
    node: NodeId,
    boot: BootId,
}

impl Signer<'_> {
    fn sign(
        &self,
        session: SessionId,
        number: u64,
        items: Vec<v1::Completion>,
        leaves: &[Digest],
    ) -> v1::CompleteBatch {
        let name = batch::id(self.boot, number);
        let leaves = batch::join_leaves(leaves);
        let signature = batch::sign(self.identity, self.node, session, &name, &leaves);
        v1::CompleteBatch {
            batch: number,
            boot: id::boot_bytes(&self.boot),
            session: id::session_bytes(&session),
            signature: Some(v1::NodeSignature {
                batch: Bytes::copy_from_slice(&name),
                leaves: leaves.into(),
                signature: Bytes::copy_from_slice(&signature),
            }),
            items,
        }
    }
}

impl Engine {
    /// Sends what may be sent now; without a connection, seals it into the journal.
    pub(super) fn send_completions(&mut self) {
        loop {
            let connected = self.out.is_some();
            let signer = Signer {
                identity: &self.identity,
                node: self.node,
                boot: self.boot,
            };
            let Some(batch) = self.outbox.next(&signer, connected) else {
                return;
            };
            if connected {
                self.tell(Body::Complete(batch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{Exit, ExitKind};

    fn item(at: AttemptRef) -> Item {
        let exit = Exit::plain(ExitKind::Returned);
        let leaf = batch::leaf(&at, exit.kind, None);
        let completion = v1::Completion {
            attempt: Some(at.into()),
            exit: Some(exit.into()),
            ..Default::default()
        };
        Item { completion, leaf }
    }

    #[test]
    fn two_batches_go_the_rest_gathers_and_all_is_sent_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let identity = NodeIdentity::generate();
        let signer = Signer {
            identity: &identity,
            node: NodeId::default(),
            boot: BootId::default(),
        };
        let session = SessionId::new(1, [1; 5]);
        let at = |seq| AttemptRef {
            task: session.task(seq),
            attempt: 1,
            epoch: 1,
        };
        let mut outbox = Outbox::open(path.clone());
        let mut sizes = Vec::new();
        for seq in 1..=1000 {
            outbox.push(at(seq), item(at(seq)));
            while let Some(batch) = outbox.next(&signer, true) {
                sizes.push(batch.items.len());
            }
        }
        assert_eq!(sizes, [1, 1]);
        outbox.acknowledged(1);
        assert_eq!(outbox.next(&signer, true).unwrap().items.len(), BATCH_TASKS);
        assert!(!outbox.held.contains(&at(1)) && outbox.held.contains(&at(2)));
        // Without a connection the rest goes into the journal.
        while outbox.next(&signer, false).is_some() {}
        drop(outbox);
        let mut outbox = Outbox::open(path);
        assert_eq!(outbox.ended().len(), 999);
        let mut again = Vec::new();
        while let Some(batch) = outbox.next(&signer, true) {
            again.push((batch.batch, batch.items.len()));
        }
        assert_eq!(again.iter().map(|(_, n)| n).sum::<usize>(), 999);
        assert_eq!(again[0].0, 2);
        for (number, _) in again {
            outbox.acknowledged(number);
        }
        outbox.push(at(2000), item(at(2000)));
        assert!(outbox.next(&signer, true).unwrap().batch > 3);
    }
}
