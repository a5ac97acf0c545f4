//! A network in one process: the wire and the seals are real, the control plane is a few maps.
//!
//! Its one node opens grants with its own prekeys, opens payloads, "runs" them by echoing the arguments,
//! and signs its results, so that what a test sees has passed every check that a real path makes.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farlane::Identity;
use farlane::v1::network_server::{Network, NetworkServer};
use farlane::v1::{self, client_frame::Body as In, session_frame::Body as Out};
use farlane_model::{
    AttemptRef, BlobRef, BootId, Digest, Exit, ExitKind, ProjectId, Sealed, SessionId, TaskId, Tier,
};
use farlane_seal::grant::{Grant, NodeContext, Opening};
use farlane_seal::payload::Payload;
use farlane_seal::prekey::PrekeyStock;
use farlane_seal::record::{
    DeviceRecord, DeviceTerms, EnrolmentCert, EnrolmentTerms, Manifest, ManifestTerms, NodeRecord,
    ProviderPin, RevocationList,
};
use farlane_seal::sign::PublicKey;
use farlane_seal::vault::VaultSecret;
use farlane_seal::{
    DeviceKey, EnrolmentSeed, NodeIdentity, ProviderRoot, StreamContext, StreamKind, TenantRoot,
    batch, stream,
};
use farlane_units::Millis;
use farlane_wire::ErrorCode;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

mod lies;
mod node;
mod service;

pub use node::ProviderRootNode;
use node::{Node, grant_request, identity, node, run};

pub const KEY: &str = "flk_test_secret";
pub const EPOCH: u64 = 3;
const FAR: Millis = Millis(u64::MAX / 2);

type Link = mpsc::UnboundedSender<Result<v1::SessionFrame, Status>>;
type Frames = Pin<Box<dyn Stream<Item = Result<v1::SessionFrame, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::BlobChunk, Status>> + Send>>;
type LogFrames = Pin<Box<dyn Stream<Item = Result<v1::LogChunk, Status>> + Send>>;
type TraceFrames = Pin<Box<dyn Stream<Item = Result<v1::TraceChunk, Status>> + Send>>;

/// What the node does with a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Result = codec 1 ‖ arguments.
    Echo,
    /// One bit of the sealed result is wrong.
    FlipSealed,
    /// One bit of the signature is wrong.
    FlipSignature,
    /// Returned, but nobody signed it.
    Unsigned,
    /// No answer until told otherwise.
    Hold,
    /// Codec 0.
    Safe,
    /// Codec 0, and nobody signed it.
    SafeUnsigned,
    /// The control plane ends it before any attempt.
    Infeasible,
    /// An exit of no kind.
    Malformed,
}

/// What a test looks at and sets.
pub struct Knobs {
    pub answer: Answer,
    /// Submit batches are not acknowledged while set.
    pub withhold_acks: bool,
    /// The stream breaks after this many submit batches were taken in and not acknowledged.
    pub break_after: Option<usize>,
    /// Streams are opened and broken at once while set.
    pub hang_up: bool,
    /// Every call is answered with this.
    pub refuse_key: Option<ErrorCode>,
    pub acks_seen: Vec<v1::Cursor>,
    pub batches: Vec<usize>,
    pub resumes: Vec<Option<v1::Cursor>>,
    pub openings_seen: usize,
    pub cancelled: Vec<TaskId>,
    /// What the node opened: attempts, and the spec that each was granted for.
    pub granted: Vec<(AttemptRef, Digest)>,
    /// What granters refused.
    pub refused: Vec<v1::GrantRefusal>,
    /// Tasks granted with their submission; the node takes that while set, and nobody is asked.
    pub ahead: usize,
    pub take_ahead: bool,
}

struct Task {
    envelope: v1::TaskEnvelope,
    spec: Bytes,
    granted: bool,
    result: Option<v1::ResultBatch>,
}

#[derive(Default)]
struct SessionState {
    acknowledged: u64,
    wrapped_key: Bytes,
    context: Option<(u64, Bytes)>,
}

struct World {
    node: Node,
    tasks: HashMap<TaskId, Task>,
    sessions: HashMap<SessionId, SessionState>,
    specs: HashMap<Digest, Bytes>,
    blobs: HashMap<Digest, Bytes>,
    index: u64,
    contexts: u64,
    /// What new contexts come with.
    revocations: Bytes,
    /// Cluster time less this machine's, ms.
    ahead: u64,
    /// Tasks by their idempotency key.
    keyed: HashMap<String, TaskId>,
}

