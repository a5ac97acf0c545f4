//! Work that waits on a node behind others for longer than was expected, and would run at once on another.

use crate::fleet::Fleet;
use crate::search::Round;
use crate::view::{Group, PlanInput};

/// For each group how many of its tasks, from its head, would run at once where the fleet has room now: the most urgent
/// group chooses first. Where a group may not go, as where it waits now, its `not_on` says. Deterministic; the fleet is
/// as before when it returns.
///
/// *Cost*: as of a plan.
pub fn elsewhere(fleet: &mut Fleet, groups: &[Group], input: &PlanInput) -> Vec<u32> {
    fleet.freshen();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|group| groups[*group].rank());
    let mut round = Round::new(fleet, groups, input);
    for group in order {
        while round.wanted[group] > 0 && round.budget > 0 && round.runs(group) {}
    }
    let left = std::mem::take(&mut round.wanted);
    round.give_back();
    let tasks = groups.iter().map(|group| group.tasks);
    tasks.zip(left).map(|(all, left)| all - left).collect()
}

impl Round<'_> {
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
