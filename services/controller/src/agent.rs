//! An agent's control stream.
//!
//! Owns what a server does with each of its frames. Leaves mTLS to the listener: who calls is known.
//!
//! ```text
//! hello ─▶ (new boot: UpdateNode, fail what it held and has not ended) ─▶ lease ─▶ ControlHello
//!       ─▶ Desired ─▶ heartbeats, completions, prekeys … ─▶ end: detached, the lease runs on
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use farlane_model::{AttemptRef, BootId, Digest, LostCause, NodeId, Sealed};
use farlane_runtime::{Entropy, SystemEntropy};
use farlane_state::{CompleteBatch, Order, Return, ReturnReason, StockPrekeys, UpdateNode};
use farlane_transfer::BlobError;
use farlane_units::{ByteRate, Micros};
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body as FromAgent;
use farlane_wire::v1::control_frame::Body as ToAgent;
use tokio::sync::Semaphore;

use crate::link::{AgentLink, Link, Outbound};
use crate::planner::Intake;
use crate::push::PushCommand;
use crate::{ControlError, Controller, intake};

/// Attempts that one agent may report at once. Source: ten times the largest backlog credit (1024).
const MAX_OBSERVED: usize = 10_240;
/// Prekeys in one frame. Source: farlane-state keeps as many a node.
const MAX_STOCK: usize = 512;
/// Attempts known to run, over all nodes; beyond it the rest show as placed.
const MAX_STARTED: usize = 100_000;

/// Heartbeats of one agent that may wait for a quorum; more are passed over. Source: as many as are
/// sent within a lease.
const MAX_HEARTBEATS: usize = 4;
/// Servers of which one heartbeat says how far they are. Source: fleet.proto, `Heartbeat`.
const MAX_SERVERS: usize = 10;
/// How long a peer that is ahead of this server is made to wait. Source: a leader holds all that was
/// ever acknowledged, so that only a server restored from a backup stays behind.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A connected agent; dropping it detaches the agent.
pub struct AgentSession {
    controller: Arc<Controller>,
    link: Arc<AgentLink>,
    heartbeats: Arc<Semaphore>,
}

fn attempts(list: &[v1::AttemptRef]) -> Result<Vec<AttemptRef>, ControlError> {
    if list.len() > MAX_OBSERVED {
        return Err(ControlError::invalid(format!(
            "at most {MAX_OBSERVED} attempts at once"
        )));
    }
    list.iter()
        .map(|a| AttemptRef::try_from(a.clone()))
        .collect::<Result<_, _>>()
        .map_err(|_| ControlError::invalid("an attempt is malformed"))
}

/// What an agent cannot answer before it has been asked.
fn nonce() -> u64 {
    let mut nonce = [0; 8];
    SystemEntropy.fill(&mut nonce);
    u64::from_le_bytes(nonce)
}

