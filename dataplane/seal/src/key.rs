//! Symmetric keys: 32 random bytes that are zeroed when dropped and never printed.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random;

/// Bytes of every symmetric key. Source: AES-256.
pub const KEY_BYTES: usize = 32;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// A new random one.
            pub fn generate() -> Self {
                Self(random::bytes())
            }
            /// From its bytes; the caller zeroes its own copy.
            pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }
            /// From bytes of unknown length; `None` where there are not 32.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
            /// Its bytes.
            pub const fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret! {
    /// Opens one task's streams; also one blob's (code, lock, large argument).
    TaskKey
}
secret! {
    /// Wraps the task keys of one client session; itself sealed to the project's vault.
    SessionKey
}

/// A blob's own key, which travels inside payloads.
pub type BlobKey = TaskKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_printed() {
        let key = TaskKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "TaskKey(…)");
        assert_ne!(TaskKey::generate(), TaskKey::generate());
        assert!(SessionKey::from_slice(&[0; 31]).is_none());
    }
}
