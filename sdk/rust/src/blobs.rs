//! Ciphertext to and from the blob store, in chunks, checked by its hash.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farlane_model::{BlobRef, Digest};
use farlane_units::ByteCount;
use farlane_wire::v1;
use tokio::sync::watch;

use crate::Error;
use crate::call::{Progress, Upload};
use crate::network::Network;
use crate::options::{BLOB_CHUNK_BYTES, MAX_BLOB_BYTES};

/// Waits between two tries of an upload or fetch.
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// Reserved for a fetch before its bytes come: address space, until they do.
const MAX_RESERVED: usize = 128 << 20;

/// Names `sealed` and starts to put it; it is tried again until `network` gives up. What no node would
/// take does not leave: it fails at once.
pub(crate) fn start_upload(
    runtime: &tokio::runtime::Handle,
    network: Network,
    key: farlane_seal::TaskKey,
    sealed: Bytes,
) -> Upload {
    if let Some(error) = too_large(sealed.len(), MAX_BLOB_BYTES) {
        return refused(key, sealed.len(), error);
    }
    let blob = BlobRef {
        digest: Digest::of(&sealed),
        size: ByteCount(sealed.len() as u64),
    };
    let (tell, progress) = watch::channel(Progress::Running);
    let counted = network.uploading(sealed.len() as u64);
    runtime.spawn(async move {
        let _counted = counted;
        let end = match put_patiently(&network, blob, sealed).await {
            Ok(()) => Progress::Done,
            Err(error) => Progress::Failed(error),
        };
        // Nobody waits any more: the call was given up.
        let _ = tell.send(end);
    });
    Upload {
        blob,
        key,
        progress,
    }
}

/// What is said of `size` bytes where at most `limit` are taken.
pub(crate) fn too_large(size: usize, limit: u64) -> Option<Error> {
    let size = size as u64;
    (size > limit).then_some(Error::TooLarge {
        what: "one function, argument or environment",
        size,
        limit,
    })
}

/// An upload that never begins: the digest of what is not sent is nobody's business.
pub(crate) fn refused(key: farlane_seal::TaskKey, size: usize, error: Error) -> Upload {
    let (_, progress) = watch::channel(Progress::Failed(error));
    let blob = BlobRef {
        digest: Digest::default(),
        size: ByteCount(size as u64),
    };
    Upload {
        blob,
        key,
        progress,
    }
}

async fn put_patiently(network: &Network, blob: BlobRef, sealed: Bytes) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + network.options().reconnect_for;
    loop {
        let _permit = network.bulk_permit().await;
        match put(network, blob, &sealed).await {
            Err(Error::Connection { .. }) if tokio::time::Instant::now() < until => {}
            other => return other,
        }
        drop(_permit);
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

async fn put(network: &Network, blob: BlobRef, sealed: &Bytes) -> Result<(), Error> {
    let (sealed, moving) = (sealed.clone(), network.clone());
    let chunks = (0..sealed.len().div_ceil(BLOB_CHUNK_BYTES).max(1)).map(move |i| {
        let from = i * BLOB_CHUNK_BYTES;
        let to = sealed.len().min(from + BLOB_CHUNK_BYTES);
        moving.moves();
        v1::BlobChunk {
            blob: (i == 0).then(|| blob.into()),
            offset: from as u64,
            data: sealed.slice(from..to),
        }
    });
    let request = network.request(tokio_stream::iter(chunks));
    let receipt = network.client().put_blob(request).await;
    let receipt = receipt.map_err(|s| network.refused(s))?.into_inner();
    match receipt.blob.map(BlobRef::try_from) {
        Some(Ok(stored)) if stored == blob => Ok(()),
        _ => Err(Error::Integrity(
            "the server stored another blob than was sent".to_owned(),
        )),
    }
}

/// Fetches a blob and checks it against its name.
///
/// *Errors*: not there, damaged, or no connection.
pub(crate) async fn fetch(network: &Network, blob: BlobRef) -> Result<Bytes, Error> {
    let until = tokio::time::Instant::now() + network.options().reconnect_for;
    loop {
        let permit = network.bulk_permit().await;
        match get(network, blob).await {
            Err(Error::Connection { .. }) if tokio::time::Instant::now() < until => {}
            other => return other,
        }
        drop(permit);
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

async fn get(network: &Network, blob: BlobRef) -> Result<Bytes, Error> {
    let size = usize::try_from(blob.size.get()).unwrap_or(usize::MAX);
    let damaged = || Error::Integrity(format!("blob {} does not match its hash", blob.digest));
    let digest = Bytes::copy_from_slice(blob.digest.as_bytes());
    let request = network.request(v1::GetBlobRequest {
        digest,
        offset: 0,
        attempt: None,
    });
    let reply = network.client().get_blob(request).await;
    let mut stream = reply.map_err(|s| network.refused(s))?.into_inner();
    // Beyond that it grows as it comes: what the control plane merely claims reserves little.
    let mut out = BytesMut::with_capacity(size.min(MAX_RESERVED));
    let mut hash = blake3::Hasher::new();
    while let Some(chunk) = stream.message().await.map_err(|s| network.refused(s))? {
        if out.len() + chunk.data.len() > size || chunk.offset != out.len() as u64 {
            return Err(damaged());
        }
        hash.update(&chunk.data);
        out.extend_from_slice(&chunk.data);
    }
    if *hash.finalize().as_bytes() != blob.digest.0 {
        return Err(damaged());
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_no_node_takes_fails_before_it_leaves() {
        assert!(too_large(10, 10).is_none());
        let error = too_large(11, 10).unwrap();
        assert!(matches!(
            error,
            Error::TooLarge {
                size: 11,
                limit: 10,
                ..
            }
        ));
        let upload = refused(farlane_seal::TaskKey::generate(), 11, error);
        assert!(matches!(upload.failure(), Some(Error::TooLarge { .. })));
    }
}
