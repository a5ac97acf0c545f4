//! The agent's one loop: what should run here, what runs, and what came of it.
//!
//! ```text
//! link ──frames──▶ intake ─▶ attempts ─▶ dispatch ─▶ workers
//!                    ▲           prepare ┘              │ events
//! link ◀─batches── complete ◀───────── outcome ◀────────┘
//! ```
//! One thread owns all of it, so nothing here locks or waits; what takes long runs beside it and
//! comes back as an event. Owns leases, grants, prekeys, dispatch and completion. Leaves processes to
//! `worker`, the connection to `link`.

mod attempt;
mod calibrate;
mod challenge;
mod complete;
mod dispatch;
mod finish;
mod grants;
mod intake;
mod journal;
mod log;
mod outcome;
mod overdue;
mod pool;
mod prepare;
mod worker;
mod yielding;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, NodeId, NodeSpec, TenantId, Tier};
use farlane_reconcile::{Event as Change, Reconciler};
use farlane_seal::NodeIdentity;
use farlane_seal::record::NodeRecord;
use farlane_wire::v1;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use crate::AgentError;
use crate::calibrate::Broken;
use crate::calibrate::kept::Known;
use crate::clock::ClusterClock;
use crate::heat::Heat;
use crate::link::{LinkEvent, frame};
use crate::sandbox::Sandbox;
use crate::way::Way;
use crate::worker::Event;
use attempt::{Attempt, Prepared, Specs, Token};
pub(crate) use calibrate::Calibration;
use calibrate::Calibrator;
use complete::Outbox;
use finish::{Sealing, Unsealed};
use grants::Grants;
use pool::Pools;
use prepare::Unready;
pub(crate) use prepare::{Codes, Preparer};

/// Events handled before attempts are dispatched and results leave.
const TURN: usize = 256;
/// Worker events under way; workers wait beyond it.
pub(crate) const EVENTS: usize = 1024;
/// How often timeouts, leases and stuck queues are looked at while something is here.
const TICK: Duration = Duration::from_millis(20);

/// Who this node is and what it was told.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) identity: NodeIdentity,
    pub(crate) record: NodeRecord,
    pub(crate) boot: BootId,
    pub(crate) spec: NodeSpec,
    pub(crate) tenants: Option<Vec<TenantId>>,
    pub(crate) own_tenants: Vec<TenantId>,
    /// What each template is made from; interpreter, environment and sizes are set for each.
    pub(crate) sandbox: Sandbox,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) journal: std::path::PathBuf,
    pub(crate) channel: watch::Receiver<Option<Channel>>,
    pub(crate) way: Arc<Way>,
    pub(crate) heat: Arc<Heat>,
    pub(crate) calibration: Calibration,
}

