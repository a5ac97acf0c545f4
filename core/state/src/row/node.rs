//! A node's rows.

use bytes::Bytes;
use farlane_model::{Digest, Standing};
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use crate::node::{Boot, DatedPrice, PrekeyKind};

/// Row of `Table::Nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Short name within the state file.
    pub number: u32,
    /// Canonical `NodeSpec`.
    pub spec: Bytes,
    /// From its certificate.
    pub region: String,
    /// Its provider.
    pub provider: Digest,
    /// Counts changes that void a plan.
    pub generation: u32,
    /// Recent boots, oldest first; the last one is current.
    pub boots: Vec<Boot>,
    /// Revoked for good.
    pub revoked: bool,
    /// The signed daily key.
    pub daily: Option<Bytes>,
    /// Number of the next one-time prekey.
    pub next_prekey: u64,
    /// Cluster time.
    pub registered: Millis,
    /// By date.
    pub prices: Vec<DatedPrice>,
    /// What audits have found.
    pub standing: Standing,
}

/// Row of `Table::RevokedKeys` under a provider's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationsRow {
    /// As of when.
    pub issued: Millis,
    /// Canonical and signed by the provider.
    pub list: Bytes,
}

/// Row of `Table::Contexts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContextRow {
    pub index: u64,
    pub at: Millis,
    pub kind: PrekeyKind,
    pub prekey: Bytes,
}
