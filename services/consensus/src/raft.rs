//! The types that openraft is told about: what an entry is, and who waits for it.
//!
//! Owns [`Batch`] and the path of an answer back to its callers. Leaves the bytes to `body`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Option<Waiting>>,
    /// The entry has entered this server's log: from then on others may hold it too.
    logged: AtomicBool,
}

/// Those who wait for an entry. Whoever takes them first answers: `apply` with outcomes, which is
/// sooner than openraft's own way back, openraft with a refusal, or the end of this server's
/// leadership, after which openraft may never answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers(Option<Arc<Shared>>);

impl Callers {
    /// Waits for one entry, holding its place in flight.
    pub fn new(callers: Vec<Caller>, permit: OwnedSemaphorePermit) -> Self {
        let waiting = Waiting {
            callers,
            _permit: permit,
        };
        Self(Some(Arc::new(Shared {
            waiting: Mutex::new(Some(waiting)),
            logged: AtomicBool::new(false),
        })))
    }

    fn take(&self) -> Option<Waiting> {
        self.0
            .as_ref()
            .and_then(|shared| shared.waiting.lock().take())
    }

    /// The entry is about to enter this server's log.
    pub fn logged(&self) {
        if let Some(shared) = &self.0 {
            shared.logged.store(true, Ordering::Release);
        }
    }

    fn is_logged(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|shared| shared.logged.load(Ordering::Acquire))
    }

    /// Whether somebody here waits still.
    pub fn any(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|shared| shared.waiting.lock().is_some())
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
    /// being dropped. Nothing is left to do where `apply` has answered.
    pub fn ended(&self, result: Option<ClientWriteResult<TypeConfig>>) {
        match result {
            // Most often `apply` has answered; an entry that it read from disk knows no callers.
            Some(Ok(_)) => self.unknown(),
            // It was taken out of the log, perhaps to make place for a snapshot that holds it.
            Some(Err(_)) if self.is_logged() => self.unknown(),
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

    /// Lets go of the callers without an outcome. Nothing is left to do where `apply` has answered.
    pub fn unknown(&self) {
        self.refuse(&ProposeError::Unknown);
    }

    fn refuse(&self, error: &ProposeError) {
        let Some(waiting) = self.take() else { return };
        for caller in waiting.callers {
            let _ = caller.reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use openraft::error::ForwardToLeader;
    use openraft::raft::ClientWriteResponse;
    use tokio::sync::Semaphore;

    use super::*;

    type Answer = oneshot::Receiver<Result<Proposed, ProposeError>>;

    fn one(places: &Arc<Semaphore>) -> (Callers, Answer) {
        let (reply, answer) = oneshot::channel();
        let caller = Caller { commands: 1, reply };
        let permit = places.clone().try_acquire_owned().unwrap();
        (Callers::new(vec![caller], permit), answer)
    }

    fn refused() -> ClientWriteResult<TypeConfig> {
        Err(ClientWriteError::ForwardToLeader(ForwardToLeader::empty()))
    }

    #[test]
    fn whoever_answers_first_frees_the_place_and_only_what_never_was_in_the_log_is_surely_not_done()
    {
        let places = Arc::new(Semaphore::new(1));
        let (callers, mut answer) = one(&places);
        callers.ended(Some(refused()));
        let not_leader = ProposeError::NotLeader { leader: None };
        assert_eq!(answer.try_recv().unwrap(), Err(not_leader));

        let (callers, mut answer) = one(&places);
        callers.logged();
        callers.ended(Some(refused()));
        assert_eq!(answer.try_recv().unwrap(), Err(ProposeError::Unknown));

        let (callers, mut answer) = one(&places);
        let applied = || ClientWriteResponse {
            log_id: LogId::default(),
            data: (),
            membership: None,
        };
        callers.applied(7, vec![Outcome::Done]);
        callers.ended(Some(Ok(applied())));
        callers.unknown();
        assert_eq!(answer.try_recv().unwrap().unwrap().index, 7);

        let (callers, mut answer) = one(&places);
        callers.ended(Some(Ok(applied())));
        assert_eq!(answer.try_recv().unwrap(), Err(ProposeError::Unknown));

        let (callers, mut answer) = one(&places);
        callers.ended(None);
        assert!(answer.try_recv().is_err() && !callers.any());
        assert_eq!(places.available_permits(), 1);
    }
}
