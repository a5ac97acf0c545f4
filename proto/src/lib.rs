//! The wire: generated messages of `farlane/v1`, and their conversion to and from the model.
//!
//! Owns field numbers, conversions, error codes and connection settings. Leaves meaning to the
//! rooms above, and what is signed to `farlane-seal`.

/// Generated from `farlane/v1/*.proto`.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("farlane.v1");
}

pub mod channel;
mod code;
pub mod convert;
pub mod hello;
pub mod price;

pub use code::{Class, ErrorCode, Refused, UnknownCode};
pub use convert::{BadMessage, exit_kind_number, id};
pub use hello::{hello, server_hello};

/// Whether bytes have the outer form of a padded, sealed stream: all that the control plane can
/// check of a payload.
pub use farlane_seal::stream::looks_sealed;

/// First bytes of every sealed stream, by which the head of a blob is told from plain bytes.
pub use farlane_seal::stream::MAGIC as SEALED_MAGIC;
