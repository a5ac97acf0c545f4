//! What granters remember across their own death: an append-only file of grants.
//!
//! Two generations of at most [`MAX_ENTRIES`] are kept; the older is dropped when the newer is full.
//! Attempts are numbered upwards, so what is forgotten then could only be asked for again by a
//! control plane that lies about an attempt half a million grants old.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use farlane_seal::grant::{GrantEntry, GrantLog, MAX_LOGGED_TASKS};

/// Grants of one generation: 32 MB on disk, and two of them fill half of what a log may remember, so
/// that a log is never full before the older is dropped.
const MAX_ENTRIES: u64 = MAX_LOGGED_TASKS as u64 / 4;

/// The open newer generation.
pub(super) struct GrantFile {
    folder: PathBuf,
    file: File,
    entries: u64,
}

impl GrantFile {
    /// Opens or makes the file, and takes both generations up into `log`. A torn last entry was
    /// never sent, and is cut off.
    ///
    /// *Errors*: the system's.
    pub fn open(folder: &Path, log: &mut GrantLog) -> std::io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        if let Ok(mut older) = File::open(older_path(folder)) {
            read_into(&mut older, log)?;
        }
        let mut file = newer(folder)?;
        let entries = read_into(&mut file, log)?;
        file.set_len(entries * GrantEntry::BYTES as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            folder: folder.to_owned(),
            file,
            entries,
        })
    }

    /// Takes up what other processes have appended since; the caller holds their lock.
    ///
    /// *Errors*: the system's.
    pub fn catch_up(&mut self, log: &mut GrantLog) -> std::io::Result<()> {
        let named = std::fs::metadata(newer_path(&self.folder)).map(|m| (m.dev(), m.ino()));
        let held = self.file.metadata()?;
        if named.ok() != Some((held.dev(), held.ino())) {
            // Somebody began a new generation.
            let mut fresh = GrantLog::new();
            *self = Self::open(&self.folder, &mut fresh)?;
            *log = fresh;
            return Ok(());
        }
        let known = self.entries * GrantEntry::BYTES as u64;
        if held.len() != known {
            self.file.seek(SeekFrom::Start(known))?;
            self.entries += read_on(&mut self.file, log)?;
            let whole = self.entries * GrantEntry::BYTES as u64;
            self.file.set_len(whole)?;
            self.file.seek(SeekFrom::Start(whole))?;
        }
        Ok(())
    }

    /// Writes and syncs entries; nothing is granted before this returns.
    ///
    /// *Errors*: the system's.
    pub fn append(&mut self, entries: &[GrantEntry], log: &mut GrantLog) -> std::io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.entries >= MAX_ENTRIES {
            self.rotate(entries, log)?;
        }
        let mut bytes = Vec::with_capacity(entries.len() * GrantEntry::BYTES);
        entries
            .iter()
            .for_each(|entry| bytes.extend_from_slice(&entry.to_bytes()));
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.entries += entries.len() as u64;
        Ok(())
    }

    /// Drops the older generation, in the file and in `log`; `kept` are about to be written.
    fn rotate(&mut self, kept: &[GrantEntry], log: &mut GrantLog) -> std::io::Result<()> {
        std::fs::rename(newer_path(&self.folder), older_path(&self.folder))?;
        let mut fresh = GrantLog::new();
        read_into(&mut File::open(older_path(&self.folder))?, &mut fresh)?;
        kept.iter().for_each(|entry| fresh.restore(*entry));
        *log = fresh;
        self.file = newer(&self.folder)?;
        self.entries = 0;
        File::open(&self.folder)?.sync_all()
    }
}

fn newer_path(folder: &Path) -> PathBuf {
    folder.join("grants.log")
}

fn older_path(folder: &Path) -> PathBuf {
    folder.join("grants.1.log")
}

fn newer(folder: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.open(newer_path(folder))
}

/// Whole entries of a file, up to the first torn one.
fn read_into(file: &mut File, log: &mut GrantLog) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    read_on(file, log)
}

/// The same from where the file stands.
fn read_on(file: &mut File, log: &mut GrantLog) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    let most = (MAX_ENTRIES + 1024) * GrantEntry::BYTES as u64;
    file.take(most).read_to_end(&mut bytes)?;
    let mut entries = 0;
    for row in bytes.chunks_exact(GrantEntry::BYTES) {
        let row: &[u8; GrantEntry::BYTES] = row.try_into().map_err(std::io::Error::other)?;
        let Some(entry) = GrantEntry::from_bytes(row) else {
            break;
        };
        log.restore(entry);
        entries += 1;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{AttemptRef, NodeId, SessionId};
    use farlane_seal::grant::{Admission, GrantError};

    fn entry(seq: u64, node: u8) -> GrantEntry {
        let task = SessionId::new(1, [1; 5]).task(seq);
        let attempt = AttemptRef {
            task,
            attempt: 1,
            epoch: 1,
        };
        GrantEntry {
            attempt,
            node: NodeId([node; 32]),
        }
    }

    #[test]
    fn grants_outlive_the_process_and_a_torn_tail_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = GrantLog::new();
        let mut file = GrantFile::open(folder.path(), &mut log).unwrap();
        file.append(&[entry(1, 7), entry(2, 7)], &mut log).unwrap();
        drop(file);
        let path = newer_path(folder.path());
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(&entry(3, 7).to_bytes()[..40]);
        std::fs::write(&path, torn).unwrap();

        let mut log = GrantLog::new();
        let mut file = GrantFile::open(folder.path(), &mut log).unwrap();
        assert_eq!(log.len(), 2);
        let first = entry(1, 7).attempt;
        assert!(matches!(
            log.admit(first, NodeId([7; 32]), 4),
            Ok(Admission::Again)
        ));
        let elsewhere = log.admit(first, NodeId([8; 32]), 4);
        assert!(matches!(elsewhere, Err(GrantError::GrantedElsewhere)));
        file.append(&[entry(4, 8)], &mut log).unwrap();
        let mut log = GrantLog::new();
        GrantFile::open(folder.path(), &mut log).unwrap();
        assert_eq!(log.len(), 3, "an entry after the cut is read");
    }
}
