//! Blobs as files: `ROOT/ab/cdef…`, temp files under `ROOT/tmp`.
//!
//! Owns the layout and the order of syncs. A crash leaves at most temp files, which the next open
//! removes; a name never points at bytes that were not synced before it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use farlane_model::{BlobRef, Digest};
use farlane_units::ByteCount;

use crate::{BlobError, BlobStore, CHUNK_BYTES, Download, Stored, Upload, Usage};

/// Written to the disk in pieces of at least this size. Source: a quarter of what a page cache
/// flushes at once by default; measured flat from 512 KiB up.
const WRITE_BYTES: usize = 1024 * 1024;

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct FileBlobStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    blob_limit: ByteCount,
    total_limit: ByteCount,
    bytes: AtomicU64,
    blobs: AtomicU64,
    next_temp: AtomicU64,
}

impl FileBlobStore {
    /// Opens (or makes) the folder, removes what uploads cut short have left, and counts what is
    /// there.
    ///
    /// *Errors*: the folder cannot be made or read.
    pub fn open(
        root: impl Into<PathBuf>,
        blob_limit: ByteCount,
        total_limit: ByteCount,
    ) -> Result<Self, BlobError> {
        let root = root.into();
        let temp = root.join("tmp");
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        fs::create_dir_all(&temp)?;
        let (mut blobs, mut bytes) = (0, 0);
        for folder in fs::read_dir(&root)? {
            let folder = folder?;
            if folder.file_name().len() != 2 || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                bytes += file?.metadata()?.len();
                blobs += 1;
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                root,
                blob_limit,
                total_limit,
                bytes: AtomicU64::new(bytes),
                blobs: AtomicU64::new(blobs),
                next_temp: AtomicU64::new(0),
            }),
        })
    }
}

impl Shared {
    fn path(&self, digest: Digest) -> PathBuf {
        let name = hex::encode(digest.as_bytes());
        self.root.join(&name[..2]).join(&name[2..])
    }
    fn size_of(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        match fs::metadata(self.path(digest)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Runs disk work off the reactor's threads.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(BlobError::Disk(std::io::Error::other(e))))
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes its file unless it was renamed away.
#[derive(Debug)]
struct TempFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // A temp file left behind is removed at the next open.
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct Written {
    temp: TempFile,
    hasher: blake3::Hasher,
}

struct FileUpload {
    shared: Arc<Shared>,
    claim: BlobRef,
    taken: u64,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// `None` when the blob was already there, or after a failure.
    written: Option<Written>,
    already_there: bool,
}

impl FileUpload {
    async fn flush(&mut self) -> Result<(), BlobError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let Some(mut written) = self.written.take() else {
            return Ok(());
        };
        let written = on_disk(move || {
            for data in &pending {
                written.hasher.update(data);
                written.temp.file.write_all(data)?;
            }
            Ok(written)
        })
        .await?;
        self.written = Some(written);
        Ok(())
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, data: Bytes) -> Result<(), BlobError> {
        self.taken += data.len() as u64;
        if self.taken > self.claim.size.0 {
            return Err(BlobError::WrongSize {
                claimed: self.claim.size.0,
                found: self.taken,
            });
        }
        if self.already_there {
            return Ok(());
        }
        self.pending_bytes += data.len();
        self.pending.push(data);
        if self.pending_bytes >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, BlobError> {
        if self.taken != self.claim.size.0 {
            return Err(BlobError::WrongSize {
                claimed: self.claim.size.0,
                found: self.taken,
            });
        }
        if self.already_there {
            return Ok(Stored {
                blob: self.claim,
                already_there: true,
            });
        }
        self.flush().await?;
        let (shared, claim) = (self.shared.clone(), self.claim);
        let Some(written) = self.written.take() else {
            return Err(BlobError::Disk(std::io::Error::other(
                "an earlier write failed",
            )));
        };
        on_disk(move || place(&shared, claim, written)).await
    }
}

/// Checks the hash and moves the temp file to its name, in the order that survives a power cut.
fn place(shared: &Shared, claim: BlobRef, written: Written) -> Result<Stored, BlobError> {
    let Written { mut temp, hasher } = written;
    let found = Digest(*hasher.finalize().as_bytes());
    if found != claim.digest {
        return Err(BlobError::WrongDigest {
            claimed: claim.digest,
            found,
        });
    }
    temp.file.sync_all()?;
    let target = shared.path(claim.digest);
    if target.exists() {
        return Ok(Stored {
            blob: claim,
            already_there: true,
        });
    }
    let folder = target.parent().unwrap_or(&shared.root);
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        sync_dir(&shared.root)?;
    }
    fs::rename(&temp.path, &target)?;
    temp.kept = true;
    sync_dir(folder)?;
    shared.bytes.fetch_add(claim.size.0, Ordering::Relaxed);
    shared.blobs.fetch_add(1, Ordering::Relaxed);
    Ok(Stored {
        blob: claim,
        already_there: false,
    })
}

struct FileDownload {
    blob: BlobRef,
    file: Option<File>,
}

#[async_trait]
impl Download for FileDownload {
    fn blob(&self) -> BlobRef {
        self.blob
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        let Some(mut file) = self.file.take() else {
            return Ok(None);
        };
        let (file, data) = on_disk(move || {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut data)?;
            Ok((file, data))
        })
        .await?;
        if data.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(data.into()))
    }
}

