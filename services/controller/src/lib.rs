//! The control plane's use cases: what is proposed, what is pushed, and when.
//!
//! Owns the planning loop, the pushers, leases, grants in passing, timers, sealed output and the
//! views that people look at. Leaves transport and authentication to `farlane-api`, agreement to
//! `farlane-consensus`, what an order means to `farlane-state`, and where to place to `farlane-plan`.
//!
//! ```text
//!            streams (farlane-api)
//!   agents ◀──────┐          ┌──────▶ clients
//!          pusher ┴─ links ──┴ pusher
//!             ▲                  intake
//!             │ notices            ▼
//!         consensus ◀── propose ── planning loop      timers ─▶ Return, Expire, Refuse, AckOutbox
//! ```
//! Every stream lives on the leader: other servers say where it is.

mod agent;
mod ahead;
mod audits;
mod carbon;
mod company;
mod enrol;
mod error;
mod explain;
mod gather;
mod granters;
mod grants;
mod heat;
mod holdings;
mod infeasible;
mod intake;
mod issue;
mod keys;
mod learn;
mod lease;
mod link;
mod logs;
mod moved;
mod outbox;
mod overlay;
mod paths;
mod planner;
mod preempt;
mod prices;
mod projects;
mod push;
mod query;
mod quota;
mod refusals;
mod regions;
mod reserve;
mod results;
mod session;
mod stuck;
mod sweep;
mod tasks;
mod tempo;
mod timers;
mod trace;
mod ungranted;
mod view;
mod warm;

use std::collections::HashSet;
use std::sync::Arc;

use farlane_consensus::Consensus;
use farlane_model::{AttemptRef, Digest, KeyId, NodeId, ProjectId, TenantId};
use farlane_runtime::{Clock, Shutdown};
use farlane_state::{Order, Outcome};
use farlane_store::{Scopes, Store};
use farlane_transfer::BlobStore;
use farlane_units::Millis;
use farlane_wire::v1;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

pub use agent::AgentSession;
pub use audits::{AuditSettings, MAX_PLACES};
pub use carbon::{CarbonFeed, FeedError};
pub use error::ControlError;
pub use intake::MAX_BATCH_BYTES;
pub use issue::{
    CertificateIssuer, IssueError, IssuedCertificate, NODE_CERTIFICATE_BACKDATE,
    NODE_CERTIFICATE_LIFE,
};
pub use lease::{HEARTBEAT, LEASE};
pub use link::Outbound;
pub use logs::{LogError, LogStore, StoredChunk};
pub use session::ClientSession;
pub use trace::TraceExport;

use granters::Absent;
use heat::Heats;
use lease::Leases;
use link::Links;
use moved::Moving;
use paths::Paths;
use planner::Intake;
use push::PushCommand;
use refusals::Refusals;
use timers::Restarts;
use ungranted::Ungranted;
use warm::Histories;

/// Orders towards the pusher that may wait. Source: one for each stream opened in a burst.
const PUSH_COMMANDS: usize = 1024;

/// Who calls, as authentication found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Which key.
    pub key: KeyId,
    /// Its project.
    pub project: ProjectId,
    /// The project's tenant, when it is bound to one.
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub scopes: Scopes,
    /// When its key ends.
    pub expires: Millis,
}

/// What a controller is made of.
pub struct Parts {
    /// The log and the state.
    pub consensus: Consensus,
    /// Accounts.
    pub store: Store,
    /// Sealed bytes above a row's size.
    pub blobs: Arc<dyn BlobStore>,
    /// Sealed output.
    pub logs: LogStore,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Certificates of nodes.
    pub issuer: Arc<dyn CertificateIssuer>,
    /// Ends the loops.
    pub shutdown: Shutdown,
    /// This server's number among the members.
    pub server: u64,
    /// Regions of the servers, as far as they are known.
    pub homes: Vec<(u64, Arc<str>)>,
    /// The other servers, which agents look at.
    pub others: Vec<v1::ServerAt>,
    /// This server's name for people.
    pub name: String,
    /// Where this server is reached.
    pub urls: Vec<String>,
    /// Largest blob.
    pub blob_limit: u64,
    /// Every server of the network, for people.
    pub voters: Vec<String>,
    /// Carbon of regions; `None` where nobody was named who knows.
    pub carbon: Option<Arc<dyn CarbonFeed>>,
    /// How nodes are audited.
    pub audit: AuditSettings,
}

/// The use cases, shared by every handler.
pub struct Controller {
    consensus: Consensus,
    store: Store,
    blobs: Arc<dyn BlobStore>,
    logs: LogStore,
    clock: Arc<dyn Clock>,
    issuer: Arc<dyn CertificateIssuer>,
    shutdown: Shutdown,
    name: String,
    urls: Vec<String>,
    blob_limit: u64,
    voters: Vec<String>,
    links: Links,
    leases: Mutex<Leases>,
    paths: Mutex<Paths>,
    heats: Mutex<Heats>,
    /// Blobs that nodes took, until the next plan.
    took: Mutex<Vec<(Digest, NodeId)>>,
    moving: Mutex<Moving>,
    /// What lies between regions, made anew from the paths every few seconds.
    between: Mutex<Arc<farlane_plan::Links>>,
    server: u64,
    homes: Vec<(u64, Arc<str>)>,
    others: Vec<v1::ServerAt>,
    ungranted: Mutex<Ungranted>,
    /// Never locked while the state is read, save by a round of planning.
    refusals: Mutex<Refusals>,
    /// Which nodes lose what they are given.
    histories: Mutex<Histories>,
    absent: Mutex<Absent>,
    restarts: Mutex<Restarts>,
    started: Mutex<HashSet<AttemptRef>>,
    view: Mutex<view::ViewCache>,
    books: Mutex<prices::Books>,
    feed: Option<Arc<dyn CarbonFeed>>,
    carbon: Mutex<carbon::Known>,
    audit_settings: AuditSettings,
    /// Locked while the state is read, and never the other way round.
    audits: Mutex<audits::Audits>,
    planner_wake: Notify,
    intake: mpsc::Sender<Intake>,
    commands: mpsc::Sender<PushCommand>,
}