/// A running mock.
#[derive(Clone)]
pub struct Mock {
    world: Arc<Mutex<World>>,
    pub knobs: Arc<Mutex<Knobs>>,
    pub identity: Arc<Identity>,
    pub network: Vec<u8>,
    provider: Arc<ProviderRoot>,
    /// When its first list of revocations was made.
    begun: Millis,
    /// What granters of this mock's user share.
    pub memory: Arc<tempfile::TempDir>,
    links: Arc<Mutex<HashMap<SessionId, Link>>>,
}

impl Mock {
    /// Starts one on loopback, with TLS under a certificate authority of its own.
    pub async fn start(own_provider: bool) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![farlane_wire::channel::SERVER_NAME.to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let provider = ProviderRoot::generate();
        let network = vec![5; 16];
        let urls = vec![format!("https://{address}")];
        let identity = identity(
            urls,
            certificate.pem(),
            own_provider,
            provider.public(),
            &network,
        );
        let begun = World::wall();
        let first = RevocationList::sign(&provider, begun, Vec::new()).unwrap();
        let world = World {
            revocations: first.to_bytes(),
            ahead: 0,
            node: node(&provider, "mock"),
            tasks: HashMap::new(),
            sessions: HashMap::new(),
            specs: HashMap::new(),
            blobs: HashMap::new(),
            index: 1,
            contexts: 0,
            keyed: HashMap::new(),
        };
        let knobs = Knobs {
            answer: Answer::Echo,
            withhold_acks: false,
            break_after: None,
            hang_up: false,
            refuse_key: None,
            acks_seen: Vec::new(),
            batches: Vec::new(),
            resumes: Vec::new(),
            openings_seen: 0,
            cancelled: Vec::new(),
            granted: Vec::new(),
            refused: Vec::new(),
            ahead: 0,
            take_ahead: false,
        };
        let mock = Self {
            world: Arc::new(Mutex::new(world)),
            knobs: Arc::new(Mutex::new(knobs)),
            identity: Arc::new(identity),
            network,
            provider: Arc::new(provider),
            begun,
            memory: Arc::new(tempfile::tempdir().unwrap()),
            links: Arc::default(),
        };
        let tls = tonic::transport::ServerTlsConfig::new().identity(
            tonic::transport::Identity::from_pem(certificate.pem(), key.serialize_pem()),
        );
        let service = NetworkServer::new(mock.clone()).max_decoding_message_size(16 << 20);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        mock
    }

    /// Tasks that were granted and answered.
    pub fn finished(&self) -> usize {
        self.world
            .lock()
            .tasks
            .values()
            .filter(|task| task.result.is_some())
            .count()
    }
    /// Tasks taken in.
    pub fn submitted(&self) -> usize {
        self.world.lock().tasks.len()
    }
    pub fn blobs(&self) -> usize {
        self.world.lock().blobs.len()
    }
    /// The canonical spec that a task came with.
    pub fn spec_of(&self, task: TaskId) -> Option<Bytes> {
        self.world
            .lock()
            .tasks
            .get(&task)
            .map(|task| task.spec.clone())
    }

    /// Everything a server holds or has seen, for a search of plaintext.
    pub fn everything(&self) -> Vec<u8> {
        let world = self.world.lock();
        let mut out = Vec::new();
        for task in world.tasks.values() {
            out.extend(format!("{:?}", task.envelope).into_bytes());
            if let Some(v1::sealed::Place::Inline(bytes)) = task
                .envelope
                .payload
                .as_ref()
                .and_then(|p| p.place.as_ref())
            {
                out.extend_from_slice(bytes);
            }
            out.extend_from_slice(&task.spec);
        }
        world
            .blobs
            .values()
            .for_each(|blob| out.extend_from_slice(blob));
        out
    }

    /// Ends every session's stream, as a lost connection would.
    pub fn cut(&self) {
        for (_, link) in self.links.lock().drain() {
            let _ = link.send(Err(ErrorCode::Unavailable.status("cut")));
        }
    }

