//! Why a use case was refused.
//!
//! Owns the reasons of this room. Leaves their codes' pages and transport to `farlane-wire` and
//! `farlane-api`.

use farlane_state::Refusal;
use farlane_wire::{BadMessage, Class, ErrorCode, Refused};

/// Why the control plane did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// Another server leads. Go there.
    #[error("{}", not_leader(leader))]
    NotLeader {
        /// URL of the leader; empty while there is none.
        leader: String,
    },
    /// No quorum, or shutting down. Retry.
    #[error("the control plane cannot answer now: {why}")]
    Unavailable {
        /// One line for people.
        why: String,
    },
    /// A message is malformed. The caller's fault.
    #[error("{what}")]
    Invalid {
        /// Which field and what it must be.
        what: String,
    },
    /// Bytes that should be sealed are not. The caller's fault.
    #[error("task {seq} carries a payload that is not sealed")]
    Unsealed {
        /// Its sequence number.
        seq: u64,
    },
    /// Larger than it may be. The caller's fault.
    #[error("{what} holds at most {most} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        most: u64,
    },
    /// More unacknowledged submissions than the window that was agreed. The caller's fault.
    #[error("more than {most} {unit} were submitted and not acknowledged")]
    WindowExceeded {
        /// The bound.
        most: u64,
        /// `tasks` or `bytes`.
        unit: &'static str,
    },
    /// What the wire's own checks refuse: versions, malformed messages.
    #[error("{0}")]
    Wire(#[from] Refused),
    /// Not known here, or of another project.
    #[error("there is no such task in this project")]
    UnknownTask,
    /// The result's time is over.
    #[error("the result of this task is no longer kept")]
    ResultExpired,
    /// Not registered.
    #[error("there is no such node")]
    UnknownNode,
    /// Revoked for good.
    #[error("the node was removed or revoked")]
    NodeRevoked,
    /// Never registered, revoked, or used.
    #[error(
        "there is no such join token that could still be used; `farlane tokens list` shows them"
    )]
    UnknownToken,
    /// Somebody else changed the book meanwhile. Look at it again.
    #[error(
        "the provider's prices have changed since this was made from them; look at them again (`farlane prices show`)"
    )]
    PricesChanged,
    /// Not known here.
    #[error("there is no such project; `farlane projects` lists them")]
    UnknownProject,
    /// Not known here, or of another project.
    #[error("there is no such key in this project")]
    UnknownKey,
    /// The join secret, the record or its chain does not hold.
    #[error("{why}")]
    JoinRefused {
        /// One line for people.
        why: String,
    },
    /// What only the holder of a node's identity key can sign is not signed by it. The caller's fault.
    #[error(
        "the request is not signed by the identity key of that node for this network; a machine whose \
         state folder is damaged or another's joins anew (`farlane tokens create`) in a new one"
    )]
    Unproven,
    /// The caller's clock is further from this server's than certificates bear. Set it, and sign anew.
    #[error(
        "the clock of the machine is {} s {} this server's; set the one that is wrong (for instance \
         `timedatectl set-ntp true`)",
        .skew_ms.unsigned_abs() / 1000,
        if *.skew_ms < 0 { "behind" } else { "ahead of" }
    )]
    ClockSkew {
        /// The caller's time minus this server's.
        skew_ms: i64,
    },
    /// Known, and not allowed.
    #[error("{why}")]
    Denied {
        /// One line for people.
        why: String,
    },
    /// The API key ended while in use.
    #[error(
        "the API key has expired; have another made (`farlane keys create`), then `farlane login FILE`"
    )]
    KeyExpired,
    /// The API key was revoked while in use.
    #[error("the API key was revoked")]
    KeyRevoked,
    /// The state machine said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Accounts cannot be read or written now. Retry.
    #[error("accounts cannot be reached now")]
    Store {
        /// For the log, not for the caller.
        detail: String,
    },
    /// A bug.
    #[error("the control plane failed")]
    Internal {
        /// For the log, not for the caller.
        detail: String,
    },
}

fn not_leader(leader: &str) -> String {
    match leader {
        "" => "no server leads the network now: more than half of its servers must run and reach \
               each other (`farlane status` lists them)"
            .to_owned(),
        url => format!("this server does not lead; go to {url:?}"),
    }
}

