//! The types that openraft is told about: what an entry is, and who waits for it.
//!
//! Owns [`Batch`] and the path of an answer back to its callers. Leaves the bytes to `body`.

use std::sync::Arc;

use bytes::Bytes;
use farlane_state::Outcome;
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::{BasicNode, TokioRuntime};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::ProposeError;
use crate::machine::snapshot::SnapshotData;

openraft::declare_raft_types!(
    /// Farlane's choice of openraft's types.
    pub(crate) TypeConfig:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
        AsyncRuntime = TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;

/// What came of a proposal: one outcome for each command, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The index of the entry that held the commands.
    pub index: u64,
    /// One for each command.
    pub outcomes: Vec<Outcome>,
}

/// The payload of an entry: see `body` for its bytes. On the leader it also knows who waits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Stamp and commands, encoded once.
    pub body: Bytes,
    /// Who waits for it on this server.
    #[serde(skip)]
    pub callers: Callers,
}

/// One `propose` call that waits.
#[derive(Debug)]
pub(crate) struct Caller {
    /// How many of the entry's commands are its own.
    pub commands: usize,
    /// Where to answer.
    pub reply: oneshot::Sender<Result<Proposed, ProposeError>>,
}

#[derive(Debug)]
struct Waiting {
    callers: Vec<Caller>,
    /// Frees the batcher's place in flight.
    _permit: OwnedSemaphorePermit,
}

/// Those who wait for an entry. Whoever takes them first answers: `apply` with outcomes, which is
/// sooner than openraft's own way back, or openraft with a refusal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers(Option<Arc<Mutex<Option<Waiting>>>>);

impl Callers {
    /// Waits for one entry, holding its place in flight.
    pub fn new(callers: Vec<Caller>, permit: OwnedSemaphorePermit) -> Self {
        Self(Some(Arc::new(Mutex::new(Some(Waiting {
            callers,
            _permit: permit,
        })))))
    }

    fn take(&self) -> Option<Waiting> {
        self.0.as_ref().and_then(|shared| shared.lock().take())
    }

    /// Whether somebody here waits still.
    pub fn any(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|shared| shared.lock().is_some())
    }

    /// Hands out the outcomes of the applied entry.
    pub fn applied(&self, index: u64, outcomes: Vec<Outcome>) {
        let Some(waiting) = self.take() else { return };
        let mut outcomes = outcomes.into_iter();
        for caller in waiting.callers {
            let own = outcomes.by_ref().take(caller.commands).collect();
            // A caller that has gone away does not want to know.
            let _ = caller.reply.send(Ok(Proposed {
                index,
                outcomes: own,
            }));
        }
    }

    /// What openraft says of the entry in the end; `None` where it stopped, which the callers see by
    /// being dropped. Nothing is left to do for an applied entry.
    pub fn ended(&self, result: Option<ClientWriteResult<TypeConfig>>) {
        match result {
            Some(Ok(_)) => {}
            Some(Err(ClientWriteError::ForwardToLeader(to))) => {
                let leader = to.leader_id.zip(to.leader_node.map(|node| node.addr));
                self.refuse(&ProposeError::NotLeader { leader });
            }
            // Never for a normal entry; not leading is the honest answer to a caller.
            Some(Err(ClientWriteError::ChangeMembershipError(_))) => {
                self.refuse(&ProposeError::NotLeader { leader: None });
            }
            None => drop(self.take()),
        }
    }

    fn refuse(&self, error: &ProposeError) {
        let Some(waiting) = self.take() else { return };
        for caller in waiting.callers {
            let _ = caller.reply.send(Err(error.clone()));
        }
    }
}
