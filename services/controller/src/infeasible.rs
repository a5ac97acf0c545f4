//! Work that no node of the network can ever run, or that is more than its project may ever hold.
//!
//! Owns when to say so: once a node is registered at once, else after a grace; and where its granter has
//! refused every node that fits. Leaves the constraints,
//! and the words, to `farlane-plan`.

use std::collections::{BTreeMap, HashMap};

use farlane_model::{Digest, Exit, ExitKind, NodeId, TaskId};
use farlane_plan::{Group, explain};
use farlane_state::{Member, Refuse, State, WaitingQueue};
use farlane_units::Millis;

use crate::Controller;
use crate::quota::{MAX_LOOKS, never};
use crate::refusals::{MAX_NODES, Refused};
use crate::view::ViewCache;

/// How long a task waits for the first node of a network. Source: choice; a machine that starts with
/// it joins within that.
const GRACE: Millis = Millis(10_000);
/// Tasks finished by one order.
const PAGE: usize = 2048;
/// Tasks finished each time. Source: choice; a million take a minute, and each second's fill eight orders.
const MAX_TASKS: usize = 8 * PAGE;
/// Queues looked at each time, in turn.
const MAX_QUEUES: usize = 4096;
/// Classes of nodes looked at each time for whether a spec fits any. Source: at 30 ns each 8 ms of a second, in which nothing
/// else is planned.
const MAX_CLASSES: usize = 262_144;
/// Classes looked at each time for what they lack, in words. Source: at a microsecond each 4 ms; the rest hear less.
const MAX_EXPLAINED: usize = 4096;

impl Controller {
    /// Orders that finish what can never run, with the reason.
    pub(crate) fn infeasible(&self) -> Vec<farlane_state::Order> {
        let now = self.now();
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        let found = self.consensus.read(|state| {
            if state.counts().queued == 0 {
                return Vec::new();
            }
            self.refresh(state, cache);
            hopeless(state, cache, now)
        });
        let refuse = |(reason, tasks): (String, Vec<TaskId>)| {
            Refuse {
                tasks,
                exit: Exit::new(ExitKind::Infeasible, reason),
            }
            .into()
        };
        found.into_iter().map(refuse).collect()
    }
}

/// Waiting tasks that can never run, with the reason: page by page, some queues at a time.
pub(crate) fn hopeless(
    state: &State,
    cache: &mut ViewCache,
    now: Millis,
) -> Vec<(String, Vec<TaskId>)> {
    let mut verdicts: HashMap<Digest, Option<String>> = HashMap::new();
    let mut found: Vec<(String, Vec<TaskId>)> = Vec::new();
    let (mut left, mut looks) = (MAX_TASKS, MAX_LOOKS);
    let kinds = cache.fleet.kinds().max(1);
    let most = MAX_QUEUES.min(1 + MAX_CLASSES / kinds);
    let mut words = Words {
        left: 1 + MAX_EXPLAINED / kinds,
    };
    let queues = state.waiting_in_turn(&mut cache.hopeless, most, |_| true);
    for queue in queues {
        if cache.fleet.is_empty() && queue.oldest().saturating_add(GRACE) > now {
            continue;
        }
        let (digest, task) = (queue.spec.digest, &queue.spec.task);
        if task.gang.is_some() {
            found.extend(never_at_once(state, &queue, cache, &mut looks, &mut words));
            continue;
        }
        let verdict = verdicts.entry(digest).or_insert_with(|| {
            if !cache.fleet.feasible(&digest, task, &[]) {
                let group = cache.group(state, digest, task, queue.session.tenant, 1);
                return Some(words.of(cache, &group));
            }
            never(state, &mut cache.fleet, (&digest, task), 1, &mut looks)
        });
        if let Some(reason) = verdict
            && left > 0
        {
            let tasks: Vec<TaskId> = queue.heads().take(left).collect();
            left -= tasks.len();
            let pages = tasks
                .chunks(PAGE)
                .map(|page| (reason.clone(), page.to_vec()));
            found.extend(pages);
        }
    }
    together(found)
}

/// With one order for all that hear the same, as far as one holds them.
fn together(mut found: Vec<(String, Vec<TaskId>)>) -> Vec<(String, Vec<TaskId>)> {
    found.sort();
    let mut pages: Vec<(String, Vec<TaskId>)> = Vec::new();
    for (reason, tasks) in found {
        match pages.last_mut() {
            Some((known, page)) if *known == reason && page.len() + tasks.len() <= PAGE => {
                page.extend(tasks);
            }
            _ => pages.push((reason, tasks)),
        }
    }
    pages
}

