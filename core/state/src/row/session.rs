//! The cluster's and the sessions' rows.

use bytes::Bytes;
use farlane_model::{Digest, KeyId, ProjectId, TenantId};
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::Cursor;

/// The one row of `Table::Cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRow {
    pub network: Digest,
    pub epoch: u64,
    pub version: u32,
    pub founded: Millis,
    pub next_node: u32,
}

/// Row of `Table::Sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub project: ProjectId,
    pub tenant: TenantId,
    pub key: KeyId,
    pub wrapped_session_key: Bytes,
    pub device: Bytes,
    pub opened: Millis,
}

/// Row of `Table::Marks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarksRow {
    pub next_seq: u64,
    pub kept: u64,
    pub active: Millis,
    pub acks: Vec<(Cursor, Millis)>,
}
