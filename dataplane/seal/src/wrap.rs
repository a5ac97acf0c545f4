//! Task keys under their session's key: 48 bytes that travel with each envelope.
//!
//! Nonce = 4 zero bytes ‖ the task's sequence, big-endian; a sequence is never used twice within a
//! session, and every session has its own key.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use crate::key::{KEY_BYTES, SessionKey, TaskKey};
use crate::stream::OpenError;

/// Bytes of a wrapped task key.
pub const WRAPPED_BYTES: usize = KEY_BYTES + 16;

const LABEL: &[u8] = b"farlane/wrap/1";

fn cipher(session: &SessionKey) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, session.expose()).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}

fn nonce(seq: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&seq.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Wraps the key of the session's task `seq`.
///
/// The caller never wraps two different keys under one sequence.
pub fn wrap_task_key(session: &SessionKey, seq: u64, key: &TaskKey) -> [u8; WRAPPED_BYTES] {
    let mut out = [0; WRAPPED_BYTES];
    out[..KEY_BYTES].copy_from_slice(key.expose());
    let tag = cipher(session)
        .seal_in_place_separate_tag(nonce(seq), Aad::from(LABEL), &mut out[..KEY_BYTES])
        .expect("32 bytes are far below what AES-GCM takes");
    out[KEY_BYTES..].copy_from_slice(tag.as_ref());
    out
}

/// The key of the session's task `seq`.
///
/// *Errors*: damaged, another session's, or another task's.
pub fn unwrap_task_key(
    session: &SessionKey,
    seq: u64,
    wrapped: &[u8],
) -> Result<TaskKey, OpenError> {
    let mut bytes: [u8; WRAPPED_BYTES] = wrapped.try_into().map_err(|_| OpenError::NotSealed)?;
    let opened = cipher(session)
        .open_in_place(nonce(seq), Aad::from(LABEL), &mut bytes)
        .ok()
        .and_then(|plain| TaskKey::from_slice(plain));
    bytes.zeroize();
    opened.ok_or(OpenError::Damaged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_wrapped_key_opens_in_its_place_only() {
        let (session, key) = (SessionKey::generate(), TaskKey::generate());
        let wrapped = wrap_task_key(&session, 7, &key);
        assert_eq!(unwrap_task_key(&session, 7, &wrapped).unwrap(), key);
        assert_eq!(
            unwrap_task_key(&session, 8, &wrapped),
            Err(OpenError::Damaged)
        );
        assert!(unwrap_task_key(&SessionKey::generate(), 7, &wrapped).is_err());
        assert!(unwrap_task_key(&session, 7, &wrapped[1..]).is_err());
        for i in 0..wrapped.len() * 8 {
            let mut bad = wrapped;
            bad[i / 8] ^= 1 << (i % 8);
            assert!(unwrap_task_key(&session, 7, &bad).is_err(), "bit {i}");
        }
    }
}
