//! The live state: what is scheduled now. It loads from rows alone.
//!
//! Reading is cheap and borrows; nothing is copied. Only `apply` changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farlane_model::{AttemptRef, Digest, KeyId, NodeId, ProjectId, SessionId, TaskId};
use farlane_units::Millis;

use crate::alike::Alike;
use crate::companies::Companies;
use crate::gang::Gangs;
use crate::project::ProjectLoad;
use crate::queue::{QueueKey, Queues};
use crate::row::{ClusterRow, MAX_OUTBOX, OutboxKey, RevocationsRow};
use crate::slab::Slab;
use crate::spec::Specs;
use crate::task::{PlacedOn, Task, known};
use crate::touched::{TouchMark, Touched};
use crate::{Granter, LiveTask, Node, Session, Spec, Stamp, WaitingQueue};

/// Everything the cluster agrees on, apart from rows that nobody needs in memory.
pub struct State {
    pub(crate) cluster: Option<ClusterRow>,
    pub(crate) stamp: Stamp,
    pub(crate) entry: EntryCounts,
    pub(crate) nodes: BTreeMap<NodeId, u32>,
    pub(crate) by_number: Vec<Option<Box<Node>>>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) session_ids: BTreeMap<SessionId, u32>,
    pub(crate) specs: Specs,
    pub(crate) tasks: Slab<Task>,
    pub(crate) queues: Queues,
    pub(crate) gangs: Gangs,
    pub(crate) placed: usize,
    pub(crate) granters: BTreeMap<SessionId, Granter>,
    pub(crate) standing: BTreeMap<ProjectId, BTreeSet<SessionId>>,
    pub(crate) revoked_keys: BTreeSet<KeyId>,
    pub(crate) revocations: BTreeMap<Digest, RevocationsRow>,
    pub(crate) idempotency: BTreeMap<(ProjectId, Digest), (TaskId, Millis)>,
    pub(crate) idempotency_ends: BTreeSet<(Millis, ProjectId, Digest)>,
    pub(crate) deadlines: BTreeSet<(Millis, TaskId)>,
    /// Leases that were asked to make way, by when their grace ends.
    pub(crate) yielding: BTreeSet<(Millis, TaskId)>,
    pub(crate) outbox: VecDeque<OutboxRun>,
    pub(crate) outbox_len: u64,
    pub(crate) sinks: BTreeMap<u8, OutboxKey>,
    pub(crate) projects: BTreeMap<ProjectId, ProjectLoad>,
    pub(crate) touched: Touched,
    pub(crate) companies: Companies,
    pub(crate) alike: Alike,
}

/// Events that one order left in the outbox: `n` from `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxRun {
    pub index: u64,
    pub ordinal: u32,
    pub from: u32,
    pub to: u32,
}

/// Numbers that count within one entry, so that orders of it can be told apart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EntryCounts {
    pub index: u64,
    pub finished: u32,
    pub leases: u32,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for a node.
    pub queued: usize,
    /// Tasks leased to nodes.
    pub placed: usize,
    /// Registered nodes, revoked ones counted.
    pub nodes: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Different specs.
    pub specs: usize,
    /// Attached granters.
    pub granters: usize,
    /// Events that no sink has acknowledged.
    pub outbox: u64,
}

impl State {
    /// Before Genesis.
    pub fn empty() -> State {
        State {
            cluster: None,
            stamp: Stamp::default(),
            entry: EntryCounts::default(),
            nodes: BTreeMap::new(),
            by_number: Vec::new(),
            sessions: Slab::new(),
            session_ids: BTreeMap::new(),
            specs: Specs::new(),
            tasks: Slab::new(),
            queues: Queues::default(),
            gangs: Gangs::default(),
            placed: 0,
            granters: BTreeMap::new(),
            standing: BTreeMap::new(),
            revoked_keys: BTreeSet::new(),
            revocations: BTreeMap::new(),
            idempotency: BTreeMap::new(),
            idempotency_ends: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            yielding: BTreeSet::new(),
            outbox: VecDeque::new(),
            outbox_len: 0,
            sinks: BTreeMap::new(),
            projects: BTreeMap::new(),
            touched: Touched::default(),
            companies: Companies::default(),
            alike: Alike::default(),
        }
    }

