//! Between servers: TLS both ways, under the network's own certificates.

use std::sync::Arc;

use farlane_api::Peer;
use farlane_consensus::{ConnectError, Connector};
use farlane_runtime::Clock;
use farlane_wire::{ErrorCode, channel};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::ca::Authority;

/// Dials other servers with this server's certificate.
pub(crate) struct TlsConnector {
    pub authority: Arc<Authority>,
    pub server: u64,
    pub clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Connector for TlsConnector {
    async fn connect(&self, url: &str) -> Result<Channel, ConnectError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Failed {
            url: url.to_owned(),
            source,
        };
        // A new leaf each time: it need not be kept, and cannot end while in use.
        let identity = self.authority.peer_identity(self.server, self.clock.wall());
        let (chain, key) = identity.map_err(|e| failed(e.into()))?;
        let endpoint = channel::endpoint(url, self.authority.root_pem(), Some((&chain, &key)))
            .map_err(|e| failed(e.into()))?;
        endpoint.connect().await.map_err(|e| failed(e.into()))
    }
}

/// Lets only servers of the network through to the consensus service.
///
/// *Errors*: the peer showed no server's certificate.
pub(crate) fn servers_only(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Peer>().and_then(|p| p.server) {
        Some(_) => Ok(request),
        None => Err(ErrorCode::PermissionDenied.status("only servers of the network call this")),
    }
}
