//! What waits, as groups of tasks that ask the same.
//!
//! Owns which heads of which queues a round of planning looks at. Leaves the choice of nodes to `farlane-plan`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use farlane_model::{Digest, NodeId, SessionId, TaskId, TaskSpec};
use farlane_plan::Group;
use farlane_state::{Order, State, SubmitBatch};

use crate::overlay::Overlay;
use crate::quota::Quotas;
use crate::refusals::Refusals;
use crate::view::{BUDGET, ViewCache};

/// Queues looked at in one round: every project's most urgent, or those whose turn it is.
const MAX_GROUPS: usize = 256;

/// Groups with as many heads as there could be room for.
struct Gathered<'a> {
    state: &'a State,
    cache: &'a mut ViewCache,
    waiting: Vec<Group>,
    heads: Vec<Vec<TaskId>>,
    index: HashMap<(SessionId, Digest, Vec<NodeId>), usize>,
}

impl Gathered<'_> {
    fn add(
        &mut self,
        session: SessionId,
        digest: Digest,
        spec: &Arc<TaskSpec>,
        tasks: Vec<TaskId>,
        not_on: Vec<NodeId>,
    ) {
        if tasks.is_empty() {
            return;
        }
        let key = (session, digest, not_on);
        match self.index.get(&key) {
            Some(at) => {
                self.heads[*at].extend(tasks);
                self.waiting[*at].tasks = self.heads[*at].len() as u32;
            }
            None => {
                let at = self.heads.len();
                let not_on = key.2.clone();
                self.index.insert(key, at);
                let group = self
                    .cache
                    .group(self.state, digest, spec, tasks.len() as u32);
                self.waiting.push(Group {
                    since: at as u64,
                    not_on,
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
    let queues = state.waiting_in_turn(turn, MAX_GROUPS, |queue| {
        let (digest, spec) = (&queue.spec.digest, &queue.spec.task);
        queue.granter.is_some()
            && waits.quotas.leave(&queue.project)
            && fleet.feasible(digest, spec, &[])
    });
    let mut all = Gathered {
        state,
        cache,
        waiting: Vec::new(),
        heads: Vec::new(),
        index: HashMap::new(),
    };
    for queue in queues {
        let fresh = queue.heads().filter(|t| !overlay.places(t));
        let (session, digest, spec) = (queue.session.id, queue.spec.digest, &queue.spec.task);
        let Some(refusals) = waits.refusals else {
            all.add(
                session,
                digest,
                spec,
                fresh.take(room).collect(),
                Vec::new(),
            );
            continue;
        };
        // What was refused somewhere must not stand before what was not.
        let (mut free, mut refused) = (Vec::new(), BTreeMap::<_, Vec<TaskId>>::new());
        let mut spare = room;
        for task in fresh {
            let known = queue.granter.and_then(|g| refusals.of(task, g));
            match known {
                None => free.push(task),
                Some(_) if spare == 0 => continue,
                Some(known) => {
                    spare -= 1;
                    refused.entry(known.nodes.clone()).or_default().push(task);
                }
            }
            if free.len() >= room {
                break;
            }
        }
        all.add(session, digest, spec, free, Vec::new());
        for (not_on, tasks) in refused {
            all.add(session, digest, spec, tasks, not_on);
        }
    }
    for order in orders {
        if let Order::SubmitBatch(batch) = order {
            submitted(state, batch, room, &mut all);
        }
    }
    (all.waiting, all.heads)
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
    let mut run: Option<(Digest, Arc<TaskSpec>, Vec<TaskId>)> = None;
    let fresh = (batch.first_seq..)
        .zip(&batch.tasks)
        .filter(|(seq, _)| *seq >= session.next_seq);
    for (seq, task) in fresh.take(room) {
        let same = run
            .as_ref()
            .is_some_and(|(digest, ..)| *digest == task.spec);
        if !same {
            if let Some((digest, spec, tasks)) = run.take() {
                all.add(session.id, digest, &spec, tasks, Vec::new());
            }
            let known = state.spec(&task.spec).map(|s| s.task.clone());
            let Some(spec) = known.or_else(|| read.get(&task.spec).cloned()) else {
                continue;
            };
            run = Some((task.spec, spec, Vec::new()));
        }
        if let Some((_, _, tasks)) = &mut run {
            tasks.push(session.task_id(seq));
        }
    }
    if let Some((digest, spec, tasks)) = run {
        all.add(session.id, digest, &spec, tasks, Vec::new());
    }
}
