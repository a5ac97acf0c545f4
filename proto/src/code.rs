//! Error codes: the closed list of what a server answers when it does not do what was asked.
//!
//! Each maps once to gRPC and to HTTP (RFC 9457), and has a page under docs/errors/ that says what
//! a person does about it. The code travels in the metadata `farlane-code`, the public text as the
//! status message; private detail never leaves the server.

use std::fmt;
use std::str::FromStr;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Metadata key of the code.
pub const METADATA: &str = "farlane-code";

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The caller must ask for something else.
    Caller,
    /// The same request may succeed later, or elsewhere.
    Retry,
    /// A defect of Farlane.
    Bug,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $grpc:ident, $http:literal, $class:ident;)*) => {
        /// Why a server did not do what was asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it travels and as its page is called.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// Its gRPC status.
            pub const fn grpc(self) -> Code {
                match self { $(Self::$name => Code::$grpc,)* }
            }
            /// Its HTTP status.
            pub const fn http(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }
            /// Whose move it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }
        }
    };
}

codes! {
    /// No credentials, or none that are known.
    Unauthenticated = "unauthenticated", Unauthenticated, 401, Caller;
    /// The key's end is past.
    KeyExpired = "key_expired", Unauthenticated, 401, Caller;
    /// The key was revoked.
    KeyRevoked = "key_revoked", Unauthenticated, 401, Caller;
    /// Known, and not allowed to do this.
    PermissionDenied = "permission_denied", PermissionDenied, 403, Caller;
    /// The join secret is unknown, used or expired, or the record does not hold.
    JoinRefused = "join_refused", PermissionDenied, 403, Caller;
    /// The node was removed or revoked.
    NodeRevoked = "node_revoked", PermissionDenied, 403, Caller;
    /// The two clocks differ by more than certificates allow.
    ClockSkew = "clock_skew", FailedPrecondition, 409, Caller;
    /// A field is missing, malformed or out of its bounds.
    InvalidArgument = "invalid_argument", InvalidArgument, 400, Caller;
    /// No version of the protocol is spoken by both.
    VersionMismatch = "version_mismatch", FailedPrecondition, 426, Caller;
    /// A sequence number that leaves a gap, or starts above 1 for an unknown session.
    BadSequence = "bad_sequence", FailedPrecondition, 409, Caller;
    /// Larger than the limits of the server's hello.
    PayloadTooLarge = "payload_too_large", OutOfRange, 413, Caller;
    /// Bytes that must be sealed are not.
    UnsealedPayload = "unsealed_payload", InvalidArgument, 422, Caller;
    /// More in flight than the agreed window.
    WindowExceeded = "window_exceeded", ResourceExhausted, 429, Caller;
    /// A bound of the project or the network is reached for now.
    QuotaExceeded = "quota_exceeded", ResourceExhausted, 429, Retry;
    /// Where the server keeps blobs, nothing more fits.
    StorageFull = "storage_full", ResourceExhausted, 507, Caller;
    /// No registered node can ever run this.
    Infeasible = "infeasible", FailedPrecondition, 422, Caller;
    /// No such task, or another project's.
    UnknownTask = "unknown_task", NotFound, 404, Caller;
    /// No such node.
    UnknownNode = "unknown_node", NotFound, 404, Caller;
    /// No such blob.
    UnknownBlob = "unknown_blob", NotFound, 404, Caller;
    /// No such API key.
    UnknownKey = "unknown_key", NotFound, 404, Caller;
    /// No join token of that hash that could still be used.
    UnknownToken = "unknown_token", NotFound, 404, Caller;
    /// The result's time of keeping is over.
    ResultExpired = "result_expired", NotFound, 410, Caller;
    /// An attempt, boot or grant that counts no more.
    Stale = "stale", FailedPrecondition, 409, Caller;
    /// Another server leads; the message names it when it is known.
    NotLeader = "not_leader", Unavailable, 421, Retry;
    /// No quorum, starting, shutting down, or a dependency is away.
    Unavailable = "unavailable", Unavailable, 503, Retry;
    /// A defect; the server's log has the detail.
    Internal = "internal", Internal, 500, Bug;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is no code: of a newer server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no error code that this version knows")]
pub struct UnknownCode {
    /// What it says.
    pub text: String,
}

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().find(|code| code.as_str() == text);
        found.copied().ok_or_else(|| UnknownCode {
            text: text.chars().take(64).collect(),
        })
    }
}

impl ErrorCode {
    /// The code of a status; `None` where it carries none (a proxy's, or the transport's own).
    pub fn of(status: &Status) -> Option<Self> {
        status.metadata().get(METADATA)?.to_str().ok()?.parse().ok()
    }
    /// A status with this code and a public text.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(METADATA, MetadataValue::from_static(self.as_str()));
        Status::with_metadata(self.grpc(), message, metadata)
    }
    /// The refusal that ends a stream.
    pub fn refusal(self, message: impl Into<String>) -> crate::v1::Refusal {
        crate::v1::Refusal {
            code: self.as_str().to_owned(),
            message: message.into(),
        }
    }
    /// Where its page is, in the repository.
    pub fn page(self) -> String {
        format!("docs/errors/{}.md", self.as_str())
    }
}

/// What a server answered: a code and its public text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refused {
    /// Which.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        refused.code.status(refused.message)
    }
}

impl From<&Status> for Refused {
    /// A status without a code gets the nearest by its gRPC status.
    fn from(status: &Status) -> Self {
        let code = ErrorCode::of(status).unwrap_or(match status.code() {
            Code::Unauthenticated => ErrorCode::Unauthenticated,
            Code::PermissionDenied => ErrorCode::PermissionDenied,
            Code::InvalidArgument => ErrorCode::InvalidArgument,
            Code::OutOfRange => ErrorCode::PayloadTooLarge,
            Code::ResourceExhausted => ErrorCode::QuotaExceeded,
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
                ErrorCode::Unavailable
            }
            _ => ErrorCode::Internal,
        });
        Self {
            code,
            message: status.message().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_travel_in_a_status() {
        for code in ErrorCode::ALL {
            let status = code.status("why");
            assert_eq!(ErrorCode::of(&status), Some(*code));
            assert_eq!((status.code(), status.message()), (code.grpc(), "why"));
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(Status::from(Refused::from(&status)).code(), code.grpc());
            assert!((400..600).contains(&code.http()), "{code}");
        }
        assert_eq!(ErrorCode::of(&Status::internal("x")), None);
        assert!("no_such".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn each_code_has_a_page_that_says_what_to_do() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for code in ErrorCode::ALL {
            let page = std::fs::read_to_string(format!("{root}/{}", code.page()));
            let page = page.unwrap_or_else(|e| panic!("{}: {e}", code.page()));
            assert!(page.starts_with(&format!("# {code}\n")), "{code}: title");
            assert!(
                page.contains("\n## What it means\n"),
                "{code}: what it means"
            );
            assert!(page.contains("\n## What to do\n"), "{code}: what to do");
        }
        for entry in std::fs::read_dir(format!("{root}/docs/errors")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let code = name.trim_end_matches(".md");
            assert!(
                code == "README" || code.parse::<ErrorCode>().is_ok(),
                "{name} is no code's"
            );
        }
    }
}
