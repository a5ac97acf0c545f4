//! Sealed results that nobody has acknowledged, on disk.
//!
//! An append-only file of records, not synced: it survives the process, not the power. Emptied whenever
//! nothing is outstanding, and written anew without what was acknowledged when it has grown: under steady
//! load something always is outstanding.
//!
//! ```text
//! record = length(4) checksum(4) batch number(8) body; an empty body acknowledges
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

const HEAD: usize = 16;
/// Most bytes of one record. Source: a batch of 512 results of 16 KiB, and its envelope.
const MOST: usize = 16 << 20;
/// A file above this is emptied as soon as nothing is outstanding.
const WORTH_EMPTYING: u64 = 1 << 20;
/// A file above this, and above twice what was outstanding the last time, is written anew. Source: a
/// second of writing on a slow disk.
const WORTH_WRITING_ANEW: u64 = 32 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// Its size when it was last written anew.
    anew: u64,
}

impl Journal {
    /// Opens it and reads what is outstanding. Without a file that can be written nothing is kept, and
    /// the log says so.
    pub(super) fn open(path: &Path) -> (Self, BTreeMap<u64, Bytes>) {
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the journal cannot be opened; results \
                     that are not acknowledged will not survive this process");
                return (
                    Self {
                        path: path.to_owned(),
                        file: None,
                        size: 0,
                        anew: 0,
                    },
                    BTreeMap::new(),
                );
            }
        };
        let (outstanding, end) = read(&mut file);
        let mut journal = Self {
            path: path.to_owned(),
            file: Some(file),
            size: end,
            anew: 0,
        };
        journal.cut(end);
        (journal, outstanding)
    }

    /// Keeps a batch.
    pub(super) fn keep(&mut self, number: u64, body: &[u8]) {
        let record = record(number, body);
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(&record) {
            tracing::warn!(%error, "the journal cannot be written");
            let end = self.size;
            return self.cut(end);
        }
        self.size += record.len() as u64;
    }

    /// A batch was acknowledged; `none_left` when it was the last.
    pub(super) fn acknowledged(&mut self, number: u64, none_left: bool) {
        if none_left && self.size > WORTH_EMPTYING {
            self.cut(0);
        } else {
            self.keep(number, &[]);
        }
    }

    /// Whether so much of it was acknowledged that it should be written anew.
    pub(super) fn is_long(&self) -> bool {
        self.size > WORTH_WRITING_ANEW && self.size / 2 > self.anew
    }

    /// Writes it anew with what is outstanding; should that fail, the old one stays.
    pub(super) fn write_anew(&mut self, outstanding: impl Iterator<Item = (u64, Vec<u8>)>) {
        let temporary = self.path.with_extension("new");
        let written = || -> std::io::Result<(File, u64)> {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            let mut size = 0;
            for (number, body) in outstanding {
                let record = record(number, &body);
                file.write_all(&record)?;
                size += record.len() as u64;
            }
            std::fs::rename(&temporary, &self.path)?;
            Ok((file, size))
        };
        match written() {
            Ok((file, size)) => {
                (self.size, self.anew) = (size, size);
                self.file = Some(file);
            }
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be written anew");
                // Tried again when it has doubled.
                self.anew = self.size;
                let _ = std::fs::remove_file(&temporary);
            }
        }
    }

    fn cut(&mut self, end: u64) {
        if let Some(file) = &mut self.file {
            let _ = file.set_len(end);
            let _ = file.seek(SeekFrom::Start(end));
            self.size = end;
        }
    }
}

fn record(number: u64, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + body.len());
    record.extend_from_slice(&(body.len() as u32).to_le_bytes());
    record.extend_from_slice(&checksum(number, body).to_le_bytes());
    record.extend_from_slice(&number.to_le_bytes());
    record.extend_from_slice(body);
    record
}

fn checksum(number: u64, body: &[u8]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(body);
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// What is outstanding, and where the last whole record ends.
fn read(file: &mut File) -> (BTreeMap<u64, Bytes>, u64) {
    let mut outstanding = BTreeMap::new();
    let mut end = 0;
    let mut reader = std::io::BufReader::new(file);
    let mut head = [0u8; HEAD];
    while reader.read_exact(&mut head).is_ok() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let mut number = [0; 8];
        number.copy_from_slice(&head[8..]);
        let number = u64::from_le_bytes(number);
        let mut body = vec![0; length.min(MOST)];
        if length > MOST || reader.read_exact(&mut body).is_err() || checksum(number, &body) != sum
        {
            break;
        }
        end += (HEAD + length) as u64;
        if body.is_empty() {
            outstanding.remove(&number);
        } else {
            outstanding.insert(number, body.into());
        }
    }
    (outstanding, end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_acknowledged_survives_and_a_torn_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, none) = Journal::open(&path);
        assert!(none.is_empty());
        for number in 1..=3 {
            journal.keep(number, &[number as u8; 10]);
        }
        journal.acknowledged(2, false);
        drop(journal);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[9; 21])
            .unwrap();
        let (mut journal, left) = Journal::open(&path);
        assert_eq!(left.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(&left[&3][..], &[3; 10]);
        journal.keep(4, b"after the cut");
        drop(journal);
        let (_, left) = Journal::open(&path);
        assert_eq!(left.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn a_large_journal_is_emptied_when_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path);
        journal.keep(1, &vec![1; 2 << 20]);
        journal.acknowledged(1, true);
        assert_eq!(path.metadata().unwrap().len(), 0);
        journal.keep(2, b"x");
        drop(journal);
        assert_eq!(Journal::open(&path).1.len(), 1);
    }

    #[test]
    fn a_long_journal_is_written_anew_with_what_is_outstanding() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path);
        let body = vec![7; 1 << 20];
        let mut number = 0;
        while !journal.is_long() {
            number += 1;
            journal.keep(number, &body);
            journal.acknowledged(number, false);
        }
        let left = [(number + 1, vec![1; 10]), (number + 2, vec![2; 10])];
        left.iter().for_each(|(n, body)| journal.keep(*n, body));
        journal.write_anew(left.iter().cloned());
        assert!(!journal.is_long() && path.metadata().unwrap().len() < 100);
        journal.keep(number + 3, b"after");
        journal.acknowledged(number + 1, false);
        drop(journal);
        let (_, found) = Journal::open(&path);
        assert_eq!(
            found.into_keys().collect::<Vec<_>>(),
            [number + 2, number + 3]
        );
    }
}
