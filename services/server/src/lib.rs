//! A server: the control plane put together.
//!
//! Owns configuration, the data folder, the network's certificates, the one port, and the order in
//! which rooms start and stop. Leaves every use case to `farlane-controller`.
//!
//! ```text
//! DATA/ca/         root and intermediate, keys 0600
//!      raft/       log and state
//!      blobs/      sealed bytes above 16 KiB
//!      logs/       sealed output
//!      accounts.db keys, prices, usage (SQLite; else PostgreSQL)
//!      pepper      0600
//!      port        chosen at the first start
//! ```

mod audit;
mod ca;
mod carbon;
mod config;
mod listener;
mod opening;
mod owner;
mod peers;
mod start;

pub use ca::{Authority, CaError, ServerCertificate};
pub use config::{ConfigError, MemberConfig, ServerConfig};
pub use listener::TlsError;
pub use owner::Owner;
pub use start::{Running, Server, ServerError};
