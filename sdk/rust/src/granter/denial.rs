//! Why something is not granted, and how the network is told.

use farlane_model::NodeId;
use farlane_seal::grant::GrantError;
use farlane_seal::record::RecordError;
use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Out;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("node {node}: {source}")]
    Grant { node: NodeId, source: GrantError },
    #[error("node {node}: {source}")]
    Record { node: NodeId, source: RecordError },
    #[error("node {node} asks under a context that was never opened here")]
    UnknownContext { node: NodeId },
    #[error("a request for grants cannot be read")]
    Unreadable,
    #[error("the record of grants cannot be written: {0}")]
    File(#[from] std::io::Error),
}

impl Refusal {
    /// The node that is refused for want of its provider's fresh list.
    pub fn stale_for(&self) -> Option<NodeId> {
        match self {
            Self::Grant {
                node,
                source: GrantError::Record(RecordError::RevocationsStale),
            } => Some(*node),
            _ => None,
        }
    }

    /// Whether the same node would be refused again. A prekey may be from before the node started anew.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Grant {
                source: GrantError::Record(why),
                ..
            }
            | Self::Record { source: why, .. } => {
                !matches!(why, RecordError::Misplaced { what: "prekey" })
            }
            Self::Grant { .. } | Self::UnknownContext { .. } | Self::Unreadable | Self::File(_) => {
                false
            }
        }
    }
}

/// Why one attempt is not granted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("nobody waits for the task here, or its keys were not shown")]
    Unknown,
    #[error(transparent)]
    Node(#[from] RecordError),
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the record of what may run once cannot be written: {0}")]
    File(String),
}

impl Denied {
    /// Whether the same attempt would be denied again.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::Grant(GrantError::LogFull) | Self::File(_))
    }
}

/// Most bytes of a reason. Source: network.proto, `GrantRefusal`.
const MAX_REASON: usize = 512;

pub(super) fn refusal(request: &v1::GrantRequest, attempts: Vec<v1::AttemptRef>, why: &str) -> Out {
    let mut reason = why.to_owned();
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    Out::Refuse(v1::GrantRefusal {
        node: request.node.clone(),
        attempts,
        reason,
    })
}
