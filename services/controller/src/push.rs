//! What goes out by itself: attempts to agents, grant requests and news to clients.
//!
//! Owns the one task that turns applied changes into frames. Everything is derived from state and
//! rows: a frame lost costs latency, never work. Results have their own file.
//!
//! ```text
//! notice (index, changes) ─┬▶ Assigned    ─▶ Assign        ─▶ agent        (unless Desired has it)
//!                          ├▶ StopWanted  ─▶ Stop          ─▶ agent
//!                          ├▶ GrantWanted ─▶ GrantRequest  ─▶ granter
//!                          ├▶ Finished    ─▶ ResultBatch   ─▶ client
//!                          └▶ Queued, NodeChanged          ─▶ planner
//! attach, or a queue ran over ─▶ Desired, results after the cursor
//! ```

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use farlane_consensus::Notice;
use farlane_model::{AttemptRef, Digest, NodeId, SessionId, TaskId, TenantId};
use farlane_state::{Change, Rows, State, Table, TaskEnvelopeRow, keys};
use farlane_units::Millis;
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as ToClient;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::link::{AgentLink, GRANT_RESERVE, SessionLink};
use crate::{ControlError, Controller};

/// Encoded payloads of one `Assign` frame; more go in the next. Source: a message of 1 MiB crosses a
/// 100 Mbit/s line in 80 ms, within which heartbeats still pass.
const ASSIGN_BYTES: usize = 1 << 20;
/// How often streams that were behind are looked at again.
const CATCH_UP: Duration = Duration::from_millis(20);

/// What the pusher is told beside notices.
pub(crate) enum PushCommand {
    /// An agent has attached; it reported what has its grant and what ended there.
    Agent {
        agent: Arc<AgentLink>,
        granted: Vec<AttemptRef>,
        ended: Vec<AttemptRef>,
    },
    /// A client has attached.
    Session(Arc<SessionLink>),
    /// Some stream could not be told all that it watches.
    Behind,
}

/// Items by whom they concern, in the order of the first of each.
struct Grouped<K, V>(Vec<(K, Vec<V>)>, HashMap<K, usize>);

impl<K: Copy + Eq + Hash, V> Grouped<K, V> {
    fn new() -> Self {
        Self(Vec::new(), HashMap::new())
    }
    fn add(&mut self, key: K, value: V) {
        // Changes come in runs: most often it is the same as before.
        if let Some((last, values)) = self.0.last_mut()
            && *last == key
        {
            values.push(value);
            return;
        }
        let groups = &mut self.0;
        let at = *self.1.entry(key).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(value);
    }
}

