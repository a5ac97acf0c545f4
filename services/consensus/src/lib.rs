//! Consensus: one log of commands that a quorum has synced, and the state that it makes.
//!
//! Owns the openraft adapter: batcher, log store, state file, snapshots and the network between
//! servers; cluster time, which the leader stamps. Leaves what a command means to `farlane-state`.
//!
//! ```text
//! propose ─▶ batcher (≤ 2 entries in flight) ─▶ openraft ─▶ log (one fdatasync a frame) ─▶ quorum
//!                                                                          │ committed
//!    caller ◀─ outcomes ── apply (state lock) ── write-sets ─▶ overlay ◀────┘
//!    subscribers ◀─ Notice ──┘                       │ every second or 16 MiB
//!                                                    ▼
//!                                          state file (redb), then the log is purged
//! ```
//!
//! A replica that meets a command it does not know stops, with the reason in [`Consensus::failed`];
//! a broken invariant in `apply` ends the process.

// openraft's own errors are large; they are rare, and not ours to box.
#![allow(clippy::result_large_err)]

mod arrears;
mod batcher;
mod body;
mod consensus;
mod contact;
mod error;
mod leadership;
mod log;
mod machine;
mod network;
mod raft;
mod service;
mod time;

#[cfg(test)]
mod suite;

pub use consensus::{Config, Consensus, Member};
pub use error::{ConnectError, ProposeError, StartError};
pub use leadership::Leadership;
pub use machine::rows::RowsHandle;
pub use machine::{Failure, Notice};
pub use network::{Connector, PlainConnector};
pub use raft::Proposed;
pub use service::RaftService;
