//! Tasks that must stay on some nodes, because what they need lies there.
//!
//! Owns which nodes those are in a fleet, and what is said of them. Leaves which of them is taken to the search, and where
//! the data of a task lies to whoever asks.

use std::cmp::Reverse;

use farlane_model::{NodeId, TaskSpec};

use crate::fleet::{Class, Fleet};
use crate::search::Round;
use crate::view::Group;

impl Group {
    /// Whether what it asks, and its granter, let it go there.
    pub(crate) fn is_open(&self, node: &NodeId) -> bool {
        !self.not_on.contains(node) && self.spec.node.allows_node(node)
    }
}

impl Class {
    /// How many of its nodes such a task may go to, but these.
    pub(crate) fn open(&self, spec: &TaskSpec, but: &[NodeId]) -> usize {
        if spec.node.keep_on.is_empty() {
            return self.but(but);
        }
        let named = spec.node.keep_on.iter().filter(|id| !but.contains(id));
        named.filter(|id| self.place_of(id).is_ok()).count()
    }

    /// Its place where one more task of the group costs least, and how many would be ahead of it.
    pub(crate) fn best_for(&self, group: &Group) -> Option<(usize, u32)> {
        let need = group.need();
        if group.spec.node.keep_on.is_empty() {
            return self.best(need, &group.not_on, 0);
        }
        let named = group.spec.node.keep_on.iter();
        let open = named.filter(|id| !group.not_on.contains(id));
        let places = open.filter_map(|id| self.place_of(id).ok());
        let ahead = places.filter_map(|place| Some((place, self.free(place).ahead(need)?)));
        ahead.min_by_key(|(place, ahead)| (*ahead, *place))
    }
}

impl Fleet {
    /// Class and place of those nodes that a task must stay on and that fit it, offline ones among them.
    pub(crate) fn kept<'a>(
        &'a self,
        spec: &'a TaskSpec,
    ) -> impl Iterator<Item = (u32, usize)> + 'a {
        let known = spec.node.keep_on.iter().filter_map(|id| self.find(id));
        known.filter(|(class, _)| self.class(*class).site().fits(spec))
    }
}

impl Round<'_> {
    /// Makes an offer for each node that the group must stay on.
    pub(crate) fn look_at_kept(&mut self, group: usize) {
        let of = &self.groups[group];
        let online = |class: u32| self.fleet.class(class).is_online();
        let open = |class: u32, place: usize| {
            online(class) && !of.not_on.contains(&self.fleet.class(class).id(place))
        };
        let kept = self.fleet.kept(&of.spec);
        let kept: Vec<(u32, usize)> = kept.filter(|(class, at)| open(*class, *at)).collect();
        let offers = kept.iter();
        let offers = offers.filter_map(|(class, at)| self.alone(group, *class, *at).map(Reverse));
        let offers: Vec<_> = offers.collect();
        if kept.is_empty() {
            self.report.unfit.push(group);
        }
        self.offers[group] = Some(offers.into());
    }
}

/// For people: which nodes it must stay on, and what to do where none of them is left. Empty where it may go anywhere.
pub(crate) fn summary(fleet: &Fleet, spec: &TaskSpec) -> String {
    let wanted = &spec.node.keep_on;
    if wanted.is_empty() {
        return String::new();
    }
    let known = |id: &NodeId| {
        let (class, _) = fleet.find(id)?;
        let name = fleet.spec(id).map_or("a node", |spec| &spec.name);
        Some(match fleet.class(class).is_online() {
            true => name.to_owned(),
            false => format!("{name} (gets no work now)"),
        })
    };
    let there: Vec<String> = wanted.iter().filter_map(known).collect();
    match there.is_empty() {
        false => format!("; its keep_on allows {} alone", there.join(" or ")),
        true => {
            let ids = wanted
                .iter()
                .map(|id| id.to_string().chars().take(12).collect());
            let ids: Vec<String> = ids.collect();
            format!(
                "; no node that its keep_on names is in the network any more ({}): submit it without keep_on, with the \
                 data among its arguments",
                ids.join(", ")
            )
        }
    }
}
