//! A client that seals, grants and opens.

use std::collections::HashMap;

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BlobRef, Digest, Glob, LabelRule, NodeId, NodeRequest, PythonVersion, Resources,
    SessionId, TaskId, TaskSpec, TenantId, Tier,
};
use farlane_seal::grant::{Grant, GranterContext, OpenContext};
use farlane_seal::record::{NodeRecord, RevocationPolicy, SignedPrekey};
use farlane_seal::{SessionKey, StreamContext, TaskKey, stream, vault, wrap};
use farlane_units::{ByteCount, Millis};
use farlane_wire::channel::{self, MAX_MESSAGE};
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::network_client::NetworkClient;
use farlane_wire::v1::session_frame::Body as Down;
use farlane_wire::{id, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::world::{World, soon, wall};

pub type Api = NetworkClient<Channel>;

pub struct Person {
    pub api: Api,
    pub key: String,
    pub session: SessionId,
    pub session_key: SessionKey,
    pub tasks: HashMap<u64, (TaskKey, Digest, Digest)>,
    pub contexts: HashMap<(NodeId, u64), (GranterContext, v1::ContextOpening)>,
    pub records: HashMap<NodeId, NodeRecord>,
    pub opened: v1::SessionOpened,
    pub up: mpsc::Sender<v1::ClientFrame>,
    pub down: Streaming<v1::SessionFrame>,
    pub next_seq: u64,
    pub cursor: v1::Cursor,
    known_specs: Vec<Digest>,
}

pub fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    channel::authorize(request.metadata_mut(), key);
    request
}

