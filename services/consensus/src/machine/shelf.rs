//! Where rows stand: the overlay of what is new, what is being flushed, and the file below.
//!
//! ```text
//! get, scan ─▶ fresh ─▶ frozen (being committed) ─▶ tree (as last committed)
//! ```
//! The three change under one lock, so that together they are the rows of one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use farlane_state::{Stamp, State, Table, WriteSet};
use farlane_units::{ByteCount, Millis};
use parking_lot::RwLock;
use redb::Database;

use super::Head;
use super::file::{self, Tree};
use super::overlay::Overlay;
use crate::error::StartError;
use crate::raft::{LogId, Membership};

/// An overlay of this size is flushed at once. Source: docs/design/log-store.md.
pub(crate) const FLUSH_BYTES: usize = 16 * 1024 * 1024;
/// From here on `apply` waits for the disk.
const MOST_BYTES: usize = 4 * FLUSH_BYTES;

struct Layers {
    fresh: Overlay,
    frozen: Option<Arc<Overlay>>,
    /// `None` once closed.
    tree: Option<Arc<Tree>>,
    /// Of the state in memory, ahead of the tree's.
    head: Head,
}

/// The rows.
pub(crate) struct Shelf {
    layers: RwLock<Layers>,
    dir: PathBuf,
    cache: ByteCount,
}

impl Shelf {
    /// Opens the state file in `dir`, or founds it.
    pub fn open(dir: &Path, cache: ByteCount) -> Result<(Self, Database), StartError> {
        let path = Self::path(dir);
        let in_use = |source: redb::Error| match source {
            redb::Error::DatabaseAlreadyOpen => StartError::InUse { path: path.clone() },
            source => StartError::StateFile {
                path: path.clone(),
                source: Box::new(source),
            },
        };
        let database = file::open(&path, cache).map_err(in_use)?;
        let tree = Tree::open(&database).map_err(in_use)?;
        let head = tree.head.clone();
        let layers = Layers {
            fresh: Overlay::default(),
            frozen: None,
            tree: Some(tree),
            head,
        };
        Ok((
            Self {
                layers: RwLock::new(layers),
                dir: dir.to_owned(),
                cache,
            },
            database,
        ))
    }

