//! Messages to and from the model: what arrives is checked here once.

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BlobRef, BootId, Digest, Exit, ExitKind, KeyId, LostCause, MAX_EXIT_MESSAGE,
    MAX_ROW_BYTES, NodeId, ProjectId, Sealed, SessionId, TaskId, TenantId,
};
use farlane_units::ByteCount;

use crate::code::{ErrorCode, Refused};
use crate::v1;

/// A message that cannot be what it should be: the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {problem}")]
pub struct BadMessage {
    /// Which part.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl From<BadMessage> for Refused {
    fn from(bad: BadMessage) -> Self {
        Refused {
            code: ErrorCode::InvalidArgument,
            message: bad.to_string(),
        }
    }
}
impl From<BadMessage> for tonic::Status {
    fn from(bad: BadMessage) -> Self {
        Refused::from(bad).into()
    }
}

const fn bad(field: &'static str, problem: &'static str) -> BadMessage {
    BadMessage { field, problem }
}

/// Identities as they travel.
pub mod id {
    use super::*;

    macro_rules! ids {
        ($($(#[$doc:meta])* $read:ident, $write:ident, $kind:ty, $field:literal, $len:literal, |$v:ident| $bytes:expr;)*) => {$(
            $(#[$doc])*
            ///
            /// *Errors*: the length is not right.
            pub fn $read(bytes: &[u8]) -> Result<$kind, BadMessage> {
                <$kind>::from_slice(bytes).map_err(|_| bad($field, concat!("not ", $len, " bytes")))
            }
            /// As bytes of the wire.
            pub fn $write($v: &$kind) -> Bytes {
                Bytes::copy_from_slice($bytes)
            }
        )*};
    }
    ids! {
        /// A session's id.
        session, session_bytes, SessionId, "session", "16", |v| &v.to_bytes();
        /// A task's id.
        task, task_bytes, TaskId, "task", "16", |v| &v.to_bytes();
        /// A project's id.
        project, project_bytes, ProjectId, "project", "16", |v| &v.to_bytes();
        /// A key's id.
        key, key_bytes, KeyId, "key", "16", |v| &v.to_bytes();
        /// A node's id.
        node, node_bytes, NodeId, "node", "32", |v| v.as_bytes();
        /// A tenant's id.
        tenant, tenant_bytes, TenantId, "tenant", "32", |v| v.as_bytes();
        /// An agent's boot.
        boot, boot_bytes, BootId, "boot", "16", |v| v.as_bytes();
        /// A digest.
        digest, digest_bytes, Digest, "digest", "32", |v| v.as_bytes();
    }
}

impl TryFrom<&v1::AttemptRef> for AttemptRef {
    type Error = BadMessage;
    fn try_from(from: &v1::AttemptRef) -> Result<Self, BadMessage> {
        if from.attempt == 0 {
            return Err(bad("attempt", "not counted from 1"));
        }
        Ok(Self {
            task: id::task(&from.task)?,
            attempt: from.attempt,
            epoch: from.epoch,
        })
    }
}
impl TryFrom<v1::AttemptRef> for AttemptRef {
    type Error = BadMessage;
    fn try_from(from: v1::AttemptRef) -> Result<Self, BadMessage> {
        Self::try_from(&from)
    }
}
/// An attempt that must be present in its message.
///
/// *Errors*: it is missing or malformed.
pub fn attempt(field: Option<v1::AttemptRef>) -> Result<AttemptRef, BadMessage> {
    AttemptRef::try_from(present(field, "attempt")?)
}

impl From<AttemptRef> for v1::AttemptRef {
    fn from(from: AttemptRef) -> Self {
        Self {
            task: id::task_bytes(&from.task),
            attempt: from.attempt,
            epoch: from.epoch,
        }
    }
}

impl TryFrom<&v1::BlobRef> for BlobRef {
    type Error = BadMessage;
    fn try_from(from: &v1::BlobRef) -> Result<Self, BadMessage> {
        Ok(Self {
            digest: id::digest(&from.digest)?,
            size: ByteCount(from.size),
        })
    }
}
impl TryFrom<v1::BlobRef> for BlobRef {
    type Error = BadMessage;
    fn try_from(from: v1::BlobRef) -> Result<Self, BadMessage> {
        Self::try_from(&from)
    }
}
impl From<BlobRef> for v1::BlobRef {
    fn from(from: BlobRef) -> Self {
        Self {
            digest: id::digest_bytes(&from.digest),
            size: from.size.0,
        }
    }
}

impl TryFrom<v1::Sealed> for Sealed {
    type Error = BadMessage;
    fn try_from(from: v1::Sealed) -> Result<Self, BadMessage> {
        match from.place.ok_or(bad("sealed", "empty"))? {
            v1::sealed::Place::Inline(bytes) if bytes.len() > MAX_ROW_BYTES => {
                Err(bad("sealed", "larger than 16 KiB and not a blob"))
            }
            v1::sealed::Place::Inline(bytes) => Ok(Self::Inline(bytes)),
            v1::sealed::Place::Blob(blob) => Ok(Self::Blob(blob.try_into()?)),
        }
    }
}
impl From<Sealed> for v1::Sealed {
    fn from(from: Sealed) -> Self {
        let place = match from {
            Sealed::Inline(bytes) => v1::sealed::Place::Inline(bytes),
            Sealed::Blob(blob) => v1::sealed::Place::Blob(blob.into()),
        };
        Self { place: Some(place) }
    }
}

/// A kind's number on the wire; also what batch leaves are made of.
pub const fn exit_kind_number(kind: ExitKind) -> v1::ExitKind {
    match kind {
        ExitKind::Returned => v1::ExitKind::Returned,
        ExitKind::Raised => v1::ExitKind::Raised,
        ExitKind::Lost(_) => v1::ExitKind::Lost,
        ExitKind::TimedOut => v1::ExitKind::TimedOut,
        ExitKind::Cancelled => v1::ExitKind::Cancelled,
        ExitKind::EnvFailed => v1::ExitKind::EnvFailed,
        ExitKind::Refused => v1::ExitKind::Refused,
        ExitKind::Expired => v1::ExitKind::Expired,
        ExitKind::Infeasible => v1::ExitKind::Infeasible,
    }
}

const fn lost_number(cause: LostCause) -> (v1::LostCause, i32) {
    match cause {
        LostCause::Signal(signal) => (v1::LostCause::Signal, signal),
        LostCause::ExitCode(code) => (v1::LostCause::Exit, code),
        LostCause::OutOfMemory => (v1::LostCause::OutOfMemory, 0),
        LostCause::ScratchFull => (v1::LostCause::ScratchFull, 0),
        LostCause::LeaseExpired => (v1::LostCause::LeaseExpired, 0),
        LostCause::NodeRestarted => (v1::LostCause::NodeRestarted, 0),
        LostCause::NodeRemoved => (v1::LostCause::NodeRemoved, 0),
        LostCause::Sandbox => (v1::LostCause::Sandbox, 0),
        LostCause::GangBroken => (v1::LostCause::GangBroken, 0),
        LostCause::Preempted => (v1::LostCause::Preempted, 0),
    }
}

fn lost_cause(cause: v1::LostCause, detail: i32) -> Option<LostCause> {
    Some(match cause {
        v1::LostCause::Unspecified => return None,
        v1::LostCause::Signal => LostCause::Signal(detail),
        v1::LostCause::Exit => LostCause::ExitCode(detail),
        v1::LostCause::OutOfMemory => LostCause::OutOfMemory,
        v1::LostCause::ScratchFull => LostCause::ScratchFull,
        v1::LostCause::LeaseExpired => LostCause::LeaseExpired,
        v1::LostCause::NodeRestarted => LostCause::NodeRestarted,
        v1::LostCause::NodeRemoved => LostCause::NodeRemoved,
        v1::LostCause::Sandbox => LostCause::Sandbox,
        v1::LostCause::GangBroken => LostCause::GangBroken,
        v1::LostCause::Preempted => LostCause::Preempted,
    })
}

impl From<Exit> for v1::Exit {
    fn from(from: Exit) -> Self {
        let (lost, detail) = match from.kind {
            ExitKind::Lost(cause) => lost_number(cause),
            _ => (v1::LostCause::Unspecified, 0),
        };
        Self {
            kind: exit_kind_number(from.kind).into(),
            lost: lost.into(),
            detail,
            message: from.message,
        }
    }
}
impl TryFrom<v1::Exit> for Exit {
    type Error = BadMessage;
    fn try_from(from: v1::Exit) -> Result<Self, BadMessage> {
        if from.message.len() > MAX_EXIT_MESSAGE {
            return Err(bad("exit message", "longer than 512 bytes"));
        }
        let kind = match from.kind() {
            v1::ExitKind::Unspecified => return Err(bad("exit", "of an unknown kind")),
            v1::ExitKind::Returned => ExitKind::Returned,
            v1::ExitKind::Raised => ExitKind::Raised,
            v1::ExitKind::Lost => {
                let cause = lost_cause(from.lost(), from.detail);
                ExitKind::Lost(cause.ok_or(bad("lost cause", "unknown"))?)
            }
            v1::ExitKind::TimedOut => ExitKind::TimedOut,
            v1::ExitKind::Cancelled => ExitKind::Cancelled,
            v1::ExitKind::EnvFailed => ExitKind::EnvFailed,
            v1::ExitKind::Refused => ExitKind::Refused,
            v1::ExitKind::Expired => ExitKind::Expired,
            v1::ExitKind::Infeasible => ExitKind::Infeasible,
        };
        Ok(Self {
            kind,
            message: from.message,
        })
    }
}

impl v1::Cursor {
    /// Where a reader has got to; orders by index, then ordinal.
    pub const fn at(index: u64, ordinal: u32) -> Self {
        Self { index, ordinal }
    }
    /// As a pair that orders.
    pub const fn pair(&self) -> (u64, u32) {
        (self.index, self.ordinal)
    }
}

/// A field that must be present.
///
/// *Errors*: it is not.
pub fn present<T>(field: Option<T>, name: &'static str) -> Result<T, BadMessage> {
    field.ok_or(bad(name, "missing"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn exits() -> Vec<ExitKind> {
        let lost = [
            LostCause::Signal(9),
            LostCause::ExitCode(-3),
            LostCause::OutOfMemory,
            LostCause::ScratchFull,
            LostCause::LeaseExpired,
            LostCause::NodeRestarted,
            LostCause::NodeRemoved,
            LostCause::Sandbox,
            LostCause::GangBroken,
            LostCause::Preempted,
        ];
        let mut all: Vec<_> = lost.into_iter().map(ExitKind::Lost).collect();
        all.extend([
            ExitKind::Returned,
            ExitKind::Raised,
            ExitKind::TimedOut,
            ExitKind::Cancelled,
            ExitKind::EnvFailed,
            ExitKind::Refused,
            ExitKind::Expired,
            ExitKind::Infeasible,
        ]);
        all
    }

    #[test]
    fn exits_go_over_and_back() {
        for kind in exits() {
            let exit = Exit::new(kind, "words");
            assert_eq!(Exit::try_from(v1::Exit::from(exit.clone())), Ok(exit));
        }
        assert!(Exit::try_from(v1::Exit::default()).is_err());
        let lost = v1::Exit {
            kind: v1::ExitKind::Lost.into(),
            ..Default::default()
        };
        assert!(Exit::try_from(lost).is_err());
        let unknown = v1::Exit {
            kind: 99,
            ..Default::default()
        };
        assert!(Exit::try_from(unknown).is_err());
        let long = v1::Exit {
            message: "x".repeat(513),
            ..Exit::plain(ExitKind::Raised).into()
        };
        assert!(Exit::try_from(long).is_err());
    }

    #[test]
    fn references_go_over_and_back() {
        let task = SessionId::new(1, [1; 5]).task(3);
        let attempt = AttemptRef {
            task,
            attempt: 2,
            epoch: 1,
        };
        assert_eq!(
            AttemptRef::try_from(v1::AttemptRef::from(attempt)),
            Ok(attempt)
        );
        let none = v1::AttemptRef {
            attempt: 0,
            ..attempt.into()
        };
        assert!(AttemptRef::try_from(none).is_err());
        let short = v1::AttemptRef {
            task: Bytes::from_static(b"x"),
            ..attempt.into()
        };
        assert_eq!(
            AttemptRef::try_from(short),
            Err(bad("task", "not 16 bytes"))
        );
        let blob = BlobRef {
            digest: Digest::of(b"x"),
            size: ByteCount(7),
        };
        for sealed in [
            Sealed::Inline(Bytes::from_static(b"abc")),
            Sealed::Blob(blob),
        ] {
            assert_eq!(
                Sealed::try_from(v1::Sealed::from(sealed.clone())),
                Ok(sealed)
            );
        }
        assert!(Sealed::try_from(v1::Sealed::default()).is_err());
        let big = Sealed::Inline(vec![0; MAX_ROW_BYTES + 1].into());
        assert!(Sealed::try_from(v1::Sealed::from(big)).is_err());
    }
}
