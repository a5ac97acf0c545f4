//! Snapshots: a read transaction on the way out, a second state file on the way in.
//!
//! ```text
//! leader    tree ─▶ chunks of rows ─▶ trailer (count, BLAKE3)
//! follower  chunks ─▶ incoming.redb ─▶ checked ─▶ renamed over state.redb ─▶ state loaded
//! ```
//! The rename is the moment of installation: a crash before it leaves the old file, one after it
//! the new, and openraft purges the log only behind it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use farlane_state::Table;
use farlane_units::{ByteCount, Millis};
use redb::Database;

use super::file::{self, RowRead, Tree};
use super::overlay::Overlay;
use super::shelf::{self, Shelf};
use super::{Head, Notice, Replica};
use crate::error::StartError;
use crate::raft::SnapshotMeta;

/// Rows gather to about this much before they are sent: well below gRPC's bound of a message.
const CHUNK: usize = 256 * 1024;
/// Each row's table and two lengths.
const ROW_HEAD: usize = 9;
/// The incoming file is written once and in order; it needs little cache.
const INCOMING_CACHE: ByteCount = ByteCount::mib(8);

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the snapshot's file")]
    Io(#[from] io::Error),
    #[error("the snapshot's rows")]
    File(#[from] redb::Error),
    #[error("the snapshot does not load")]
    Load(#[from] StartError),
    #[error("the snapshot is cut off or damaged")]
    Malformed,
    #[error("a snapshot that was never received")]
    NotReceived,
}

impl From<redb::StorageError> for SnapshotError {
    fn from(error: redb::StorageError) -> Self {
        Self::File(error.into())
    }
}

/// openraft's handle on a snapshot.
pub(crate) enum SnapshotData {
    /// Of this replica.
    Outgoing(Arc<Tree>),
    /// From the leader.
    Incoming(Incoming),
}

/// Count and hash of what was streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Trailer {
    pub rows: u64,
    pub hash: [u8; 32],
}

/// The rows of a snapshot as chunks; then the trailer.
pub(crate) struct Chunks<I> {
    rows: I,
    hasher: blake3::Hasher,
    count: u64,
}

/// Reads every row of the tree.
pub(crate) fn chunks(
    tree: &Tree,
) -> Result<Chunks<impl Iterator<Item = RowRead> + use<>>, SnapshotError> {
    let last = Table::ALL.last().copied().unwrap_or(Table::Cluster);
    Ok(Chunks {
        rows: tree.iter(last)?,
        hasher: blake3::Hasher::new(),
        count: 0,
    })
}

impl<I: Iterator<Item = RowRead>> Chunks<I> {
    /// The next chunk; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 4);
        while out.len() < CHUNK {
            let Some(row) = self.rows.next() else { break };
            let (table, key, value) = row?;
            out.put_u8(table as u8);
            out.put_u32_le(key.len() as u32);
            out.put_u32_le(value.len() as u32);
            out.put_slice(&key);
            out.put_slice(&value);
            self.count += 1;
        }
        self.hasher.update(&out);
        Ok((!out.is_empty()).then(|| out.freeze()))
    }

    /// To send after the last chunk.
    pub fn trailer(&self) -> Trailer {
        Trailer {
            rows: self.count,
            hash: *self.hasher.finalize().as_bytes(),
        }
    }
}

/// A second state file that fills; removed if it is never installed.
pub(crate) struct Incoming {
    path: PathBuf,
    database: Option<Database>,
    hasher: Box<blake3::Hasher>,
    count: u64,
    /// Cluster time of the snapshot, once it is whole.
    whole: Option<Millis>,
}

impl Incoming {
    /// An empty file in the replica's folder, in place of one that was not finished.
    pub fn create(dir: &Path) -> Result<Self, SnapshotError> {
        let path = dir.join("incoming.redb");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = Some(file::open(&path, INCOMING_CACHE)?);
        Ok(Self {
            path,
            database,
            hasher: Box::default(),
            count: 0,
            whole: None,
        })
    }