impl ControlError {
    /// A malformed message.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
    /// Its code on the wire; docs/errors has a page for each.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader { .. } => ErrorCode::NotLeader,
            Self::Unavailable { .. } | Self::Store { .. } => ErrorCode::Unavailable,
            Self::Invalid { .. } => ErrorCode::InvalidArgument,
            Self::Unsealed { .. } => ErrorCode::UnsealedPayload,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::WindowExceeded { .. } => ErrorCode::WindowExceeded,
            Self::Wire(refused) => refused.code,
            Self::UnknownTask => ErrorCode::UnknownTask,
            Self::ResultExpired => ErrorCode::ResultExpired,
            Self::UnknownNode => ErrorCode::UnknownNode,
            Self::UnknownToken => ErrorCode::UnknownToken,
            Self::PricesChanged => ErrorCode::Stale,
            Self::UnknownKey => ErrorCode::UnknownKey,
            Self::UnknownProject => ErrorCode::InvalidArgument,
            Self::NodeRevoked => ErrorCode::NodeRevoked,
            Self::Denied { .. } => ErrorCode::PermissionDenied,
            Self::Unproven => ErrorCode::Unauthenticated,
            Self::ClockSkew { .. } => ErrorCode::ClockSkew,
            Self::JoinRefused { .. } => ErrorCode::JoinRefused,
            Self::KeyExpired => ErrorCode::KeyExpired,
            Self::KeyRevoked => ErrorCode::KeyRevoked,
            Self::Refused(refusal) => refusal_code(refusal),
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }
    /// The refusal that ends a stream.
    pub fn refusal(&self) -> farlane_wire::v1::Refusal {
        self.code().refusal(self.to_string())
    }
    /// Whose move it is.
    pub fn class(&self) -> Class {
        self.code().class()
    }
}

impl From<farlane_store::StoreError> for ControlError {
    fn from(error: farlane_store::StoreError) -> Self {
        match error {
            farlane_store::StoreError::BadName { .. } => Self::invalid(error.to_string()),
            error => Self::Store {
                detail: error.to_string(),
            },
        }
    }
}

/// The code by which a refusal of the state machine goes out.
pub(crate) fn refusal_code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::SequenceGap { .. } => ErrorCode::BadSequence,
        Refusal::PayloadTooLarge { .. } => ErrorCode::PayloadTooLarge,
        Refusal::QueueFull { .. }
        | Refusal::TooMany { .. }
        | Refusal::TooManySpecs { .. }
        | Refusal::QuotaExceeded(_) => ErrorCode::QuotaExceeded,
        Refusal::AccountsBehind { .. } => ErrorCode::Unavailable,
        Refusal::TaskGone => ErrorCode::UnknownTask,
        Refusal::NodeUnknown => ErrorCode::UnknownNode,
        Refusal::NodeRevoked => ErrorCode::NodeRevoked,
        Refusal::WrongProject | Refusal::SessionTaken => ErrorCode::PermissionDenied,
        Refusal::KeyRevoked => ErrorCode::KeyRevoked,
        Refusal::BootUnknown
        | Refusal::PlanStale
        | Refusal::RevocationsStale
        | Refusal::SettingsStale => ErrorCode::Stale,
        _ => ErrorCode::InvalidArgument,
    }
}

impl From<farlane_consensus::ProposeError> for ControlError {
    fn from(error: farlane_consensus::ProposeError) -> Self {
        use farlane_consensus::ProposeError as E;
        match error {
            E::NotLeader { leader } => Self::NotLeader {
                leader: leader.map(|(_, url)| url).unwrap_or_default(),
            },
            E::TooLarge { most, .. } => Self::TooLarge {
                what: "one entry of the log",
                most: most as u64,
            },
            E::NoQuorum => Self::Unavailable {
                why: "no quorum of servers answers".into(),
            },
            E::Unknown => Self::Unavailable {
                why: "another server came to lead; whether this was done is not known, ask again"
                    .into(),
            },
            E::Stopped => Self::Unavailable {
                why: "this server is stopping".into(),
            },
        }
    }
}

impl From<BadMessage> for ControlError {
    fn from(bad: BadMessage) -> Self {
        Self::Wire(bad.into())
    }
}