impl Controller {
    /// Turns notices into frames until the server stops.
    pub(crate) async fn push_loop(
        self: Arc<Self>,
        mut notices: broadcast::Receiver<Arc<Notice>>,
        mut commands: mpsc::Receiver<PushCommand>,
    ) {
        let mut catch_up = tokio::time::interval(CATCH_UP);
        catch_up.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut anybody_behind = false;
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                notice = notices.recv() => match notice {
                    Ok(notice) => {
                        self.push_notice(&notice, &mut anybody_behind);
                        // Streams open also while notices follow each other without a gap.
                        if let Ok(command) = commands.try_recv() {
                            self.push_command(command, &mut anybody_behind);
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "the pusher fell behind; sending everything again");
                        self.push_everything(&mut anybody_behind);
                        self.planner_wake.notify_one();
                    }
                    Err(RecvError::Closed) => return,
                },
                Some(command) = commands.recv() => self.push_command(command, &mut anybody_behind),
                _ = catch_up.tick(), if anybody_behind => anybody_behind = self.push_behind(),
            }
        }
    }

    fn push_notice(&self, notice: &Notice, anybody_behind: &mut bool) {
        if notice.reset {
            self.push_everything(anybody_behind);
            self.planner_wake.notify_one();
        }
        let mut assigned = Grouped::<NodeId, AttemptRef>::new();
        let mut stops = Grouped::<NodeId, AttemptRef>::new();
        let mut wanted = Grouped::<SessionId, AttemptRef>::new();
        let mut finished = Grouped::<SessionId, TaskId>::new();
        let mut wake = false;
        for change in &notice.changes {
            match change {
                Change::Assigned { node, attempt } => assigned.add(*node, *attempt),
                Change::StopWanted { node, attempt } => stops.add(*node, *attempt),
                Change::GrantWanted { granter, attempt } => wanted.add(*granter, *attempt),
                Change::Finished { session, task } => finished.add(*session, *task),
                Change::Queued { task } => {
                    wake = true;
                    self.push_requeued(*task);
                }
                Change::NodeChanged { node } => {
                    wake = true;
                    self.node_changed(*node);
                }
                Change::PrekeysLow { node } => self.push_prekeys_wanted(*node),
                Change::KeyRevoked { key } => self.end_sessions_of(*key),
            }
        }
        for (node, attempts) in assigned.0 {
            if let Some(agent) = self.links.agent(node) {
                *anybody_behind |= !self.push_assigned(&agent, notice.index, &attempts);
            }
        }
        // After them: what was granted ahead finds its attempt there.
        for (granter, attempts) in wanted.0 {
            self.ask_grants(granter, attempts, true);
        }
        for (node, attempts) in stops.0 {
            self.ungranted.lock().settle(&attempts);
            if let Some(agent) = self.links.agent(node) {
                let attempts = attempts.into_iter().map(v1::AttemptRef::from).collect();
                agent.frame(ToAgent::Stop(v1::Stop {
                    attempts,
                    reason: String::new(),
                }));
            }
        }
        if !finished.0.is_empty() {
            self.forget_refusals(finished.0.iter().flat_map(|(_, tasks)| tasks));
        }
        let watched = self.links.anybody_watches();
        for (session, tasks) in finished.0 {
            if let Some(link) = self.links.session(session) {
                *anybody_behind |= !self.push_results(&link);
            }
            if watched {
                *anybody_behind |= !self.push_watched(&tasks);
            }
        }
        if wake {
            self.planner_wake.notify_one();
        }
    }

    fn push_command(&self, command: PushCommand, anybody_behind: &mut bool) {
        match command {
            PushCommand::Agent {
                agent,
                granted,
                ended,
            } => {
                self.links.add_agent(agent.clone());
                if agent.link.has_ended() {
                    self.links.remove_agent(&agent);
                    return;
                }
                let (granted, ended): (HashSet<_>, HashSet<_>) =
                    (granted.into_iter().collect(), ended.into_iter().collect());
                let mut open = self.push_desired(&agent);
                open.retain(|(_, attempt)| !ended.contains(attempt));
                // What has its grant may run; asking again is idempotent. All else must be granted in
                // time: whoever asked for it before may have been another leader, now gone.
                self.ask_all(open, |attempt| !granted.contains(attempt));
                self.planner_wake.notify_one();
            }
            PushCommand::Session(session) => {
                self.links.add_session(session.clone());
                if session.link.has_ended() {
                    self.links.remove_session(&session);
                    return;
                }
                *anybody_behind |= !self.push_results(&session);
                *anybody_behind |= !self.push_due(&session);
                if session.granter != v1::GranterKind::None {
                    let mine = self.leased_under(session.session);
                    self.ask_grants(session.session, mine, false);
                }
                self.planner_wake.notify_one();
            }
            PushCommand::Behind => *anybody_behind = true,
        }
    }

    /// Looks again at streams that were behind. True while any still is.
    fn push_behind(&self) -> bool {
        let mut behind = false;
        for agent in self.links.agents() {
            if agent.push.lock().behind {
                if agent.link.room() > RESYNC_ROOM {
                    self.push_desired(&agent);
                } else {
                    behind = true;
                }
            }
        }
        for session in self.links.sessions() {
            let (results, watched) = {
                let push = session.push.lock();
                (push.behind, !push.due.is_empty())
            };
            behind |= results && !self.push_results(&session);
            behind |= watched && !self.push_due(&session);
        }
        behind
    }

    /// After notices were missed: whatever they may have said is derived anew.
    fn push_everything(&self, anybody_behind: &mut bool) {
        for agent in self.links.agents() {
            self.node_changed(agent.node);
            let held = self.push_desired(&agent);
            // Nobody was asked for what was placed meanwhile; what is known to run has its grant.
            self.ask_all(held, |attempt| !self.is_started(attempt));
        }
        for session in self.links.sessions() {
            if self.key_revoked(session.key) {
                session.refuse(&ControlError::KeyRevoked);
                continue;
            }
            {
                let mut push = session.push.lock();
                push.behind = true;
                push.due = push.watched.iter().copied().collect();
            }
            *anybody_behind |= !self.push_results(&session);
            *anybody_behind |= !self.push_due(&session);
        }
    }

    /// Asks each granter for its attempts at once; `timed` are those that must be granted in time.
    fn ask_all(&self, held: Vec<(SessionId, AttemptRef)>, timed: impl Fn(&AttemptRef) -> bool) {
        let mut wanted = Grouped::<(SessionId, bool), AttemptRef>::new();
        for (granter, attempt) in held {
            wanted.add((granter, timed(&attempt)), attempt);
        }
        for ((granter, timed), attempts) in wanted.0 {
            self.ask_grants(granter, attempts, timed);
        }
    }

    /// Sends what was leased to this agent since. False when its queue was short.
    fn push_assigned(&self, agent: &AgentLink, index: u64, attempts: &[AttemptRef]) -> bool {
        let mut push = agent.push.lock();
        if index <= push.since || push.behind {
            return !push.behind;
        }
        let leased = self
            .consensus
            .read(|state| leased_to(state, agent.node, attempts));
        let mut specs = Vec::new();
        for item in &leased {
            if push.tell_spec(item.spec) {
                specs.push(v1::SpecBody {
                    spec_bytes: item.spec_bytes.clone(),
                });
            }
        }
        for chunk in self.assignments(&leased) {
            let specs = std::mem::take(&mut specs);
            let body = ToAgent::Assign(v1::Assign {
                index,
                attempts: chunk,
                specs,
            });
            if !agent
                .link
                .offer(v1::ControlFrame { body: Some(body) }, GRANT_RESERVE)
            {
                push.behind = true;
                return false;
            }
        }
        true
    }

    /// Sends everything that should be on this agent; returns it with its granters.
    fn push_desired(&self, agent: &AgentLink) -> Vec<(SessionId, AttemptRef)> {
        let index = self.consensus.applied_index();
        let (leased, granters) = self.consensus.read(|state| {
            let attempts: Vec<AttemptRef> = state
                .desired(&agent.node)
                .map(|t| t.attempt_ref())
                .collect();
            let granters: Vec<_> = state
                .desired(&agent.node)
                .filter_map(|t| t.placed.map(|p| (p.lease.granter, t.attempt_ref())))
                .collect();
            (leased_to(state, agent.node, &attempts), granters)
        });
        let mut push = agent.push.lock();
        let mut specs = Vec::new();
        for item in &leased {
            if push.tell_spec(item.spec) {
                specs.push(v1::SpecBody {
                    spec_bytes: item.spec_bytes.clone(),
                });
            }
        }
        if !specs.is_empty() {
            agent.frame(ToAgent::Assign(v1::Assign {
                index,
                attempts: Vec::new(),
                specs,
            }));
        }
        let attempts = self.assignments(&leased).into_iter().flatten().collect();
        agent.frame(ToAgent::Desired(v1::Desired { index, attempts }));
        push.since = index;
        push.behind = false;
        granters
    }

    /// Attempts with their payloads, in frames of bounded size.
    fn assignments(&self, leased: &[Leased]) -> Vec<Vec<v1::Assignment>> {
        let rows = self.consensus.rows();
        let (mut frames, mut frame, mut bytes) = (Vec::new(), Vec::with_capacity(leased.len()), 0);
        for item in leased {
            let key = keys::task(item.attempt.task);
            let Some(row) = rows
                .get(Table::Tasks, &key)
                .and_then(TaskEnvelopeRow::from_bytes)
            else {
                // It has finished since.
                continue;
            };
            if let farlane_model::Sealed::Inline(payload) = &row.payload {
                bytes += payload.len();
            }
            frame.push(v1::Assignment {
                attempt: Some(item.attempt.into()),
                spec: bytes_of(&item.spec.0),
                payload: Some(row.payload.into()),
                payload_digest: bytes_of(&row.payload_digest.0),
                tenant: bytes_of(&item.tenant.0),
                refs: row.refs.into_iter().map(Into::into).collect(),
                devices: item.devices.clone(),
                yields_ms: item.yields.0,
            });
            if bytes > ASSIGN_BYTES {
                frames.push(std::mem::take(&mut frame));
                bytes = 0;
            }
        }
        if !frame.is_empty() {
            frames.push(frame);
        }
        frames
    }

    fn push_prekeys_wanted(&self, node: NodeId) {
        if let Some(agent) = self.links.agent(node) {
            let wanted = v1::PrekeysWanted {
                count: PREKEYS_AT_ONCE,
            };
            agent.link.offer(
                v1::ControlFrame {
                    body: Some(ToAgent::PrekeysWanted(wanted)),
                },
                GRANT_RESERVE,
            );
        }
    }

    /// A node that is no longer trusted loses its stream.
    fn node_changed(&self, node: NodeId) {
        if let Some(agent) = self.links.agent(node)
            && !self.node_trusted(node)
        {
            agent.frame(ToAgent::Refused(ControlError::NodeRevoked.refusal()));
            agent.link.end();
        }
    }

    /// A task is back in the queue: its client may show that.
    fn push_requeued(&self, task: TaskId) {
        self.push_news(task, v1::TaskPhase::Queued, 0, None);
    }

    /// Lossy news of one task.
    pub(crate) fn push_news(
        &self,
        task: TaskId,
        phase: v1::TaskPhase,
        attempt: u32,
        node: Option<NodeId>,
    ) {
        let Some(session) = self.links.session(task.session()) else {
            return;
        };
        let change = v1::TaskChange {
            task: bytes_of(&task.to_bytes()),
            phase: phase.into(),
            attempt,
            node: node.map(|n| bytes_of(&n.0)).unwrap_or_default(),
            waiting_for: String::new(),
        };
        let body = ToClient::News(v1::TaskNews {
            changes: vec![change],
        });
        session.link.offer(
            v1::SessionFrame { body: Some(body) },
            crate::link::RESULT_RESERVE,
        );
    }
}

