//! What waits, as groups of tasks that ask the same.
//!
//! Owns which heads of which queues a round of planning looks at. Leaves the choice of nodes to `farlane-plan`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use farlane_model::{Digest, NodeId, SessionId, TaskId, TaskSpec};
use farlane_plan::Group;
use farlane_state::{Order, State, SubmitBatch, WaitingQueue};
use farlane_units::Millis;

use crate::overlay::Overlay;
use crate::quota::Quotas;
use crate::refusals::Refusals;
use crate::view::{BUDGET, ViewCache};

/// Queues looked at in one round: every project's most urgent, or those whose turn it is.
const MAX_GROUPS: usize = 256;

/// Classes of nodes looked at in one round for specs that are new to it; those beyond wait for the next, which knows
/// these. Source: at 30 ns each half a millisecond, so that a flood of different specs makes no round longer than that.
const MAX_LOOKS: usize = 16_384;

/// Takes so many of the looks that are left. The first has as many as it needs.
fn affords(looks: &mut usize, unseen: usize) -> bool {
    let enough = unseen <= *looks || *looks == MAX_LOOKS;
    *looks = looks.saturating_sub(if enough { unseen } else { 0 });
    enough
}

/// How a task of a queue may be placed otherwise than the rest of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Apart {
    /// Nodes that were refused for it.
    not_on: Vec<NodeId>,
    /// It was called back from where it waited.
    at_once: bool,
}

impl Apart {
    fn refused(not_on: Vec<NodeId>) -> Self {
        Self {
            not_on,
            at_once: false,
        }
    }
}

/// Groups with as many heads as there could be room for.
struct Gathered<'a> {
    state: &'a State,
    cache: &'a mut ViewCache,
    waiting: Vec<Group>,
    heads: Vec<Vec<TaskId>>,
    index: HashMap<(SessionId, Digest, Apart, u32), usize>,
    /// Of the queue that is looked at.
    waited: Millis,
}

impl Gathered<'_> {
    fn add(
        &mut self,
        session: SessionId,
        digest: Digest,
        spec: &Arc<TaskSpec>,
        tasks: Vec<TaskId>,
        apart: Apart,
    ) {
        self.add_gangs(session, digest, spec, tasks, apart, 1);
    }

    /// Tasks that are placed so many at a time.
    fn add_gangs(
        &mut self,
        session: SessionId,
        digest: Digest,
        spec: &Arc<TaskSpec>,
        tasks: Vec<TaskId>,
        apart: Apart,
        gang: u32,
    ) {
        if tasks.is_empty() {
            return;
        }
        let key = (session, digest, apart, gang);
        match self.index.get(&key) {
            Some(at) => {
                self.heads[*at].extend(tasks);
                self.waiting[*at].tasks = self.heads[*at].len() as u32;
            }
            None => {
                // A queue's session is there, and so is that of what is submitted.
                let Some(tenant) = self.state.session(&session).map(|s| s.tenant) else {
                    return;
                };
                let at = self.heads.len();
                let Apart { not_on, at_once } = key.2.clone();
                self.index.insert(key, at);
                let count = tasks.len() as u32;
                let group = self.cache.group(self.state, digest, spec, tenant, count);
                self.waiting.push(Group {
                    since: at as u64,
                    waited: self.waited,
                    not_on,
                    at_once,
                    gang,
                    ..group
                });
                self.heads.push(tasks);
            }
        }
    }
}

/// What is known of those that wait.
#[derive(Clone, Copy)]
pub(crate) struct Waits<'a> {
    pub state: &'a State,
    pub overlay: &'a Overlay,
    pub quotas: &'a Quotas,
    /// Cluster time.
    pub now: Millis,
    /// `None` where no granter refused anything.
    pub refusals: Option<&'a Refusals>,
}

/// Waiting tasks that somebody can grant and whose projects may hold more: those of the queues, then those that
/// the orders submit.
pub(crate) fn gather(
    waits: Waits,
    orders: &[Order],
    room: usize,
    cache: &mut ViewCache,
) -> (Vec<Group>, Vec<Vec<TaskId>>) {
    let Waits { state, overlay, .. } = waits;
    let room = room.min(BUDGET as usize);
    let (turn, fleet) = (&mut cache.turn, &mut cache.fleet);
    // What no node can ever run takes no other's place; the leader ends it, or a node joins.
    let mut looks = MAX_LOOKS;
    let queues = state.waiting_in_turn(turn, MAX_GROUPS, |queue| {
        let (digest, spec) = (&queue.spec.digest, &queue.spec.task);
        queue.granter.is_some()
            && waits.quotas.leave(&queue.project)
            && affords(&mut looks, fleet.unseen(digest))
            && fleet.feasible(digest, spec, &[])
    });
    let mut all = Gathered {
        state,
        cache,
        waiting: Vec::new(),
        heads: Vec::new(),
        index: HashMap::new(),
        waited: Millis::ZERO,
    };
    for queue in queues {
        let fresh = queue.heads().filter(|t| !overlay.places(t));
        all.waited = waits.now.saturating_sub(queue.oldest());
        let (session, digest, spec) = (queue.session.id, queue.spec.digest, &queue.spec.task);
        if spec.gang.is_some() {
            waiting_gangs(&queue, waits, &mut all);
            continue;
        }
        if waits.refusals.is_none() && all.cache.called.is_empty() {
            let tasks = fresh.take(room).collect();
            all.add(session, digest, spec, tasks, Apart::default());
            continue;
        }
        // What was refused somewhere, or waits for room, must not stand before what does not.
        let (mut free, mut others) = (Vec::new(), BTreeMap::<_, Vec<TaskId>>::new());
        let mut spare = room;
        for task in fresh {
            let apart = Apart {
                not_on: refused_of(&[task], queue.granter, waits.refusals),
                at_once: all.cache.called.has(&task),
            };
            if apart == Apart::default() {
                free.push(task);
            } else if spare > 0 {
                spare -= 1;
                others.entry(apart).or_default().push(task);
            }
            if free.len() >= room {
                break;
            }
        }
        // They waited before all of these, and take no room but what is free.
        let called = Apart {
            not_on: Vec::new(),
            at_once: true,
        };
        if let Some(tasks) = others.remove(&called) {
            all.add(session, digest, spec, tasks, called);
        }
        all.add(session, digest, spec, free, Apart::default());
        for (apart, tasks) in others {
            all.add(session, digest, spec, tasks, apart);
        }
    }
    kept_gangs(waits, &mut all);
    all.waited = Millis::ZERO;
    for order in orders {
        if let Order::SubmitBatch(batch) = order {
            submitted(state, batch, room, &mut all);
        }
    }
    (all.waiting, all.heads)
}