impl Controller {
    /// Takes an agent's hello; afterwards the agent may be given work.
    ///
    /// *Errors*: another server leads, the node is unknown or revoked, or the hello is malformed.
    pub async fn attach_agent(
        self: &Arc<Self>,
        node: NodeId,
        hello: v1::AgentHello,
    ) -> Result<(AgentSession, Outbound<v1::ControlFrame>), ControlError> {
        farlane_wire::hello::negotiate(hello.hello.as_ref())?;
        self.check_leads()?;
        let boot =
            BootId::from_slice(&hello.boot).map_err(|e| ControlError::invalid(e.to_string()))?;
        self.catch_up(hello.seen_index).await?;
        self.consensus.confirm().await?;
        let known = |s: &farlane_state::State| s.node(&node).map(|n| (n.revoked, n.region.clone()));
        let region = match self.consensus.read(known) {
            None => return Err(ControlError::UnknownNode),
            Some((true, _)) => return Err(ControlError::NodeRevoked),
            Some((false, region)) => region,
        };
        let observed = hello.observed.unwrap_or_default();
        let (mut live, ended) = (attempts(&observed.live)?, attempts(&observed.ended)?);
        let ungranted: HashSet<_> = attempts(&observed.ungranted)?.into_iter().collect();
        live.retain(|attempt| !ungranted.contains(attempt));
        let (spec, stands_until) = self.spec_of(node, &hello.spec_bytes)?;
        self.update_node(node, boot, spec, &ended).await?;

        let (link, outbound) = Link::new();
        let agent = Arc::new(AgentLink {
            link,
            node,
            boot,
            stands_until,
            push: Default::default(),
        });
        let now = self.now();
        agent.frame(ToAgent::Hello(v1::ControlHello {
            hello: Some(self.hello()),
            network: self.network(),
            epoch: self.consensus.read(|s| s.epoch()),
            cluster_time_ms: now.0,
            leader: String::new(),
            others: self.others.clone(),
        }));
        self.leases
            .lock()
            .attach(node, agent.link.id, self.clock.steady(), now);
        let (nonce, steady) = (nonce(), self.clock.steady());
        self.paths
            .lock()
            .attach(node, &region, agent.link.id, nonce, steady);
        agent.ping(nonce);
        if let Some(within) = self.first_audit_within() {
            self.audits.lock().attach(node, self.clock.steady(), within);
        }
        let session = AgentSession {
            controller: self.clone(),
            link: agent.clone(),
            heartbeats: Arc::new(Semaphore::new(MAX_HEARTBEATS)),
        };
        let granted = live;
        self.tell_pusher(PushCommand::Agent {
            agent,
            granted,
            ended,
        })
        .await?;
        Ok((session, outbound))
    }

    /// Waits until this server has applied what a peer has seen elsewhere.
    ///
    /// *Errors*: it does not get there.
    pub(crate) async fn catch_up(&self, index: u64) -> Result<(), ControlError> {
        let reached = tokio::time::timeout(CATCH_UP, self.consensus.wait_applied(index));
        reached.await.map_err(|_| ControlError::Unavailable {
            why: format!(
                "it has not reached entry {index}, which this peer has seen; \
                 was the network restored from a backup? then restart this peer"
            ),
        })
    }

    /// Tells the state of a new boot or spec, and what a restart has lost.
    async fn update_node(
        &self,
        node: NodeId,
        boot: BootId,
        spec: bytes::Bytes,
        ended: &[AttemptRef],
    ) -> Result<(), ControlError> {
        let (current, lost, reported) = self.consensus.read(|state| {
            let known = state.node(&node);
            let current =
                known.is_some_and(|n| n.boot() == Some(boot) && *n.spec.to_canonical() == *spec);
            let earlier = state
                .desired(&node)
                .filter(|t| t.placed.and_then(|p| p.boot()) != Some(boot));
            let earlier: Vec<AttemptRef> = earlier.map(|t| t.attempt_ref()).collect();
            let (reported, lost): (Vec<_>, Vec<_>) =
                earlier.into_iter().partition(|a| ended.contains(a));
            (current, lost, reported)
        });
        let mut orders = Vec::new();
        if !current {
            orders.push(Order::UpdateNode(UpdateNode { node, boot, spec }));
        }
        if !lost.is_empty() {
            let reason = ReturnReason::Lost(LostCause::NodeRestarted);
            let attempts = lost.into_iter().map(|a| (a, reason)).collect();
            orders.push(Order::Return(Return { attempts }));
        }
        // Their sealed results are on the way; if they do not come, they are lost too.
        self.restarts.lock().expect(reported, self.clock.steady());
        if !orders.is_empty() {
            self.order(orders).await?;
        }
        Ok(())
    }

    pub(crate) fn network(&self) -> bytes::Bytes {
        crate::push::bytes_of(&self.consensus.read(|s| s.network()).0)
    }

    /// Whether its node has said that it runs.
    pub(crate) fn is_started(&self, attempt: &AttemptRef) -> bool {
        self.started.lock().contains(attempt)
    }
}

