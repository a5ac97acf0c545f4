//! A live task's envelope: written once at submission, deleted when it finishes.

use bytes::Bytes;
use farlane_model::{BlobRef, Digest, Sealed};
use farlane_units::Millis;

use crate::codec::{Reader, Write};

/// Row of `Table::Tasks`: what a node and a granter need to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnvelopeRow {
    /// Digest of its spec; the bytes are in `Table::Specs`.
    pub spec: Digest,
    /// Cluster time of the submission.
    pub submitted: Millis,
    /// The task key under the session's key: 48 bytes.
    pub wrapped_key: Bytes,
    /// The sealed payload.
    pub payload: Sealed,
    /// BLAKE3 of the sealed payload.
    pub payload_digest: Digest,
    /// Argument blobs that the payload names.
    pub refs: Vec<BlobRef>,
}

impl TaskEnvelopeRow {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write(
            out,
            &self.spec,
            self.submitted,
            &self.wrapped_key,
            &self.payload,
            &self.payload_digest,
            &self.refs,
        );
    }

    /// To a row's bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// From a row's bytes; what is sealed stays a slice of them.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return None;
        }
        let row = Self {
            spec: r.digest()?,
            submitted: Millis(r.u64()?),
            wrapped_key: r.bytes()?,
            payload: r.sealed()?,
            payload_digest: r.digest()?,
            refs: {
                let n = r.count(40)?;
                (0..n).map(|_| r.blob()).collect::<Option<_>>()?
            },
        };
        r.is_done().then_some(row)
    }
}

/// Writes a row from its parts, so that a submission's parts need not be cloned.
pub(crate) fn write(
    out: &mut Vec<u8>,
    spec: &Digest,
    submitted: Millis,
    wrapped_key: &[u8],
    payload: &Sealed,
    payload_digest: &Digest,
    refs: &[BlobRef],
) {
    out.u8(1);
    out.raw(&spec.0);
    out.u64(submitted.0);
    out.bytes(wrapped_key);
    out.sealed(payload);
    out.raw(&payload_digest.0);
    out.u32(refs.len() as u32);
    for blob in refs {
        out.blob(blob);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_units::ByteCount;

    #[test]
    fn survives_the_bytes() {
        let blob = BlobRef {
            digest: Digest::of(b"blob"),
            size: ByteCount(5),
        };
        for payload in [
            Sealed::Inline(Bytes::from_static(b"sealed")),
            Sealed::Blob(blob),
        ] {
            let row = TaskEnvelopeRow {
                spec: Digest::of(b"spec"),
                submitted: Millis(1),
                wrapped_key: Bytes::from_static(&[7; 48]),
                payload,
                payload_digest: Digest::of(b"sealed"),
                refs: vec![blob, blob],
            };
            let bytes = row.to_bytes();
            assert_eq!(TaskEnvelopeRow::from_bytes(bytes.clone()).unwrap(), row);
            for cut in 0..bytes.len() {
                assert!(
                    TaskEnvelopeRow::from_bytes(bytes.slice(..cut)).is_none(),
                    "{cut}"
                );
            }
        }
    }
}
