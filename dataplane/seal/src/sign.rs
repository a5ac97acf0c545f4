//! Signing keys, one type per role, so that a device cannot sign what only a root may.
//!
//! Ed25519 (RFC 8032), verified strictly. Every signature covers a label of its own first.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use farlane_model::{Digest, NodeId, TenantId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::random;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half of any signing key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From bytes; `None` where there are not 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
    /// What people compare and pin: BLAKE3 of the key.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }
    /// The tenant whose root this is.
    pub fn tenant(&self) -> TenantId {
        TenantId(self.fingerprint().0)
    }
    /// The node whose enrolment key this is.
    pub fn node(&self) -> NodeId {
        NodeId(self.fingerprint().0)
    }
    /// Whether `signature` is this key's over label ‖ message.
    pub(crate) fn verifies(&self, label: &[u8], message: &[&[u8]], signature: &[u8]) -> bool {
        let Ok(signature) = <[u8; SIGNATURE_BYTES]>::try_from(signature) else {
            return false;
        };
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        key.verify_strict(&labelled(label, message), &signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(&self.0[..6]))
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

fn labelled(label: &[u8], message: &[&[u8]]) -> Vec<u8> {
    let len = label.len() + 1 + message.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(label);
    out.push(0);
    message.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A signing key of some role.
pub(crate) trait Sign {
    fn sign(&self, label: &[u8], message: &[&[u8]]) -> [u8; SIGNATURE_BYTES];
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// A new one.
            pub fn generate() -> Self {
                let seed = Zeroizing::new(random::bytes::<32>());
                Self::from_seed(&seed)
            }
            /// From its 32-byte seed.
            pub fn from_seed(seed: &[u8; 32]) -> Self {
                Self(SigningKey::from_bytes(seed))
            }
            /// From bytes of unknown length; `None` where there are not 32.
            pub fn from_slice(seed: &[u8]) -> Option<Self> {
                <&[u8; 32]>::try_from(seed).ok().map(Self::from_seed)
            }
            /// Its seed: all of the secret.
            pub fn expose(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }
            /// The public half.
            pub fn public(&self) -> PublicKey {
                PublicKey(self.0.verifying_key().to_bytes())
            }
        }
        impl Sign for $name {
            fn sign(&self, label: &[u8], message: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
                self.0.sign(&labelled(label, message)).to_bytes()
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), hex::encode(&self.public().0[..6]))
            }
        }
    };
}

role! {
    /// A provider's root: signs enrolment certificates and revocations.
    ProviderRoot
}
role! {
    /// A tenant's root: signs devices and the manifest.
    TenantRoot
}
role! {
    /// One device of a tenant: signs the contexts of its grants.
    DeviceKey
}
role! {
    /// A node's own key, made on the node: signs prekeys and batches of results.
    NodeIdentity
}
role! {
    /// What a join file carries: certifies one node identity, and is then erased.
    EnrolmentSeed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_hold_for_their_label_and_message_only() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let signature = key.sign(b"a", &[b"one", b"two"]);
        let public = key.public();
        assert!(public.verifies(b"a", &[b"onetwo"], &signature));
        assert!(!public.verifies(b"b", &[b"onetwo"], &signature));
        assert!(!public.verifies(b"a", &[b"onetwp"], &signature));
        assert!(!public.verifies(b"a", &[b"onetwo"], &signature[1..]));
        assert!(
            !DeviceKey::generate()
                .public()
                .verifies(b"a", &[b"onetwo"], &signature)
        );
        assert!(!PublicKey([0; 32]).verifies(b"a", &[b"onetwo"], &signature));
        assert!(!format!("{key:?}").contains(&hex::encode([7; 6])));
    }
}