impl AgentSession {
    /// Does what a frame asks.
    ///
    /// *Errors*: malformed, or the server cannot go on; the stream should end with it.
    pub async fn receive(&self, frame: v1::AgentFrame) -> Result<(), ControlError> {
        match frame.body {
            Some(FromAgent::Complete(batch)) => self.complete(batch).await,
            Some(FromAgent::Heartbeat(heartbeat)) => {
                self.heartbeat(heartbeat);
                Ok(())
            }
            Some(FromAgent::Prekeys(stock)) => self.prekeys(stock).await,
            Some(FromAgent::Update(update)) => self.update(update).await,
            Some(FromAgent::Started(started)) => self.started(&started.attempts),
            Some(FromAgent::Pong(pong)) => {
                self.pong(&pong);
                Ok(())
            }
            Some(FromAgent::Answer(answer)) => {
                self.controller.challenge_answered(self.link.node, answer)
            }
            // What is observed counts at the hello; later the agent settles it by itself.
            Some(FromAgent::Observed(_)) | None => Ok(()),
            Some(FromAgent::Hello(_)) => Err(ControlError::invalid("a stream has one hello")),
        }
    }

    /// Says why, and ends the stream after it.
    pub fn refuse(&self, error: &ControlError) {
        self.link.refuse(error);
    }

