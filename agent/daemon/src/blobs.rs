//! Ciphertext from the control plane, and to it.
//!
//! Owns fetching, checking against the digest, and a bounded cache on disk. Leaves opening to
//! `engine`; nothing in the cache can be read without a task's keys.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farlane_model::{AttemptRef, BlobRef, Digest};
use farlane_runtime::{Clock, Pace, SystemClock};
use farlane_units::ByteCount;
use farlane_wire::hello::BLOB_CHUNK;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{ErrorCode, v1};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Channel;

use crate::progress::{Moved, moving};
use crate::way::Way;

/// Blobs under way at once. Source: two fill a link; more only add memory.
const AT_ONCE: usize = 8;
/// Largest blob held in memory. Source: the largest single argument that is promised.
const MOST: u64 = 2 << 30;
/// Tries before an attempt is given up.
const TRIES: u32 = 5;
/// Reserved for a blob before its bytes come: address space, until they do.
const RESERVED: u64 = 128 << 20;
/// Blobs remembered as fetched. Source: what a map of a few hundred tasks shares.
const SEEN: usize = 256;

/// A blob that cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("a blob of {0} is more than a node takes")]
    TooLarge(ByteCount),
    #[error("the blob's bytes are not those that were named")]
    Wrong,
    #[error("the control plane does not give the blob: {0}")]
    Refused(String),
    /// Another node, or another try, would hear the same.
    #[error("{0}")]
    NoRoom(String),
}

/// Fetches and puts blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    channel: watch::Receiver<Option<Channel>>,
    /// Longest that a transfer stands still.
    patience: Duration,
    dir: PathBuf,
    bound: ByteCount,
    turns: Semaphore,
    way: Arc<Way>,
    /// Digests fetched before, oldest first.
    seen: Mutex<VecDeque<Digest>>,
}

impl Blobs {
    pub(crate) fn new(
        channel: watch::Receiver<Option<Channel>>,
        dir: PathBuf,
        bound: ByteCount,
        patience: Duration,
        way: Arc<Way>,
    ) -> Self {
        let _ = std::fs::create_dir_all(&dir);
        Self {
            channel,
            patience,
            dir,
            bound,
            turns: Semaphore::new(AT_ONCE),
            way,
            seen: Mutex::default(),
        }
    }

