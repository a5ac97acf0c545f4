//! Work that has waited on a node for a while, behind what ran longer than expected.
//!
//! Owns which it is, that it goes back to its queue where another node has room, and that nothing more waits there
//! until something ends. Leaves whether such a node has room to `farlane-plan`, and what makes way where none has to
//! `preempt`.

use std::collections::{BTreeMap, BTreeSet};

use farlane_model::{Digest, NodeId, TaskId};
use farlane_plan::{
    Elsewhere, Gangs, Group, Occupied, PATIENCE, PlanInput, Presence, Stands, elsewhere,
};
use farlane_state::{LiveTask, State};
use farlane_units::Millis;

use crate::gather::refused_of;
use crate::preempt::Place;
use crate::refusals::Refusals;
use crate::view::{BUDGET, ViewCache};

/// Groups of one look. Source: choice; about 0.1 s in a debug build, a tenth of that in others, so that 10,000 nodes are looked at in ten
/// seconds.
pub(crate) const MAX_STUCK: usize = 1024;
/// A task that was leased so often for nothing waits where it is. Source: half of what granters grant beyond a task's
/// retries (`farlane-seal`, grant log).
const MAX_FREE: u32 = 8;
/// Called back and not yet placed, at most; more wait on nodes again. Source: 2.5 MiB.
const MAX_CALLED: usize = 65_536;

/// Tasks that were called back and wait in their queues: they go where they run at once. In the leader's process alone; a
/// new one may let them wait on a node once more.
#[derive(Debug, Default)]
pub(crate) struct Called(BTreeSet<TaskId>);

impl Called {
    /// Whether nothing was called back: what the path of a usual call finds.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one was.
    pub fn has(&self, task: &TaskId) -> bool {
        self.0.contains(task)
    }

    /// These are.
    pub fn note(&mut self, tasks: impl IntoIterator<Item = TaskId>) {
        for task in tasks {
            if self.0.len() < MAX_CALLED {
                self.0.insert(task);
            }
        }
    }

    /// Those that found their place, or ended, are forgotten.
    pub fn retain(&mut self, waits: impl Fn(&TaskId) -> bool) {
        self.0.retain(waits);
    }
}

/// A node on which something has waited for a while.
pub(crate) struct Stuck {
    pub place: Place,
    /// The node without the most urgent of it, and without what is behind that.
    pub before: Occupied,
    /// The most urgent of it.
    pub first: Group,
    /// All of it, what asks for the same together, with their indices among the node's holders.
    long: Vec<(Group, Vec<usize>)>,
}

impl Stuck {
    /// *Errors*: nothing has waited there for so long.
    pub fn on(
        state: &State,
        place: Place,
        now: Millis,
        (cache, refusals): (&mut ViewCache, Option<&Refusals>),
    ) -> Result<Self, Box<Place>> {
        let holders = &place.occupied.holders;
        let waits =
            |at: &usize| holders[*at].stands == Stands::Waiting && holders[*at].ran >= PATIENCE;
        let most = (0..holders.len())
            .filter(waits)
            .min_by_key(|at| (holders[*at].urgency, *at));
        let node = place.occupied.node;
        let mut long: BTreeMap<(Digest, Vec<NodeId>), (Group, Vec<usize>)> = BTreeMap::new();
        let mut first = None;
        for at in (0..holders.len()).filter(waits) {
            let Some(live) = state.task(place.attempts[at].task) else {
                continue;
            };
            let (digest, spec) = (live.spec.digest, &live.spec.task);
            let waited = now.saturating_sub(live.submitted);
            if most == Some(at) {
                first = Some(Group {
                    waited,
                    ..cache.group(state, digest, spec, live.session.tenant, 1)
                });
            }
            if leased_for_nothing(&live) >= MAX_FREE {
                continue;
            }
            let granter = state.granter_for(live.session);
            let mut not_on = refused_of(&[live.id], granter, refusals);
            not_on.push(node);
            let (group, indices) =
                long.entry((digest, not_on))
                    .or_insert_with_key(|(_, not_on)| {
                        let group = Group {
                            waited,
                            not_on: not_on.clone(),
                            ..cache.group(state, digest, spec, live.session.tenant, 0)
                        };
                        (group, Vec::new())
                    });
            group.tasks += 1;
            indices.push(at);
        }
        let (Some(most), Some(first)) = (most, first) else {
            return Err(place.into());
        };
        let mut before = place.occupied.clone();
        for holder in &mut before.holders[most..] {
            // Indices stay: what waits behind it is merely none of its business.
            if matches!(holder.stands, Stands::Waiting | Stands::Stays) {
                holder.stands = Stands::Fixed;
            }
        }
        Ok(Self {
            place,
            before,
            first,
            long: long.into_values().collect(),
        })
    }

    /// What waits there.
    pub fn waits(&self) -> impl Iterator<Item = &Group> {
        self.long.iter().map(|(group, _)| group)
    }

    /// How long what runs there has run, the youngest of it.
    fn youngest(&self) -> Option<Millis> {
        let holders = self.place.occupied.holders.iter();
        let runs = holders.filter(|h| !matches!(h.stands, Stands::Waiting | Stands::Stays));
        runs.map(|holder| holder.ran).min()
    }
}

/// How often it was leased and neither ran nor was lost.
fn leased_for_nothing(live: &LiveTask<'_>) -> u32 {
    let others = [live.lost, live.raised, live.preempted];
    let others = others.into_iter().map(u32::from).sum::<u32>();
    live.attempt.saturating_sub(others + 1)
}

/// For each of these nodes what goes back to its queue, as another node has room for it now; indices of its holders. And
/// whether there were too many to look for all.
pub(crate) fn called_back(
    stuck: &[Stuck],
    cache: &mut ViewCache,
    presence: Presence,
    now: Millis,
) -> (Vec<Vec<usize>>, bool) {
    let input = PlanInput {
        now,
        seed: 0,
        budget: BUDGET,
        shares: Vec::new(),
        presence,
        gangs: Gangs::default(),
    };
    let groups: Vec<Group> = stuck.iter().flat_map(Stuck::waits).cloned().collect();
    let kept: Vec<NodeId> = cache.reserved.nodes().collect();
    let Elsewhere { counts, cut_short } = elsewhere(&mut cache.fleet, &groups, &input, &kept);
    let mut counts = counts.into_iter();
    let mut called = Vec::with_capacity(stuck.len());
    for one in stuck {
        let Occupied { node, free, .. } = &one.place.occupied;
        cache.fleet.close(node, free.cpus, now, one.youngest());
        let mut back = Vec::new();
        for ((_, indices), count) in one.long.iter().zip(counts.by_ref()) {
            back.extend_from_slice(&indices[..count as usize]);
        }
        let attempts = back.iter().map(|at| one.place.attempts[*at].task);
        cache.called.note(attempts);
        called.push(back);
    }
    (called, cut_short)
}

#[cfg(test)]
#[path = "stuck_tests.rs"]
mod tests;
