//! What projects hold and what their quotas leave them, once what is on its way has arrived.
//!
//! Owns what a round of planning is told of projects. Leaves the verdict to `farlane-state`, which asks each placement
//! again.

use std::collections::BTreeMap;

use farlane_model::{ProjectId, Resources, TaskId};
use farlane_plan::{Left, Share};
use farlane_state::{ProjectView, State};
use farlane_units::{ByteCount, Millis};

use crate::overlay::{Freeing, Overlay};

/// Of each project that holds something or of which something is set.
pub(crate) struct Quotas {
    shares: BTreeMap<ProjectId, Share>,
    any: bool,
}

impl Quotas {
    /// What the state says, with placements and ends that it does not show yet.
    pub fn of(state: &State, overlay: &Overlay, freed: &[Freeing], now: Millis) -> Self {
        let share = |(id, project)| (id, share(id, project, now));
        let shares: BTreeMap<_, _> = state.projects().map(share).collect();
        let mut quotas = Self {
            any: shares.values().any(|share| share.left != Left::ALL),
            shares,
        };
        for free in overlay.freeing(state).chain(freed) {
            if let Some(share) = quotas.of_task(state, &free.attempt.task) {
                give(share, &free.need);
            }
        }
        for placing in overlay.placing(state) {
            if let Some(share) = quotas.of_task(state, &placing.task) {
                take(share, &placing.need);
            }
        }
        quotas
    }

    fn of_task(&mut self, state: &State, task: &TaskId) -> Option<&mut Share> {
        let project = state.session(&task.session())?.project;
        // One that holds nothing and has no settings: no quota, so no month either.
        let unset = || share(project, state.project(&project), Millis::ZERO);
        Some(self.shares.entry(project).or_insert_with(unset))
    }

    /// Whether a project may hold any more task at all.
    pub fn leave(&self, project: &ProjectId) -> bool {
        !self.any || self.shares.get(project).is_none_or(|s| s.left.tasks > 0)
    }

    /// What a plan is told, where so many groups wait: a lone one without a quota needs no share.
    pub fn shares(self, groups: usize) -> Vec<Share> {
        match groups > 1 || self.any {
            true => self.shares.into_values().collect(),
            false => Vec::new(),
        }
    }
}

fn share(id: ProjectId, project: ProjectView, now: Millis) -> Share {
    let held = project.held();
    let left = project.left(now).map_or(Left::ALL, |left| Left {
        tasks: left.tasks,
        cpus: left.cpus,
        gpus: left.gpus,
    });
    Share {
        project: id,
        weight: project.weight(),
        cpus: held.cpus,
        memory: ByteCount(held.memory),
        gpus: held.gpus,
        left,
    }
}

fn give(share: &mut Share, need: &Resources) {
    share.cpus = share.cpus.saturating_sub(u64::from(need.cpus.0));
    share.memory = share.memory.saturating_sub(need.memory);
    share.gpus = share.gpus.saturating_sub(u64::from(need.gpus.0));
    share.left.give(need);
}

fn take(share: &mut Share, need: &Resources) {
    share.cpus += u64::from(need.cpus.0);
    share.memory = share.memory.saturating_add(need.memory);
    share.gpus += u64::from(need.gpus.0);
    share.left.take(need, 1);
}