    /// Whether Genesis has been applied.
    pub fn is_founded(&self) -> bool {
        self.cluster.is_some()
    }
    /// The network's id; zero before Genesis.
    pub fn network(&self) -> Digest {
        self.cluster.as_ref().map(|c| c.network).unwrap_or_default()
    }
    /// Of the cluster; 0 before Genesis.
    pub fn epoch(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |c| c.epoch)
    }
    /// Gates new behaviour; 0 before Genesis.
    pub fn cluster_version(&self) -> u32 {
        self.cluster.as_ref().map_or(0, |c| c.version)
    }
    /// Of the last applied order. After loading it is zero until told: rows do not hold it.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
    /// Tells a loaded state how far it has got. Goes forward only.
    pub fn resume(&mut self, stamp: Stamp) {
        if stamp.index >= self.stamp.index {
            self.stamp = stamp;
            self.touched = Touched::loaded(stamp.index);
        }
    }
    /// Cluster time of the last applied order.
    pub fn now(&self) -> Millis {
        self.stamp.now
    }
    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.queues.len(),
            placed: self.placed,
            nodes: self.nodes.len(),
            sessions: self.session_ids.len(),
            specs: self.specs.slab.len(),
            granters: self.granters.len(),
            outbox: self.outbox_len,
        }
    }

    /// Every node, by id; revoked ones too.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter_map(|n| self.node_by_number(*n))
    }
    /// Every node once, by id from this one on and then from the first.
    pub fn nodes_from(&self, from: &NodeId) -> impl Iterator<Item = &Node> {
        let (before, after) = (self.nodes.range(..*from), self.nodes.range(*from..));
        let all = after.chain(before);
        all.filter_map(|(_, number)| self.node_by_number(*number))
    }
    /// One node.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.node_by_number(*self.nodes.get(id)?)
    }
    /// One node by the short name that leases use.
    pub fn node_by_number(&self, number: u32) -> Option<&Node> {
        self.by_number.get(number as usize)?.as_deref()
    }
    pub(crate) fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        let node = self.by_number.get_mut(number as usize)?.as_deref_mut()?;
        self.touched.add(number);
        Some(node)
    }
    /// Up to where the nodes' changes have been seen by who looks now.
    pub fn touch_mark(&self) -> TouchMark {
        self.touched.mark()
    }
    /// Nodes that changed since a mark was taken, some more than once; `None` where all must be looked at.
    pub fn touched_since(&self, mark: TouchMark) -> Option<impl Iterator<Item = &Node>> {
        let touched = self.touched.since(mark)?;
        Some(touched.filter_map(|number| self.node_by_number(number)))
    }
    /// What should be on a node, in order of placement. Empty for an unknown node.
    pub fn desired(&self, node: &NodeId) -> impl Iterator<Item = LiveTask<'_>> {
        let held = self.node(node).into_iter().flat_map(|n| n.leased.values());
        held.filter_map(|held| self.view(held.task))
    }

    /// Every session, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.session_ids.values().map(|h| &self.sessions[*h])
    }
    /// One session.
    pub fn session(&self, id: &SessionId) -> Option<&Session> {
        self.session_ids.get(id).map(|h| &self.sessions[*h])
    }
    /// A session's live tasks, in order of submission.
    pub fn session_tasks(&self, id: &SessionId) -> impl Iterator<Item = LiveTask<'_>> {
        let handles = self.session(id).into_iter().flat_map(Session::live_handles);
        handles.filter_map(|h| self.view(h))
    }
    /// Whether a session knows a spec, so that it need not send it again.
    pub fn session_knows(&self, id: &SessionId, spec: &Digest) -> bool {
        match (self.session(id), self.specs.find(spec)) {
            (Some(session), Some(handle)) => session.specs.contains(&handle),
            _ => false,
        }
    }
    /// One spec.
    pub fn spec(&self, digest: &Digest) -> Option<&Spec> {
        self.specs.slab.get(self.specs.find(digest)?)
    }
    /// Every attached granter, by id.
    pub fn granters(&self) -> impl Iterator<Item = (&SessionId, &Granter)> {
        self.granters.iter()
    }
    /// One granter.
    pub fn granter(&self, id: &SessionId) -> Option<&Granter> {
        self.granters.get(id)
    }
    /// Who would grant a task of this session now: itself while attached, else the newest standing
    /// granter of its project.
    pub fn granter_for(&self, session: &Session) -> Option<SessionId> {
        match self.granters.contains_key(&session.id) {
            true => Some(session.id),
            false => self.standing.get(&session.project)?.last().copied(),
        }
    }
    /// Whether a key was revoked.
    pub fn key_revoked(&self, key: &KeyId) -> bool {
        self.revoked_keys.contains(key)
    }

    /// A provider's signed list of nodes that must get no more grants.
    pub fn revocations(&self, provider: &Digest) -> Option<&RevocationsRow> {
        self.revocations.get(provider)
    }
    /// Every provider's.
    pub fn all_revocations(&self) -> impl Iterator<Item = &RevocationsRow> {
        self.revocations.values()
    }

    /// One live task; finished ones are rows.
    pub fn task(&self, id: TaskId) -> Option<LiveTask<'_>> {
        self.view(self.find(id)?)
    }
    /// Whether this attempt is the one that counts now.
    pub fn is_current(&self, attempt: &AttemptRef) -> bool {
        self.task(attempt.task)
            .is_some_and(|t| t.placed.is_some() && t.attempt_ref() == *attempt)
    }
    /// Every live task, by session and then number.
    pub fn tasks(&self) -> impl Iterator<Item = LiveTask<'_>> {
        let handles = self.sessions().flat_map(Session::live_handles);
        handles.filter_map(|h| self.view(h))
    }
    /// Queues of waiting tasks, by project, then higher priority first. None is empty.
    pub fn waiting(&self) -> impl Iterator<Item = WaitingQueue<'_>> {
        self.queues
            .iter()
            .map(|(key, queue)| WaitingQueue::new(self, key, queue))
    }
    pub(crate) fn waiting_at(&self, key: &QueueKey) -> Option<WaitingQueue<'_>> {
        let (key, queue) = self.queues.get(key)?;
        Some(WaitingQueue::new(self, key, queue))
    }
    /// Live tasks of a project.
    pub fn project_live(&self, project: &ProjectId) -> u64 {
        self.projects.get(project).map_or(0, |p| p.live)
    }
    /// Results kept of a project.
    pub fn project_kept(&self, project: &ProjectId) -> u64 {
        self.projects.get(project).map_or(0, |p| p.kept)
    }
    /// Whether the outbox is at its bound, so that nothing new is taken.
    pub fn accounts_behind(&self) -> bool {
        self.outbox_len >= MAX_OUTBOX
    }
    /// How far a sink has got: everything up to here is acknowledged.
    pub fn sink(&self, sink: u8) -> Option<OutboxKey> {
        self.sinks.get(&sink).copied()
    }

    pub(crate) fn find(&self, id: TaskId) -> Option<u32> {
        self.session(&id.session())?.task(id.seq())
    }
    pub(crate) fn view(&self, handle: u32) -> Option<LiveTask<'_>> {
        let task = self.tasks.get(handle)?;
        let session = &self.sessions[task.session];
        let placed = task.lease.as_deref().and_then(|lease| {
            self.node_by_number(lease.node)
                .map(|node| PlacedOn { node, lease })
        });
        Some(LiveTask {
            id: session.task_id(task.seq),
            epoch: self.epoch(),
            spec: &self.specs.slab[task.spec],
            session,
            submitted: task.submitted,
            attempt: task.attempt,
            lost: task.lost,
            raised: task.raised,
            preempted: task.preempted,
            spent: task.spent,
            emitted: known(task.emitted),
            wrapped_key: &task.wrapped_key,
            gang: self.member(task),
            placed,
        })
    }
    pub(crate) fn queue_key(&self, task: &Task) -> QueueKey {
        let spec = &self.specs.slab[task.spec].task;
        QueueKey {
            project: spec.project,
            urgency: -i16::from(spec.priority),
            session: task.session,
            spec: task.spec,
        }
    }
    /// When the task is given up, if nothing else happens to it.
    pub(crate) fn ends_at(&self, task: &Task) -> Option<Millis> {
        let timing = &self.specs.slab[task.spec].task.timing;
        let deadline = timing.deadline.map(|d| task.submitted.saturating_add(d));
        let wait = timing.queue_timeout.filter(|_| task.attempt == 0);
        let wait = wait.map(|q| task.submitted.saturating_add(q));
        match (deadline, wait) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl PartialEq for State {
    /// Whether both agree on everything that rows can say.
    fn eq(&self, other: &State) -> bool {
        self.image() == other.image()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("stamp", &self.stamp)
            .field("counts", &self.counts())
            .finish()
    }
}
