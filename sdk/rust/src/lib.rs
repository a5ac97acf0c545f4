//! The client: submit calls, grant keys to the nodes that run them, take results.
//!
//! Owns one session's conversation with a network, sealing, uploads, grants and the check of results.
//! Leaves pickling, futures and everything a person sees to the surfaces above (`sdk/python`, `cli`).
//!
//! Start at [`Client::connect`]; [`Network`] asks single questions; [`Standing`](granter::Standing)
//! grants for sessions that are away; [`discover`] finds an identity.

mod attach;
mod blobs;
mod call;
mod client;
mod data;
pub mod discover;
mod error;
pub mod granter;
mod logs;
mod network;
mod options;
mod outcome;
mod question;
mod session;
mod trace;

pub use call::{Argument, Call, Code, Environment, Spec, Template, Upload};
pub use client::{Client, TaskState};
pub use data::Data;
pub use error::{Class, Error};
pub use farlane_seal::identity::Identity;
pub use farlane_wire::v1;
pub use logs::{LogPiece, Logs, Output};
pub use network::Network;
pub use options::{
    BLOB_CHUNK_BYTES, ConnectOptions, MAX_BATCH_BYTES, MAX_BATCH_TASKS, MAX_BATCHES_IN_FLIGHT,
    MAX_BLOB_BYTES, MIN_BLOB_BUFFER,
};
pub use outcome::{Buffer, Codec, Delivered, Outcome, Receipt, Sink};
pub use session::live::Phase;
pub use trace::TraceChunks;