    /// Resolves when the server wants the stream to end.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.link.link.ended()
    }

    async fn complete(&self, batch: v1::CompleteBatch) -> Result<(), ControlError> {
        let (number, agent) = (batch.batch, self.link.clone());
        let bytes = prost::Message::encoded_len(&batch) as u64;
        if bytes > crate::MAX_BATCH_BYTES as u64 {
            return Err(ControlError::TooLarge {
                what: "a batch",
                most: crate::MAX_BATCH_BYTES as u64,
            });
        }
        let mut order = intake::complete(self.link.node, batch)?;
        self.adopt_results(&order).await?;
        self.controller.count_moved(&mut order);
        {
            let mut started = self.controller.started.lock();
            if !started.is_empty() {
                for item in &order.items {
                    started.remove(&item.attempt);
                }
            }
        }
        self.controller
            .hand_in(Intake::Complete {
                agent,
                batch: number,
                order,
                bytes,
            })
            .await
    }

    /// Gives large results to the project before it hears of them.
    ///
    /// *Errors*: the blob store; the agent sends the batch again on its next stream.
    async fn adopt_results(&self, order: &CompleteBatch) -> Result<(), ControlError> {
        let blobs = order.items.iter().filter_map(|item| match &item.sealed {
            Some(Sealed::Blob(blob)) => Some(blob.digest),
            _ => None,
        });
        let blobs: Vec<Digest> = blobs.collect();
        if blobs.is_empty() {
            return Ok(());
        }
        let controller = &self.controller;
        let session = |s: &farlane_state::State| s.session(&order.session).map(|s| s.project);
        // A session that is gone asks for nothing.
        let Some(project) = controller.consensus.read(session) else {
            return Ok(());
        };
        for digest in blobs {
            match controller
                .blobs
                .adopt(self.link.node, project, digest)
                .await
            {
                // It was never put, or is long swept: whoever asks for it hears so.
                Ok(()) | Err(BlobError::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "a result could not be given to its project");
                    let why = "the blob store cannot be used now".to_owned();
                    return Err(ControlError::Unavailable { why });
                }
            }
        }
        Ok(())
    }

    /// Renews the lease once a quorum has been heard of after the heartbeat came.
    fn heartbeat(&self, heartbeat: v1::Heartbeat) {
        let Ok(place) = self.heartbeats.clone().try_acquire_owned() else {
            return;
        };
        let received = self.controller.clock.steady();
        self.measure(&heartbeat, received);
        let (controller, agent) = (self.controller.clone(), self.link.clone());
        tokio::spawn(async move {
            let _place = place;
            if controller.consensus.confirm().await.is_err() {
                return;
            }
            let now = controller.now();
            let (node, stream) = (agent.node, agent.link.id);
            let renewed = controller.leases.lock().renew(node, stream, received, now);
            if !renewed {
                // What it held is given to others already: it must hear that anew.
                return agent.link.end();
            }
            agent.frame(ToAgent::Heartbeat(v1::HeartbeatAck {
                sent_ms: heartbeat.sent_ms,
                cluster_time_ms: now.0,
                applied_index: controller.consensus.applied_index(),
            }));
        });
    }

    /// Takes note of what the agent measured, and asks for an answer by which this server does.
    fn measure(&self, heartbeat: &v1::Heartbeat, received: Micros) {
        let down = Some(ByteRate(heartbeat.down_bytes_s)).filter(|rate| *rate != ByteRate::ZERO);
        let servers = heartbeat.servers.iter().take(MAX_SERVERS);
        let servers = servers.map(|one| (one.server, Micros(one.round_trip_micros)));
        let (node, stream, nonce) = (self.link.node, self.link.link.id, nonce());
        let (cores, gpus) = (heartbeat.cores_heat_ppm, heartbeat.gpus_heat_ppm);
        self.controller.heats.lock().told(node, cores, gpus);
        let mut paths = self.controller.paths.lock();
        paths.told(node, down, servers.collect());
        if paths.beat(node, stream, nonce, received) {
            self.link.ping(nonce);
        }
    }

    /// The agent has answered.
    fn pong(&self, pong: &v1::Pong) {
        let received = self.controller.clock.steady();
        let Ok(answered) = pong.nonce.as_ref().try_into().map(u64::from_le_bytes) else {
            return;
        };
        let (node, stream, next) = (self.link.node, self.link.link.id, nonce());
        let mut paths = self.controller.paths.lock();
        if paths.answered(node, stream, answered, next, received) {
            self.link.ping(next);
        }
    }

    async fn prekeys(&self, stock: v1::PrekeyStock) -> Result<(), ControlError> {
        if stock.one_time_bytes.len() > MAX_STOCK {
            return Err(ControlError::invalid(format!(
                "at most {MAX_STOCK} prekeys at once"
            )));
        }
        let boot =
            BootId::from_slice(&stock.boot).map_err(|e| ControlError::invalid(e.to_string()))?;
        let order = StockPrekeys {
            node: self.link.node,
            boot,
            daily: (!stock.daily_bytes.is_empty()).then_some(stock.daily_bytes),
            one_time: stock.one_time_bytes,
        };
        self.controller
            .order_quietly(Order::StockPrekeys(order))
            .await
    }

    async fn update(&self, update: v1::NodeUpdate) -> Result<(), ControlError> {
        let (node, boot) = (self.link.node, self.link.boot);
        let (spec, _) = self.controller.spec_of(node, &update.spec_bytes)?;
        let order = UpdateNode { node, boot, spec };
        self.controller
            .order_quietly(Order::UpdateNode(order))
            .await
    }

    /// Takes note of what runs, as far as this node holds it.
    fn started(&self, list: &[v1::AttemptRef]) -> Result<(), ControlError> {
        let (listed, node) = (attempts(list)?, self.link.node);
        let held: Vec<AttemptRef> = self.controller.consensus.read(|state| {
            let mut started = self.controller.started.lock();
            if started.len().saturating_add(listed.len()) > MAX_STARTED {
                // Those that were taken back or cancelled never reported an end.
                started.retain(|attempt| state.is_current(attempt));
            }
            let here = |attempt: &AttemptRef| {
                let placed = state.task(attempt.task).and_then(|task| task.placed);
                state.is_current(attempt) && placed.is_some_and(|p| p.node.id == node)
            };
            let held: Vec<_> = listed.into_iter().filter(here).collect();
            let room = MAX_STARTED.saturating_sub(started.len());
            started.extend(held.iter().copied().take(room));
            held
        });
        for attempt in held {
            let phase = v1::TaskPhase::Running;
            self.controller
                .push_news(attempt.task, phase, attempt.attempt, Some(node));
        }
        Ok(())
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.link.link.end();
        self.controller.links.remove_agent(&self.link);
        self.controller
            .leases
            .lock()
            .detach(self.link.node, self.link.link.id);
    }
}
