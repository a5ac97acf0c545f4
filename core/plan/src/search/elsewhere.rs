//! Work that waits on a node behind others for longer than was expected, and would run at once on another.

use farlane_model::NodeId;

use crate::fleet::Fleet;
use crate::search::Round;
use crate::tree::Free;
use crate::view::{Group, PlanInput};

/// What would run at once on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Of each group so many tasks, from its head.
    pub counts: Vec<u32>,
    /// The budget, or the looks at single nodes, ended first: of what is not counted nobody knows.
    pub cut_short: bool,
}

/// For each group how many of its tasks would run at once where the fleet has room now: the most urgent group chooses
/// first. Where a group may not go, as where it waits now, its `not_on` says; where none may, as on what is kept for gangs,
/// `kept`. Deterministic; the fleet is as before when it returns.
///
/// *Cost*: as of a plan.
pub fn elsewhere(
    fleet: &mut Fleet,
    groups: &[Group],
    input: &PlanInput,
    kept: &[NodeId],
) -> Elsewhere {
    fleet.freshen();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|group| groups[*group].rank());
    let mut round = Round::new(fleet, groups, input);
    kept.iter().for_each(|node| round.hide(node));
    for group in order {
        while round.wanted[group] > 0 && round.budget > 0 && round.runs(group) {}
    }
    let cut_short = round.budget == 0 || round.report.cut_short;
    let left = std::mem::take(&mut round.wanted);
    round.give_back();
    let tasks = groups.iter().map(|group| group.tasks);
    Elsewhere {
        counts: tasks.zip(left).map(|(all, left)| all - left).collect(),
        cut_short,
    }
}

impl Round<'_> {
    /// Nobody sees a node's room until it is given back.
    fn hide(&mut self, node: &NodeId) {
        let Some((class, place)) = self.fleet.find(node) else {
            return;
        };
        let free = self.fleet.class(class).free(place).clone();
        self.journal.push((class, place, free));
        self.fleet.class_mut(class).set(place, Free::default());
        self.changed(class);
    }

    /// Takes the cheapest room where the group's next task runs at once. False where there is none.
    fn runs(&mut self, group: usize) -> bool {
        self.look(group);
        while let Some(offer) = self.cheapest(group) {
            if offer.ahead > 0 {
                continue;
            }
            self.take(group, &offer, None);
            if let Some(fresh) = self.again(group, &offer)
                && let Some(offers) = &mut self.offers[group]
            {
                offers.push(std::cmp::Reverse(fresh));
            }
            return true;
        }
        false
    }
}
