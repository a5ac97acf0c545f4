//! What a payload holds: the keys of a task's blobs, and its arguments.
//!
//! ```text
//! version(1) | spec digest(32) | rank(2) | code key(32) | 0, or 1 and environment key(32) | n(2) |
//! n × (digest(32) size(8) key(32)) | arguments
//! ```
//! Integers are big-endian. Clients compress the encoding, pad it and seal it; what the arguments'
//! bytes mean is between the client and the worker (docs/design/payload.md).

use bytes::{Buf, BufMut, Bytes};
use farlane_model::{BlobRef, Digest};
use farlane_units::ByteCount;

use crate::key::{BlobKey, KEY_BYTES};

/// Most blobs that one payload names. Source: a call has at most 255 positional arguments spelled
/// out; four out-of-band buffers each.
pub const MAX_BLOBS: usize = 1024;

const VERSION: u8 = 1;
const BLOB: usize = 32 + 8 + KEY_BYTES;

/// The plaintext of a task's payload stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// BLAKE3 of the canonical `TaskSpec` that the client asked for. A standing granter learns the
    /// spec from the control plane; the node refuses a granted spec that is another.
    pub spec: Digest,
    /// Its place in its gang, from 0; 0 for a task on its own.
    pub rank: u16,
    /// Opens the function's blob.
    pub code_key: BlobKey,
    /// Opens the environment's lock; absent for the bare interpreter.
    pub env_key: Option<BlobKey>,
    /// Framed arguments.
    pub arguments: Bytes,
    /// Large arguments and their keys, in the order that `arguments` refers to them.
    pub blobs: Vec<(BlobRef, BlobKey)>,
}

/// Bytes that are no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload cannot be read; was it made by a newer client?")]
pub struct BadPayload;

impl Payload {
    /// Its bytes. Blobs beyond [`MAX_BLOBS`] are a bug of the caller, which decoding refuses.
    pub fn encode(&self) -> Vec<u8> {
        let fixed = 1 + 32 + 2 + KEY_BYTES + 1 + KEY_BYTES + 2;
        let mut out = Vec::with_capacity(fixed + self.blobs.len() * BLOB + self.arguments.len());
        out.put_u8(VERSION);
        out.put_slice(self.spec.as_bytes());
        out.put_u16(self.rank);
        out.put_slice(self.code_key.expose());
        match &self.env_key {
            None => out.put_u8(0),
            Some(key) => {
                out.put_u8(1);
                out.put_slice(key.expose());
            }
        }
        out.put_u16(u16::try_from(self.blobs.len()).unwrap_or(u16::MAX));
        for (blob, key) in &self.blobs {
            out.put_slice(blob.digest.as_bytes());
            out.put_u64(blob.size.0);
            out.put_slice(key.expose());
        }
        out.put_slice(&self.arguments);
        out
    }

    /// From its bytes; `arguments` shares them.
    ///
    /// *Errors*: another version, cut short, or too many blobs.
    pub fn decode(mut from: Bytes) -> Result<Self, BadPayload> {
        if from.try_get_u8().map_err(|_| BadPayload)? != VERSION {
            return Err(BadPayload);
        }
        let mut spec = Digest::default();
        from.try_copy_to_slice(&mut spec.0)
            .map_err(|_| BadPayload)?;
        let rank = from.try_get_u16().map_err(|_| BadPayload)?;
        let code_key = take_key(&mut from)?;
        let env_key = match from.try_get_u8().map_err(|_| BadPayload)? {
            0 => None,
            1 => Some(take_key(&mut from)?),
            _ => return Err(BadPayload),
        };
        let count = usize::from(from.try_get_u16().map_err(|_| BadPayload)?);
        if count > MAX_BLOBS || from.len() < count * BLOB {
            return Err(BadPayload);
        }
        let mut blobs = Vec::with_capacity(count);
        for _ in 0..count {
            let mut digest = [0; 32];
            from.copy_to_slice(&mut digest);
            let size = ByteCount(from.get_u64());
            blobs.push((
                BlobRef {
                    digest: Digest(digest),
                    size,
                },
                take_key(&mut from)?,
            ));
        }
        Ok(Self {
            spec,
            rank,
            code_key,
            env_key,
            arguments: from,
            blobs,
        })
    }
}

fn take_key(from: &mut Bytes) -> Result<BlobKey, BadPayload> {
    let mut key = [0; KEY_BYTES];
    from.try_copy_to_slice(&mut key).map_err(|_| BadPayload)?;
    Ok(BlobKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn payloads_come_back_and_cuts_are_refused() {
        let blob = BlobRef {
            digest: Digest::of(b"x"),
            size: ByteCount(9),
        };
        for env_key in [None, Some(BlobKey::generate())] {
            let payload = Payload {
                spec: Digest::of(b"spec"),
                rank: 3,
                code_key: BlobKey::generate(),
                env_key,
                arguments: Bytes::from_static(b"arguments"),
                blobs: vec![(blob, BlobKey::generate()); 3],
            };
            let bytes = payload.encode();
            assert_eq!(Payload::decode(bytes.clone().into()).unwrap(), payload);
            for cut in 0..bytes.len() - 9 {
                assert!(
                    Payload::decode(Bytes::copy_from_slice(&bytes[..cut])).is_err(),
                    "{cut}"
                );
            }
        }
        assert!(Payload::decode(Bytes::from_static(&[2; 100])).is_err());
    }
}
