//! Signed records: who is who, under roots that people pin.
//!
//! ```text
//!  provider root ─ EnrolmentCert ─ NodeRecord ─ SignedPrekey
//!        └──────── RevocationList
//!  tenant root ─── DeviceRecord
//!        └──────── Manifest (pins provider roots)
//! ```
//! A record travels as its canonical bytes: version, postcard of the body, signatures of 64 bytes.
//! Reading one checks every signature that it can check by itself, and refuses a second encoding
//! of the same body, so a value of these types is authentic; whether its root is trusted, and
//! whether it still holds at some time, is asked of it.

mod device;
mod form;
mod manifest;
mod node;
mod prekey;
mod revocation;

use farlane_model::Digest;
use farlane_units::Millis;

pub use device::{DeviceRecord, DeviceTerms};
pub use manifest::{Manifest, ManifestTerms, ProviderPin};
pub use node::{EnrolmentCert, EnrolmentTerms, NodeRecord};
pub use prekey::{PrekeyKind, PrekeyTerms, SignedPrekey};
pub use revocation::{RevocationList, RevocationPolicy};

/// A record that must not be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not canonical bytes of a known version, or a field out of its bounds.
    #[error("the {what} cannot be read")]
    Unreadable {
        /// Which record.
        what: &'static str,
    },
    /// A signature does not hold.
    #[error("the signature on the {what} does not hold")]
    BadSignature {
        /// Which record.
        what: &'static str,
    },
    /// Past its time.
    #[error("the {what} ended at {at} ms of cluster time", at = at.0)]
    Expired {
        /// Which record.
        what: &'static str,
        /// When.
        at: Millis,
    },
    /// No pinned root stands behind it.
    #[error("provider {provider} is not trusted here; see `farlane trust add`")]
    UnknownProvider {
        /// Fingerprint of the provider's root.
        provider: Digest,
    },
    /// Its provider has revoked it.
    #[error("the node was revoked by its provider")]
    Revoked,
    /// Its provider's word does not meet what the task asks of region, provider, labels or tier.
    #[error(
        "the node's certificate does not meet the region, provider, labels or tier that the task asks for"
    )]
    Unsuited,
    /// No list of revocations, or one older than a granter may use.
    #[error(
        "the provider's list of revocations is missing or older than 24 hours; `farlane nodes renew` on \
         the provider's machine signs a new one, `farlane up` and `farlane granter` there do so in time"
    )]
    RevocationsStale,
    /// It belongs to another node, provider, tenant or boot than it is presented for.
    #[error("the {what} belongs to somebody else")]
    Misplaced {
        /// Which record.
        what: &'static str,
    },
    /// A manifest older than the one held.
    #[error("manifest version {offered} is older than version {held}, which is held already")]
    Outdated {
        /// The version offered.
        offered: u64,
        /// The version held.
        held: u64,
    },
}

/// Refuses what ended before `now`.
fn in_time(what: &'static str, not_after: Millis, now: Millis) -> Result<(), RecordError> {
    match now <= not_after {
        true => Ok(()),
        false => Err(RecordError::Expired {
            what,
            at: not_after,
        }),
    }
}
