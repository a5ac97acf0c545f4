//! The wire: generated messages of `farlane/v1`, and their conversion to and from the model.
//!
//! Owns field numbers, conversions, error codes and connection settings. Leaves meaning to the
//! rooms above, and what is signed to `farlane-seal`.

/// Generated from `farlane/v1/*.proto`.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("farlane.v1");
}