#[async_trait]
impl BlobStore for FileBlobStore {
    async fn begin(&self, claim: BlobRef) -> Result<Box<dyn Upload>, BlobError> {
        let shared = self.shared.clone();
        if claim.size > shared.blob_limit {
            return Err(BlobError::TooLarge {
                size: claim.size,
                limit: shared.blob_limit,
            });
        }
        let written = on_disk({
            let shared = shared.clone();
            move || {
                if shared.size_of(claim.digest)?.is_some() {
                    // Its age counts from the last time that somebody wanted it here.
                    let kept = File::options()
                        .append(true)
                        .open(shared.path(claim.digest))?;
                    kept.set_modified(SystemTime::now())?;
                    return Ok(None);
                }
                let used = ByteCount(shared.bytes.load(Ordering::Relaxed));
                if used.saturating_add(claim.size) > shared.total_limit {
                    return Err(BlobError::Full {
                        used,
                        limit: shared.total_limit,
                    });
                }
                let number = shared.next_temp.fetch_add(1, Ordering::Relaxed);
                let path = shared.root.join("tmp").join(number.to_string());
                let file = File::create_new(&path)?;
                let temp = TempFile {
                    file,
                    path,
                    kept: false,
                };
                Ok(Some(Written {
                    temp,
                    hasher: blake3::Hasher::new(),
                }))
            }
        })
        .await?;
        let already_there = written.is_none();
        Ok(Box::new(FileUpload {
            shared,
            claim,
            taken: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            written,
            already_there,
        }))
    }

    async fn get(&self, digest: Digest, offset: u64) -> Result<Box<dyn Download>, BlobError> {
        let shared = self.shared.clone();
        on_disk(move || {
            let mut file = match File::open(shared.path(digest)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Err(BlobError::NotFound(digest));
                }
                other => other?,
            };
            let size = file.metadata()?.len();
            if offset > size {
                return Err(BlobError::BadOffset { offset, size });
            }
            file.seek(SeekFrom::Start(offset))?;
            let blob = BlobRef {
                digest,
                size: ByteCount(size),
            };
            Ok(Box::new(FileDownload {
                blob,
                file: Some(file),
            }) as Box<dyn Download>)
        })
        .await
    }

    async fn has(&self, digest: Digest) -> Result<Option<ByteCount>, BlobError> {
        let shared = self.shared.clone();
        on_disk(move || Ok(shared.size_of(digest)?.map(ByteCount))).await
    }

    async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        let shared = self.shared.clone();
        on_disk(move || {
            let Some(size) = shared.size_of(digest)? else {
                return Ok(());
            };
            match fs::remove_file(shared.path(digest)) {
                Ok(()) => {
                    shared.bytes.fetch_sub(size, Ordering::Relaxed);
                    shared.blobs.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(e.into()),
            }
        })
        .await
    }

    async fn idle(&self, age: Duration, limit: usize) -> Result<Vec<Digest>, BlobError> {
        let shared = self.shared.clone();
        on_disk(move || {
            let until = SystemTime::now()
                .checked_sub(age)
                .unwrap_or(SystemTime::UNIX_EPOCH);
            let mut idle = Vec::new();
            for folder in fs::read_dir(&shared.root)? {
                let folder = folder?;
                let Some(head) = folder
                    .file_name()
                    .to_str()
                    .filter(|n| n.len() == 2)
                    .map(str::to_owned)
                else {
                    continue;
                };
                for file in fs::read_dir(folder.path())? {
                    let file = file?;
                    let name = file
                        .file_name()
                        .to_str()
                        .map(|rest| format!("{head}{rest}"));
                    let digest = name.and_then(|name| name.parse::<Digest>().ok());
                    if let Some(digest) = digest
                        && file.metadata()?.modified()? <= until
                    {
                        idle.push(digest);
                        if idle.len() >= limit {
                            return Ok(idle);
                        }
                    }
                }
            }
            Ok(idle)
        })
        .await
    }

    fn usage(&self) -> Usage {
        Usage {
            blobs: self.shared.blobs.load(Ordering::Relaxed),
            bytes: ByteCount(self.shared.bytes.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