pub async fn api(world: &World) -> Api {
    let channel = channel::connect(&world.urls(), world.ca(), None)
        .await
        .unwrap();
    NetworkClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

pub fn spec(world: &World, change: impl FnOnce(&mut TaskSpec)) -> TaskSpec {
    let code = BlobRef {
        digest: Digest::of(b"code"),
        size: ByteCount(4),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    let mut spec = TaskSpec {
        function: "double".into(),
        resources: Resources {
            memory: ByteCount::mib(64),
            scratch: ByteCount(0),
            ..Resources::default()
        },
        node: NodeRequest {
            regions: vec![Glob::new("eu-*").unwrap()],
            labels: vec![LabelRule::equals("disk", "nvme")],
            tier: Tier::Namespaces,
            ..NodeRequest::any(python)
        },
        ..TaskSpec::new(world.project, code, python)
    };
    change(&mut spec);
    spec
}

/// Opens a session stream by hand; the first frame that comes back.
pub async fn open(
    api: &mut Api,
    key: &str,
    open: v1::OpenSession,
) -> Result<
    (
        mpsc::Sender<v1::ClientFrame>,
        Streaming<v1::SessionFrame>,
        Down,
    ),
    Status,
> {
    let (up, frames) = mpsc::channel(64);
    up.send(v1::ClientFrame {
        body: Some(Up::Open(open)),
    })
    .await
    .unwrap();
    let stream = api
        .session(with_key(ReceiverStream::new(frames), key))
        .await?;
    let mut down = stream.into_inner();
    let first = soon("the first frame", down.message())
        .await?
        .unwrap()
        .body
        .unwrap();
    Ok((up, down, first))
}

pub fn opening(world: &World, session: SessionId, key: &SessionKey) -> v1::OpenSession {
    let wrapped = vault::seal_session(&world.vault.public(), session, key).unwrap();
    v1::OpenSession {
        hello: Some(farlane_wire::hello("test client")),
        session: id::session_bytes(&session),
        resume: None,
        wrapped_session_key: wrapped.into(),
        granter: v1::GranterKind::Session.into(),
        device_bytes: world.device_record.to_bytes(),
        next_seq: 1,
    }
}

impl Person {
    pub async fn connect(world: &World) -> Self {
        let random = farlane_seal::random::bytes::<5>();
        let session = SessionId::new(wall().0, random);
        let session_key = SessionKey::generate();
        Self::with(world, session, session_key, None).await
    }

    async fn with(
        world: &World,
        session: SessionId,
        session_key: SessionKey,
        resume: Option<v1::Cursor>,
    ) -> Self {
        let mut api = api(world).await;
        let mut open_frame = opening(world, session, &session_key);
        open_frame.resume = resume;
        let mut moves = 0;
        let (up, down, opened) = loop {
            let frame = open_frame.clone();
            let (up, down, first) = open(&mut api, &world.key, frame).await.unwrap();
            let Down::Opened(opened) = first else {
                panic!("{first:?}")
            };
            if opened.leader.is_empty() {
                break (up, down, opened);
            }
            // Leadership moved since this server was asked who leads: as a client does, go there.
            moves += 1;
            assert!(moves < 20, "{opened:?}");
            let there = [opened.leader];
            let channel = channel::connect(&there, world.ca(), None).await.unwrap();
            api = NetworkClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        };
        Self {
            api,
            key: world.key.clone(),
            session,
            session_key,
            tasks: HashMap::new(),
            contexts: HashMap::new(),
            records: HashMap::new(),
            next_seq: opened.acknowledged_seq + 1,
            opened,
            up,
            down,
            cursor: resume.unwrap_or_default(),
            known_specs: Vec::new(),
        }
    }

    /// The same client after its connection was lost.
    pub async fn reconnect(self, world: &World) -> Self {
        let Self {
            session,
            session_key,
            tasks,
            contexts,
            records,
            cursor,
            known_specs,
            ..
        } = self;
        let again = Self::with(world, session, session_key, Some(cursor)).await;
        Self {
            tasks,
            contexts,
            records,
            known_specs,
            ..again
        }
    }

    pub async fn send(&self, body: Up) {
        self.up
            .send(v1::ClientFrame { body: Some(body) })
            .await
            .unwrap();
    }
    pub async fn frame(&mut self) -> Down {
        let frame = soon("a frame to the client", self.down.message()).await;
        frame.unwrap().expect("the stream goes on").body.unwrap()
    }
    /// Reads on until the server refuses; its code.
    pub async fn refusal(&mut self) -> String {
        loop {
            if let Down::Refused(refusal) = self.frame().await {
                return refusal.code;
            }
        }
    }
    /// The next frame that is no news.
    pub async fn next(&mut self) -> Down {
        loop {
            match self.frame().await {
                Down::News(_) => {}
                other => return other,
            }
        }
    }

    /// Seals arguments and makes the batch for them, without sending it.
    pub fn batch(&mut self, world: &World, spec: &TaskSpec, payloads: &[&[u8]]) -> v1::SubmitBatch {
        let bytes: Bytes = spec.to_canonical().into();
        let digest = Digest::of(&bytes);
        let first_seq = self.next_seq;
        let mut envelopes = Vec::new();
        for payload in payloads {
            let seq = self.next_seq;
            self.next_seq += 1;
            let (key, task) = (TaskKey::generate(), self.session.task(seq));
            let context = StreamContext::payload(world.tenant.public().tenant(), task);
            let sealed: Bytes = stream::seal_padded(&key, &context, payload).into();
            let payload_digest = Digest::of(&sealed);
            let wrapped = wrap::wrap_task_key(&self.session_key, seq, &key);
            envelopes.push(v1::TaskEnvelope {
                spec: id::digest_bytes(&digest),
                wrapped_key: Bytes::copy_from_slice(&wrapped),
                payload: Some(v1::Sealed {
                    place: Some(v1::sealed::Place::Inline(sealed)),
                }),
                payload_digest: id::digest_bytes(&payload_digest),
                idempotency_key: String::new(),
                refs: Vec::new(),
            });
            self.tasks.insert(seq, (key, digest, payload_digest));
        }
        let new = !self.known_specs.contains(&digest);
        self.known_specs.push(digest);
        v1::SubmitBatch {
            first_seq,
            spec_bytes: if new { vec![bytes] } else { Vec::new() },
            tasks: envelopes,
            ahead: None,
        }
    }

    pub async fn submit(&mut self, world: &World, spec: &TaskSpec, payloads: &[&[u8]]) {
        let batch = self.batch(world, spec, payloads);
        self.send(Up::Submit(batch)).await;
    }

    /// Answers a request with grants under an HPKE context.
    pub fn grants(&mut self, world: &World, request: &v1::GrantRequest) -> v1::GrantBatch {
        let node = id::node(&request.node).unwrap();
        if !self.contexts.contains_key(&(node, request.context)) {
            let record = NodeRecord::from_bytes(&request.record_bytes).unwrap();
            let prekey = SignedPrekey::from_bytes(&request.prekey_bytes, &record).unwrap();
            let (context, made) = GranterContext::open(&OpenContext {
                record: &record,
                prekey: &prekey,
                revocations: None,
                revocation_policy: RevocationPolicy::WhenGiven,
                manifest: &world.manifest,
                network: &self.opened.network,
                granter: self.session,
                device: &world.device,
                device_record: &world.device_record,
                now: wall(),
            })
            .unwrap();
            let made = v1::ContextOpening {
                enc: made.enc,
                info_bytes: made.info_bytes,
                signature: made.signature,
                device_bytes: made.device_bytes,
            };
            self.contexts
                .insert((node, request.context), (context, made));
        }
        let attempts: Vec<AttemptRef> = request
            .tasks
            .iter()
            .map(|t| AttemptRef::try_from(t.attempt.clone().unwrap()).unwrap())
            .collect();
        let grants: Vec<Grant> = attempts
            .iter()
            .map(|attempt| {
                let (key, spec_digest, payload_digest) = &self.tasks[&attempt.task.seq()];
                Grant {
                    attempt: *attempt,
                    open_by: wall().saturating_add(Millis(60_000)),
                    spec_digest: *spec_digest,
                    payload_digest: *payload_digest,
                    key: key.clone(),
                }
            })
            .collect();
        let (context, opening) = self.contexts.get_mut(&(node, request.context)).unwrap();
        let opening = Some(opening.clone());
        let (counter, sealed) = context.seal(&grants).unwrap();
        v1::GrantBatch {
            node: request.node.clone(),
            context: request.context,
            opening,
            counter,
            sealed: sealed.into(),
            attempts: attempts.into_iter().map(Into::into).collect(),
        }
    }

    /// Refuses everything that a request asks.
    pub async fn refuse(&self, request: &v1::GrantRequest, reason: &str) {
        let attempts = request.tasks.iter().filter_map(|t| t.attempt.clone());
        self.send(Up::Refuse(v1::GrantRefusal {
            node: request.node.clone(),
            attempts: attempts.collect(),
            reason: reason.to_owned(),
        }))
        .await;
    }

    /// The next request for grants.
    pub async fn request(&mut self) -> v1::GrantRequest {
        loop {
            match self.next().await {
                Down::GrantsWanted(request) => return request,
                Down::Submitted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads frames until `count` results are there; grants what is asked meanwhile.
    pub async fn results(
        &mut self,
        world: &World,
        count: usize,
    ) -> Vec<(v1::TaskResult, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next().await {
                Down::GrantsWanted(request) => {
                    let grants = self.grants(world, &request);
                    self.send(Up::Grant(grants)).await;
                }
                Down::Results(batch) => all.extend(self.open_results(world, batch)),
                Down::Submitted(ack) => assert_eq!(ack.refused, vec![]),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// Verifies a batch's signature and opens what is sealed.
    pub fn open_results(
        &mut self,
        world: &World,
        batch: v1::ResultBatch,
    ) -> Vec<(v1::TaskResult, Option<Vec<u8>>)> {
        if let Some(cursor) = batch.cursor {
            self.cursor = cursor;
        }
        let mut signed = None;
        if let Some(signature) = &batch.signature {
            let node = id::node(&batch.node).unwrap();
            if !batch.record_bytes.is_empty() {
                self.records
                    .insert(node, NodeRecord::from_bytes(&batch.record_bytes).unwrap());
            }
            let record = &self.records[&node];
            let (leaves, made) = (&signature.leaves, &signature.signature);
            farlane_seal::batch::verify(record, self.session, &signature.batch, leaves, made)
                .unwrap();
            signed = Some((node, leaves.clone()));
        }
        let tenant: TenantId = world.tenant.public().tenant();
        let open_one = |result: v1::TaskResult| {
            let sealed = result.sealed.as_ref().and_then(|s| s.place.as_ref());
            let Some(v1::sealed::Place::Inline(bytes)) = sealed else {
                return (result, None);
            };
            let (node, leaves) = signed.clone().unwrap();
            let attempt = AttemptRef::try_from(result.attempt.clone().unwrap()).unwrap();
            let exit = farlane_model::Exit::try_from(result.exit.clone().unwrap()).unwrap();
            let leaf = farlane_seal::batch::leaf(&attempt, exit.kind, Some(&Digest::of(bytes)));
            assert!(farlane_seal::batch::matches(
                &leaves,
                result.leaf as usize,
                &leaf
            ));
            let key = &self.tasks[&attempt.task.seq()].0;
            let context = StreamContext::result(tenant, attempt, node);
            let plain = stream::open_padded(key, &context, bytes, 1 << 20).unwrap();
            (result, Some(plain))
        };
        batch.results.into_iter().map(open_one).collect()
    }

    pub fn task(&self, seq: u64) -> TaskId {
        self.session.task(seq)
    }
}

pub fn exit_kind(result: &v1::TaskResult) -> v1::ExitKind {
    result.exit.as_ref().unwrap().kind()
}
