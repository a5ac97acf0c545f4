//! Who is at the other end of a connection, by its TLS certificate.

use std::net::SocketAddr;

use farlane_model::NodeId;

/// Attached to every request by the listener.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The node whose transport certificate was presented.
    pub node: Option<NodeId>,
    /// The server whose certificate was presented.
    pub server: Option<u64>,
}
