//! Gangs: tasks that run at once or not at all.
//!
//! Owns where the members of one lie. Leaves holding them together to `farlane-state`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use farlane_model::GangRegions;
use farlane_units::Micros;

use super::{Offer, Round};
use crate::units::NO_BOUND;

/// Regions with room for a gang that are compared, those with the cheapest class first.
/// Source: choice; what a region costs differs little among a gang's members, so the order is nearly right.
const GANG_REGIONS: usize = 3;
/// Between two regions of which nobody knows. Source: once round half of the earth and back in fibre, 20,000 km each way at
/// 200,000 km/s.
const UNKNOWN_TRIP: Micros = Micros(200_000);
/// Most regions that one gang lies in. Source: choice; links are looked at in pairs, and further ones only add to the
/// slowest.
const MOST_REGIONS: usize = 8;

/// By what a gang's members are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// What costs least.
    Cost,
    /// What takes least of the project's units.
    Units,
}

impl Round<'_> {
    /// Places a whole gang, all of it running at once. False where there is no room, which is kept for it then.
    pub(super) fn place_gang(&mut self, group: usize) -> bool {
        self.show(group, true);
        if self.lay(group) {
            self.unkeep(group);
            return true;
        }
        let whole = self.budget > 0 && self.wanted[group] >= self.groups[group].gang.max(1);
        let kept_back = whole && self.is_kept_back(group);
        self.show(group, false);
        if whole && !kept_back {
            self.reserve(group);
        }
        false
    }

    /// Whether there is room for the gang, and its project's quota of units does not leave it.
    fn is_kept_back(&mut self, group: usize) -> bool {
        if self.ucu == NO_BOUND {
            return false;
        }
        let left = std::mem::replace(&mut self.ucu, NO_BOUND);
        let size = self.groups[group].gang.max(1);
        self.offers[group] = None;
        self.look(group);
        let fits = self.gang_regions(group).into_iter().any(|regions| {
            let mut some = (1..=regions.len()).map(|n| &regions[..n]);
            some.any(|some| self.gang_in(group, some, size).is_some())
        });
        (self.ucu, self.offers[group]) = (left, None);
        fits
    }

    fn lay(&mut self, group: usize) -> bool {
        let size = self.groups[group].gang.max(1);
        if self.budget < size || self.wanted[group] < size {
            // Less than a gang is left of it, or of the round.
            self.budget = match self.wanted[group] < size {
                true => self.budget,
                false => 0,
            };
            return false;
        }
        self.look(group);
        let (mut best, mut found) = (None::<(f64, Vec<Offer>)>, 0);
        for regions in self.gang_regions(group) {
            // As few of them as have the room.
            let mut some = (1..=regions.len()).map(|n| &regions[..n]);
            let Some((cost, mut members)) = some.find_map(|some| self.gang_in(group, some, size))
            else {
                continue;
            };
            let link = self.slowest_link(&members);
            members.iter_mut().for_each(|offer| offer.here.link = link);
            let of = &self.groups[group];
            let cost = cost + of.policy.worth(link.0 as f64) * members.len() as f64;
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, members));
            }
            found += 1;
            if found == GANG_REGIONS {
                break;
            }
        }
        let Some((_, members)) = best else {
            return false;
        };
        for offer in &members {
            self.take(group, offer, None);
        }
        // What the classes have left is looked at again with the next one.
        self.offers[group] = None;
        true
    }

    /// Regions to begin in, those with the cheapest class first, each with those to add where it has no room for all;
    /// none to add where the gang stays in one.
    fn gang_regions(&self, group: usize) -> Vec<Vec<Arc<str>>> {
        let offers = self.offers[group].iter().flatten().map(|Reverse(o)| o);
        let mut offers: Vec<&Offer> = offers.filter(|o| o.ahead == 0).collect();
        offers.sort_unstable();
        let mut regions: Vec<Arc<str>> = Vec::new();
        for offer in offers {
            let region = self.fleet.class(offer.class).region();
            if !regions.contains(region) {
                regions.push(region.clone());
            }
        }
        let begin = |first: &Arc<str>| match self.groups[group].gang_regions() {
            GangRegions::One => vec![first.clone()],
            GangRegions::Any => {
                // The nearest to it are added first; the sort keeps the cheaper of those as near.
                let mut near: Vec<&Arc<str>> = regions.iter().collect();
                near.sort_by_key(|other| (*other != first, self.trip(first, other)));
                near.into_iter().take(MOST_REGIONS).cloned().collect()
            }
        };
        regions.iter().map(begin).collect()
    }

    /// There and back between nodes of two regions, or of one.
    fn trip(&self, a: &Arc<str>, b: &Arc<str>) -> Micros {
        match self.fleet.links().between(a, b) {
            Some(link) => link.round_trip,
            None if a == b => Micros::ZERO,
            None => UNKNOWN_TRIP,
        }
    }

    /// The slowest link between a gang's members: all wait for it. What they send to each other nobody knows, so it is
    /// one round trip.
    fn slowest_link(&self, members: &[Offer]) -> Micros {
        let regions = members.iter().map(|o| self.fleet.class(o.class).region());
        let mut regions: Vec<&Arc<str>> = regions.collect();
        regions.sort_unstable();
        regions.dedup();
        let trips = regions
            .iter()
            .flat_map(|a| regions.iter().map(|b| self.trip(a, b)));
        trips.max().unwrap_or(Micros::ZERO)
    }

    /// Where a gang would lie in some regions, and what it would cost; nothing is taken.
    fn gang_in(
        &mut self,
        group: usize,
        regions: &[Arc<str>],
        size: u32,
    ) -> Option<(f64, Vec<Offer>)> {
        let cheapest = self.gang_by(group, regions, size, Order::Cost);
        match self.ucu {
            NO_BOUND => cheapest,
            // Where the quota ends before the gang does: where it takes least of that.
            _ => cheapest.or_else(|| self.gang_by(group, regions, size, Order::Units)),
        }
    }

    fn gang_by(
        &mut self,
        group: usize,
        regions: &[Arc<str>],
        size: u32,
        order: Order,
    ) -> Option<(f64, Vec<Offer>)> {
        let offers = self.offers[group].iter().flatten().map(|Reverse(o)| o);
        let first = |round: &Self, offer: &Offer| match order {
            Order::Cost => 0,
            Order::Units => round.takes(group, &offer.id),
        };
        let mut local: BinaryHeap<Reverse<(u64, Offer)>> = offers
            .filter(|o| o.ahead == 0 && regions.contains(self.fleet.class(o.class).region()))
            .map(|o| Reverse((first(self, o), o.clone())))
            .collect();
        let need = self.groups[group].need();
        let (mark, left) = (self.journal.len(), self.ucu);
        // What each of them changes for the next.
        let particular = self.is_particular(group);
        let before = particular.then(|| (self.presence.clone(), self.taken.clone()));
        let (mut cost, mut members) = (0.0, Vec::with_capacity(size as usize));
        while members.len() < size as usize
            && let Some(Reverse((_, offer))) = local.pop()
        {
            // One node can stand in two offers, its own and its class's: the other may have taken its room.
            let there = self.fleet.class(offer.class).free(offer.place);
            let holds = there.runs(need) && self.affords(group, &offer.id);
            let fresh = match holds && !particular {
                true => Some(offer),
                false => self.again(group, &offer).filter(|o| o.ahead == 0),
            };
            let Some(offer) = fresh else { continue };
            let mut free = self.fleet.class(offer.class).free(offer.place).clone();
            self.journal.push((offer.class, offer.place, free.clone()));
            free.take(need);
            self.fleet.class_mut(offer.class).set(offer.place, free);
            self.spend(group, &offer.id);
            if particular {
                self.note(group, offer.id);
            }
            if let Some(fresh) = self.again(group, &offer)
                && fresh.ahead == 0
            {
                local.push(Reverse((first(self, &fresh), fresh)));
            }
            cost += offer.cost;
            members.push(offer);
        }
        self.undo_to(mark);
        self.ucu = left;
        if let Some((presence, taken)) = before {
            (self.presence, self.taken) = (presence, taken);
        }
        (members.len() == size as usize).then_some((cost, members))
    }
}