/// Adds the gangs at a queue's head, those with as many members left together.
fn waiting_gangs(queue: &WaitingQueue<'_>, waits: Waits, all: &mut Gathered<'_>) {
    let (session, digest, spec) = (queue.session.id, queue.spec.digest, &queue.spec.task);
    let fresh = queue
        .gangs()
        .filter(|g| !g.iter().any(|t| waits.overlay.places(t)));
    let mut left = BUDGET as usize;
    for gang in fresh {
        let Some(rest) = left.checked_sub(gang.len()) else {
            break;
        };
        left = rest;
        let apart = Apart::refused(refused_of(&gang, queue.granter, waits.refusals));
        let size = gang.len() as u32;
        all.add_gangs(session, digest, spec, gang, apart, size);
    }
}

/// Adds gangs that room is kept for and whose queues were not looked at: their nodes are not to be given away.
fn kept_gangs(waits: Waits, all: &mut Gathered<'_>) {
    let state = waits.state;
    let kept: Vec<TaskId> = all.cache.reserved.gangs().collect();
    for first in kept {
        if waits.overlay.places(&first) || all.heads.iter().any(|head| head.contains(&first)) {
            continue;
        }
        let task = state.task(first).filter(|t| t.placed.is_none());
        let Some((task, member)) = task.and_then(|t| Some((t, t.gang?))) else {
            continue;
        };
        let granter = state.granter_for(task.session);
        if granter.is_some() && waits.quotas.leave(&task.session.project) {
            let gang: Vec<TaskId> = state.gang(&member).map(|t| t.id).collect();
            let (session, digest, size) = (task.session.id, task.spec.digest, gang.len() as u32);
            let apart = Apart::refused(refused_of(&gang, granter, waits.refusals));
            all.waited = waits.now.saturating_sub(task.submitted);
            all.add_gangs(session, digest, &task.spec.task, gang, apart, size);
        }
    }
}

/// Nodes that were refused for any of these: none of them goes there.
pub(crate) fn refused_of(
    gang: &[TaskId],
    granter: Option<SessionId>,
    refusals: Option<&Refusals>,
) -> Vec<NodeId> {
    let Some((granter, known)) = granter.zip(refusals) else {
        return Vec::new();
    };
    let refused = gang.iter().filter_map(|task| known.of(*task, granter));
    let mut nodes: Vec<NodeId> = refused.flat_map(|r| r.nodes.iter().copied()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Adds what a submission will queue once it is applied. What it resends is queued, placed or
/// finished already.
fn submitted(state: &State, batch: &SubmitBatch, room: usize, all: &mut Gathered) {
    let Some(session) = state.session(&batch.session) else {
        return;
    };
    if state.granter_for(session).is_none() || batch.first_seq > session.next_seq {
        return;
    }
    let mut read: HashMap<Digest, Arc<TaskSpec>> = HashMap::new();
    for bytes in &batch.specs {
        if let Ok(spec) = TaskSpec::from_canonical(bytes) {
            read.insert(Digest::of(bytes), Arc::new(spec));
        }
    }
    let resent = session.next_seq - batch.first_seq;
    let fresh = batch.tasks.get(resent as usize..).unwrap_or_default();
    let (mut first, mut room) = (session.next_seq, room);
    for run in fresh.chunk_by(|a, b| a.spec == b.spec) {
        let (digest, from) = (run[0].spec, first);
        first += run.len() as u64;
        let known = state.spec(&digest).map(|s| s.task.clone());
        let Some(spec) = known.or_else(|| read.get(&digest).cloned()) else {
            continue;
        };
        let ids = |n: usize| (from..).take(n).map(|seq| session.task_id(seq)).collect();
        match spec.gang {
            None => {
                let most = run.len().min(room);
                room -= most;
                all.add(session.id, digest, &spec, ids(most), Apart::default());
            }
            // What is left of the last is refused.
            Some(gang) => {
                let size = usize::from(gang.size);
                let whole = ids(run.len() / size * size);
                all.add_gangs(
                    session.id,
                    digest,
                    &spec,
                    whole,
                    Apart::default(),
                    size as u32,
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;
