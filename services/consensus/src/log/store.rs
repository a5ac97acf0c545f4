//! The log as openraft sees it.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::RwLock;

use super::desk::{Desk, Followers};
use super::frame;
use super::index::{Found, Index};
use super::mark::MarkFile;
use super::recover::recover;
use super::writer::{Job, Writer};
use crate::error::StartError;
use crate::raft::{Entry, LogId, StorageError, TypeConfig, Vote};

/// Most bytes of entries read for one message to a follower: two full entries.
const MOST_READ: usize = 2 * farlane_model::MAX_ENTRY_BYTES;

/// A handle on the log; clones share it. The writer ends with the last of them.
#[derive(Clone)]
pub(crate) struct LogStore {
    index: Arc<RwLock<Index>>,
    desk: Desk,
    vote: Arc<RwLock<Option<Vote>>>,
}

impl LogStore {
    /// Opens the log in `dir`, or founds it for `server`.
    ///
    /// *Errors*: files that cannot be used, damage, or another server's log.
    pub fn open(dir: &Path, server: u64, followers: Followers) -> Result<Self, StartError> {
        let io = |source: io::Error| StartError::Io {
            path: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join("mark");
        let mark = MarkFile::open(&path, server).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => StartError::InUse { path: path.clone() },
            _ => io(source),
        })?;
        if mark.mark.server != server {
            return Err(StartError::WrongServer {
                path: dir.to_owned(),
                found: mark.mark.server,
                wanted: server,
            });
        }
        let recovered = recover(dir, mark.mark.purged)?;
        let index = Arc::new(RwLock::new(recovered.index));
        let vote = Arc::new(RwLock::new(mark.mark.vote));
        let writer = Writer {
            dir: dir.to_owned(),
            index: index.clone(),
            segments: recovered.segments.into(),
            end: recovered.end,
            chain: recovered.chain,
            mark,
            buffer: Vec::new(),
            sync_us: None,
            failed: None,
        };
        let desk = Desk::start(writer, followers).map_err(io)?;
        Ok(Self { index, desk, vote })
    }

    /// The last index that may be purged so that `segments` newest segments stay.
    pub fn purgeable(&self, segments: u64) -> Option<u64> {
        let index = self.index.read();
        let newest = index.last_segment()?;
        index.last_before_segment((newest + 1).checked_sub(segments)?)
    }

    /// Ends the writer, and lets go of the folder.
    pub async fn close(&self) {
        // It may have ended already.
        let _ = self.desk.ask(|done| Job::Close { done }).await;
    }

    fn read(&self, range: Range<u64>, most: usize) -> Result<Vec<Entry>, StorageError> {
        let found = self.index.read().find(range, most);
        let mut entries = Vec::with_capacity(found.len());
        for item in found {
            match item {
                Found::Memory(entry) => entries.push(entry),
                Found::File(index, place) => {
                    let mut bytes = vec![0; place.length as usize];
                    let failed = |error: AnyError| StorageIOError::read_log_at_index(index, error);
                    place
                        .segment
                        .file
                        .read_exact_at(&mut bytes, place.offset)
                        .map_err(|e| failed(AnyError::new(&e)))?;
                    let entry = frame::read(&mut Bytes::from(bytes), index)
                        .map_err(|e| failed(AnyError::new(&e)))?;
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(bounds(&range), usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start..end, MOST_READ)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = self.index.read();
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let own = *vote;
        self.desk
            .ask(|done| Job::Vote { vote: own, done })
            .await
            .map_err(|e| StorageIOError::write_vote(&e))?;
        *self.vote.write() = Some(own);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(*self.vote.read())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = self.index.write();
            for entry in &entries {
                if let EntryPayload::Normal(batch) = &entry.payload {
                    batch.callers.logged();
                }
                if !index.push(entry.clone()) {
                    let error =
                        AnyError::error(format!("entry {} would leave a hole", entry.log_id));
                    return Err(StorageIOError::write_logs(error).into());
                }
            }
        }
        self.desk
            .append(entries, callback)
            .map_err(|e| StorageIOError::write_logs(&e))?;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.index.write().truncate(log_id.index);
        let from = log_id.index;
        self.desk
            .ask(|done| Job::Truncate { from, done })
            .await
            .map_err(|e| StorageIOError::write_logs(&e))?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.index.write().purge(log_id);
        self.desk
            .ask(|done| Job::Purge { upto: log_id, done })
            .await
            .map_err(|e| StorageIOError::write_logs(&e))?;
        Ok(())
    }
}
