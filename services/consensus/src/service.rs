//! What other servers call here.

use bytes::{Buf, Bytes};
use farlane_units::Millis;
use farlane_wire::v1::RaftMessage;
use farlane_wire::v1::consensus_server::Consensus as ConsensusService;
use openraft::error::Fatal;
use openraft::storage::Snapshot;
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

use crate::machine::snapshot::{Incoming, SnapshotData, SnapshotError, Trailer};
use crate::network::{SnapshotHead, decode_append, part};
use crate::raft::{Raft, Vote};

/// The gRPC service `Consensus`. Who may call it is decided by the certificate, before it.
pub struct RaftService {
    pub(crate) raft: Raft,
}

fn bad() -> Status {
    Status::invalid_argument(
        "the message cannot be read; do the servers run builds that understand each other?",
    )
}

fn answer<T: Serialize>(result: &T) -> Result<Response<RaftMessage>, Status> {
    let body = postcard::to_stdvec(result).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(RaftMessage { body: body.into() }))
}

#[tonic::async_trait]
impl ConsensusService for RaftService {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let request = decode_append(request.into_inner().body).map_err(|_| bad())?;
        answer(&self.raft.append_entries(request).await)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let request = postcard::from_bytes(&request.into_inner().body).map_err(|_| bad())?;
        answer(&self.raft.vote(request).await)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut parts = request.into_inner();
        let (kind, head) = next(&mut parts).await?;
        if kind != part::HEAD {
            return Err(bad());
        }
        let head: SnapshotHead = postcard::from_bytes(&head).map_err(|_| bad())?;
        let data = self
            .raft
            .begin_receiving_snapshot()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let SnapshotData::Incoming(incoming) = *data else {
            return Err(Status::internal("no place for a snapshot"));
        };
        let incoming = receive(incoming, &mut parts, head.now).await?;
        let snapshot = Snapshot {
            meta: head.meta,
            snapshot: Box::new(SnapshotData::Incoming(incoming)),
        };
        let installed: Result<Vote, Fatal<u64>> = self
            .raft
            .install_full_snapshot(head.vote, snapshot)
            .await
            .map(|response| response.vote);
        answer(&installed)
    }
}

/// Fills the incoming file until the trailer.
async fn receive(
    mut incoming: Incoming,
    parts: &mut Streaming<RaftMessage>,
    now: Millis,
) -> Result<Incoming, Status> {
    let failed = |error: SnapshotError| match error {
        SnapshotError::Malformed => Status::data_loss(error.to_string()),
        error => Status::internal(error.to_string()),
    };
    loop {
        let (kind, mut body) = next(parts).await?;
        match kind {
            part::ROWS => {
                let taken =
                    tokio::task::spawn_blocking(move || incoming.take(body).map(|()| incoming))
                        .await;
                incoming = taken
                    .map_err(|error| Status::internal(error.to_string()))?
                    .map_err(failed)?;
            }
            part::TRAILER if body.len() == 40 => {
                let rows = body.get_u64_le();
                let mut hash = [0; 32];
                body.copy_to_slice(&mut hash);
                incoming
                    .finish(Trailer { rows, hash }, now)
                    .map_err(failed)?;
                return Ok(incoming);
            }
            _ => return Err(bad()),
        }
    }
}

async fn next(parts: &mut Streaming<RaftMessage>) -> Result<(u8, Bytes), Status> {
    let mut body = parts
        .message()
        .await?
        .ok_or_else(|| Status::data_loss("the snapshot is cut off"))?
        .body;
    if body.is_empty() {
        return Err(bad());
    }
    Ok((body.get_u8(), body))
}
