//! What is small and must survive beside the log: whose it is, the vote, and how far it was purged.
//!
//! Two slots in one file, written by turns: a torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::raft::{LogId, Vote};

/// Each slot has a disk block to itself.
const SLOT: u64 = 4096;
/// Checksum and length.
const HEAD: usize = 36;

/// The latest of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Counts the writes.
    pub turn: u64,
    /// Whose log it is.
    pub server: u64,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
    pub mark: Mark,
}

impl MarkFile {
    /// Opens the file, or makes it for `server`, and locks it: it is open for as long as anything may
    /// be written beside it.
    ///
    /// *Errors*: `WouldBlock` where another holds the lock.
    pub fn open(path: &Path, server: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()?;
        let newest = (0..2)
            .filter_map(|slot| read(&file, slot * SLOT))
            .max_by_key(|mark| mark.turn);
        let mut own = Self {
            file,
            mark: newest.unwrap_or_default(),
        };
        if own.mark.turn == 0 {
            own.mark.server = server;
            own.write()?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(own)
    }

    /// Writes `mark` into the older slot, and syncs.
    pub fn write(&mut self) -> io::Result<()> {
        self.mark.turn += 1;
        let body = postcard::to_stdvec(&self.mark).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        self.file.write_all_at(&bytes, self.mark.turn % 2 * SLOT)?;
        self.file.sync_data()
    }
}

fn read(file: &File, at: u64) -> Option<Mark> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, at).ok()?;
    let length = u32::from_le_bytes(head[32..].try_into().ok()?) as usize;
    if length > SLOT as usize - HEAD {
        return None;
    }
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, at + HEAD as u64).ok()?;
    (blake3::hash(&body).as_bytes()[..] == head[..32]).then(|| postcard::from_bytes(&body).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut file = MarkFile::open(&path, 7).unwrap();
        for term in 1..=3 {
            file.mark.vote = Some(Vote::new(term, 7));
            file.write().unwrap();
        }
        let newest = file.mark.clone();
        let locked = MarkFile::open(&path, 7).unwrap_err().kind();
        assert_eq!(locked, io::ErrorKind::WouldBlock);
        file.file
            .write_all_at(&[0xff], newest.turn % 2 * SLOT + 40)
            .unwrap();
        drop(file);
        let older = MarkFile::open(&path, 9).unwrap().mark;
        assert_eq!(
            (older.turn, older.vote, older.server),
            (newest.turn - 1, Some(Vote::new(2, 7)), 7)
        );
    }
}
