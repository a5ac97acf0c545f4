//! The API: gRPC handlers, who may call them, and how failures go out.
//!
//! Owns authentication (API keys of clients, transport certificates of nodes), authorisation in one
//! table, and the mapping of every failure to an `ErrorCode`. Leaves what is done to
//! `farlane-controller`, and TLS to `farlane-server`.

mod access;
mod attach;
mod auth;
mod blob;
mod fleet;
mod joining;
mod logs;
mod network;
mod peer;
mod probe;
mod trace;

use std::pin::Pin;
use std::sync::Arc;

use farlane_controller::{ControlError, Controller};
use farlane_wire::channel::MAX_MESSAGE;
use farlane_wire::v1::fleet_server::FleetServer;
use farlane_wire::v1::network_server::NetworkServer;
use farlane_wire::{Class, ErrorCode};
use tokio_stream::Stream;
use tonic::Status;

pub use fleet::FleetService;
pub use network::NetworkService;
pub use peer::Peer;

/// What every streaming handler answers with.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service for clients, granters and people.
pub fn network_service(controller: Arc<Controller>) -> NetworkServer<NetworkService> {
    NetworkServer::new(NetworkService::new(controller))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// The service for agents.
pub fn fleet_service(controller: Arc<Controller>) -> FleetServer<FleetService> {
    FleetServer::new(FleetService::new(controller))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// A failure as a status; private detail goes to the log.
fn status(error: ControlError) -> Status {
    match &error {
        ControlError::Internal { detail } => tracing::error!(detail, "the control plane failed"),
        ControlError::Store { detail } => tracing::warn!(detail, "accounts cannot be reached"),
        other if other.code().class() == Class::Bug => {
            tracing::error!(%other, "the control plane failed")
        }
        _ => {}
    }
    error.code().status(error.to_string())
}

fn invalid(what: impl Into<String>) -> Status {
    ErrorCode::InvalidArgument.status(what)
}
