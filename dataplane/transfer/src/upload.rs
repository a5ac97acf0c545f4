//! One blob on its way in or out.
//!
//! Owns temp files, hashing while writing, and the order of syncs. Leaves names and bounds to the
//! store.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use farlane_model::{BlobRef, Digest};

use crate::count::Promise;
use crate::file::{Shared, on_disk, sync_dir, touch};
use crate::{BlobError, CHUNK_BYTES, Download, Owner, Stored, Upload};

/// Written to the disk in pieces of at least this size. Source: a quarter of what a page cache
/// flushes at once by default; measured flat from 512 KiB up.
const WRITE_BYTES: usize = 1024 * 1024;

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

/// What is on the disk so far.
pub(crate) struct Written {
    temp: TempFile,
    hasher: blake3::Hasher,
    promise: Promise,
}

impl Written {
    /// An empty temp file.
    ///
    /// *Errors*: the disk.
    pub(crate) fn create(path: PathBuf, promise: Promise) -> std::io::Result<Self> {
        let file = File::create_new(&path)?;
        Ok(Self {
            temp: TempFile {
                file,
                path,
                kept: false,
            },
            hasher: blake3::Hasher::new(),
            promise,
        })
    }
}

pub(crate) struct FileUpload {
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Owner,
    pub(crate) claim: BlobRef,
    taken: u64,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// `None` when the blob was already there, or after a failure.
    written: Option<Written>,
    already_there: bool,
}

impl FileUpload {
    /// Over what was begun; `None` where the blob is there already.
    pub(crate) fn new(
        shared: Arc<Shared>,
        owner: Owner,
        claim: BlobRef,
        written: Option<Written>,
    ) -> Self {
        Self {
            shared,
            owner,
            claim,
            taken: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            already_there: written.is_none(),
            written,
        }
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let Some(mut written) = self.written.take() else {
            return Ok(());
        };
        let written = on_disk(&self.shared, move |_| {
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
            // Its age was counted anew at the beginning, in the same turn that found it.
            return Ok(Stored {
                blob: self.claim,
                already_there: true,
            });
        }
        self.flush().await?;
        let (owner, claim) = (self.owner, self.claim);
        let Some(written) = self.written.take() else {
            return Err(BlobError::Disk(std::io::Error::other(
                "an earlier write failed",
            )));
        };
        on_disk(&self.shared, move |shared| {
            place(shared, owner, claim, written)
        })
        .await
    }
}

/// Checks the hash and moves the temp file to its name, in the order that survives a power cut.
fn place(
    shared: &Shared,
    owner: Owner,
    claim: BlobRef,
    written: Written,
) -> Result<Stored, BlobError> {
    let Written {
        mut temp,
        hasher,
        promise,
    } = written;
    let found = Digest(*hasher.finalize().as_bytes());
    if found != claim.digest {
        return Err(BlobError::WrongDigest {
            claimed: claim.digest,
            found,
        });
    }
    temp.file.sync_all()?;
    let target = shared.path(owner, claim.digest);
    let folder = shared.make_folder(&target)?;
    {
        let _turn = shared.turn()?;
        if touch(&target)?.is_some() {
            return Ok(Stored {
                blob: claim,
                already_there: true,
            });
        }
        fs::rename(&temp.path, &target)?;
        temp.kept = true;
        promise.keep();
    }
    sync_dir(&folder)?;
    Ok(Stored {
        blob: claim,
        already_there: false,
    })
}

pub(crate) struct FileDownload {
    shared: Arc<Shared>,
    blob: BlobRef,
    file: Option<File>,
}

impl FileDownload {
    /// From where the file stands.
    pub(crate) fn new(shared: Arc<Shared>, blob: BlobRef, file: File) -> Self {
        Self {
            shared,
            blob,
            file: Some(file),
        }
    }
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
        let (file, data) = on_disk(&self.shared, move |_| {
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
