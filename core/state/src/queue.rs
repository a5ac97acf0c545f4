//! Ready queues: by project, priority, session and spec. They expose heads, never copies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use farlane_model::{ProjectId, SessionId, TaskId};
use farlane_units::Millis;

use crate::{Session, Spec, State};

/// Sorts by project, then higher priority first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub project: ProjectId,
    pub urgency: i16,
    pub session: u32,
    pub spec: u32,
}

/// Queued tasks by sequence number; a queue that runs empty is removed.
#[derive(Default)]
pub(crate) struct Queues {
    by_key: BTreeMap<QueueKey, BTreeSet<u64>>,
    len: usize,
}

impl Queues {
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn push(&mut self, key: QueueKey, seq: u64) {
        self.len += usize::from(self.by_key.entry(key).or_default().insert(seq));
    }
    pub fn remove(&mut self, key: QueueKey, seq: u64) {
        let Some(queue) = self.by_key.get_mut(&key) else {
            return;
        };
        self.len -= usize::from(queue.remove(&seq));
        if queue.is_empty() {
            self.by_key.remove(&key);
        }
    }
    pub fn get(&self, key: &QueueKey) -> Option<(&QueueKey, &BTreeSet<u64>)> {
        self.by_key.get_key_value(key)
    }
    /// The first queue from there on.
    pub fn next_from(&self, from: Bound<QueueKey>) -> Option<&QueueKey> {
        let mut rest = self.by_key.range((from, Bound::Unbounded));
        rest.next().map(|(key, _)| key)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&QueueKey, &BTreeSet<u64>)> {
        self.by_key.iter()
    }
}

/// Waiting tasks that ask the same, of one session.
#[derive(Clone, Copy)]
pub struct WaitingQueue<'a> {
    /// Whose.
    pub project: ProjectId,
    /// Higher first, within the project.
    pub priority: i8,
    /// Who submitted them.
    pub session: &'a Session,
    /// What they ask.
    pub spec: &'a Spec,
    /// Who would grant them now; without one they cannot be placed.
    pub granter: Option<SessionId>,
    queue: &'a BTreeSet<u64>,
    state: &'a State,
}

impl<'a> WaitingQueue<'a> {
    pub(crate) fn new(state: &'a State, key: &QueueKey, queue: &'a BTreeSet<u64>) -> Self {
        let session = &state.sessions[key.session];
        Self {
            project: key.project,
            priority: (-key.urgency) as i8,
            session,
            spec: &state.specs.slab[key.spec],
            granter: state.granter_for(session),
            queue,
            state,
        }
    }
    /// How many wait; never 0.
    pub fn count(&self) -> usize {
        self.queue.len()
    }
    /// Cluster time at which the head was submitted.
    pub fn oldest(&self) -> Millis {
        let head = self.queue.first().and_then(|seq| self.session.task(*seq));
        head.and_then(|h| self.state.tasks.get(h))
            .map_or(Millis::ZERO, |t| t.submitted)
    }
    /// From the head, the gangs that wait in it: those of a gang that have not finished come together. Empty where
    /// its tasks are on their own.
    pub fn gangs(&self) -> impl Iterator<Item = Vec<TaskId>> + use<'a> {
        let (state, id) = (self.state, self.session.id);
        let handle = state
            .session_ids
            .get(&id)
            .copied()
            .filter(|_| self.spec.task.gang.is_some());
        let mut waiting = self.queue.iter().copied().peekable();
        std::iter::from_fn(move || {
            let (first, handle) = (waiting.next()?, handle?);
            let gang = state.gangs.find(handle, first);
            let mut gathered = vec![id.task(first)];
            while let Some(seq) = waiting.next_if(|seq| state.gangs.find(handle, *seq) == gang) {
                gathered.push(id.task(seq));
            }
            Some(gathered)
        })
    }
    /// From the head, in order of submission.
    pub fn heads(&self) -> impl Iterator<Item = TaskId> + use<'a> {
        let session = self.session.id;
        self.queue.iter().map(move |seq| session.task(*seq))
    }
}
