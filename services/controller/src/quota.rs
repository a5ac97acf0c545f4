//! What projects hold and what their quotas leave them, once what is on its way has arrived.
//!
//! Owns what a round of planning is told of projects, and what is said of work that a quota keeps back. Leaves the verdict
//! to `farlane-state`, which asks each placement again.

use std::collections::BTreeMap;

use farlane_model::{Digest, NodeId, ProjectId, Resources, TaskId, TaskSpec};
use farlane_plan::{Fleet, Left, Share};
use farlane_state::{ProjectView, QuotaLimit, State, TooSmall};
use farlane_units::{MilliUcu, Millis};

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
                give(share, &free.need, free.ucu);
            }
        }
        for placing in overlay.placing(state) {
            if let Some(share) = quotas.of_task(state, &placing.task) {
                take(share, &placing.need, placing.ucu);
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
        !self.any
            || self
                .shares
                .get(project)
                .is_none_or(|s| s.left.tasks > 0 && s.left.ucu > 0)
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
        ucu: left.ucu,
    });
    Share {
        project: id,
        weight: project.weight(),
        cpus: held.cpus,
        memory: held.bytes(),
        gpus: held.gpus,
        left,
    }
}

fn give(share: &mut Share, need: &Resources, ucu: MilliUcu) {
    share.cpus = share.cpus.saturating_sub(u64::from(need.cpus.0));
    share.memory = share.memory.saturating_sub(need.memory);
    share.gpus = share.gpus.saturating_sub(u64::from(need.gpus.0));
    share.left.give(need, ucu);
}

fn take(share: &mut Share, need: &Resources, ucu: MilliUcu) {
    share.cpus += u64::from(need.cpus.0);
    share.memory = share.memory.saturating_add(need.memory);
    share.gpus += u64::from(need.gpus.0);
    share.left.take(need, 1);
    share.left.spend(ucu);
}

/// Most nodes that are looked at in one go for what a task takes of its project's units. Source: a tenth of a microsecond each; 7 ms.
pub(crate) const MAX_LOOKS: usize = 65_536;

/// The least that a task takes of its project's units where they have a bound; nothing where they have none, or where
/// no node fits it.
fn least(
    project: ProjectView,
    fleet: &mut Fleet,
    digest: &Digest,
    spec: &TaskSpec,
    looks: &mut usize,
) -> MilliUcu {
    let bounded = project.quota().ucu.is_some();
    let least = bounded.then(|| fleet.least_ucu(digest, spec, looks));
    least.flatten().unwrap_or_default()
}

/// Why so many tasks of a spec can never run at once, as long as its project's quota is what it is.
pub(crate) fn never(
    state: &State,
    fleet: &mut Fleet,
    (digest, spec): (&Digest, &TaskSpec),
    count: u32,
    looks: &mut usize,
) -> Option<String> {
    let project = state.project(&spec.project);
    let ucu = least(project, fleet, digest, spec, looks);
    let bound = project.too_small(&spec.resources, ucu, count)?;
    Some(too_small(&bound, &spec.resources, count))
}

