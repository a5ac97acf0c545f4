//! The project's vault: session keys sealed so that every device of the project can open them.
//!
//! sealed = enc(32) ‖ ChaCha20-Poly1305(session key) by HPKE Base, info = label ‖ session.

use std::fmt;

use farlane_model::SessionId;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::hpke_suite::{self, ENC, Secret};
use crate::key::{KEY_BYTES, SessionKey};
use crate::random::{Randomness, System};
use crate::stream::OpenError;

/// Bytes of a sealed session key.
pub const SEALED_SESSION_BYTES: usize = ENC + KEY_BYTES + hpke_suite::TAG;

const LABEL: &[u8; 15] = b"farlane/vault/1";

/// Opens a project's session keys. Held by every device of the project.
#[derive(Clone)]
pub struct VaultSecret(Secret);

/// Seals to a project's vault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VaultPublic(pub [u8; 32]);

impl VaultSecret {
    /// A new one.
    pub fn generate() -> Self {
        Self(Secret::generate(&mut System).0)
    }
    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes))
    }
    /// Its 32 bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
    /// What others seal to.
    pub fn public(&self) -> VaultPublic {
        VaultPublic(self.0.public())
    }
}

impl fmt::Debug for VaultSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultSecret(…)")
    }
}
impl fmt::Debug for VaultPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultPublic({})", hex::encode(&self.0[..6]))
    }
}

/// A vault key that no X25519 can be done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the vault's public key is not usable")]
pub struct BadVaultKey;

fn info(session: SessionId) -> [u8; 31] {
    let mut info = [0; 31];
    info[..15].copy_from_slice(LABEL);
    info[15..].copy_from_slice(&session.to_bytes());
    info
}

/// Seals a session's key to the vault.
///
/// *Errors*: the vault's key is of small order, which no honest vault has.
pub fn seal_session(
    vault: &VaultPublic,
    session: SessionId,
    key: &SessionKey,
) -> Result<Vec<u8>, BadVaultKey> {
    seal_session_with(&mut System, vault, session, key)
}

pub(crate) fn seal_session_with(
    random: &mut impl Randomness,
    vault: &VaultPublic,
    session: SessionId,
    key: &SessionKey,
) -> Result<Vec<u8>, BadVaultKey> {
    let (enc, mut context) =
        hpke_suite::sender(random, &vault.0, &info(session)).ok_or(BadVaultKey)?;
    let sealed = context.seal(key.expose(), b"").map_err(|_| BadVaultKey)?;
    let mut out = Vec::with_capacity(SEALED_SESSION_BYTES);
    out.extend_from_slice(&enc);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens a session's key.
///
/// *Errors*: damaged, sealed to another vault, or another session's.
pub fn open_session(
    vault: &VaultSecret,
    session: SessionId,
    sealed: &[u8],
) -> Result<SessionKey, OpenError> {
    if sealed.len() != SEALED_SESSION_BYTES {
        return Err(OpenError::NotSealed);
    }
    let mut context =
        hpke_suite::receiver(&vault.0, &sealed[..ENC], &info(session)).ok_or(OpenError::Damaged)?;
    let opened = context
        .open(&sealed[ENC..], b"")
        .map_err(|_| OpenError::Damaged)?;
    let mut opened = Zeroizing::new(opened);
    let key = SessionKey::from_slice(&opened).ok_or(OpenError::Damaged);
    opened.zeroize();
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_session_opens_for_its_vault_only() {
        let (vault, key) = (VaultSecret::generate(), SessionKey::generate());
        let session = SessionId::new(5, [1, 2, 3, 4, 5]);
        let sealed = seal_session(&vault.public(), session, &key).unwrap();
        assert_eq!(sealed.len(), SEALED_SESSION_BYTES);
        assert_eq!(open_session(&vault, session, &sealed).unwrap(), key);
        let other = SessionId::new(6, [1, 2, 3, 4, 5]);
        assert!(open_session(&vault, other, &sealed).is_err());
        assert!(open_session(&VaultSecret::generate(), session, &sealed).is_err());
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            // The top bit of enc's last byte is ignored by X25519, not by HPKE's context.
            assert!(open_session(&vault, session, &bad).is_err(), "byte {i}");
        }
        assert!(seal_session(&VaultPublic([0; 32]), session, &key).is_err());
    }
}
