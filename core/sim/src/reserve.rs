//! Room kept for gangs: what the planner is told of it, as the controller tells it.

use farlane_model::{NodeId, TaskId};
use farlane_plan::{Gangs, Group, Leased, Reserved, Shape, all_ended};
use farlane_state::State;
use farlane_units::Millis;

use crate::round::Waiting;
use crate::run::{EPOCH, Simulation};

impl Simulation {
    /// What is kept, and when nodes come free.
    pub(crate) fn gangs(&mut self, groups: &[Group], heads: &[Vec<TaskId>]) -> Gangs {
        let now = Millis(EPOCH + self.now);
        let mut reserved = std::mem::take(&mut self.reserved);
        let gangs = reserved.input(groups, heads, now, || self.ends(now));
        self.reserved = reserved;
        gangs
    }

    /// When each node that has something is expected to have ended it, ascending by node.
    fn ends(&mut self, now: Millis) -> Vec<(NodeId, Millis)> {
        let Self {
            state,
            estimates,
            fleet,
            ..
        } = self;
        let busy = state
            .nodes()
            .filter(|node| node.running() + node.waiting() > 0);
        let ends = busy.filter_map(|node| {
            let (hardware, rates) = fleet.hardware(&node.id)?;
            let leases = state.desired(&node.id).filter_map(|live| {
                let work = estimates.work(&live.spec.digest, Shape::of(&live.spec.task));
                let lease = live.placed?.lease;
                Some(Leased {
                    since: (!lease.backlog).then_some(lease.at),
                    runs: Millis(work.on(hardware, &rates).0.div_ceil(1000)),
                })
            });
            Some((node.id, all_ended(now, leases)))
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_unstable();
        ends
    }
}

/// Gangs that room is kept for and that are not among these, whose turn it is: their nodes are not to be given away.
pub(crate) fn kept_gangs<'a>(
    state: &'a State,
    reserved: &Reserved,
    waiting: &[Waiting<'_>],
) -> Vec<Waiting<'a>> {
    let missed = |first: &TaskId| !waiting.iter().any(|some| some.tasks.contains(first));
    let firsts = reserved.gangs().filter(missed);
    let tasks = firsts.filter_map(|first| state.task(first).filter(|t| t.placed.is_none()));
    let gangs = tasks.filter_map(|task| {
        let tasks: Vec<TaskId> = state.gang(&task.gang?).map(|member| member.id).collect();
        Some(Waiting {
            spec: task.spec,
            session: task.session.id,
            oldest: task.submitted,
            gang: tasks.len() as u32,
            at_once: false,
            tasks,
        })
    });
    gangs.collect()
}
