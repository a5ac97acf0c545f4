//! Room kept for gangs, from one round of planning to the next.
//!
//! Owns the memory of it, and when a node is expected to have ended what it has. Leaves which nodes are kept, and what may
//! run there meanwhile, to the search, and what each node has to whoever reads the state.

use std::collections::BTreeMap;

use farlane_model::{NodeId, TaskId};
use farlane_units::Millis;

use crate::view::{Gangs, Group, Reservation};

/// Between two looks at when nodes come free. Source: choice; a gang that found no room waits so much longer at most.
const LOOK: Millis = Millis(1_000);

/// What is kept. A new leader keeps room anew.
#[derive(Debug, Default)]
pub struct Reserved {
    /// By the first of a gang's tasks that has not finished.
    by_gang: BTreeMap<TaskId, Reservation>,
    /// When ends are looked at again.
    next: Millis,
}

impl Reserved {
    /// Gangs that room is kept for, by their first task.
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

    /// Keeps room only for gangs whose first task passes: those that wait.
    pub fn retain(&mut self, waits: impl Fn(&TaskId) -> bool) {
        self.by_gang.retain(|first, _| waits(first));
    }

    /// What the next plan is told: `ends` as [`Gangs::ends`], asked for once a second while a gang waits without room.
    ///
    /// *Shape*: `heads` are the tasks of each group, gang by gang.
    pub fn input(
        &mut self,
        groups: &[Group],
        heads: &[Vec<TaskId>],
        now: Millis,
        ends: impl FnOnce() -> Vec<(NodeId, Millis)>,
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
            ends()
        });
        Gangs { known, ends }
    }

    /// What the plan keeps until the next: [`Report::reserved`](crate::Report::reserved).
    pub fn take(&mut self, reserved: Vec<(usize, Reservation)>, heads: &[Vec<TaskId>]) {
        let first = |(group, kept): (usize, Reservation)| Some((*heads[group].first()?, kept));
        self.by_gang = reserved.into_iter().filter_map(first).collect();
    }
}

/// One of what a node has.
#[derive(Debug, Clone, Copy)]
pub struct Leased {
    /// Since when it runs; `None` where it waits there behind others.
    pub since: Option<Millis>,
    /// For how long it is expected to.
    pub runs: Millis,
}

/// When a node is expected to have ended all that it has: what waits runs as many at once as run now.
pub fn all_ended(now: Millis, leases: impl IntoIterator<Item = Leased>) -> Millis {
    let (mut end, mut behind, mut at_once) = (now, Millis::ZERO, 0);
    for lease in leases {
        match lease.since {
            Some(since) => {
                end = end.max(since.saturating_add(lease.runs));
                at_once += 1;
            }
            None => behind = behind.saturating_add(lease.runs),
        }
    }
    end.saturating_add(Millis(behind.0 / at_once.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_follows_the_last_that_runs() {
        let runs = |since, runs| Leased {
            since: Some(Millis(since)),
            runs: Millis(runs),
        };
        let waits = |runs| Leased {
            since: None,
            runs: Millis(runs),
        };
        let end = |leases: &[Leased]| all_ended(Millis(100), leases.iter().copied()).0;
        assert_eq!(end(&[]), 100);
        assert_eq!(end(&[runs(50, 20)]), 100, "overdue");
        assert_eq!(end(&[runs(50, 60), runs(90, 5)]), 110);
        assert_eq!(end(&[runs(50, 60), runs(90, 5), waits(30), waits(10)]), 130);
        assert_eq!(end(&[waits(30)]), 130);
    }
}
