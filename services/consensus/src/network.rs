//! The way to other servers: one gRPC channel each, made when first needed.
//!
//! Owns the encoding of openraft's messages. Leaves TLS and names to the [`Connector`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use farlane_units::Millis;
use farlane_wire::v1::RaftMessage;
use farlane_wire::v1::consensus_client::ConsensusClient;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AnyError, BasicNode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::arrears::Arrears;
use crate::error::ConnectError;
use crate::log::{read_entries, write_entries};
use crate::machine::snapshot::{SnapshotData, Trailer, chunks};
use crate::raft::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};

/// Bound of one message between servers: what the log reads at once, with room for heads.
pub(crate) const MOST_MESSAGE: usize = 8 * 1024 * 1024;
/// How long to wait before a server that does not answer is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Chunks of a snapshot read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// A snapshot that takes longer is given up and begun again: 100 GiB at 1 Gbit/s.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(900);

type Append = AppendEntriesResponse<u64>;
type Rpc = RPCError<u64, BasicNode, RaftError<u64>>;

/// Gives channels to other servers. `services/server` plugs TLS in here.
#[tonic::async_trait]
pub trait Connector: Send + Sync + 'static {
    /// A channel to the server at this URL.
    ///
    /// *Errors*: it cannot be reached, or is not who it should be. It is tried again later.
    async fn connect(&self, url: &str) -> Result<Channel, ConnectError>;
}

/// HTTP/2 without TLS: for tests, and for servers that share a machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainConnector;

#[tonic::async_trait]
impl Connector for PlainConnector {
    async fn connect(&self, url: &str) -> Result<Channel, ConnectError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| ConnectError::BadUrl {
            url: url.to_owned(),
        })?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5));
        endpoint
            .connect()
            .await
            .map_err(|source| ConnectError::Failed {
                url: url.to_owned(),
                source: source.into(),
            })
    }
}

/// What comes before the entries of an append.
#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
}

/// The first message of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub now: Millis,
}

/// The kinds of messages in a snapshot's stream: their first byte.
pub(crate) mod part {
    /// The head.
    pub const HEAD: u8 = 0;
    /// Rows.
    pub const ROWS: u8 = 1;
    /// The trailer, last.
    pub const TRAILER: u8 = 2;
}

/// A message that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("another server's message cannot be read")]
pub(crate) struct BadMessage;

pub(crate) fn encode_append(
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<Bytes, BadMessage> {
    let head = AppendHead {
        vote: request.vote,
        prev: request.prev_log_id,
        commit: request.leader_commit,
    };
    let head = postcard::to_stdvec(&head).map_err(|_| BadMessage)?;
    let bytes = request
        .entries
        .iter()
        .map(crate::log::entry_size)
        .sum::<usize>();
    let mut out = Vec::with_capacity(8 + head.len() + bytes + 16 * request.entries.len());
    out.put_u32_le(head.len() as u32);
    out.put_slice(&head);
    write_entries(&mut out, &request.entries);
    Ok(out.into())
}

pub(crate) fn decode_append(
    mut body: Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, BadMessage> {
    let length = body
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or(BadMessage)?;
    let head = 4..4usize.saturating_add(length as usize);
    let bytes = body.get(head.clone()).ok_or(BadMessage)?;
    let AppendHead { vote, prev, commit } = postcard::from_bytes(bytes).map_err(|_| BadMessage)?;
    let _ = body.split_to(head.end);
    let entries: Vec<Entry> = read_entries(&mut body).map_err(|_| BadMessage)?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: prev,
        entries,
        leader_commit: commit,
    })
}

/// A message whose first byte says what part of a snapshot it is.
fn part_message(kind: u8, body: &[u8]) -> RaftMessage {
    let mut out = BytesMut::with_capacity(1 + body.len());
    out.put_u8(kind);
    out.put_slice(body);
    RaftMessage { body: out.freeze() }
}

/// Makes the network of each target.
pub(crate) struct Networks {
    pub connector: Arc<dyn Connector>,
    pub arrears: Arc<Arrears>,
}

impl RaftNetworkFactory<TypeConfig> for Networks {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Network {
        Network {
            target,
            url: node.addr.clone(),
            connector: self.connector.clone(),
            arrears: self.arrears.clone(),
            client: None,
        }
    }
}

/// The way to one server.
pub(crate) struct Network {
    target: u64,
    url: String,
    connector: Arc<dyn Connector>,
    arrears: Arc<Arrears>,
    client: Option<ConsensusClient<Channel>>,
}