    /// The state file's place.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("state.redb")
    }

    /// The replica's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bound of the file's cache.
    pub fn cache(&self) -> ByteCount {
        self.cache
    }

    /// The state that the file's rows make.
    pub fn load(&self) -> Result<State, StartError> {
        let path = Self::path(&self.dir);
        match &self.layers.read().tree {
            Some(tree) => load(tree, &path),
            None => Err(StartError::InUse { path }),
        }
    }

    /// Of the state in memory.
    pub fn head(&self) -> Head {
        self.layers.read().head.clone()
    }

    /// Cluster time of the last applied entry.
    pub fn now(&self) -> Millis {
        self.layers.read().head.now
    }

    /// The last index that is in the file.
    pub fn durable(&self) -> Option<u64> {
        let layers = self.layers.read();
        layers.tree.as_ref()?.head.applied.map(|id| id.index)
    }

    /// Takes in what an entry wrote.
    pub fn merge(&self, writes: Vec<WriteSet>, id: LogId, now: Millis) {
        let mut layers = self.layers.write();
        for set in writes {
            layers.fresh.merge(set);
        }
        layers.head.applied = Some(id);
        layers.head.now = now;
    }

    /// An entry without commands was applied.
    pub fn passed(&self, id: LogId, membership: Option<Membership>) {
        let mut layers = self.layers.write();
        layers.head.applied = Some(id);
        if let Some(membership) = membership {
            layers.head.membership = membership;
        }
    }

    /// Whether a flush is due whatever the time.
    pub fn is_full(&self) -> bool {
        self.layers.read().fresh.bytes >= FLUSH_BYTES
    }

    /// Whether `apply` must wait for the disk.
    pub fn is_over_full(&self) -> bool {
        let layers = self.layers.read();
        layers.fresh.bytes + layers.frozen.as_ref().map_or(0, |frozen| frozen.bytes) >= MOST_BYTES
    }

    /// Commits what is new. Called by the flusher alone, which owns the database.
    pub fn flush(&self, database: &Database) -> Result<Arc<Tree>, redb::Error> {
        let (frozen, head) = {
            let mut layers = self.layers.write();
            if let Some(tree) = &layers.tree
                && layers.fresh.is_empty()
                && layers.head == tree.head
            {
                return Ok(tree.clone());
            }
            let frozen = Arc::new(std::mem::take(&mut layers.fresh));
            layers.frozen = Some(frozen.clone());
            (frozen, layers.head.clone())
        };
        file::commit(database, &frozen, &head)?;
        let tree = Tree::open(database)?;
        let old = {
            let mut layers = self.layers.write();
            let tree = layers.tree.replace(tree.clone());
            (layers.frozen.take(), tree)
        };
        drop((old, frozen));
        Ok(tree)
    }

    /// The rows are those of another file from now on.
    pub fn replace(&self, tree: Arc<Tree>) {
        let mut layers = self.layers.write();
        let head = tree.head.clone();
        *layers = Layers {
            fresh: Overlay::default(),
            frozen: None,
            tree: Some(tree),
            head,
        };
    }

    /// Lets go of the file; rows read as absent from now on.
    pub fn close(&self) {
        let mut layers = self.layers.write();
        layers.tree = None;
        layers.fresh = Overlay::default();
    }

    /// One row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, redb::StorageError> {
        let tree = {
            let layers = self.layers.read();
            let known = layers.fresh.get(table, key).or_else(|| {
                layers
                    .frozen
                    .as_ref()
                    .and_then(|frozen| frozen.get(table, key))
            });
            if let Some(known) = known {
                return Ok(known);
            }
            layers.tree.clone()
        };
        tree.map_or(Ok(None), |tree| tree.get(table, key))
    }

    /// Rows with `from <= key < to`, ascending, at most `limit`.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, redb::StorageError> {
        let layers = self.layers.read();
        let Some(tree) = &layers.tree else {
            return Ok(Vec::new());
        };
        let mut tree = tree.range(table, from, to)?.peekable();
        let frozen = layers
            .frozen
            .iter()
            .flat_map(|frozen| frozen.range(table, from, to));
        let (mut frozen, mut fresh) = (
            frozen.peekable(),
            layers.fresh.range(table, from, to).peekable(),
        );
        let mut out = Vec::new();
        while out.len() < limit {
            if let Some(Err(_)) = tree.peek() {
                tree.next().transpose()?;
            }
            let below = tree
                .peek()
                .and_then(|row| row.as_ref().ok())
                .map(|(key, _)| key);
            let lowest = [
                below,
                frozen.peek().map(|(key, _)| *key),
                fresh.peek().map(|(key, _)| *key),
            ];
            let Some(key) = lowest.into_iter().flatten().min().cloned() else {
                break;
            };
            // The newest layer that knows the row has the say; the others are passed over.
            let mut value = tree
                .next_if(|row| row.as_ref().is_ok_and(|(other, _)| *other == key))
                .transpose()?
                .map(|(_, value)| value);
            if let Some((_, newer)) = frozen.next_if(|(other, _)| **other == key) {
                value = newer.clone();
            }
            if let Some((_, newest)) = fresh.next_if(|(other, _)| **other == key) {
                value = newest.clone();
            }
            if let Some(value) = value {
                out.push((key, value));
            }
        }
        Ok(out)
    }
}

/// The state that a file's rows make.
pub(crate) fn load(tree: &Tree, path: &Path) -> Result<State, StartError> {
    let broken = |source: redb::StorageError| StartError::StateFile {
        path: path.to_owned(),
        source: Box::new(source.into()),
    };
    let last = Table::LOADED.last().copied().unwrap_or(Table::Cluster);
    let mut failed = None;
    let rows = tree
        .iter(last)
        .map_err(broken)?
        .map_while(|row| row.map_err(|error| failed = Some(error)).ok());
    let state = State::load(rows);
    if let Some(error) = failed {
        return Err(broken(error));
    }
    let mut state = state.map_err(|source| StartError::Rows {
        path: path.to_owned(),
        source,
    })?;
    if let Some(id) = tree.head.applied {
        state.resume(Stamp {
            index: id.index,
            term: id.leader_id.term,
            now: tree.head.now,
        });
    }
    Ok(state)
}
