//! The handle on this server's replica.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farlane_runtime::Clock;
use farlane_state::{Command, State};
use farlane_units::{ByteCount, Millis};
use farlane_wire::v1::consensus_server::ConsensusServer;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, SnapshotPolicy};
use tokio::sync::{broadcast, watch};

use crate::arrears::{Arrears, Bounds};
use crate::batcher::{Batcher, Work};
use crate::contact::Contact;
use crate::error::{ProposeError, StartError};
use crate::leadership::{self, Leadership};
use crate::log::{Followers, LogStore};
use crate::machine::rows::RowsHandle;
use crate::machine::{Failure, Machine, Notice, Replica};
use crate::network::{Connector, MOST_MESSAGE, Networks};
use crate::raft::{Proposed, Raft};
use crate::service::RaftService;
use crate::time::ClusterTime;

/// How often the leader is heard, and how long a message to a follower may take: long enough for
/// 2 MiB over 100 Mbit/s.
const HEARTBEAT_MS: u64 = 300;
/// A follower stands for election after this long without the leader: several heartbeats, and more
/// than a round trip around the world.
const ELECTION_MS: (u64, u64) = (1_000, 2_000);
/// How often the log is looked at for what may be purged.
const PURGE_EVERY: Duration = Duration::from_secs(1);
/// Segments of the log that stay for followers that lag: 32 MiB.
const KEPT_SEGMENTS: u64 = 2;
/// Segments that stay at most for followers that are caught up by a snapshot: 1 GiB. Source: with a
/// million tasks a snapshot takes 10 s on two cores, measured 2026-11-22; at their 20 MB/s of log
/// that is 200 MB, and a slower disk or network has five times as long.
const MOST_SEGMENTS: u64 = 64;
/// Entries that a new server may lack when it becomes a voter: a batcher has two in flight, and from
/// then on the others may have to wait for it.
const LACKED_BY_VOTERS: u64 = 16;

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique, and never used again for another server.
    pub id: u64,
    /// Where the others reach it.
    pub url: String,
}

/// What a replica is started with.
#[derive(Clone)]
pub struct Config {
    /// This server's.
    pub id: u64,
    /// The replica's own folder.
    pub dir: PathBuf,
    /// Who founds the cluster. Looked at only where `bootstrap`.
    pub members: Vec<Member>,
    /// Whether to found the cluster if this replica is empty. Every founder is given the same members;
    /// the one with the lowest id founds, and the others wait for it.
    pub bootstrap: bool,
    /// Bound of the state file's cache.
    pub cache: ByteCount,
    /// The way to other servers.
    pub connector: Arc<dyn Connector>,
}

struct Inner {
    raft: Raft,
    replica: Arc<Replica>,
    log: LogStore,
    arrears: Arc<Arrears>,
    batcher: Batcher,
    time: Arc<ClusterTime>,
    leadership: watch::Receiver<Leadership>,
    contact: Arc<Contact<Result<u64, ProposeError>>>,
}

/// A handle on the replica. Cloning shares it; once all handles and services are dropped the
/// replica ends as if killed, and loses nothing that was acknowledged.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