impl Network {
    async fn client(&mut self) -> Result<&mut ConsensusClient<Channel>, Unreachable> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let channel = self
                    .connector
                    .connect(&self.url)
                    .await
                    .map_err(|e| Unreachable::new(&e))?;
                ConsensusClient::new(channel)
                    .max_decoding_message_size(MOST_MESSAGE)
                    .max_encoding_message_size(MOST_MESSAGE)
            }
        };
        Ok(self.client.insert(client))
    }

    /// Sends one message and reads the answer's result.
    async fn call<T: DeserializeOwned>(&mut self, method: Method, body: Bytes) -> Result<T, Rpc> {
        let target = self.target;
        let client = self.client().await.map_err(RPCError::Unreachable)?;
        let message = RaftMessage { body };
        let answer = match method {
            Method::Append => client.append(message).await,
            Method::Vote => client.vote(message).await,
        };
        let answer = answer.map_err(|status| match status.code() {
            tonic::Code::Unavailable => RPCError::Unreachable(Unreachable::new(&status)),
            _ => RPCError::Network(NetworkError::new(&status)),
        })?;
        let result: Result<T, RaftError<u64>> = postcard::from_bytes(&answer.into_inner().body)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(target, error)))
    }

    async fn stream_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
    ) -> Result<SnapshotResponse<u64>, Stream> {
        let SnapshotData::Outgoing(tree) = *snapshot.snapshot else {
            return Err(broken(
                "a snapshot that is still being received was to be sent",
            ));
        };
        let holds = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let head = SnapshotHead {
            vote,
            meta: snapshot.meta,
            now: tree.head.now,
        };
        let head = postcard::to_stdvec(&head)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let reader = tokio::task::spawn_blocking(move || {
            // The receiver is gone when the call has failed; its error says more.
            if sender
                .blocking_send(part_message(part::HEAD, &head))
                .is_err()
            {
                return Ok(());
            }
            let mut chunks = chunks(&tree)?;
            while let Some(chunk) = chunks.next()? {
                if sender
                    .blocking_send(part_message(part::ROWS, &chunk))
                    .is_err()
                {
                    return Ok(());
                }
            }
            let Trailer { rows, hash } = chunks.trailer();
            let mut trailer = rows.to_le_bytes().to_vec();
            trailer.extend_from_slice(&hash);
            let _ = sender.blocking_send(part_message(part::TRAILER, &trailer));
            Ok::<(), crate::machine::snapshot::SnapshotError>(())
        });
        let (target, arrears) = (self.target, self.arrears.clone());
        let client = self.client().await.map_err(StreamingError::Unreachable)?;
        arrears.began(target, holds);
        let answer = client.snapshot(ReceiverStream::new(receiver)).await;
        match reader.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(broken(&error.to_string())),
            Err(error) => return Err(broken(&error.to_string())),
        }
        let answer = answer.map_err(|status| match status.code() {
            tonic::Code::Unavailable => StreamingError::Unreachable(Unreachable::new(&status)),
            _ => StreamingError::Network(NetworkError::new(&status)),
        })?;
        let result: Result<Vote, Fatal<u64>> = postcard::from_bytes(&answer.into_inner().body)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        result
            .map(SnapshotResponse::new)
            .map_err(|error| StreamingError::RemoteError(RemoteError::new(target, error)))
    }
}

type Stream = StreamingError<TypeConfig, Fatal<u64>>;

fn broken(why: &str) -> Stream {
    StreamingError::Network(NetworkError::new(&AnyError::error(why)))
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Append,
    Vote,
}

impl RaftNetwork<TypeConfig> for Network {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<Append, Rpc> {
        let body = encode_append(&request)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        self.call(Method::Append, body).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Rpc> {
        let body = postcard::to_stdvec(&request)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        self.call(Method::Vote, body.into()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, Stream> {
        let sent = tokio::select! {
            sent = tokio::time::timeout(SNAPSHOT_TIMEOUT, self.stream_snapshot(vote, snapshot)) => {
                sent.unwrap_or_else(|_| Err(broken("the snapshot took too long")))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        };
        if sent.is_err() {
            self.arrears.failed(self.target);
        }
        sent
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::raft::Batch;
    use openraft::{CommittedLeaderId, EntryPayload, Membership};

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let id = |index| LogId::new(CommittedLeaderId::new(3, 1), index);
        let nodes: std::collections::BTreeMap<u64, BasicNode> =
            [(1, BasicNode::new("http://one:1"))].into();
        let batch = Batch {
            body: Bytes::from_static(b"the commands"),
            ..Batch::default()
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(id(6)),
            leader_commit: None,
            entries: vec![
                Entry {
                    log_id: id(7),
                    payload: EntryPayload::Blank,
                },
                Entry {
                    log_id: id(8),
                    payload: EntryPayload::Normal(batch),
                },
                Entry {
                    log_id: id(9),
                    payload: EntryPayload::Membership(Membership::new(vec![[1].into()], nodes)),
                },
            ],
        }
    }

    #[test]
    fn an_append_survives_the_wire() {
        let sent = request();
        let read = decode_append(encode_append(&sent).unwrap()).unwrap();
        assert_eq!(
            (read.vote, read.prev_log_id, read.leader_commit),
            (sent.vote, sent.prev_log_id, None)
        );
        let (read, sent) = (read.entries, sent.entries);
        assert_eq!(
            read.iter().map(|entry| entry.log_id).collect::<Vec<_>>(),
            sent.iter().map(|entry| entry.log_id).collect::<Vec<_>>()
        );
        let (EntryPayload::Normal(a), EntryPayload::Normal(b)) =
            (&read[1].payload, &sent[1].payload)
        else {
            panic!()
        };
        assert_eq!(a.body, b.body);
        let (EntryPayload::Membership(a), EntryPayload::Membership(b)) =
            (&read[2].payload, &sent[2].payload)
        else {
            panic!()
        };
        assert_eq!(a, b);
    }

    #[test]
    fn an_append_cut_short_anywhere_is_refused() {
        let whole = encode_append(&request()).unwrap();
        for length in 0..whole.len() {
            assert!(
                decode_append(whole.slice(..length)).is_err(),
                "cut at {length}"
            );
        }
    }
}