impl Controller {
    /// Starts the loops, which end with the shutdown.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (intake, taken) = mpsc::channel(planner::INTAKE);
        let (commands, ordered) = mpsc::channel(PUSH_COMMANDS);
        let notices = parts.consensus.subscribe();
        let controller = Arc::new(Self {
            consensus: parts.consensus,
            store: parts.store,
            blobs: parts.blobs,
            logs: parts.logs,
            clock: parts.clock,
            issuer: parts.issuer,
            shutdown: parts.shutdown.clone(),
            name: parts.name,
            urls: parts.urls,
            blob_limit: parts.blob_limit,
            voters: parts.voters,
            links: Links::default(),
            leases: Mutex::default(),
            paths: Mutex::default(),
            heats: Mutex::default(),
            took: Mutex::default(),
            moving: Mutex::default(),
            between: Mutex::default(),
            server: parts.server,
            homes: parts.homes,
            others: parts.others,
            ungranted: Mutex::default(),
            refusals: Mutex::default(),
            histories: Mutex::default(),
            absent: Mutex::default(),
            restarts: Mutex::default(),
            started: Mutex::default(),
            view: Mutex::default(),
            books: Mutex::default(),
            feed: parts.carbon,
            carbon: Mutex::default(),
            audit_settings: parts.audit,
            audits: Mutex::default(),
            planner_wake: Notify::new(),
            intake,
            commands,
        });
        parts.shutdown.spawn(controller.clone().plan_loop(taken));
        parts
            .shutdown
            .spawn(controller.clone().push_loop(notices, ordered));
        parts.shutdown.spawn(controller.clone().lead_loop());
        parts.shutdown.spawn(controller.clone().timer_loop());
        parts.shutdown.spawn(controller.clone().outbox_loop());
        parts.shutdown.spawn(controller.clone().price_loop());
        parts.shutdown.spawn(controller.clone().carbon_loop());
        if controller.first_audit_within().is_some() {
            parts.shutdown.spawn(controller.clone().audit_loop());
        }
        controller
    }

    /// Accounts, for authentication.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// Sealed bytes, for uploads and downloads.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }
    /// Sealed output.
    pub fn logs(&self) -> &LogStore {
        &self.logs
    }
    /// Wall time, by which keys and certificates expire.
    pub fn wall(&self) -> Millis {
        self.clock.wall()
    }
    /// Whether a caller's key still counts, for streams that stay open.
    ///
    /// *Errors*: it was revoked, or has ended.
    pub fn check_key(&self, caller: &Caller) -> Result<(), ControlError> {
        match () {
            () if self.key_revoked(caller.key) => Err(ControlError::KeyRevoked),
            () if caller.expires <= self.wall() => Err(ControlError::KeyExpired),
            () => Ok(()),
        }
    }
    /// Whether a key was revoked, by the replicated state: no cache is asked.
    pub fn key_revoked(&self, key: KeyId) -> bool {
        self.consensus.read(|s| s.key_revoked(&key))
    }
    /// Whether a node is registered and trusted.
    pub fn node_trusted(&self, node: NodeId) -> bool {
        self.consensus
            .read(|s| s.node(&node).is_some_and(|n| !n.revoked))
    }

    /// Cluster time now.
    pub(crate) fn now(&self) -> Millis {
        self.consensus.now()
    }

    /// What this server says of itself on every stream.
    pub(crate) fn hello(&self) -> v1::Hello {
        let software = concat!("farlane/", env!("CARGO_PKG_VERSION"), " server");
        let mut hello = farlane_wire::server_hello(software);
        if let Some(limits) = &mut hello.limits {
            limits.entry_bytes = MAX_BATCH_BYTES as u64;
            limits.blob_bytes = self.blob_limit;
        }
        hello
    }

    /// *Errors*: another server leads.
    pub(crate) fn check_leads(&self) -> Result<(), ControlError> {
        let leadership = self.consensus.leadership().borrow().clone();
        match leadership.mine {
            true => Ok(()),
            false => Err(ControlError::NotLeader {
                leader: leadership.leader.map(|(_, url)| url).unwrap_or_default(),
            }),
        }
    }

    /// Proposes orders and waits for them. The first that is refused is the error.
    pub(crate) async fn order(&self, orders: Vec<Order>) -> Result<Vec<Outcome>, ControlError> {
        let commands = orders.iter().map(Order::encode).collect();
        let proposed = self.consensus.propose(commands).await?;
        for outcome in &proposed.outcomes {
            if let Outcome::Refused(why) = outcome {
                return Err(why.clone().into());
            }
        }
        Ok(proposed.outcomes)
    }

    /// Hands an order to the planning loop and does not wait for it.
    pub(crate) async fn order_quietly(&self, order: Order) -> Result<(), ControlError> {
        self.hand_in(Intake::Quiet(order)).await
    }

    pub(crate) async fn hand_in(&self, item: Intake) -> Result<(), ControlError> {
        let stopping = || ControlError::Unavailable {
            why: "this server is stopping".into(),
        };
        self.intake.send(item).await.map_err(|_| stopping())
    }

    pub(crate) async fn tell_pusher(&self, command: PushCommand) -> Result<(), ControlError> {
        let stopping = || ControlError::Unavailable {
            why: "this server is stopping".into(),
        };
        self.commands.send(command).await.map_err(|_| stopping())
    }
}