impl Consensus {
    /// Opens the folder, founds the cluster if so configured, and takes part in it.
    ///
    /// With a single founding member, returns once this server leads and its state is current.
    ///
    /// *Errors*: the folder is in use, damaged or another server's, or its rows do not load.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        if config.bootstrap && !config.members.iter().any(|member| member.id == config.id) {
            return Err(StartError::BadConfig(format!(
                "server {} is not among the founding members",
                config.id
            )));
        }
        let (dir, cache, id) = (config.dir.clone(), config.cache, config.id);
        let followers = match config.members.len() {
            1 => Followers::None,
            _ => Followers::Some,
        };
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir).map_err(|source| StartError::Io {
                path: dir.clone(),
                source,
            })?;
            let replica = Replica::open(&dir, cache)?;
            Ok::<_, StartError>((replica, LogStore::open(&dir.join("log"), id, followers)?))
        });
        let (replica, log) = opened
            .await
            .map_err(|error| StartError::Raft(error.to_string()))??;
        let arrears = Arc::new(Arrears::default());
        let networks = Networks {
            connector: config.connector.clone(),
            arrears: arrears.clone(),
        };
        let settings = Arc::new(settings()?);
        let raft = Raft::new(
            id,
            settings,
            networks,
            log.clone(),
            Machine(replica.clone()),
        )
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
        let (seen, leadership) = watch::channel(Leadership::default());
        tokio::spawn(leadership::follow(raft.clone(), replica.clone(), id, seen));
        if config.bootstrap {
            found(&raft, id, &config.members).await?;
        }
        let time = Arc::new(ClusterTime::new(clock));
        let work = Work {
            raft: raft.clone(),
            replica: replica.clone(),
            time: time.clone(),
            leadership: leadership.clone(),
        };
        let own = Self {
            inner: Arc::new(Inner {
                raft,
                replica,
                log,
                arrears,
                batcher: Batcher::start(work),
                time,
                leadership,
                contact: Arc::new(Contact::new()),
            }),
        };
        tokio::spawn(keep_short(Arc::downgrade(&own.inner)));
        tokio::spawn(stop_on_failure(
            Arc::downgrade(&own.inner),
            own.inner.replica.failure.subscribe(),
        ));
        if config.bootstrap && config.members.len() == 1 {
            own.led().await?;
        }
        Ok(own)
    }

    async fn led(&self) -> Result<(), StartError> {
        let mut leadership = self.leadership();
        let ended = tokio::select! {
            led = leadership.wait_for(|now| now.mine) => led.map(drop).is_err(),
            _ = self.failed() => true,
        };
        if ended {
            return Err(StartError::Raft(self.failed().await.reason));
        }
        Ok(())
    }

    /// Proposes the commands as part of one entry, in order, and waits until it is applied here.
    ///
    /// *Shape*: at most 1 MiB with 8 bytes for each command.
    ///
    /// *Errors*: this server does not lead or ceases to, the commands are too large, or the replica
    /// stopped.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Proposed, ProposeError> {
        self.inner.batcher.propose(commands).await
    }

    /// Reads the state. Keep it short: `apply` waits meanwhile.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.replica.state.read())
    }

    /// Reads rows. Never older than a state that was read before.
    pub fn rows(&self) -> RowsHandle {
        RowsHandle(self.inner.replica.clone())
    }

    /// What entries change from now on, in order, each after it was applied. Entries that change
    /// nothing send nothing.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Notice>> {
        self.inner.replica.notices.subscribe()
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Makes sure that a quorum took this server for the leader after this call was made, and that
    /// the state holds everything acknowledged before it. Callers at the same time share the contact.
    ///
    /// *Errors*: it does not lead, or no quorum answers.
    pub async fn confirm(&self) -> Result<(), ProposeError> {
        if self.inner.replica.is_stopping() {
            return Err(ProposeError::Stopped);
        }
        let raft = self.inner.raft.clone();
        let round = move || {
            let raft = raft.clone();
            async move { read_index(&raft).await }
        };
        let read = self.inner.contact.ask(round).await;
        self.wait_applied(read.ok_or(ProposeError::Stopped)??).await;
        Ok(())
    }

    /// The last index that the state holds.
    pub fn applied_index(&self) -> u64 {
        *self.inner.replica.applied.borrow()
    }

    /// Waits until the state holds this index, or the replica has failed.
    pub async fn wait_applied(&self, index: u64) {
        let (mut applied, mut failure) = (
            self.inner.replica.applied.subscribe(),
            self.inner.replica.failure.subscribe(),
        );
        tokio::select! {
            // Neither sender can be gone while `self` is here.
            _ = applied.wait_for(|now| *now >= index) => {}
            _ = failure.wait_for(Option::is_some) => {}
        }
    }

    /// Cluster time: the leader's own stamp, elsewhere an estimate.
    pub fn now(&self) -> Millis {
        let applied = self.inner.replica.shelf.now();
        let leadership = self.inner.leadership.borrow();
        if leadership.mine {
            self.inner.time.stamp(leadership.term, applied)
        } else {
            self.inner.time.estimate(applied)
        }
    }

    /// Resolves when the replica has stopped by itself, with the reason. The process should end.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.inner.replica.failure.subscribe();
        let found = failure
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|failure| failure.clone());
        found.unwrap_or_else(|| Failure {
            reason: "the replica has ended".to_owned(),
        })
    }

    /// Adds a server, first as a learner until it has caught up, then as a voter. On the leader.
    ///
    /// *Errors*: this server does not lead, or another change is under way.
    pub async fn add_member(&self, member: Member) -> Result<(), ProposeError> {
        let node = BasicNode { addr: member.url };
        self.inner
            .raft
            .add_learner(member.id, node, true)
            .await
            .map_err(changed)?;
        let voter = ChangeMembers::AddVoterIds([member.id].into());
        self.inner
            .raft
            .change_membership(voter, false)
            .await
            .map(drop)
            .map_err(changed)
    }

    /// Removes a server. On the leader.
    ///
    /// *Errors*: this server does not lead, or another change is under way.
    pub async fn remove_member(&self, id: u64) -> Result<(), ProposeError> {
        let removed = ChangeMembers::RemoveVoters([id].into());
        self.inner
            .raft
            .change_membership(removed, false)
            .await
            .map(drop)
            .map_err(changed)
    }

    /// The gRPC service that other servers call. Serve it where the members' URLs lead.
    pub fn service(&self) -> ConsensusServer<RaftService> {
        ConsensusServer::new(RaftService {
            raft: self.inner.raft.clone(),
        })
        .max_decoding_message_size(MOST_MESSAGE)
        .max_encoding_message_size(MOST_MESSAGE)
    }

    /// Stops taking part, commits the overlay to the state file and closes both files. Other handles
    /// may live on; proposals through them fail, and rows read as absent.
    pub async fn shutdown(self) {
        self.inner.replica.stop();
        if self.inner.raft.shutdown().await.is_err() {
            tracing::warn!("the Raft core ended with a panic");
        }
        if self.inner.replica.flusher.flush().await.is_err() {
            tracing::warn!("the overlay was not flushed; the log is replayed at the next start");
        }
        self.inner.log.close().await;
        let replica = self.inner.replica.clone();
        if tokio::task::spawn_blocking(move || replica.flusher.close())
            .await
            .is_err()
        {
            tracing::warn!("the state file was not closed");
        }
    }
}

