//! What a context is bound to, and how its opening travels.

use bytes::Bytes;
use farlane_model::{BootId, Digest, NodeId, SessionId};
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use crate::record::PrekeyKind;
use crate::sign::PublicKey;

/// Most bytes of an encoded [`GrantInfo`]; it needs about 230.
const MAX_INFO: usize = 1024;
const VERSION: u8 = 1;

/// Everything that granter and node agree on about a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
    /// Which network; as in the server's hello.
    pub network: Vec<u8>,
    /// Whose work.
    pub tenant_root: PublicKey,
    /// The granter's session.
    pub granter: SessionId,
    /// To which node.
    pub node: NodeId,
    /// In which boot.
    pub boot: BootId,
    /// BLAKE3 of the node's record.
    pub record: Digest,
    /// Which prekey.
    pub prekey: u64,
    /// Of which kind.
    pub prekey_kind: PrekeyKind,
    /// [`crate::Suite`] code.
    pub suite: u8,
    /// The tenant's manifest under which this was decided.
    pub manifest_version: u64,
    /// The context's end, in cluster time.
    pub expiry: Millis,
    /// The node's provider is the tenant's own: results may be pickles.
    pub own_provider: bool,
}

impl GrantInfo {
    /// Canonical bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("postcard into a Vec cannot fail here")
    }
    /// From canonical bytes; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION || bytes.len() > MAX_INFO {
            return None;
        }
        let (info, left) = postcard::take_from_bytes::<Self>(rest).ok()?;
        (left.is_empty() && info.to_bytes() == bytes).then_some(info)
    }
}

/// What opens a context at the node; travels with the context's first batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// HPKE's encapsulated key.
    pub enc: Bytes,
    /// Canonical [`GrantInfo`].
    pub info_bytes: Bytes,
    /// Of the granter's device, over label ‖ enc ‖ info bytes.
    pub signature: Bytes,
    /// The device's record under its tenant's root.
    pub device_bytes: Bytes,
}

impl Opening {
    /// What it claims, unverified: to find the context or prekey by.
    pub fn claimed(&self) -> Option<GrantInfo> {
        GrantInfo::from_bytes(&self.info_bytes)
    }
}
