//! Blobs up and down, for clients and agents alike.

use std::sync::Arc;

use farlane_model::BlobRef;
use farlane_runtime::{Clock, Pace, SystemClock};
use farlane_transfer::{BlobError, BlobStore, Download, Owner, Reach};
use farlane_units::{ByteCount, Micros};
use farlane_wire::hello::BLOB_CHUNK;
use farlane_wire::{ErrorCode, v1};
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::{Replies, invalid};

/// Bytes by which a sealed stream is told from others. Source: farlane-seal, `stream`.
const HEAD: usize = 4;

fn status(error: BlobError) -> Status {
    let code = match &error {
        BlobError::NotFound(_) => ErrorCode::UnknownBlob,
        BlobError::WrongDigest { .. }
        | BlobError::WrongSize { .. }
        | BlobError::BadOffset { .. } => ErrorCode::InvalidArgument,
        BlobError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        BlobError::Quota { .. } => ErrorCode::QuotaExceeded,
        BlobError::Full { .. } | BlobError::NoRoom { .. } => ErrorCode::StorageFull,
        BlobError::Disk(error) => {
            tracing::error!(%error, "the blob store's disk failed");
            return ErrorCode::Unavailable.status("the blob store cannot be used now");
        }
    };
    code.status(error.to_string())
}

/// Stores what comes as its owner's, and answers once it is durable; says how fast it came, where that can be told.
///
/// *Errors*: malformed, not what was claimed, not sealed, too large, a bound, or the disk.
pub(crate) async fn put(
    store: &Arc<dyn BlobStore>,
    owner: Owner,
    mut chunks: Streaming<v1::BlobChunk>,
) -> Result<(v1::BlobReceipt, Option<(ByteCount, Micros)>), Status> {
    let mut next = chunks
        .message()
        .await?
        .ok_or_else(|| invalid("a blob has at least one chunk"))?;
    let claim = next
        .blob
        .take()
        .ok_or_else(|| invalid("the first chunk names the blob"))?;
    let claim = BlobRef::try_from(claim)?;
    let looks = next.data.len() >= HEAD && next.data[..2] == farlane_wire::SEALED_MAGIC;
    if !looks {
        return Err(ErrorCode::UnsealedPayload.status("a blob must be sealed"));
    }
    let mut pace = Pace::new(claim.size);
    let mut upload = store.begin(owner, claim).await.map_err(status)?;
    let mut offset = 0;
    loop {
        if next.data.len() > BLOB_CHUNK || next.offset != offset {
            return Err(invalid("chunks hold at most 256 KiB and follow each other"));
        }
        offset += next.data.len() as u64;
        pace.came(next.data.len(), SystemClock.steady());
        upload.write(next.data).await.map_err(status)?;
        match chunks.message().await? {
            Some(chunk) => next = chunk,
            None => break,
        }
    }
    let stored = upload.finish().await.map_err(status)?;
    let receipt = v1::BlobReceipt {
        blob: Some(stored.blob.into()),
        already_there: stored.already_there,
    };
    Ok((receipt, pace.timed()))
}

/// Streams a blob from an offset.
///
/// *Errors*: not within reach, or an offset past its end.
pub(crate) async fn get(
    store: &Arc<dyn BlobStore>,
    reach: Reach,
    request: v1::GetBlobRequest,
    given: Given,
) -> Result<Replies<v1::BlobChunk>, Status> {
    let digest = farlane_wire::id::digest(&request.digest)?;
    let download = store
        .get(reach, digest, request.offset)
        .await
        .map_err(status)?;
    let blob = download.blob();
    let counted = Counted {
        blob,
        sent: ByteCount::ZERO,
        given,
    };
    let state = (download, Some(blob.into()), request.offset, counted);
    let chunks = futures_util::stream::unfold(Some(state), next_chunk);
    Ok(Box::pin(chunks.fuse()))
}

/// Who is told how much of a blob was sent, once no more of it will be.
pub(crate) type Given = Box<dyn Fn(BlobRef, ByteCount) + Send + Sync>;

/// What was sent of a blob; whoever asked for it may go away at any time.
struct Counted {
    blob: BlobRef,
    sent: ByteCount,
    given: Given,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.given)(self.blob, self.sent);
    }
}

type Reading = (Box<dyn Download>, Option<v1::BlobRef>, u64, Counted);

async fn next_chunk(
    state: Option<Reading>,
) -> Option<(Result<v1::BlobChunk, Status>, Option<Reading>)> {
    let (mut download, blob, offset, mut counted) = state?;
    match download.next().await {
        Ok(Some(data)) => {
            let after = offset + data.len() as u64;
            counted.sent = counted.sent.saturating_add(ByteCount(data.len() as u64));
            Some((
                Ok(v1::BlobChunk { blob, offset, data }),
                Some((download, None, after, counted)),
            ))
        }
        // An empty rest still says which blob it is.
        Ok(None) => blob.map(|blob| {
            (
                Ok(v1::BlobChunk {
                    blob: Some(blob),
                    offset,
                    data: Default::default(),
                }),
                None,
            )
        }),
        Err(error) => Some((Err(status(error)), None)),
    }
}
