//! The machine: applies committed entries, and keeps what they made.
//!
//! Owns the one `State`, its rows (overlay, then state file), the applied index and the notices.
//! Leaves the order of entries to openraft and their meaning to `farlane-state`.

mod file;
mod flush;
mod overlay;
pub(crate) mod rows;
mod shelf;
pub(crate) mod snapshot;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farlane_state::{Change, Order, Stamp, State};
use farlane_units::{ByteCount, Millis};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};

use crate::body;
use crate::error::StartError;
use crate::raft::{Batch, Entry, LogId, Membership, SnapshotMeta, StorageError, TypeConfig};
use flush::Flusher;
use shelf::Shelf;
use snapshot::SnapshotData;

/// Notices that a subscriber may lag behind before it must derive all anew. At 20,000 tasks a second
/// in entries of dozens this is seconds.
const NOTICES: usize = 4096;

/// What an applied entry changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The entry's.
    pub index: u64,
    /// Hints of what to push, in the order they came about.
    pub changes: Vec<Change>,
    /// Whether a snapshot replaced the state: what is to be pushed must be derived from it anew, as
    /// after `RecvError::Lagged`.
    pub reset: bool,
}

/// Why a replica stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this replica has stopped: {reason}")]
pub struct Failure {
    /// One line for people.
    pub reason: String,
}

/// What the machine shares with readers.
pub(crate) struct Replica {
    pub state: RwLock<State>,
    pub shelf: Arc<Shelf>,
    pub applied: watch::Sender<u64>,
    pub notices: broadcast::Sender<Arc<Notice>>,
    pub failure: watch::Sender<Option<Failure>>,
    /// Counts up whenever what was proposed here before may never be answered by openraft: this
    /// server's leadership ended, or a snapshot took the place of the log.
    pub over: watch::Sender<u64>,
    pub flusher: Flusher,
    stopping: AtomicBool,
}

impl Replica {
    /// Loads the state from its file.
    ///
    /// *Errors*: the file cannot be used, or its rows do not load.
    pub fn open(dir: &Path, cache: ByteCount) -> Result<Arc<Self>, StartError> {
        let (shelf, database) = Shelf::open(dir, cache)?;
        let shelf = Arc::new(shelf);
        let state = shelf.load()?;
        let failure = watch::Sender::new(None);
        let flusher =
            Flusher::start(shelf.clone(), database, failure.clone()).map_err(|source| {
                StartError::Io {
                    path: dir.to_owned(),
                    source,
                }
            })?;
        let applied = shelf.head().applied.map_or(0, |id| id.index);
        Ok(Arc::new(Self {
            state: RwLock::new(state),
            shelf,
            applied: watch::Sender::new(applied),
            notices: broadcast::Sender::new(NOTICES),
            failure,
            over: watch::Sender::new(0),
            flusher,
            stopping: AtomicBool::new(false),
        }))
    }

    /// The end that follows is wanted: nothing has failed.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the end is wanted.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the wait of everybody whose proposal has no outcome yet.
    pub fn give_up_proposals(&self) {
        self.over.send_modify(|times| *times += 1);
    }

    /// Stops the replica's work for good, saying why.
    pub fn fail(&self, reason: String) {
        match self.is_stopping() {
            true => tracing::debug!(reason, "the replica stops, as was asked"),
            false => tracing::error!(reason, "the replica stops"),
        }
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(Failure { reason });
            first
        });
    }
}

/// What the file holds beside the rows.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Head {
    pub applied: Option<LogId>,
    pub membership: Membership,
    /// Cluster time of the last entry.
    pub now: Millis,
}

/// openraft's handle on the replica.
#[derive(Clone)]
pub(crate) struct Machine(pub Arc<Replica>);

/// Ends the process when `apply` panics: a replica with a broken invariant must not go on, and
/// others must not believe that it does.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("an invariant of the state machine is broken; the process ends");
            std::process::abort();
        }
    }
}

impl Machine {
    fn apply_batch(&self, id: LogId, batch: &Batch) -> Result<(), StorageError> {
        let (stamped, commands) =
            body::decode(batch.body.clone()).map_err(|e| StorageIOError::apply(id, &e))?;
        // All or nothing: a command that this build does not know must not leave half an entry.
        let orders: Vec<Order> = commands
            .iter()
            .map(Order::decode)
            .collect::<Result<_, _>>()
            .map_err(|e| {
                self.0
                    .fail(format!("entry {id}: {e}; start a build that knows it"));
                StorageIOError::apply(id, &e)
            })?;
        let _guard = AbortOnPanic;
        let answers = batch.callers.any();
        let mut outcomes = Vec::with_capacity(if answers { orders.len() } else { 0 });
        let mut changes = Vec::new();
        let mut writes = Vec::with_capacity(orders.len());
        {
            let mut state = self.0.state.write();
            let now = self.0.shelf.now().max(stamped);
            let stamp = Stamp {
                index: id.index,
                term: id.leader_id.term,
                now,
            };
            for (ordinal, order) in orders.into_iter().enumerate() {
                let applied = farlane_state::apply(&mut state, stamp, ordinal as u32, order);
                if answers {
                    outcomes.push(applied.outcome);
                }
                changes.extend(applied.changes);
                writes.push(applied.writes);
            }
            // Within the state's lock, so that who reads both never finds rows older than the state.
            self.0.shelf.merge(writes, id, now);
        }
        self.0.applied.send_replace(id.index);
        batch.callers.applied(id.index, outcomes);
        if !changes.is_empty() {
            // Nobody listening is no fault.
            let _ = self.0.notices.send(Arc::new(Notice {
                index: id.index,
                changes,
                reset: false,
            }));
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let head = self.0.shelf.head();
        Ok((head.applied, head.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut done = Vec::with_capacity(entries.len());
        for entry in entries {
            if self.0.shelf.is_over_full() {
                let flushed = self.0.flusher.flush().await;
                flushed.map_err(|e| StorageIOError::write_state_machine(&e))?;
            }
            match &entry.payload {
                EntryPayload::Normal(batch) => self.apply_batch(entry.log_id, batch)?,
                EntryPayload::Blank => {
                    self.0.shelf.passed(entry.log_id, None);
                    self.0.applied.send_replace(entry.log_id.index);
                }
                EntryPayload::Membership(membership) => {
                    let stored = Membership::new(Some(entry.log_id), membership.clone());
                    self.0.shelf.passed(entry.log_id, Some(stored));
                    self.0.applied.send_replace(entry.log_id.index);
                }
            }
            done.push(());
        }
        self.0.flusher.dirty();
        Ok(done)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        let incoming = snapshot::Incoming::create(self.0.shelf.dir())
            .map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        Ok(Box::new(SnapshotData::Incoming(incoming)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        let (replica, meta) = (self.0.clone(), meta.clone());
        let installed =
            tokio::task::spawn_blocking(move || snapshot::install(&replica, &meta, *snapshot))
                .await;
        match installed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StorageIOError::write_snapshot(None, &error).into()),
            Err(error) => Err(StorageIOError::write_snapshot(None, AnyError::new(&error)).into()),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        if self.0.shelf.head().applied.is_none() {
            return Ok(None);
        }
        self.build_snapshot().await.map(Some)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    /// Flushes, and hands out a read transaction: nothing is copied.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let tree = self
            .0
            .flusher
            .flush()
            .await
            .map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        let Head {
            applied,
            membership,
            ..
        } = tree.head.clone();
        let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id: applied,
                last_membership: membership,
                snapshot_id,
            },
            snapshot: Box::new(SnapshotData::Outgoing(tree)),
        })
    }
}
