//! A provider's list of nodes that must get no more grants.

use bytes::Bytes;
use farlane_model::NodeId;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::form::{self, Body};
use crate::sign::{ProviderRoot, PublicKey};

/// Oldest list that a granter uses. Source: docs/design/spine.md, "core/state".
pub const MAX_AGE: Millis = Millis(24 * 3_600_000);
/// Most nodes of one list. Source: 4 MiB, the largest message on the wire, less its frame.
const MAX_NODES: usize = 100_000;

/// What to do where a provider's list was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationPolicy {
    /// Check a list that is given, however old: what is revoked stays so. A control plane that withholds
    /// it is not noticed. For reading what nodes have signed.
    WhenGiven,
    /// No list of the last 24 hours, no grant. For granters.
    Required,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RevocationBody {
    provider: PublicKey,
    issued: Millis,
    /// Sorted, unique.
    nodes: Vec<NodeId>,
}

impl Body for RevocationBody {
    const WHAT: &'static str = "revocation list";
    const LABEL: &'static [u8] = b"farlane/revocations/1";
    const MAX: usize = 32 * MAX_NODES + 256;

    fn fits(&self) -> bool {
        self.nodes.len() <= MAX_NODES && self.nodes.windows(2).all(|pair| pair[0] < pair[1])
    }
}

/// Which nodes a provider has revoked, as of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    body: RevocationBody,
    bytes: Bytes,
}

impl RevocationList {
    /// Signs the list as of `issued`.
    ///
    /// *Errors*: more than 100,000 nodes.
    pub fn sign(
        root: &ProviderRoot,
        issued: Millis,
        mut nodes: Vec<NodeId>,
    ) -> Result<Self, RecordError> {
        nodes.sort_unstable();
        nodes.dedup();
        let body = RevocationBody {
            provider: root.public(),
            issued,
            nodes,
        };
        let bytes = form::sign(&body, &[root])?;
        Ok(Self { body, bytes })
    }

    /// Reads one and checks the signature of the provider that it names.
    ///
    /// *Errors*: unreadable, or the signature does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let read = form::read::<RevocationBody>(bytes, 1)?;
        read.check(0, &read.body.provider)?;
        Ok(Self {
            body: read.body,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }
    /// Whose nodes it names.
    pub fn provider(&self) -> PublicKey {
        self.body.provider
    }
    /// As of when.
    pub fn issued(&self) -> Millis {
        self.body.issued
    }
    /// The nodes, sorted.
    pub fn nodes(&self) -> &[NodeId] {
        &self.body.nodes
    }

    /// Whether `node` of `provider` may get grants.
    ///
    /// *Errors*: another provider's list, too old, or the node is on it.
    pub fn check(
        &self,
        provider: &PublicKey,
        node: &NodeId,
        now: Millis,
    ) -> Result<(), RecordError> {
        if self.body.provider != *provider {
            return Err(RecordError::Misplaced {
                what: RevocationBody::WHAT,
            });
        }
        if self.body.nodes.binary_search(node).is_ok() {
            return Err(RecordError::Revoked);
        }
        match now.saturating_sub(self.body.issued) <= MAX_AGE {
            true => Ok(()),
            false => Err(RecordError::RevocationsStale),
        }
    }
}