    /// Takes in a chunk. Blocks on the disk.
    pub fn take(&mut self, chunk: Bytes) -> Result<(), SnapshotError> {
        self.hasher.update(&chunk);
        let mut rows = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            if rest.len() < ROW_HEAD {
                return Err(SnapshotError::Malformed);
            }
            let table = Table::from_u8(rest.get_u8()).ok_or(SnapshotError::Malformed)?;
            let (key, value) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
            if key
                .checked_add(value)
                .is_none_or(|length| length > rest.len())
            {
                return Err(SnapshotError::Malformed);
            }
            rows.push((table, rest.split_to(key), rest.split_to(value)));
        }
        self.count += rows.len() as u64;
        let database = self.database.as_ref().ok_or(SnapshotError::NotReceived)?;
        file::fill(database, rows.into_iter())?;
        Ok(())
    }

    /// Holds what came against what was sent.
    pub fn finish(&mut self, trailer: Trailer, now: Millis) -> Result<(), SnapshotError> {
        let own = Trailer {
            rows: self.count,
            hash: *self.hasher.finalize().as_bytes(),
        };
        if own != trailer {
            return Err(SnapshotError::Malformed);
        }
        self.whole = Some(now);
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.database.take().is_some() {
            // It was not installed; if it stays, the next snapshot removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts the snapshot in place of everything. Blocks on the disk.
pub(crate) fn install(
    replica: &Replica,
    meta: &SnapshotMeta,
    data: SnapshotData,
) -> Result<(), SnapshotError> {
    let mut incoming = match data {
        SnapshotData::Incoming(incoming) => incoming,
        SnapshotData::Outgoing(tree) => copy(&tree, replica.shelf.dir())?,
    };
    let now = incoming.whole.ok_or(SnapshotError::NotReceived)?;
    let head = Head {
        applied: meta.last_log_id,
        membership: meta.last_membership.clone(),
        now,
    };
    let mut held = replica.flusher.hold();
    let database = incoming
        .database
        .as_ref()
        .ok_or(SnapshotError::NotReceived)?;
    file::commit(database, &Overlay::default(), &head)?;
    let state = {
        let tree = Tree::open(database)?;
        shelf::load(&tree, &incoming.path)?
    };
    let target = Shelf::path(replica.shelf.dir());
    // Closed and opened again for its cache's sake; nobody else can have it in between.
    drop(incoming.database.take());
    fs::rename(&incoming.path, &target)?;
    File::open(replica.shelf.dir())?.sync_all()?;
    let database = file::open(&target, replica.shelf.cache())?;
    let tree = Tree::open(&database)?;
    {
        let mut own = replica.state.write();
        *own = state;
        replica.shelf.replace(tree);
    }
    *held = Some(database);
    drop(held);
    let index = meta.last_log_id.map_or(0, |id| id.index);
    replica.applied.send_replace(index);
    replica.give_up_proposals();
    // Nobody listening is no fault.
    let _ = replica.notices.send(Arc::new(Notice {
        index,
        changes: Vec::new(),
        reset: true,
    }));
    Ok(())
}

/// A snapshot of this very process, as tests install them.
fn copy(tree: &Tree, dir: &Path) -> Result<Incoming, SnapshotError> {
    let mut incoming = Incoming::create(dir)?;
    let mut chunks = chunks(tree)?;
    while let Some(chunk) = chunks.next()? {
        incoming.take(chunk)?;
    }
    incoming.finish(chunks.trailer(), tree.head.now)?;
    Ok(incoming)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunk(rows: &[(u8, &[u8], &[u8])]) -> Bytes {
        let mut out = BytesMut::new();
        for (table, key, value) in rows {
            out.put_u8(*table);
            out.put_u32_le(key.len() as u32);
            out.put_u32_le(value.len() as u32);
            out.put_slice(key);
            out.put_slice(value);
        }
        out.freeze()
    }

    #[test]
    fn a_chunk_that_lies_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = chunk(&[(1, b"key", b"value"), (2, b"", b"")]);
        for length in 1..good.len() {
            let mut incoming = Incoming::create(dir.path()).unwrap();
            let cut_between_rows = length == good.len() - ROW_HEAD;
            assert_eq!(
                incoming.take(good.slice(..length)).is_ok(),
                cut_between_rows,
                "cut at {length}"
            );
        }
        let mut incoming = Incoming::create(dir.path()).unwrap();
        assert!(
            incoming.take(chunk(&[(200, b"key", b"value")])).is_err(),
            "no such table"
        );
    }

    #[test]
    fn a_snapshot_counts_only_whole_and_is_removed_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let sent = chunk(&[(1, b"key", b"value")]);
        let trailer = Trailer {
            rows: 1,
            hash: *blake3::hash(&sent).as_bytes(),
        };
        let mut incoming = Incoming::create(dir.path()).unwrap();
        assert!(
            incoming.finish(trailer, Millis(1)).is_err(),
            "nothing has come yet"
        );
        incoming.take(sent.clone()).unwrap();
        let more = Trailer { rows: 2, ..trailer };
        assert!(incoming.finish(more, Millis(1)).is_err() && incoming.whole.is_none());
        incoming.finish(trailer, Millis(1)).unwrap();
        assert_eq!(incoming.whole, Some(Millis(1)));
        assert!(dir.path().join("incoming.redb").exists());
        drop(incoming);
        assert!(!dir.path().join("incoming.redb").exists());
    }
}