/// The index that a reader must wait for, once a quorum has been heard.
async fn read_index(raft: &Raft) -> Result<u64, ProposeError> {
    match raft.get_read_log_id().await {
        Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
            let leader = to.leader_id.zip(to.leader_node.map(|node| node.addr));
            Err(ProposeError::NotLeader { leader })
        }
        Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
            Err(ProposeError::NoQuorum)
        }
        Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
    }
}

fn changed(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => ProposeError::NotLeader {
            leader: to.leader_id.zip(to.leader_node.map(|node| node.addr)),
        },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => ProposeError::NoQuorum,
        RaftError::Fatal(_) => ProposeError::Stopped,
    }
}

fn settings() -> Result<openraft::Config, StartError> {
    let config = openraft::Config {
        cluster_name: "farlane".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        // The log is purged by size, behind the state file; see `keep_short`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: LACKED_BY_VOTERS,
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::BadConfig(error.to_string()))
}

async fn found(raft: &Raft, id: u64, members: &[Member]) -> Result<(), StartError> {
    let fatal = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
    if members.iter().any(|member| member.id < id) {
        // Founders that all stood for election at once would only take turns at losing it.
        return Ok(());
    }
    if raft.is_initialized().await.map_err(|error| fatal(&error))? {
        return Ok(());
    }
    let nodes: BTreeMap<u64, BasicNode> = members
        .iter()
        .map(|member| {
            (
                member.id,
                BasicNode {
                    addr: member.url.clone(),
                },
            )
        })
        .collect();
    match raft.initialize(nodes).await {
        // Another founder was first: the cluster is there, which is all that was wanted.
        Ok(()) | Err(RaftError::APIError(openraft::error::InitializeError::NotAllowed(_))) => {
            Ok(())
        }
        Err(error) => Err(fatal(&error)),
    }
}

/// Purges what the state file holds durably, above the segments that are kept.
async fn keep_short(inner: std::sync::Weak<Inner>) {
    let mut every = tokio::time::interval(PURGE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.replica.is_stopping() {
            return;
        }
        let Some((upto, durable)) = inner
            .log
            .purgeable(KEPT_SEGMENTS)
            .zip(inner.replica.shelf.durable())
        else {
            continue;
        };
        let metrics = inner.raft.data_metrics().borrow().clone();
        let bounds = Bounds {
            usual: upto.min(durable),
            most: inner.log.purgeable(MOST_SEGMENTS),
            near: inner.log.purgeable(1),
        };
        let has = metrics
            .replication
            .as_ref()
            .map(|followers| |id: u64| followers.get(&id).copied().flatten().map(|at| at.index));
        let upto = inner.arrears.purgeable(bounds, has);
        let known = metrics.snapshot.map(|id| id.index);
        let asked = match known {
            Some(known) if known >= upto => inner.raft.trigger().purge_log(upto).await,
            // openraft purges nothing that no snapshot of its knowledge holds.
            _ => inner.raft.trigger().snapshot().await,
        };
        if asked.is_err() {
            return;
        }
    }
}

/// A replica whose disk has failed must not go on as if it had not.
async fn stop_on_failure(
    inner: std::sync::Weak<Inner>,
    mut failure: watch::Receiver<Option<Failure>>,
) {
    if failure.wait_for(Option::is_some).await.is_err() {
        return;
    }
    if let Some(inner) = inner.upgrade()
        && !inner.replica.is_stopping()
    {
        // It may have ended already, by the same failure.
        let _ = inner.raft.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
