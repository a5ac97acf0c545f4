//! Room kept for gangs: from one round of planning to the next, and when nodes are expected to have it.
//!
//! Owns the memory of it, in the leader's process alone: a new leader keeps room anew. Leaves which nodes those are,
//! and what may run there meanwhile, to `farlane-plan`.

use std::collections::{BTreeMap, HashMap};

use farlane_model::{Digest, NodeId, TaskId};
use farlane_plan::{Estimates, Fleet, Gangs, Group, Reservation, Shape, Work};
use farlane_state::{Node, State};
use farlane_units::Millis;

/// Between two looks at when nodes come free. Source: choice; a gang that found no room waits so much longer at most.
const LOOK: Millis = Millis(1_000);
/// Leases of one look. Source: a few milliseconds; where there are more, the next look begins elsewhere.
const MAX_LEASES: usize = 65_536;

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    /// By the first of a gang's tasks that has not finished.
    by_gang: BTreeMap<TaskId, Reservation>,
    /// When ends are looked at again, and from which node on.
    next: Millis,
    from: usize,
}

impl Reserved {
    /// Gangs that room is kept for.
    pub fn gangs(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.by_gang.keys().copied()
    }

    /// What is kept for the gang of this first task.
    pub fn of(&self, first: &TaskId) -> Option<&Reservation> {
        self.by_gang.get(first)
    }

    /// Nodes that are kept for some gang.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.by_gang
            .values()
            .flat_map(|kept| kept.nodes.iter().copied())
    }

    /// What the next plan is told.
    pub fn input(
        &mut self,
        state: &State,
        groups: &[Group],
        heads: &[Vec<TaskId>],
        view: (&mut Estimates, &Fleet),
        now: Millis,
    ) -> Gangs {
        if groups.is_empty() {
            // All is full: nothing is planned, and what is kept stays.
            return Gangs::default();
        }
        let gangs = groups.iter().zip(heads).enumerate();
        let mut gangs = gangs.filter(|(_, (g, _))| g.is_gang()).peekable();
        if gangs.peek().is_none() {
            self.by_gang.clear();
            return Gangs::default();
        }
        let (mut known, mut wanting) = (Vec::new(), false);
        for (at, (_, head)) in gangs {
            match head.first().and_then(|first| self.by_gang.get(first)) {
                Some(kept) => known.push((at, kept.clone())),
                None => wanting = true,
            }
        }
        let ends = (wanting && now >= self.next).then(|| {
            self.next = now.saturating_add(LOOK);
            self.ends(state, view, now)
        });
        Gangs { known, ends }
    }

    /// What the plan keeps until the next.
    pub fn take(&mut self, reserved: Vec<(usize, Reservation)>, heads: &[Vec<TaskId>]) {
        let first = |(group, kept): (usize, Reservation)| Some((*heads[group].first()?, kept));
        self.by_gang = reserved.into_iter().filter_map(first).collect();
    }

    /// When each node that has something is expected to have ended it.
    fn ends(
        &mut self,
        state: &State,
        (estimates, fleet): (&mut Estimates, &Fleet),
        now: Millis,
    ) -> Vec<(NodeId, Millis)> {
        let busy: Vec<&Node> = state
            .nodes()
            .filter(|node| node.running() + node.waiting() > 0)
            .collect();
        let mut works = HashMap::new();
        let (mut ends, mut leases, mut looked) = (Vec::new(), 0, 0);
        let from = self.from.checked_rem(busy.len()).unwrap_or(0);
        for node in busy[from..].iter().chain(&busy[..from]) {
            if leases >= MAX_LEASES {
                break;
            }
            (leases, looked) = (leases + node.running() + node.waiting(), looked + 1);
            ends.extend(end_of(
                state,
                node,
                (&mut *estimates, fleet),
                &mut works,
                now,
            ));
        }
        self.from = match looked < busy.len() {
            true => from + looked,
            false => 0,
        };
        ends.sort_unstable();
        ends
    }
}

/// When one node is expected to have ended all that it has.
fn end_of(
    state: &State,
    node: &Node,
    (estimates, fleet): (&mut Estimates, &Fleet),
    works: &mut HashMap<Digest, Work>,
    now: Millis,
) -> Option<(NodeId, Millis)> {
    let (hardware, rates) = fleet.hardware(&node.id)?;
    let (mut end, mut behind) = (now, Millis::ZERO);
    for live in state.desired(&node.id) {
        let digest = live.spec.digest;
        let work = works
            .entry(digest)
            .or_insert_with(|| estimates.work(&digest, Shape::of(&live.spec.task)));
        let run = Millis(work.on(hardware, &rates).0.div_ceil(1000));
        let run = live
            .spec
            .task
            .timing
            .timeout
            .map_or(run, |most| run.min(most));
        let Some(placed) = live.placed else { continue };
        match placed.lease.backlog {
            true => behind = behind.saturating_add(run),
            false => end = end.max(placed.lease.at.saturating_add(run)),
        }
    }
    let at_once = node.running().max(1) as u64;
    Some((node.id, end.saturating_add(Millis(behind.0 / at_once))))
}
