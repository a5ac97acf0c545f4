//! An agent without workers: it joins, opens grants and payloads, and answers with their double.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BootId, Digest, Exit, ExitKind, Interpreter, NodeId, NodeSpec, PythonVersion,
    SessionId, TaskId, TenantId, Tier,
};
use farlane_seal::batch;
use farlane_seal::grant::{Grant, NodeContext, Opening};
use farlane_seal::prekey::PrekeyStock;
use farlane_seal::record::NodeRecord;
use farlane_seal::{NodeIdentity, StreamContext, TaskKey, stream};
use farlane_units::{ByteCount, MilliCpu, UsdMicros};
use farlane_wire::channel::{self, MAX_MESSAGE};
use farlane_wire::v1::agent_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as Down;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{id, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::enrolment::{Kept, enrol, enrol_as, token};
use crate::world::{World, soon, wall, year};

pub struct Machine {
    pub kept: Kept,
    pub node: NodeId,
    pub boot: BootId,
    pub stock: PrekeyStock,
    pub fleet: FleetClient<Channel>,
    pub up: mpsc::Sender<v1::AgentFrame>,
    pub down: Streaming<v1::ControlFrame>,
    pub hello: v1::ControlHello,
    pub contexts: HashMap<u64, Vec<NodeContext>>,
    pub assigned: HashMap<TaskId, v1::Assignment>,
    pub granted: HashMap<AttemptRef, Grant>,
    pub specs: Vec<Digest>,
    pub seen: u64,
    /// How late it answers when it is asked how far it is; `None`: never.
    pub late: Option<Duration>,
    next_batch: u64,
}

pub fn node_spec(credit: u32) -> NodeSpec {
    NodeSpec {
        name: "box".into(),
        cpu_model: "test".into(),
        cpus: MilliCpu(2000),
        clock_mhz: 3000,
        memory: ByteCount::gib(4),
        disk: ByteCount::gib(4),
        interpreters: [Interpreter {
            version: PythonVersion {
                major: 3,
                minor: 11,
            },
            full: "3.11.2".into(),
        }]
        .into(),
        tier: Tier::MicroVm,
        enforced: [].into(),
        labels: [("disk".into(), "pretended".into())].into(),
        price_usd_micros_core_hour: UsdMicros(1),
        backlog_credit: credit,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "test".into(),
        devices: Vec::new(),
        measured: None,
        resources: Vec::new(),
    }
}

impl Machine {
    /// Joins a new machine and connects it, with prekeys in stock.
    pub async fn join(world: &World, credit: u32) -> Self {
        let (identity, record) = world.enrolment("eu-central");
        let secret = token(world, &record, 60_000).await.unwrap();
        let mut kept = enrol(world, &secret, &record, credit).await.unwrap();
        kept.seed = *identity.expose();
        Self::start(world, kept).await
    }

    /// Enrols a machine with these labels that says this of itself; it does not connect yet.
    pub async fn enrolled(world: &World, labels: &[(&str, &str)], spec: NodeSpec) -> Kept {
        let (seed, certificate) = world.promise_with("eu-central", labels, year());
        let identity = NodeIdentity::generate();
        let record = NodeRecord::make(&identity, &seed, &certificate, "host").unwrap();
        let secret = token(world, &record, 60_000).await.unwrap();
        let mut kept = enrol_as(world, &secret, &record, spec).await.unwrap();
        kept.seed = *identity.expose();
        kept
    }

    /// A new start of the agent.
    pub async fn start(world: &World, kept: Kept) -> Self {
        let boot = BootId(farlane_seal::random::bytes::<16>());
        let identity = NodeIdentity::from_seed(&kept.seed);
        let stock = PrekeyStock::new(identity, kept.record.clone(), boot);
        let mut machine = Self::attach(world, kept, boot, stock, 0, v1::Observed::default())
            .await
            .unwrap();
        machine.prekeys(8).await;
        machine
    }

    pub async fn attach(
        world: &World,
        kept: Kept,
        boot: BootId,
        stock: PrekeyStock,
        seen_index: u64,
        observed: v1::Observed,
    ) -> Result<Self, Down> {
        let identity = Some((kept.chain_pem.as_str(), kept.key_pem.as_str()));
        let channel = channel::connect(&world.urls(), world.ca(), identity)
            .await
            .unwrap();
        let mut fleet = FleetClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (up, frames) = mpsc::channel(64);
        let hello = v1::AgentHello {
            hello: Some(farlane_wire::hello("test agent")),
            boot: id::boot_bytes(&boot),
            seen_index,
            spec_bytes: kept.spec.to_canonical().into(),
            observed: Some(observed),
            record_bytes: kept.record.to_bytes(),
        };
        up.send(v1::AgentFrame {
            body: Some(Up::Hello(hello)),
        })
        .await
        .unwrap();
        let mut down = fleet
            .control(ReceiverStream::new(frames))
            .await
            .unwrap()
            .into_inner();
        let first = soon("the server's hello", down.message())
            .await
            .unwrap()
            .unwrap()
            .body
            .unwrap();
        let Down::Hello(hello) = first else {
            return Err(first);
        };
        Ok(Self {
            node: kept.record.node(),
            kept,
            boot,
            stock,
            fleet,
            up,
            down,
            hello,
            contexts: HashMap::new(),
            assigned: HashMap::new(),
            granted: HashMap::new(),
            specs: Vec::new(),
            seen: 0,
            late: Some(Duration::ZERO),
            next_batch: 1,
        })
    }

    /// The same start of the agent after its connection was lost.
    pub async fn reconnect(self, world: &World) -> Self {
        let live: Vec<AttemptRef> = self.assigned.values().map(attempt).collect();
        let ungranted = live.iter().filter(|at| !self.granted.contains_key(at));
        let observed = v1::Observed {
            ungranted: ungranted.map(|at| (*at).into()).collect(),
            live: live.iter().map(|at| (*at).into()).collect(),
            ended: Vec::new(),
        };
        let Self {
            kept,
            boot,
            stock,
            seen,
            contexts,
            assigned,
            granted,
            specs,
            next_batch,
            ..
        } = self;
        let again = Self::attach(world, kept, boot, stock, seen, observed)
            .await
            .unwrap();
        Self {
            contexts,
            assigned,
            granted,
            specs,
            next_batch,
            ..again
        }
    }

    pub async fn send(&self, body: Up) {
        self.up
            .send(v1::AgentFrame { body: Some(body) })
            .await
            .unwrap();
    }
    pub async fn prekeys(&mut self, count: usize) {
        let daily_bytes = self.stock.daily(wall()).unwrap_or_default();
        let one_time_bytes = self.stock.one_time(count, wall());
        let boot = id::boot_bytes(&self.boot);
        self.send(Up::Prekeys(v1::PrekeyStock {
            boot,
            daily_bytes,
            one_time_bytes,
        }))
        .await;
    }

    /// Keeps the lease while nothing else reads or writes.
    pub fn beat(&self) {
        let up = self.up.clone();
        tokio::spawn(async move {
            loop {
                let beat = v1::AgentFrame {
                    body: Some(Up::Heartbeat(v1::Heartbeat::default())),
                };
                if up.send(beat).await.is_err() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        });
    }

    /// Reads one frame and takes in what it brings; pings it answers.
    pub async fn frame(&mut self) -> Down {
        let body = loop {
            let frame = soon("a frame to the agent", self.down.message()).await;
            match frame.unwrap().expect("the stream goes on").body.unwrap() {
                Down::Ping(ping) => self.answer(ping).await,
                body => break body,
            }
        };
        match &body {
            Down::Assign(assign) => {
                self.seen = assign.index;
                self.specs
                    .extend(assign.specs.iter().map(|s| Digest::of(&s.spec_bytes)));
                self.take(&assign.attempts);
            }
            Down::Desired(desired) => {
                self.seen = desired.index;
                let wanted: Vec<TaskId> =
                    desired.attempts.iter().map(|a| attempt(a).task).collect();
                self.assigned.retain(|task, _| wanted.contains(task));
                self.take(&desired.attempts);
            }
            Down::Grant(batch) => self.open_grants(batch),
            Down::Stop(stop) => {
                for attempt in &stop.attempts {
                    self.assigned
                        .remove(&AttemptRef::try_from(attempt).unwrap().task);
                }
            }
            _ => {}
        }
        body
    }

    async fn answer(&self, ping: v1::Ping) {
        if let Some(late) = self.late {
            tokio::time::sleep(late).await;
            self.send(Up::Pong(v1::Pong { nonce: ping.nonce })).await;
        }
    }

    fn take(&mut self, attempts: &[v1::Assignment]) {
        for assignment in attempts {
            let spec = id::digest(&assignment.spec).unwrap();
            assert!(
                self.specs.contains(&spec),
                "a spec comes before its attempts"
            );
            self.assigned
                .insert(attempt(assignment).task, assignment.clone());
        }
    }

    fn open_grants(&mut self, batch: &v1::GrantBatch) {
        // A context's opening comes until its granter has seen a result under it; granters that one entry served
        // share its index.
        let sharing = self.contexts.entry(batch.context).or_default();
        if let Some(opening) = &batch.opening {
            let opening = Opening {
                enc: opening.enc.clone(),
                info_bytes: opening.info_bytes.clone(),
                signature: opening.signature.clone(),
                device_bytes: opening.device_bytes.clone(),
            };
            let granter = opening.claimed().unwrap().granter;
            if sharing.iter().all(|c| c.info().granter != granter) {
                let context = self.stock.accept(&opening, &self.hello.network, wall());
                sharing.push(context.unwrap());
            }
        }
        let mut opened = sharing
            .iter_mut()
            .filter_map(|c| c.open(batch.counter, &batch.sealed, wall()).ok());
        for grant in opened.next().expect("one of them opens the batch") {
            self.granted.insert(grant.attempt, grant);
        }
    }

    /// Waits until so many attempts are here and granted; in the order of their tasks.
    pub async fn ready(&mut self, count: usize) -> Vec<AttemptRef> {
        loop {
            let mut ready: Vec<AttemptRef> = self
                .assigned
                .values()
                .map(attempt)
                .filter(|a| self.granted.contains_key(a))
                .collect();
            if ready.len() >= count {
                ready.sort();
                return ready;
            }
            self.frame().await;
        }
    }

    /// Opens a payload and seals its double, as a worker would.
    pub fn run(&mut self, attempt: AttemptRef) -> (v1::Completion, Digest) {
        let started_ms = wall().0;
        let assignment = self.assigned.remove(&attempt.task).unwrap();
        let grant = &self.granted[&attempt];
        let tenant: TenantId = id::tenant(&assignment.tenant).unwrap();
        let Some(v1::sealed::Place::Inline(payload)) = assignment.payload.unwrap().place else {
            panic!()
        };
        assert_eq!(Digest::of(&payload), grant.payload_digest);
        assert_eq!(id::digest(&assignment.spec).unwrap(), grant.spec_digest);
        let key: &TaskKey = &grant.key;
        let context = StreamContext::payload(tenant, attempt.task);
        let plain = stream::open_padded(key, &context, &payload, 1 << 20).unwrap();
        let doubled: Vec<u8> = [plain.as_slice(), plain.as_slice()].concat();
        let context = StreamContext::result(tenant, attempt, self.node);
        let sealed: Bytes = stream::seal_padded(key, &context, &doubled).into();
        let leaf = batch::leaf(&attempt, ExitKind::Returned, Some(&Digest::of(&sealed)));
        let completion = v1::Completion {
            attempt: Some(attempt.into()),
            exit: Some(Exit::plain(ExitKind::Returned).into()),
            sealed: Some(v1::Sealed {
                place: Some(v1::sealed::Place::Inline(sealed)),
            }),
            started_ms,
            ended_ms: wall().0,
            peak_memory: 1,
            cpu_ms: 1,
        };
        (completion, leaf)
    }

    /// A signed batch, not sent.
    pub fn signed(
        &mut self,
        session: SessionId,
        done: Vec<(v1::Completion, Digest)>,
    ) -> v1::CompleteBatch {
        let number = self.next_batch;
        self.next_batch += 1;
        let (items, leaves): (Vec<_>, Vec<Digest>) = done.into_iter().unzip();
        let (name, leaves) = (batch::id(self.boot, number), batch::join_leaves(&leaves));
        let identity = NodeIdentity::from_seed(&self.kept.seed);
        let signature = batch::sign(&identity, self.node, session, &name, &leaves);
        v1::CompleteBatch {
            batch: number,
            boot: id::boot_bytes(&self.boot),
            session: id::session_bytes(&session),
            signature: Some(v1::NodeSignature {
                batch: Bytes::copy_from_slice(&name),
                leaves: leaves.into(),
                signature: Bytes::copy_from_slice(&signature),
            }),
            items,
        }
    }

    /// As [`Machine::complete`], having taken so long for each.
    pub async fn complete_in(&mut self, attempts: &[AttemptRef], millis: u64) -> v1::CompleteAck {
        let session = attempts[0].task.session();
        let mut done: Vec<_> = attempts.iter().map(|a| self.run(*a)).collect();
        for (completion, _) in &mut done {
            completion.started_ms -= millis;
        }
        let batch = self.signed(session, done);
        self.report(batch).await
    }

    /// Runs these and reports them; the acknowledgement.
    pub async fn complete(&mut self, attempts: &[AttemptRef]) -> v1::CompleteAck {
        let session = attempts[0].task.session();
        let done = attempts.iter().map(|a| self.run(*a)).collect();
        let batch = self.signed(session, done);
        self.report(batch).await
    }

    pub async fn report(&mut self, batch: v1::CompleteBatch) -> v1::CompleteAck {
        let number = batch.batch;
        self.send(Up::Complete(batch)).await;
        loop {
            if let Down::Completed(ack) = self.frame().await
                && ack.batch == number
            {
                return ack;
            }
        }
    }
}

pub fn attempt(assignment: &v1::Assignment) -> AttemptRef {
    AttemptRef::try_from(assignment.attempt.clone().unwrap()).unwrap()
}