/// Places that must be free before a whole resend.
const RESYNC_ROOM: usize = 128;
/// One-time prekeys asked for at a time. Source: farlane-state, `PREKEYS_LOW`.
const PREKEYS_AT_ONCE: u32 = 64;

/// An attempt that is leased to the node that is looked at.
struct Leased {
    attempt: AttemptRef,
    spec: Digest,
    spec_bytes: bytes::Bytes,
    tenant: TenantId,
    /// Places of its GPUs.
    devices: Vec<u32>,
    /// Until when it may go on, where it was asked to make way.
    yields: Millis,
}

fn leased_to(state: &State, node: NodeId, attempts: &[AttemptRef]) -> Vec<Leased> {
    let mut leased = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let Some(task) = state.task(attempt.task) else {
            continue;
        };
        let placed = task.placed.filter(|p| p.node.id == node);
        if let Some(placed) = placed
            && task.attempt == attempt.attempt
        {
            leased.push(Leased {
                attempt: *attempt,
                spec: task.spec.digest,
                spec_bytes: task.spec.bytes.clone(),
                tenant: task.session.tenant,
                devices: placed.lease.places().map(|at| at as u32).collect(),
                yields: placed.lease.yields,
            });
        }
    }
    leased
}

pub(crate) fn bytes_of(bytes: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}