/// What runs beside the loop tells it.
#[derive(Debug)]
enum Done {
    Prepared(Token, Result<Prepared, Unready>),
    Sealed(Token, Result<Sealing, Unsealed>),
    Calibrated(Result<Known, Broken>),
    Met(u64, Result<Vec<u8>, Broken>),
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Engine {
    identity: NodeIdentity,
    record: NodeRecord,
    node: NodeId,
    boot: BootId,
    spec: NodeSpec,
    tier: Tier,
    tenants: Option<Vec<TenantId>>,
    own_tenants: Vec<TenantId>,
    clock: ClusterClock,
    network: Bytes,
    out: Option<mpsc::Sender<v1::AgentFrame>>,
    /// Holds what should be here against what is.
    reconciler: Reconciler,
    round_trip_micros: u64,
    /// On the steady clock, in milliseconds.
    lease_until: u64,
    lease_ms: u64,
    specs: Specs,
    attempts: HashMap<Token, Attempt>,
    by_ref: HashMap<AttemptRef, Token>,
    next_token: u64,
    grants: Grants,
    pools: Pools,
    outbox: Outbox,
    preparer: Arc<Preparer>,
    done: mpsc::Sender<Done>,
    logs: mpsc::Sender<v1::LogChunk>,
    credit_told_at: u64,
    /// When it was last looked for tasks that ran out of memory.
    looked_at: u64,
    /// Moving average over all tasks, microseconds; 0 before any.
    average_micros: u64,
    tasks_run: u64,
    calibrator: Calibrator,
    /// Attempts that were asked to make way.
    yielding: Vec<yielding::Yielding>,
    /// Not before this, on the steady clock.
    next_challenge: u64,
    channel: watch::Receiver<Option<Channel>>,
    way: Arc<Way>,
    heat: Arc<Heat>,
    /// Why the network does not take this node.
    over: Option<AgentError>,
}

impl Engine {
    /// Runs until `shutdown`, or the network does not take the node. `connected` is told of the first connection.
    pub(crate) async fn run(
        setup: Setup,
        mut link: mpsc::Receiver<LinkEvent>,
        connected: watch::Sender<bool>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        let (events, mut happened) = mpsc::channel(EVENTS);
        let (done, mut finished) = mpsc::channel(EVENTS);
        let (logs, chunks) = mpsc::channel(log::QUEUE);
        tokio::spawn(log::push(chunks, setup.channel.clone()));
        let mut engine = Self::new(setup, events, done, logs);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat = tokio::time::interval(heartbeat_every());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        let (mut frames, mut said) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                n = link.recv_many(&mut frames, TURN) => {
                    if n == 0 {
                        break;
                    }
                    frames.drain(..).for_each(|event| engine.linked(event, &connected));
                }
                _ = happened.recv_many(&mut said, TURN) => {
                    // A process that was frozen wakes up to answers of attempts that are others' by now.
                    engine.check_lease();
                    engine.workers_said(&mut said, &mut happened);
                }
                Some(done) = finished.recv() => {
                    engine.done(done);
                    while let Ok(done) = finished.try_recv() {
                        engine.done(done);
                    }
                }
                _ = tick.tick(), if engine.is_busy() => engine.tick(),
                _ = heartbeat.tick() => engine.heartbeat(),
            }
            engine.dispatch();
            engine.send_completions();
            if engine.over.is_some() {
                break;
            }
        }
        engine.close()
    }

    /// Ends what runs, and keeps what is sealed but not yet sent.
    fn close(mut self) -> Result<(), AgentError> {
        self.pools.end_all();
        self.out = None;
        self.send_completions();
        self.over.take().map_or(Ok(()), Err)
    }

    fn new(
        setup: Setup,
        events: mpsc::Sender<Event>,
        done: mpsc::Sender<Done>,
        logs: mpsc::Sender<v1::LogChunk>,
    ) -> Self {
        let node = setup.record.node();
        let place = crate::worker::template::Place {
            node: node.to_string(),
            region: setup.record.region().to_owned(),
        };
        let pools = Pools::new(
            &setup.spec,
            setup.sandbox,
            place,
            setup.preparer.clone(),
            events,
        );
        let outbox = Outbox::open(setup.journal);
        let mut reconciler = Reconciler::default();
        reconciler.recover(outbox.held());
        Self {
            grants: Grants::new(setup.identity.clone(), setup.record.clone(), setup.boot),
            outbox,
            identity: setup.identity,
            record: setup.record,
            node,
            boot: setup.boot,
            tier: setup.spec.tier,
            spec: setup.spec,
            tenants: setup.tenants,
            own_tenants: setup.own_tenants,
            clock: ClusterClock::default(),
            network: Bytes::new(),
            out: None,
            reconciler,
            round_trip_micros: 0,
            lease_until: 0,
            lease_ms: farlane_wire::hello::LEASE_MS,
            specs: Specs::default(),
            attempts: HashMap::new(),
            by_ref: HashMap::new(),
            next_token: 1,
            pools,
            preparer: setup.preparer,
            done,
            logs,
            credit_told_at: 0,
            looked_at: 0,
            average_micros: 0,
            tasks_run: 0,
            calibrator: Calibrator::new(setup.calibration),
            yielding: Vec::new(),
            next_challenge: 0,
            channel: setup.channel,
            way: setup.way,
            heat: setup.heat,
            over: None,
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Prepared(token, prepared) => self.prepared(token, prepared),
            Done::Sealed(token, sealed) => self.sealed(token, sealed),
            Done::Calibrated(result) => self.calibrated(result),
            Done::Met(id, answer) => {
                self.calibrator.stopped();
                self.met(id, answer);
            }
        }
    }

    /// Whether the tick has anything to look at.
    fn is_busy(&self) -> bool {
        !self.attempts.is_empty() || self.pools.is_busy()
    }

    /// Sends a frame, where there is a connection; a connection that does not drain is given up.
    fn tell(&mut self, body: v1::agent_frame::Body) -> bool {
        let Some(out) = &self.out else { return false };
        if out.try_send(frame(body)).is_ok() {
            return true;
        }
        self.out = None;
        false
    }

    fn heartbeat(&mut self) {
        let (running, waiting) = self.pools.counts(&self.attempts);
        let beat = v1::Heartbeat {
            sent_ms: ClusterClock::steady(),
            running,
            waiting,
            down_bytes_s: self.way.down().map_or(0, |rate| rate.0),
            servers: self.way.tell_servers(),
            cores_heat_ppm: self.heat.cores().0,
            gpus_heat_ppm: self.heat.gpus().0,
        };
        self.tell(v1::agent_frame::Body::Heartbeat(beat));
        self.pools.retire(ClusterClock::steady());
        self.grants.sweep(self.clock.now());
        if let Some(daily) = self
            .out
            .as_ref()
            .and_then(|_| self.grants.daily(self.clock.now()))
        {
            let boot = farlane_wire::id::boot_bytes(&self.boot);
            let stock = v1::PrekeyStock {
                boot,
                daily_bytes: daily,
                one_time_bytes: Vec::new(),
            };
            self.tell(v1::agent_frame::Body::Prekeys(stock));
        }
        self.probe_when_idle();
        self.calibrate_when_idle();
    }

    fn tick(&mut self) {
        self.check_lease();
        self.overdue();
        self.end_yielding();
        self.flush_logs();
        self.tell_started();
        self.size_credit();
    }

    /// Where the lease was not renewed, others may run what is here by now.
    fn check_lease(&mut self) {
        if self.attempts.is_empty() || ClusterClock::steady() <= self.lease_until {
            return;
        }
        tracing::warn!(
            attempts = self.attempts.len(),
            "the lease ended; what ran here is stopped"
        );
        self.reconciler.step(Change::LeaseLost);
        let all: Vec<_> = self.attempts.keys().copied().collect();
        all.into_iter().for_each(|token| self.forget(token));
        self.pools.end_all();
    }
}

fn heartbeat_every() -> Duration {
    Duration::from_millis(farlane_wire::hello::HEARTBEAT_MS)
}