/// With the smallest change that would do: a smaller gang, else a smaller task.
fn too_small(bound: &TooSmall, need: &Resources, count: u32) -> String {
    let TooSmall { limit, most, each } = *bound;
    let all = each.saturating_mul(count.into());
    let (flag, asks) = match limit {
        QuotaLimit::Tasks => ("max-tasks", "is"),
        QuotaLimit::Cpus => ("max-cpus", "asks for"),
        QuotaLimit::Gpus => ("max-gpus", "asks for"),
        QuotaLimit::Ucu => ("max-ucu", "takes at least"),
        QuotaLimit::Budget => ("budget", "costs"),
    };
    let what = match count {
        1 => "it".to_owned(),
        n => format!("a gang of {n}"),
    };
    let change = match (limit, most / each.max(1)) {
        (_, fit) if fit > 0 => format!("a gang of {fit}"),
        (QuotaLimit::Gpus, _) => {
            // A part of one, or whole ones.
            let part = if most < 1000 { 0 } else { most % 1000 };
            format!("num_gpus {} → {}", milli(each), milli(most - part))
        }
        (QuotaLimit::Ucu, _) => {
            let cpus = u64::from(need.cpus.0);
            let fit = u128::from(cpus) * u128::from(most) / u128::from(each);
            format!("num_cpus {} → {}", milli(cpus), milli(fit as u64))
        }
        _ => format!("num_cpus {} → {}", milli(each), milli(most)),
    };
    let raised = match limit {
        QuotaLimit::Tasks => all.to_string(),
        _ => milli(all),
    };
    format!(
        "{what} {asks} {}, and its project may hold {} at once; smallest change: {change}, or a quota of \
         {raised} (`farlane projects set PROJECT --{flag} {raised}`)",
        limit.words(all),
        limit.words(most),
    )
}

/// Thousandths, as flags and options take them.
fn milli(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1000, n % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Which bound keeps so many waiting tasks back now. `best` is where they would cost least.
pub(crate) fn kept_back(
    state: &State,
    fleet: &mut Fleet,
    (digest, spec): (&Digest, &TaskSpec),
    best: Option<NodeId>,
    count: u32,
) -> Option<String> {
    let project = state.project(&spec.project);
    let least = least(project, fleet, digest, spec, &mut MAX_LOOKS.clone());
    let need = &spec.resources;
    if let Some(reached) = project.reached(need, least, count, state.now()) {
        return Some(format!("waits for its project's quota: at most {reached}"));
    }
    let there = best.map(|node| (fleet.ucu_of(&node, need.cpus), node))?;
    let reached = project.reached(need, there.0, count, state.now())?;
    let name = fleet.spec(&there.1).map_or("a node", |spec| &spec.name);
    let takes = QuotaLimit::Ucu.words(there.0.0);
    Some(format!(
        "waits for its project's quota: at most {reached}, and it would take {takes} on {name}; slower nodes, where it would take \
         {}, have no room",
        QuotaLimit::Ucu.words(least.0)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_units::{ByteCount, MilliCpu, MilliGpu};

    fn said(limit: QuotaLimit, most: u64, each: u64, count: u32) -> String {
        let need = Resources {
            cpus: MilliCpu(8000),
            memory: ByteCount::ZERO,
            scratch: ByteCount::ZERO,
            gpus: MilliGpu(2000),
        };
        too_small(&TooSmall { limit, most, each }, &need, count)
    }

    #[test]
    fn what_is_larger_than_its_quota_hears_of_the_smallest_change() {
        assert_eq!(
            said(QuotaLimit::Cpus, 4500, 8000, 1),
            "it asks for 8 cores, and its project may hold 4.500 cores at once; smallest change: num_cpus 8 → 4.5, or a \
             quota of 8 (`farlane projects set PROJECT --max-cpus 8`)"
        );
        assert_eq!(
            said(QuotaLimit::Tasks, 3, 1, 8),
            "a gang of 8 is 8 tasks, and its project may hold 3 tasks at once; smallest change: a gang of 3, or a quota \
             of 8 (`farlane projects set PROJECT --max-tasks 8`)"
        );
        let units = said(QuotaLimit::Ucu, 6000, 16_000, 1);
        assert!(units.starts_with("it takes at least 16 UCU") && units.contains("num_cpus 8 → 3,"));
        assert!(said(QuotaLimit::Gpus, 1000, 2000, 4).contains("num_gpus 2 → 1,"));
        assert!(said(QuotaLimit::Gpus, 1500, 2000, 1).contains("num_gpus 2 → 1,"));
        assert!(said(QuotaLimit::Gpus, 500, 2000, 1).contains("num_gpus 2 → 0.5,"));
        assert!(said(QuotaLimit::Cpus, 20_000, 8000, 4).contains("a gang of 2,"));
    }
}
