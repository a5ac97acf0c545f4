//! Work that has waited on a node for a while, behind what ran longer than expected.
//!
//! Owns which it is, that it goes back to its queue where another node has room, and that nothing more waits there
//! until something ends. Leaves whether such a node has room to `farlane-plan`, and what makes way where none has to
//! `preempt`.

use std::collections::BTreeMap;

use farlane_model::Digest;
use farlane_plan::{Gangs, Group, Occupied, PATIENCE, PlanInput, Presence, Stands, elsewhere};
use farlane_state::State;
use farlane_units::Millis;

use crate::preempt::Place;
use crate::view::{BUDGET, ViewCache};

/// Groups of one look. Source: choice; about 0.1 s in a debug build, a tenth of that in others, so that 10,000 nodes are looked at in ten
/// seconds.
pub(crate) const MAX_STUCK: usize = 1024;

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
        cache: &mut ViewCache,
    ) -> Result<Self, Place> {
        let holders = &place.occupied.holders;
        let waits =
            |at: &usize| holders[*at].stands == Stands::Waiting && holders[*at].ran >= PATIENCE;
        let most = (0..holders.len())
            .filter(waits)
            .min_by_key(|at| (holders[*at].urgency, *at));
        let kept: Vec<_> = cache
            .reserved
            .nodes()
            .chain([place.occupied.node])
            .collect();
        let mut long: BTreeMap<Digest, (Group, Vec<usize>)> = BTreeMap::new();
        let mut first = None;
        for at in (0..holders.len()).filter(waits) {
            let Some(live) = state.task(place.attempts[at].task) else {
                continue;
            };
            let mut group = || Group {
                waited: now.saturating_sub(live.submitted),
                not_on: kept.clone(),
                ..cache.group(state, live.spec.digest, &live.spec.task, 0)
            };
            let (group, indices) = long
                .entry(live.spec.digest)
                .or_insert_with(|| (group(), Vec::new()));
            group.tasks += 1;
            indices.push(at);
            if most == Some(at) {
                first = Some(Group {
                    tasks: 1,
                    waited: now.saturating_sub(live.submitted),
                    not_on: Vec::new(),
                    ..group.clone()
                });
            }
        }
        let (Some(most), Some(first)) = (most, first) else {
            return Err(place);
        };
        let mut before = place.occupied.clone();
        for holder in &mut before.holders[most..] {
            // Indices stay: what waits behind it is merely none of its business.
            if holder.stands == Stands::Waiting {
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
        let runs = holders.filter(|holder| holder.stands != Stands::Waiting);
        runs.map(|holder| holder.ran).min()
    }
}

/// For each of these nodes what goes back to its queue, as another node has room for it now; indices of its holders.
pub(crate) fn called_back(
    stuck: &[Stuck],
    cache: &mut ViewCache,
    presence: Presence,
    now: Millis,
) -> Vec<Vec<usize>> {
    let input = PlanInput {
        now,
        seed: 0,
        budget: BUDGET,
        shares: Vec::new(),
        presence,
        gangs: Gangs::default(),
    };
    let groups: Vec<Group> = stuck.iter().flat_map(Stuck::waits).cloned().collect();
    let mut counts = elsewhere(&mut cache.fleet, &groups, &input).into_iter();
    let mut called = Vec::with_capacity(stuck.len());
    for one in stuck {
        let node = &one.place.occupied.node;
        cache.fleet.close(node, now, one.youngest());
        let mut back = Vec::new();
        for ((_, indices), count) in one.long.iter().zip(counts.by_ref()) {
            back.extend_from_slice(&indices[..count as usize]);
        }
        called.push(back);
    }
    called
}
