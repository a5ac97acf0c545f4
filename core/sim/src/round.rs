//! One round: what waits and what is free, to the planner or another chooser, and its answer to the judge.

use std::sync::Arc;

use farlane_model::{Digest, NodeId, SessionId, TaskId, TaskSpec};
use farlane_plan::{Gangs, Group, Left, NodeView, PlanInput, Presence, Shape, Share, Work, plan};
use farlane_state::{Outcome, Place, Placement, Spec, WaitingQueue};
use farlane_units::{ByteCount, Micros, Millis};

use crate::found::TENANT;
use crate::reserve::kept_gangs;
use crate::run::{EPOCH, Simulation};
use crate::work::Client;

/// Placements of one round. Source: as the controller's.
const BUDGET: u32 = 2048;
/// Queues of one round. Source: as the controller's.
const MAX_GROUPS: usize = 256;

/// What waits and goes together: tasks that ask the same, gang by gang.
pub(crate) struct Waiting<'a> {
    pub spec: &'a Spec,
    pub session: SessionId,
    pub oldest: Millis,
    /// Of each gang; 1 of what is none.
    pub gang: u32,
    /// They were called back from where they waited.
    pub at_once: bool,
    pub tasks: Vec<TaskId>,
}

impl Simulation {
    /// One round of planning. True where another may place more.
    pub(crate) fn place(&mut self) -> bool {
        self.refresh();
        let room = self.fleet.room().min(BUDGET as usize);
        if room == 0 {
            return false;
        }
        let (groups, heads) = self.gather(room);
        if groups.is_empty() {
            return false;
        }
        let mut input = self.input(self.shares());
        let (found, report) = match &mut self.peer {
            None => {
                input.gangs = self.gangs(&groups, &heads);
                let (found, mut report) = plan(&mut self.fleet, &groups, &input);
                self.reserved
                    .take(std::mem::take(&mut report.reserved), &heads);
                (found, report)
            }
            Some(peer) => {
                let mut nodes: Vec<NodeView> =
                    self.nodes.values().map(|m| m.view.clone()).collect();
                nodes.sort_unstable_by_key(|node| node.id);
                peer.plan(&mut nodes, &groups, BUDGET)
            }
        };
        let mut placements = Vec::with_capacity(report.placed as usize);
        let mut taken = vec![0usize; groups.len()];
        for a in &found.assignments {
            let from = taken[a.group];
            taken[a.group] += a.tasks as usize;
            let tasks = &heads[a.group][from..taken[a.group]];
            placements.extend(tasks.iter().map(|task| Placement {
                task: *task,
                node: a.node,
                generation: a.generation,
            }));
        }
        if placements.is_empty() {
            return false;
        }
        let placed = placements.clone();
        let outcome = self.order(Place {
            based_on: self.index,
            placements,
            quotes: Vec::new(),
        });
        let Outcome::Placed { refused, .. } = outcome else {
            return false;
        };
        self.tally.refused += refused.len() as u64;
        for placement in placed {
            self.called.remove(&placement.task);
            self.start(placement.task);
        }
        report.cut_short
    }

    pub(crate) fn input(&self, shares: Vec<Share>) -> PlanInput {
        PlanInput {
            now: Millis(EPOCH + self.now),
            seed: self.index,
            budget: BUDGET,
            shares,
            presence: Presence::new(),
            gangs: Gangs::default(),
        }
    }

