//! A node's signed X25519 keys, to which granters open contexts.

use std::ops::Deref;

use bytes::Bytes;
use farlane_model::{BootId, NodeId};
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::form::{self, Body};
use super::{NodeRecord, RecordError, in_time};
use crate::sign::NodeIdentity;

/// How often a prekey serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrekeyKind {
    /// Once; its private half is deleted on use: forward secrecy.
    OneTime,
    /// Many times for a day, when the one-time stock is empty.
    Daily,
}

/// What a node says of one prekey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrekeyTerms {
    /// Whose.
    pub node: NodeId,
    /// Void in any other boot.
    pub boot: BootId,
    /// Names it within the boot.
    pub id: u64,
    /// How often it serves.
    pub kind: PrekeyKind,
    /// [`crate::Suite`] code.
    pub suite: u8,
    /// X25519 public key.
    pub public: [u8; 32],
    /// Not valid later than this, in cluster time.
    pub not_after: Millis,
}

impl Body for PrekeyTerms {
    const WHAT: &'static str = "prekey";
    const LABEL: &'static [u8] = b"farlane/prekey/1";
    const MAX: usize = 512;

    fn fits(&self) -> bool {
        true
    }
}

/// [`PrekeyTerms`] under the node identity's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrekey {
    terms: PrekeyTerms,
    bytes: Bytes,
}

impl SignedPrekey {
    /// Signs terms.
    ///
    /// *Errors*: none today; bounds may come.
    pub fn sign(identity: &NodeIdentity, terms: PrekeyTerms) -> Result<Self, RecordError> {
        let bytes = form::sign(&terms, &[identity])?;
        Ok(Self { terms, bytes })
    }

    /// Reads one and checks that it is `record`'s.
    ///
    /// *Errors*: unreadable, another node's, or the signature does not hold.
    pub fn from_bytes(bytes: &[u8], record: &NodeRecord) -> Result<Self, RecordError> {
        let read = form::read::<PrekeyTerms>(bytes, 1)?;
        if read.body.node != record.node() {
            return Err(RecordError::Misplaced {
                what: PrekeyTerms::WHAT,
            });
        }
        read.check(0, record.identity())?;
        Ok(Self {
            terms: read.body,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether it still holds.
    ///
    /// *Errors*: past its time.
    pub fn check(&self, now: Millis) -> Result<(), RecordError> {
        in_time(PrekeyTerms::WHAT, self.terms.not_after, now)
    }
}

impl Deref for SignedPrekey {
    type Target = PrekeyTerms;
    fn deref(&self) -> &PrekeyTerms {
        &self.terms
    }
}