    /// Asks a session to grant `task`'s next attempt to this node, or to `other` instead.
    pub fn ask_again(&self, task: TaskId, other: Option<&ProviderRootNode>) {
        let mut world = self.world.lock();
        let request = match other {
            Some(other) => other.request(task),
            None => grant_request(&mut world, task.session(), vec![task]),
        };
        if let Some(link) = self.links.lock().get(&task.session()) {
            let _ = link.send(Ok(frame(Out::GrantsWanted(request))));
        }
    }

    fn check(&self, request: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        if let Some(code) = self.knobs.lock().refuse_key {
            return Err(code.status("this key is not accepted"));
        }
        match farlane_wire::channel::api_key(request)? {
            KEY => Ok(()),
            _ => Err(ErrorCode::Unauthenticated.status("the API key is not known")),
        }
    }

    fn submit(&self, session: SessionId, batch: v1::SubmitBatch) -> Result<Vec<Out>, Status> {
        let mut world = self.world.lock();
        let count = batch.tasks.len();
        for spec in &batch.spec_bytes {
            world.specs.insert(Digest::of(spec), spec.clone());
        }
        let state = world.sessions.entry(session).or_default();
        if batch.first_seq > state.acknowledged + 1 {
            return Err(ErrorCode::BadSequence.status("a gap"));
        }
        let known = state.acknowledged;
        let through = batch.first_seq + count as u64 - 1;
        state.acknowledged = known.max(through);
        let mut fresh = Vec::new();
        let mut duplicates = Vec::new();
        for (i, envelope) in batch.tasks.into_iter().enumerate() {
            let seq = batch.first_seq + i as u64;
            if seq <= known {
                continue;
            }
            let task = session.task(seq);
            if !envelope.idempotency_key.is_empty() {
                if let Some(earlier) = world.keyed.get(&envelope.idempotency_key) {
                    let task = Bytes::copy_from_slice(&earlier.to_bytes());
                    duplicates.push(v1::Duplicate { seq, task });
                    continue;
                }
                world.keyed.insert(envelope.idempotency_key.clone(), task);
            }
            let digest =
                Digest::from_slice(&envelope.spec).map_err(|_| Status::internal("spec"))?;
            let spec = world
                .specs
                .get(&digest)
                .cloned()
                .ok_or_else(|| Status::internal("unknown spec"))?;
            world.tasks.insert(
                task,
                Task {
                    envelope,
                    spec,
                    granted: false,
                    result: None,
                },
            );
            fresh.push(task);
        }
        let mut knobs = self.knobs.lock();
        knobs.batches.push(count);
        if let Some(left) = &mut knobs.break_after {
            if *left == 0 {
                knobs.break_after = None;
                return Err(ErrorCode::Unavailable.status("broken on purpose"));
            }
            *left -= 1;
        }
        let mut out = Vec::new();
        if !knobs.withhold_acks {
            out.push(Out::Submitted(v1::SubmitAck {
                through_seq: through,
                duplicates,
                ..Default::default()
            }));
        }
        let take_ahead = knobs.take_ahead;
        let ahead = batch.ahead.filter(|ahead| {
            knobs.ahead += ahead.attempts.len();
            take_ahead
        });
        drop(knobs);
        if let Some(ahead) = ahead {
            drop(world);
            out.extend(self.grant(session, ahead)?);
            return Ok(out);
        }
        let answer = self.knobs.lock().answer;
        if matches!(answer, Answer::Infeasible | Answer::Malformed) {
            out.extend(
                fresh
                    .iter()
                    .map(|task| Out::Results(decided(*task, answer))),
            );
        } else if !fresh.is_empty() {
            out.push(Out::GrantsWanted(grant_request(&mut world, session, fresh)));
        }
        Ok(out)
    }

