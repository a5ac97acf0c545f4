//! One type per kind of identity.
//!
//! Sessions, tasks, projects and keys are ULIDs, printed as 26 Crockford characters. A task's id is
//! its session's with the submit sequence in the low 40 bits, so that a session's tasks are dense and
//! de-duplicate by number:
//!
//! ```text
//! session  | 48 bit ms | 40 bit random | 0 … 0      |
//! task     | 48 bit ms | 40 bit random | 40 bit seq |
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of a task id that hold its sequence within the session.
const SEQ_BITS: u32 = 40;
const SEQ_MASK: u128 = (1 << SEQ_BITS) - 1;
/// Crockford's base 32: no I, L, O, U. Source: crockford.com/base32.html.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Text or bytes that are no identity of that kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} id")]
pub struct BadId {
    /// Which kind was wanted.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
}

fn write_ulid(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; 26];
    for (i, c) in text.iter_mut().enumerate() {
        *c = ALPHABET[(value >> (5 * (25 - i)) & 31) as usize];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_ulid(kind: &'static str, text: &str) -> Result<u128, BadId> {
    let bad = || BadId {
        kind,
        text: text.chars().take(64).collect(),
    };
    if text.len() != 26 {
        return Err(bad());
    }
    let mut value: u128 = 0;
    for (i, c) in text.bytes().enumerate() {
        let digit = ALPHABET
            .iter()
            .position(|a| *a == c.to_ascii_uppercase())
            .ok_or_else(bad)?;
        if i == 0 && digit > 7 {
            return Err(bad());
        }
        value = value << 5 | digit as u128;
    }
    Ok(value)
}

macro_rules! ulid {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u128);

        impl $name {
            /// From its 16 bytes, big-endian.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
            /// Its 16 bytes, big-endian: sorts as it was made.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
            /// From bytes of the wire.
            ///
            /// *Errors*: not 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, BadId> {
                <[u8; 16]>::try_from(bytes).map(Self::from_bytes).map_err(|_| BadId {
                    kind: $kind,
                    text: format!("{} bytes", bytes.len()),
                })
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_ulid(self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_ulid(self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                read_ulid($kind, text).map(Self)
            }
        }
    };
}

ulid! {
    /// One client process's conversation with the network; also names that client as a granter.
    SessionId, "session"
}
ulid! {
    /// One call.
    TaskId, "task"
}
ulid! {
    /// A tenant's project.
    ProjectId, "project"
}
ulid! {
    /// An API key (its public part).
    KeyId, "key"
}

macro_rules! fresh {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new one, from the time in milliseconds and random bytes.
            pub fn new(now_ms: u64, random: [u8; 10]) -> Self {
                let mut tail = [0u8; 16];
                tail[6..].copy_from_slice(&random);
                Self(u128::from(now_ms) << 80 | u128::from_be_bytes(tail))
            }
        }
    )*};
}
fresh!(ProjectId, KeyId);

impl SessionId {
    /// A new one, from the time in milliseconds and 40 random bits.
    pub fn new(now_ms: u64, random: [u8; 5]) -> Self {
        let mut tail = [0u8; 16];
        tail[6..11].copy_from_slice(&random);
        Self((u128::from(now_ms) << 80 | u128::from_be_bytes(tail)) & !SEQ_MASK)
    }
    /// Whether the low 40 bits are zero, as they must be.
    pub const fn is_valid(self) -> bool {
        self.0 & SEQ_MASK == 0
    }
    /// The task with this sequence, which counts from 1 and is held to 40 bits.
    pub const fn task(self, seq: u64) -> TaskId {
        TaskId(self.0 | (seq as u128 & SEQ_MASK))
    }
}

impl TaskId {
    /// Whose it is.
    pub const fn session(self) -> SessionId {
        SessionId(self.0 & !SEQ_MASK)
    }
    /// Its place in the session's submissions, from 1.
    pub const fn seq(self) -> u64 {
        (self.0 & SEQ_MASK) as u64
    }
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// From bytes of the wire.
            ///
            /// *Errors*: the length is not right.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, BadId> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| BadId {
                    kind: $kind,
                    text: format!("{} bytes", bytes.len()),
                })
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0[..6]))
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bytes = hex::decode(text)
                    .map_err(|_| BadId { kind: $kind, text: text.chars().take(80).collect() })?;
                Self::from_slice(&bytes)
            }
        }
    };
}

hash_id! {
    /// BLAKE3 of some bytes: of a ciphertext for blobs, of canonical bytes for specs.
    Digest, "digest", 32
}
hash_id! {
    /// One machine: hash of its enrolment key.
    NodeId, "node", 32
}
hash_id! {
    /// A tenant: hash of its root key.
    TenantId, "tenant", 32
}
hash_id! {
    /// One start of an agent.
    BootId, "boot", 16
}

impl Digest {
    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_holds_its_session_and_sequence() {
        let session = SessionId::new(1_700_000_000_000, [1, 2, 3, 4, 255]);
        assert!(session.is_valid());
        let task = session.task(12_345);
        assert_eq!((task.session(), task.seq()), (session, 12_345));
        assert_eq!(task.to_string().parse(), Ok(task));
        assert_eq!(task.to_string().len(), 26);
        assert!(session.task(1) < session.task(2));
    }

    #[test]
    fn bad_ids_are_refused() {
        assert!("".parse::<TaskId>().is_err());
        assert!("8ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<TaskId>().is_err());
        assert!("0000000000000000000000000U".parse::<TaskId>().is_err());
        assert!("abcd".parse::<NodeId>().is_err());
    }
}
