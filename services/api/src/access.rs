//! Who may call what: one table.

use farlane_store::Scope;

/// Every endpoint that an API key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Session,
    PutBlob,
    GetBlob,
    Logs,
    GetStatus,
    ListNodes,
    ListTasks,
    GetTask,
    Explain,
    CancelTasks,
    CreateKey,
    ListKeys,
    RevokeKey,
    CreateJoinToken,
    ListJoinTokens,
    RevokeJoinToken,
    RemoveNode,
    PublishRevocations,
}

impl Endpoint {
    /// The scope that a key must have.
    pub(crate) const fn scope(self) -> Scope {
        match self {
            Self::Session | Self::PutBlob | Self::CancelTasks => Scope::Submit,
            Self::GetBlob
            | Self::Logs
            | Self::GetStatus
            | Self::ListNodes
            | Self::ListTasks
            | Self::GetTask
            | Self::Explain => Scope::Read,
            Self::CreateKey | Self::ListKeys | Self::RevokeKey => Scope::Admin,
            // Machines are every project's.
            Self::CreateJoinToken
            | Self::ListJoinTokens
            | Self::RevokeJoinToken
            | Self::RemoveNode
            | Self::PublishRevocations => Scope::Network,
        }
    }
}