    fn grant(&self, session: SessionId, batch: v1::GrantBatch) -> Result<Vec<Out>, Status> {
        let bad = |what: String| Status::internal(what);
        let mut world = self.world.lock();
        let now = world.now();
        if batch.node[..] != world.node.record.node().0 {
            return Ok(Vec::new());
        }
        if batch.opening.is_some() {
            self.knobs.lock().openings_seen += 1;
        }
        if !world.node.contexts.contains_key(&batch.context) {
            let opening = batch.opening.ok_or_else(|| bad("no opening".to_owned()))?;
            let opening = Opening {
                enc: opening.enc,
                info_bytes: opening.info_bytes,
                signature: opening.signature,
                device_bytes: opening.device_bytes,
            };
            let context = world
                .node
                .stock
                .accept(&opening, &self.network, now)
                .map_err(|e| bad(e.to_string()))?;
            world.node.contexts.insert(batch.context, context);
        }
        let context = world
            .node
            .contexts
            .get_mut(&batch.context)
            .ok_or_else(|| bad("context".to_owned()))?;
        let grants = context
            .open(batch.counter, &batch.sealed, now)
            .map_err(|e| bad(e.to_string()))?;
        let answer = {
            let mut knobs = self.knobs.lock();
            let opened = grants.iter().map(|g| (g.attempt, g.spec_digest));
            knobs.granted.extend(opened);
            knobs.answer
        };
        if answer == Answer::Hold {
            return Ok(Vec::new());
        }
        let tenant = self.identity.tenant();
        Ok(run(&mut world, session, tenant, grants, answer)
            .map(Out::Results)
            .into_iter()
            .collect())
    }

    fn open(&self, open: v1::OpenSession) -> Result<Vec<Out>, Status> {
        let session =
            SessionId::from_slice(&open.session).map_err(|e| Status::internal(e.to_string()))?;
        self.knobs.lock().resumes.push(open.resume);
        let mut world = self.world.lock();
        let state = world.sessions.entry(session).or_default();
        state.wrapped_key = open.wrapped_session_key.clone();
        // A new stream is told record and prekey again.
        state.context = None;
        let acknowledged_seq = state.acknowledged;
        let opened = v1::SessionOpened {
            hello: Some(farlane_wire::server_hello("mock")),
            network: self.network.clone().into(),
            epoch: EPOCH,
            cluster_time_ms: world.now().get(),
            acknowledged_seq,
            project: Bytes::copy_from_slice(&self.identity.project.to_bytes()),
            leader: String::new(),
        };
        let mut out = vec![Out::Opened(opened)];
        let seen = open.resume.map_or(0, |cursor| cursor.index);
        let mut results: Vec<_> = world
            .tasks
            .iter()
            .filter(|(id, _)| id.session() == session)
            .filter_map(|(_, task)| task.result.clone())
            .filter(|batch| batch.cursor.is_some_and(|c| c.index > seen))
            .collect();
        results.sort_by_key(|batch| batch.cursor.map(|c| c.index));
        results.dedup_by_key(|batch| batch.cursor.map(|c| c.index));
        out.extend(results.into_iter().map(Out::Results));
        let ungranted: Vec<_> = world
            .tasks
            .iter()
            .filter(|(id, task)| id.session() == session && !task.granted)
            .map(|(id, _)| *id)
            .collect();
        if !ungranted.is_empty() {
            out.push(Out::GrantsWanted(grant_request(
                &mut world, session, ungranted,
            )));
        }
        Ok(out)
    }

    fn watch(&self, watch: v1::Watch) -> Vec<Out> {
        let world = self.world.lock();
        let found = watch
            .tasks
            .iter()
            .filter_map(|id| TaskId::from_slice(id).ok());
        let results = found.filter_map(|id| world.tasks.get(&id)?.result.clone());
        results.map(Out::Results).collect()
    }
}
fn frame(body: Out) -> v1::SessionFrame {
    v1::SessionFrame { body: Some(body) }
}

impl World {
    fn wall() -> Millis {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Millis(since.as_millis() as u64)
    }
    /// Cluster time.
    fn now(&self) -> Millis {
        Self::wall().saturating_add(Millis(self.ahead))
    }
}
/// What the control plane says of a task that never ran: nobody signs it.
fn decided(task: TaskId, answer: Answer) -> v1::ResultBatch {
    let infeasible = Exit::new(ExitKind::Infeasible, "no node has 64 cores");
    let exit = match answer {
        Answer::Malformed => v1::Exit::default(),
        _ => infeasible.into(),
    };
    let attempt = v1::AttemptRef {
        task: Bytes::copy_from_slice(&task.to_bytes()),
        attempt: 0,
        epoch: EPOCH,
    };
    v1::ResultBatch {
        results: vec![v1::TaskResult {
            attempt: Some(attempt),
            exit: Some(exit),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Distinct tasks of a list.
pub fn distinct(tasks: &[TaskId]) -> usize {
    tasks.iter().collect::<HashSet<_>>().len()
}