    /// What waits, and the heads of each queue.
    fn gather(&mut self, room: usize) -> (Vec<Group>, Vec<Vec<TaskId>>) {
        let (mut groups, mut heads) = (Vec::new(), Vec::<Vec<TaskId>>::new());
        let (fleet, turn) = (&mut self.fleet, &mut self.turn);
        let queues = self.state.waiting_in_turn(turn, MAX_GROUPS, |queue| {
            fleet.feasible(&queue.spec.digest, &queue.spec.task, &[])
        });
        let mut waiting = Vec::new();
        for queue in queues {
            for (gang, tasks) in runs(&queue, room) {
                let (called, others) = tasks.into_iter().partition(|t| self.called.contains(t));
                waiting.extend(
                    [(called, true), (others, false)].map(|(tasks, at_once)| Waiting {
                        spec: queue.spec,
                        session: queue.session.id,
                        oldest: queue.oldest(),
                        gang,
                        at_once,
                        tasks,
                    }),
                );
            }
        }
        waiting.extend(kept_gangs(&self.state, &self.reserved, &waiting));
        for some in waiting.into_iter().filter(|some| !some.tasks.is_empty()) {
            let Some(client) = self.clients.iter().find(|c| c.session == some.session) else {
                continue;
            };
            groups.push(Group {
                tasks: some.tasks.len() as u32,
                waited: self.state.now().saturating_sub(some.oldest),
                since: heads.len() as u64,
                gang: some.gang,
                at_once: some.at_once,
                ..group_of(&some.spec.task, some.spec.digest, client)
            });
            heads.push(some.tasks);
        }
        self.expect(&mut groups);
        (groups, heads)
    }

    /// How long each is expected to run.
    pub(crate) fn expect(&mut self, groups: &mut [Group]) {
        for group in groups {
            group.work = self.estimates.work(&group.digest, Shape::of(&group.spec));
        }
    }

    fn shares(&self) -> Vec<Share> {
        let share = |client: &Client| {
            let held = self.state.project(&client.project).held();
            Share {
                project: client.project,
                weight: client.weight,
                cpus: held.cpus,
                memory: held.bytes(),
                gpus: held.gpus,
                left: Left::ALL,
            }
        };
        self.clients.iter().map(share).collect()
    }

    pub(crate) fn refresh(&mut self) {
        self.fleet.reopen(Millis(EPOCH + self.now));
        let touched = self.mark.and_then(|mark| self.state.touched_since(mark));
        let changed: Vec<NodeId> = match touched {
            Some(touched) => touched.map(|node| node.id).collect(),
            None => self.nodes.keys().copied().collect(),
        };
        for id in changed {
            let (Some(node), Some(machine)) = (self.state.node(&id), self.nodes.get_mut(&id))
            else {
                continue;
            };
            let view = NodeView {
                generation: node.generation,
                free_cpus: node.free_cpus(),
                free_memory: node.free_memory(),
                free_scratch: node.free_scratch(),
                devices: node.devices().clone(),
                free_amounts: node.free_amounts(),
                free_backlog: node.free_backlog(),
                backlog: node.waiting() as u32,
                ..machine.view.clone()
            };
            machine.view = view.clone();
            self.fleet.put(view);
        }
        self.mark = Some(self.state.touch_mark());
    }
}

/// One task of a client, before it is known how long it runs.
pub(crate) fn group_of(spec: &Arc<TaskSpec>, digest: Digest, client: &Client) -> Group {
    Group {
        spec: spec.clone(),
        digest,
        tenant: TENANT,
        tasks: 1,
        urgency: -i16::from(spec.priority),
        waited: Millis::ZERO,
        since: 0,
        work: Work::of(Micros(0)),
        start: Micros(0),
        warm: Arc::new([]),
        lies: Vec::new(),
        bytes_there: ByteCount::ZERO,
        bytes_back: ByteCount::ZERO,
        policy: client.policy_of(&digest),
        granter: true,
        at_once: false,
        not_on: Vec::new(),
        gang: 1,
    }
}

/// The heads of a queue as they are placed: so many at a time, gangs with as many members left together.
fn runs(queue: &WaitingQueue<'_>, room: usize) -> Vec<(u32, Vec<TaskId>)> {
    if queue.spec.task.gang.is_none() {
        return vec![(1, queue.heads().take(room).collect())];
    }
    let mut runs: Vec<(u32, Vec<TaskId>)> = Vec::new();
    let mut left = room;
    for gang in queue.gangs() {
        let size = gang.len() as u32;
        match runs.iter_mut().find(|(of, _)| *of == size) {
            Some((_, some)) => some.extend(gang),
            None => runs.push((size, gang)),
        }
        left = left.saturating_sub(size as usize);
        if left == 0 {
            break;
        }
    }
    runs
}
