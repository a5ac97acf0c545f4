//! A trace of what the network did, as it comes.

use farlane_wire::v1;
use tonic::Streaming;

use crate::Error;
use crate::network::Network;

/// A trace on its way. Only one that came to its end is whole.
pub struct TraceChunks {
    network: Network,
    stream: Streaming<v1::TraceChunk>,
}

impl Network {
    /// What the network did in a span of time. Asked once: counting what ended then may take a server longer than a
    /// question's patience.
    ///
    /// *Errors*: no connection, or the server refuses.
    pub async fn export_trace(
        &self,
        request: v1::ExportTraceRequest,
    ) -> Result<TraceChunks, Error> {
        let reply = self.client().export_trace(self.request(request)).await;
        let stream = reply.map_err(|status| self.refused(status))?.into_inner();
        Ok(TraceChunks {
            network: self.clone(),
            stream,
        })
    }
}

impl TraceChunks {
    /// The next lines; `None` at the end.
    ///
    /// *Errors*: no connection, or the server gave up: what came so far is no trace.
    pub async fn next(&mut self) -> Result<Option<v1::TraceChunk>, Error> {
        let chunk = self.stream.message().await;
        chunk.map_err(|status| self.network.refused(status))
    }
}
