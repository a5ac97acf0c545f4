//! End-to-end secrecy: who may read what, shown by keys alone.
//!
//! Owns keys, sealed streams, wrapping, prekeys, grants, signed records and the files that carry
//! them. Leaves policy (who should be allowed) to tenants and providers, sizes on the wire to
//! `farlane-wire`, and compression to `farlane-codec`.
//!
//! ```text
//!  vault key ─ seals ─▶ session key ─ wraps ─▶ task key ─ HKDF(salt, context) ─▶ one stream's key
//!                                                │
//!  granter ─ HPKE to a node's signed prekey ─ grant(task key, digests) ─▶ node
//! ```
//!
//! Nothing here reads a clock (`now` is an argument) or talks to a network. Randomness comes from
//! the operating system through [`random`]. Every parsed value was verified while it was parsed.

pub mod batch;
pub mod grant;
pub mod identity;
pub mod join;
pub mod key;
pub mod pad;
pub mod payload;
pub mod prekey;
pub mod private_file;
pub mod random;
pub mod record;
pub mod renewal;
pub mod sign;
pub mod stream;
pub mod vault;
pub mod wrap;

mod hpke_suite;
#[cfg(test)]
mod vectors;

pub use key::{BlobKey, SessionKey, TaskKey};
pub use sign::{DeviceKey, EnrolmentSeed, NodeIdentity, ProviderRoot, PublicKey, TenantRoot};
pub use stream::{OpenError, StreamContext, StreamKind, Suite};