/// Reasons in full, while there are not too many of them.
struct Words {
    left: usize,
}

impl Words {
    fn of(&mut self, cache: &mut ViewCache, group: &Group) -> String {
        if self.left == 0 {
            let nodes = cache.fleet.len();
            return format!(
                "none of the {nodes} registered nodes can ever run it; so many different requests wait that nobody can meet \
                 that what each node lacks is not told: submit it again, or ask `farlane explain` while it waits"
            );
        }
        self.left -= 1;
        reason(&explain(&mut cache.fleet, group))
    }
}

/// The first gang of a queue that can never run at once, with the reason; the next is looked at when it has ended.
fn never_at_once(
    state: &State,
    queue: &WaitingQueue<'_>,
    cache: &mut ViewCache,
    looks: &mut usize,
    words: &mut Words,
) -> Option<(String, Vec<TaskId>)> {
    let (digest, task) = (queue.spec.digest, &queue.spec.task);
    let gang = queue.gangs().next()?;
    let size = gang.len() as u32;
    if cache.fleet.feasible_gang(&digest, task, &[], size) {
        let quota = never(state, &mut cache.fleet, (&digest, task), size, looks);
        return quota.map(|reason| (reason, gang));
    }
    let group = Group {
        gang: size,
        ..cache.group(state, digest, task, queue.session.tenant, size)
    };
    Some((words.of(cache, &group), gang))
}

impl Controller {
    /// Orders that finish tasks whose granter has refused every node that fits, with its reason.
    pub(crate) fn refused_everywhere(&self) -> Vec<farlane_state::Order> {
        let refusals = self.refusals.lock().all();
        if refusals.is_empty() {
            return Vec::new();
        }
        let mut ended: BTreeMap<String, Vec<TaskId>> = BTreeMap::new();
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        self.consensus.read(|state| {
            self.refresh(state, cache);
            let mut verdicts: HashMap<(Digest, &[NodeId]), bool> = HashMap::new();
            for (id, refused) in &refusals {
                let waits = state
                    .task(*id)
                    .filter(|t| t.placed.is_none())
                    .filter(|t| state.granter_for(t.session) == Some(refused.granter));
                let Some(task) = waits else { continue };
                if let Some(member) = &task.gang {
                    let (nodes, left) = gang_refused(state, member, &refusals);
                    let (digest, spec) = (&task.spec.digest, &task.spec.task);
                    if !cache.fleet.feasible_gang(digest, spec, &nodes, left) {
                        ended.entry(refused.reason.clone()).or_default().push(*id);
                    }
                    continue;
                }
                let mut hopeless = || {
                    let (digest, spec) = (&task.spec.digest, &task.spec.task);
                    refused.nodes.len() >= MAX_NODES
                        || !cache.fleet.feasible(digest, spec, &refused.nodes)
                };
                let key = (task.spec.digest, &refused.nodes[..]);
                if *verdicts.entry(key).or_insert_with(&mut hopeless) {
                    ended.entry(refused.reason.clone()).or_default().push(*id);
                }
            }
        });
        let mut orders = Vec::new();
        for (reason, tasks) in ended {
            let message = format!("its granter refuses every node that fits: {reason}");
            let exit = Exit::new(ExitKind::Refused, message);
            orders.extend(tasks.chunks(PAGE).map(|some| {
                let (tasks, exit) = (some.to_vec(), exit.clone());
                Refuse { tasks, exit }.into()
            }));
        }
        orders
    }
}

/// Nodes that were refused for any member of a gang, and how many of it have not finished.
fn gang_refused(
    state: &State,
    member: &Member,
    refusals: &[(TaskId, Refused)],
) -> (Vec<NodeId>, u32) {
    let left: Vec<TaskId> = state.gang(member).map(|t| t.id).collect();
    let theirs = refusals.iter().filter(|(id, _)| left.contains(id));
    let mut nodes: Vec<NodeId> = theirs.flat_map(|(_, r)| r.nodes.iter().copied()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    (nodes, left.len() as u32)
}

/// The summary, and what each class of node lacks.
fn reason(explanation: &farlane_plan::Explanation) -> String {
    let mut text = explanation.summary.clone();
    for class in &explanation.classes {
        let lacks: Vec<String> = class.lacks.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "; {}× {}: {}",
            class.nodes,
            class.class,
            lacks.join(", ")
        ));
    }
    text
}
