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
    PardonNode,
    PublishRevocations,
    ListPrices,
    SetPrices,
    ListRegions,
    ListProjects,
    CreateProject,
    SetProject,
    ExportTrace,
}

impl Endpoint {
    /// The scopes of which a key must have one.
    pub(crate) const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Session | Self::PutBlob | Self::CancelTasks => &[Scope::Submit],
            // A name is learnt only from a result that one may see; large results are blobs.
            Self::GetBlob => &[Scope::Read, Scope::Submit],
            Self::Logs
            | Self::GetStatus
            | Self::ListNodes
            | Self::ListPrices
            | Self::ListRegions
            | Self::ListProjects
            | Self::ListTasks
            | Self::GetTask
            | Self::Explain => &[Scope::Read],
            Self::CreateKey | Self::ListKeys | Self::RevokeKey => &[Scope::Admin],
            // Machines are every project's, and so is what is due to each, and what all of them did.
            Self::CreateJoinToken
            | Self::ListJoinTokens
            | Self::RevokeJoinToken
            | Self::RemoveNode
            | Self::PardonNode
            | Self::SetPrices
            | Self::CreateProject
            | Self::SetProject
            | Self::ExportTrace
            | Self::PublishRevocations => &[Scope::Network],
        }
    }
}
