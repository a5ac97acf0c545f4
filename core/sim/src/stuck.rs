//! What has waited on a node for a while goes back to its queue where another node has room, as in the controller.

use std::collections::BTreeMap;

use farlane_model::{AttemptRef, Digest, NodeId, TaskId};
use farlane_plan::{Group, PATIENCE, elsewhere};
use farlane_state::{Return, ReturnReason};
use farlane_units::Millis;

use crate::round::group_of;
use crate::run::{BATCH, EPOCH, Simulation, What};

/// Between two looks, milliseconds. Source: as the controller's.
const LOOK: u64 = 1_000;

/// Of one request on one node.
struct Stuck {
    node: NodeId,
    attempts: Vec<AttemptRef>,
}

impl Simulation {
    pub(crate) fn call_back_later(&mut self) {
        self.event(self.now + LOOK, What::CallBack);
    }

    pub(crate) fn call_back(&mut self) {
        let now = Millis(EPOCH + self.now);
        let state = &self.state;
        self.ahead.retain(|_, attempts| {
            attempts.retain(|attempt| {
                let live = state.task(attempt.task);
                live.is_some_and(|live| live.attempt_ref() == *attempt)
            });
            !attempts.is_empty()
        });
        if self.ahead.is_empty() {
            return;
        }
        self.call_back_later();
        self.refresh();
        let state = &self.state;
        let waits = |task: &TaskId| state.task(*task).is_some_and(|t| t.placed.is_none());
        self.reserved.retain(waits);
        let (stuck, mut groups) = self.stuck(now);
        if groups.is_empty() {
            return;
        }
        self.expect(&mut groups);
        let input = self.input(Vec::new());
        let kept: Vec<NodeId> = self.reserved.nodes().collect();
        let counts = elsewhere(&mut self.fleet, &groups, &input, &kept).counts;
        let mut back = Vec::new();
        for (stuck, count) in stuck.iter().zip(counts) {
            back.extend_from_slice(&stuck.attempts[..count as usize]);
            let runs = self.state.desired(&stuck.node).filter_map(|t| t.placed);
            let runs = runs.filter(|placed| !placed.lease.backlog);
            let youngest = runs.map(|placed| now.saturating_sub(placed.lease.at)).min();
            let idle = self.state.node(&stuck.node).map(|node| node.free_cpus());
            let idle = idle.unwrap_or_default();
            self.fleet.close(&stuck.node, idle, now, youngest);
        }
        self.called.extend(back.iter().map(|attempt| attempt.task));
        for some in back.chunks(BATCH) {
            let called = |attempt: &AttemptRef| (*attempt, ReturnReason::CalledBack);
            let attempts = some.iter().map(called).collect();
            self.order(Return { attempts });
        }
    }

    /// What has waited for a while, what asks for the same on one node together.
    fn stuck(&self, now: Millis) -> (Vec<Stuck>, Vec<Group>) {
        let (mut stuck, mut groups) = (Vec::new(), Vec::new());
        for (node, attempts) in &self.ahead {
            let mut there: BTreeMap<Digest, (Stuck, Group)> = BTreeMap::new();
            for attempt in attempts {
                let Some(live) = self.state.task(attempt.task) else {
                    continue;
                };
                let lease = live.placed.map(|placed| placed.lease);
                let long = |at: Millis| at.saturating_add(PATIENCE) <= now;
                if !lease.is_some_and(|lease| lease.backlog && long(lease.at)) {
                    continue;
                }
                let session = attempt.task.session();
                let Some(client) = self.clients.iter().find(|c| c.session == session) else {
                    continue;
                };
                let digest = live.spec.digest;
                let (stuck, group) = there.entry(digest).or_insert_with(|| {
                    let stuck = Stuck {
                        node: *node,
                        attempts: Vec::new(),
                    };
                    let group = Group {
                        tasks: 0,
                        waited: now.saturating_sub(live.submitted),
                        not_on: vec![*node],
                        ..group_of(&live.spec.task, digest, client)
                    };
                    (stuck, group)
                });
                stuck.attempts.push(*attempt);
                group.tasks += 1;
            }
            for (one, group) in there.into_values() {
                stuck.push(one);
                groups.push(group);
            }
        }
        (stuck, groups)
    }
}
