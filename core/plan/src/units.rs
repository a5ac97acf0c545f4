//! Units of compute at once: what a task takes of its project's quota on each node.
//!
//! Owns which nodes a quota leaves a task, within a round and for good. Leaves the count to `NodeSpec::ucu_of`, and the
//! verdict to `farlane-state`, which counts each placement the same.
//!
//! All other bounds of a quota say whether a task goes anywhere; this one says where. A fast node takes more of it than a slow
//! one, so near the bound a task may go to the slow one alone.

use farlane_model::{Digest, NodeId, TaskSpec, WorkKind};
use farlane_units::{MilliCpu, MilliUcu};

use crate::fleet::{Class, Fleet};
use crate::search::Round;
use crate::step::{bottom, step};

/// Of a project without a bound on units.
pub(crate) const NO_BOUND: u64 = u64::MAX;

/// The least that so many cores count for on any node of a class: its rates lie in one step.
fn least(class: &Class, cpus: MilliCpu) -> u64 {
    let core = bottom(step(class.traits.rates.rate(WorkKind::Fp32).0));
    (u64::from(cpus.0) * core).div_ceil(1000)
}

impl Fleet {
    /// What so many cores of a node count for; nothing where it is not known.
    pub fn ucu_of(&self, node: &NodeId, cpus: MilliCpu) -> MilliUcu {
        let spec = self.spec(node);
        spec.map_or(MilliUcu::ZERO, |spec| spec.ucu_of(cpus))
    }

    /// The least that a task takes on any node that fits it, offline ones counted; `None` where none does.
    ///
    /// *Cost*: each node that fits; `looks` goes down by one for each, and what is looked at once they are none left is
    /// counted by its class, which says no more than there is.
    pub fn least_ucu(
        &mut self,
        digest: &Digest,
        spec: &TaskSpec,
        looks: &mut usize,
    ) -> Option<MilliUcu> {
        let cpus = spec.resources.cpus;
        if !spec.node.keep_on.is_empty() {
            let kept = self.kept(spec);
            let of = |(class, at)| self.ucu_of(&self.class(class).id(at), cpus);
            return kept.map(of).min();
        }
        let fitting = self.fitting(digest, spec).to_vec();
        let mut found: Option<MilliUcu> = None;
        for class in fitting.into_iter().map(|at| self.class(at)) {
            let bound = MilliUcu(least(class, cpus));
            if class.len() == 0 || found.is_some_and(|found| found <= bound) {
                continue;
            }
            let of_class = match class.len() <= *looks {
                false => Some(bound),
                true => {
                    *looks -= class.len();
                    let all = (0..class.len()).map(|at| self.ucu_of(&class.id(at), cpus));
                    all.min()
                }
            };
            found = found.into_iter().chain(of_class).min();
        }
        found
    }
}

impl Round<'_> {
    /// Whether the quota of the project whose turn it is leaves what a task of the group takes of a node.
    pub(crate) fn affords(&self, group: usize, node: &NodeId) -> bool {
        self.ucu == NO_BOUND || self.takes(group, node) <= self.ucu
    }

    /// What a task of the group takes of its project's quota there.
    pub(crate) fn takes(&self, group: usize, node: &NodeId) -> u64 {
        let cpus = self.groups[group].spec.resources.cpus;
        self.fleet.ucu_of(node, cpus).0
    }

    /// Takes that, where there is a bound.
    pub(crate) fn spend(&mut self, group: usize, node: &NodeId) {
        if self.ucu != NO_BOUND {
            self.ucu = self.ucu.saturating_sub(self.takes(group, node));
        }
    }

    /// The place of a class where one more task of the group costs least and that the quota leaves it, and how many would
    /// be ahead of it; it runs nowhere before `from`.
    pub(crate) fn best_of(&self, group: usize, class: u32, from: usize) -> Option<(usize, u32)> {
        let of = &self.groups[group];
        let (there, need) = (self.fleet.class(class), of.need());
        if self.ucu == NO_BOUND {
            return there.best(need, &of.not_on, from);
        }
        if least(there, need.task.resources.cpus) > self.ucu {
            return None;
        }
        let (place, ahead) = there.best(need, &of.not_on, from)?;
        if self.affords(group, &there.id(place)) {
            return Some((place, ahead));
        }
        // Others of the class take less.
        let open = |id: NodeId| of.is_open(&id) && self.affords(group, &id);
        let places = (0..there.len()).filter(|place| open(there.id(*place)));
        let ahead = places.filter_map(|place| Some((place, there.free(place).ahead(need)?)));
        ahead.min_by_key(|(place, ahead)| (*ahead, *place))
    }
}