    /// A blob's ciphertext, checked; `of` is the attempt that it is for.
    ///
    /// *Errors*: refused by the control plane, not what was named, or too large.
    pub(crate) async fn get(&self, blob: BlobRef, of: AttemptRef) -> Result<Bytes, BlobError> {
        if blob.size.0 > MOST {
            return Err(BlobError::TooLarge(blob.size));
        }
        let path = self.dir.join(blob.digest.to_string());
        if let Some(bytes) = from_disk(path.clone(), blob.digest).await {
            return Ok(bytes);
        }
        let _turn = self.turns.acquire().await;
        let mut last = String::new();
        for attempt in 0..TRIES {
            match self.fetch(&blob, of).await {
                Ok(None) => return Err(BlobError::Wrong),
                Ok(Some(bytes)) => {
                    if self.is_wanted_again(blob.digest) {
                        self.keep(path, bytes.clone());
                    }
                    return Ok(bytes);
                }
                Err(status) if status.code() == tonic::Code::NotFound => {
                    return Err(BlobError::Refused(status.message().to_owned()));
                }
                Err(status) => last = status.message().to_owned(),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        Err(BlobError::Refused(last))
    }

    async fn client(&self) -> Result<FleetClient<Channel>, tonic::Status> {
        let mut channel = self.channel.clone();
        let live = channel
            .wait_for(Option::is_some)
            .await
            .map_err(|_| tonic::Status::cancelled("the agent stops"))?
            .clone();
        live.map(FleetClient::new)
            .ok_or_else(|| tonic::Status::unavailable("not connected"))
    }

    /// Whether this blob was fetched before: one that is needed once is not worth a copy on disk.
    fn is_wanted_again(&self, digest: Digest) -> bool {
        let mut seen = self.seen.lock();
        if seen.contains(&digest) {
            return true;
        }
        if seen.len() == SEEN {
            seen.pop_front();
        }
        seen.push_back(digest);
        false
    }

    /// `None` where the bytes are not those that were named.
    async fn fetch(&self, blob: &BlobRef, of: AttemptRef) -> Result<Option<Bytes>, tonic::Status> {
        let mut client = self.client().await?;
        let digest = farlane_wire::id::digest_bytes(&blob.digest);
        let request = v1::GetBlobRequest {
            digest,
            offset: 0,
            attempt: Some(of.into()),
        };
        let moved = Moved::default();
        let mut pace = Pace::new(blob.size);
        let fetching = async {
            let mut chunks = client.get_blob(request).await?.into_inner();
            let mut out = BytesMut::with_capacity(blob.size.0.min(RESERVED) as usize);
            let mut hash = blake3::Hasher::new();
            while let Some(chunk) = chunks.message().await? {
                moved.on();
                if out.len() + chunk.data.len() > blob.size.0 as usize {
                    return Err(tonic::Status::data_loss("longer than was named"));
                }
                pace.came(chunk.data.len(), SystemClock.steady());
                hash.update(&chunk.data);
                out.extend_from_slice(&chunk.data);
            }
            self.way.came(&pace);
            let right = *hash.finalize().as_bytes() == blob.digest.0;
            Ok(right.then(|| out.freeze()))
        };
        moving(self.patience, &moved, fetching).await
    }

    /// Uploads ciphertext.
    ///
    /// *Errors*: there is no room for it, or the control plane does not take it.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<BlobRef, BlobError> {
        let digest = digest(bytes.clone()).await;
        let blob = BlobRef {
            digest,
            size: ByteCount(bytes.len() as u64),
        };
        let _turn = self.turns.acquire().await;
        let mut last = BlobError::Refused(String::new());
        for attempt in 0..TRIES {
            let mut client = match self.client().await {
                Ok(client) => client,
                Err(status) => return Err(BlobError::Refused(status.message().to_owned())),
            };
            let moved = Moved::default();
            let marks = moved.clone();
            let chunks = chunks(blob, &bytes).into_iter();
            let putting = client.put_blob(tokio_stream::iter(chunks.inspect(move |_| marks.on())));
            match moving(self.patience, &moved, putting).await {
                Ok(_) => return Ok(blob),
                Err(status) => last = not_taken(&status),
            }
            if matches!(last, BlobError::NoRoom(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        Err(last)
    }

    /// Keeps ciphertext for later, in the background; old ones go when the bound is passed.
    fn keep(&self, path: PathBuf, bytes: Bytes) {
        let (dir, bound) = (self.dir.clone(), self.bound);
        tokio::task::spawn_blocking(move || {
            if bytes.len() as u64 > bound.0 / 4 {
                return;
            }
            let temporary = path.with_extension("part");
            let kept = std::fs::write(&temporary, &bytes)
                .and_then(|()| std::fs::rename(&temporary, &path));
            if kept.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            shrink(&dir, bound);
        });
    }
}

/// Why an upload was not taken.
fn not_taken(status: &tonic::Status) -> BlobError {
    let words = status.message().to_owned();
    match ErrorCode::of(status) {
        Some(ErrorCode::StorageFull | ErrorCode::QuotaExceeded | ErrorCode::PayloadTooLarge) => {
            BlobError::NoRoom(words)
        }
        _ => BlobError::Refused(words),
    }
}

fn chunks(blob: BlobRef, bytes: &Bytes) -> Vec<v1::BlobChunk> {
    let count = bytes.len().div_ceil(BLOB_CHUNK).max(1);
    (0..count)
        .map(|i| {
            let from = i * BLOB_CHUNK;
            let to = bytes.len().min(from + BLOB_CHUNK);
            v1::BlobChunk {
                blob: (i == 0).then(|| blob.into()),
                offset: from as u64,
                data: bytes.slice(from..to),
            }
        })
        .collect()
}

async fn from_disk(path: PathBuf, wanted: Digest) -> Option<Bytes> {
    if !path.exists() {
        return None;
    }
    let read = tokio::task::spawn_blocking(move || {
        let bytes = std::fs::read(&path).ok()?;
        let fine = Digest::of(&bytes) == wanted;
        if !fine {
            let _ = std::fs::remove_file(&path);
        }
        fine.then(|| Bytes::from(bytes))
    });
    read.await.ok()?
}

/// Bytes above which hashing leaves the agent's thread. Source: BLAKE3 at 2 GB/s: 30 µs.
const HASH_INLINE: usize = 64 * 1024;

async fn digest(bytes: Bytes) -> Digest {
    if bytes.len() <= HASH_INLINE {
        return Digest::of(&bytes);
    }
    let hashed = tokio::task::spawn_blocking(move || Digest::of(&bytes)).await;
    hashed.unwrap_or_default()
}

/// Removes the files longest unused until the folder holds at most `bound`.
fn shrink(dir: &Path, bound: ByteCount) {
    let Ok(entries) = dir.read_dir() else { return };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            let used = meta.accessed().or_else(|_| meta.modified()).ok()?;
            Some((used, meta.len(), entry.path()))
        })
        .collect();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    files.sort();
    for (_, size, path) in files {
        if total <= bound.0 {
            return;
        }
        if std::fs::remove_file(&path).is_ok() {
            total -= size;
        }
    }
}
