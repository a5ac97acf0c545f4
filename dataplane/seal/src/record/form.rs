//! The form all signed records share: version ‖ postcard body ‖ signatures.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RecordError;
use crate::sign::{PublicKey, SIGNATURE_BYTES, Sign};

const VERSION: u8 = 1;

/// What a kind of record says about itself.
pub(super) trait Body: Serialize + DeserializeOwned {
    /// For people.
    const WHAT: &'static str;
    /// Signed before the body.
    const LABEL: &'static [u8];
    /// Most bytes, signatures included.
    const MAX: usize;
    /// Whether every field is in its bounds.
    fn fits(&self) -> bool;
}

/// A record read, its signatures not yet checked.
pub(super) struct Read<'a, B> {
    pub(super) body: B,
    signed: &'a [u8],
    signatures: &'a [u8],
}

fn encode<B: Body>(body: &B) -> Vec<u8> {
    postcard::to_extend(body, vec![VERSION]).expect("postcard into a Vec cannot fail for records")
}

/// Signs a body with each key in turn; all sign the same bytes.
///
/// *Errors*: a field is out of its bounds.
pub(super) fn sign<B: Body>(body: &B, keys: &[&dyn Sign]) -> Result<Bytes, RecordError> {
    let mut out = encode(body);
    if !body.fits() || out.len() + keys.len() * SIGNATURE_BYTES > B::MAX {
        return Err(RecordError::Unreadable { what: B::WHAT });
    }
    let signatures: Vec<_> = keys.iter().map(|key| key.sign(B::LABEL, &[&out])).collect();
    signatures
        .iter()
        .for_each(|signature| out.extend_from_slice(signature));
    Ok(out.into())
}

/// Reads a record with `count` signatures.
///
/// *Errors*: too large, unreadable, out of bounds, or not the one encoding of its body.
pub(super) fn read<B: Body>(bytes: &[u8], count: usize) -> Result<Read<'_, B>, RecordError> {
    let bad = || RecordError::Unreadable { what: B::WHAT };
    if bytes.len() > B::MAX {
        return Err(bad());
    }
    let split = bytes
        .len()
        .checked_sub(count * SIGNATURE_BYTES)
        .ok_or_else(bad)?;
    let (signed, signatures) = bytes.split_at(split);
    let (version, rest) = signed.split_first().ok_or_else(bad)?;
    let (body, left) = postcard::take_from_bytes::<B>(rest).map_err(|_| bad())?;
    if *version != VERSION || !left.is_empty() || !body.fits() || encode(&body) != signed {
        return Err(bad());
    }
    Ok(Read {
        body,
        signed,
        signatures,
    })
}

impl<B: Body> Read<'_, B> {
    /// Checks the signature at `index` under `key`.
    ///
    /// *Errors*: it does not hold.
    pub(super) fn check(&self, index: usize, key: &PublicKey) -> Result<(), RecordError> {
        let from = index * SIGNATURE_BYTES;
        let signature = &self.signatures[from..from + SIGNATURE_BYTES];
        match key.verifies(B::LABEL, &[self.signed], signature) {
            true => Ok(()),
            false => Err(RecordError::BadSignature { what: B::WHAT }),
        }
    }
}

/// Text that people see: bounded, printable.
pub(super) fn is_name(text: &str, max: usize) -> bool {
    text.len() <= max && !text.chars().any(char::is_control)
}
