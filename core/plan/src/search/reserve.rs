//! Room kept for a gang that found none at its turn, and what runs on it until then.
//!
//! ```text
//! gang's turn, no room ─▶ region where enough comes free first ─▶ its nodes are kept, up to that moment
//!                                                                  │
//!     other tasks: not there, but where they are expected to end before ◀┘ (backfill)
//!     the gang's next turn: all of it has room ─▶ placed; else kept for the next round, moment and nodes unchanged
//! ```
//! The moment stays what it was, so that what runs longer than expected is not followed by more of it: once it is
//! past, the nodes empty. Owns which nodes those are. Leaves keeping a reservation between rounds to the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::{GangRegions, NodeId};
use farlane_units::Millis;

use super::{Offer, Round};
use crate::company::Here;
use crate::gang::{empty_slots, slots};
use crate::tree::Free;
use crate::units::NO_BOUND;
use crate::view::{Group, Left, Reservation};

/// Gangs that room is kept for at once, one of each project. Source: choice; with gangs of 256 on nodes of their own,
/// two thousand nodes of a cell's hundred thousand.
pub(super) const MAX_RESERVED: usize = 8;
/// Of the time that is left, thousandths that a task may be expected to run to be let in. Source: choice; run times are
/// medians, and half of the runs are longer.
const BACKFILL_SHARE: u64 = 667;

/// A node that is kept: the tree has nothing of it.
#[derive(Debug)]
struct Held {
    class: u32,
    place: usize,
    free: Free,
    /// Owner by group; `None` once it was placed.
    owner: Option<usize>,
    at: Millis,
}

/// Kept nodes that a group's tasks may run on meanwhile.
#[derive(Debug, Default)]
struct Gaps {
    /// As many kept nodes were looked at.
    seen: usize,
    held: Vec<usize>,
    /// Those before have no room left for it.
    from: usize,
}

/// What is kept in a round.
#[derive(Debug, Default)]
pub(super) struct Kept {
    held: Vec<Held>,
    /// By group.
    gaps: BTreeMap<usize, Gaps>,
    /// In force, in the order in which they were made.
    pub reserved: Vec<(usize, Reservation)>,
}

impl Round<'_> {
    /// Keeps what was kept before, as far as it still serves.
    pub(super) fn keep_known(&mut self) {
        let input = self.input;
        for (group, known) in input.gangs.known.iter().take(MAX_RESERVED) {
            if self.serves(*group, known) {
                self.keep(*group, known.clone());
            }
        }
    }

    /// Whether the nodes are there, online, nobody else's, and together large enough, and its project may hold all of it.
    fn serves(&self, group: usize, known: &Reservation) -> bool {
        let Some(of) = self.groups.get(group).filter(|g| g.granter && g.is_gang()) else {
            return false;
        };
        let share = self
            .input
            .shares
            .iter()
            .find(|s| s.project == of.spec.project);
        let left = share.map_or(Left::ALL, |share| share.left);
        // What its quota keeps back needs no room for now.
        if !left.holds(&of.spec.resources, of.gang) || !self.leaves(left.ucu, group, known) {
            return false;
        }
        let mut room = 0u32;
        for id in &known.nodes {
            let Some((at, place)) = self.fleet.find(id) else {
                return false;
            };
            let class = self.fleet.class(at);
            if !class.is_online() || self.is_kept(at, place) || !of.is_open(id) {
                return false;
            }
            room = room.saturating_add(empty_slots(&class.spec, &of.spec, of.gang));
        }
        room >= of.gang.max(1)
    }

    /// Whether so many units could be enough for the gang on these nodes.
    fn leaves(&self, units: u64, group: usize, found: &Reservation) -> bool {
        let size = u64::from(self.groups[group].gang.max(1));
        let least = found.nodes.iter().map(|id| self.takes(group, id)).min();
        units == NO_BOUND || least.unwrap_or(0).saturating_mul(size) <= units
    }

    fn is_kept(&self, class: u32, place: usize) -> bool {
        let mut held = self.kept.held.iter();
        held.any(|h| h.owner.is_some() && (h.class, h.place) == (class, place))
    }

    fn keep(&mut self, group: usize, reservation: Reservation) {
        for id in &reservation.nodes {
            let Some((class, place)) = self.fleet.find(id) else {
                continue;
            };
            let free = self.fleet.class(class).free(place).clone();
            self.journal.push((class, place, free.clone()));
            self.kept.held.push(Held {
                class,
                place,
                free,
                owner: Some(group),
                at: reservation.at,
            });
        }
        self.kept.reserved.push((group, reservation));
        self.show(group, false);
    }

    /// Shows a gang its own nodes, or hides them from everybody.
    pub(super) fn show(&mut self, group: usize, shown: bool) {
        for at in 0..self.kept.held.len() {
            let held = &self.kept.held[at];
            if held.owner != Some(group) {
                continue;
            }
            self.shown += u32::from(shown);
            let (class, place) = (held.class, held.place);
            let free = match shown {
                true => held.free.clone(),
                false => Free::default(),
            };
            self.fleet.class_mut(class).set(place, free);
            self.changed(class);
        }
    }

    /// The gang has its room: what else its nodes have is everybody's.
    pub(super) fn unkeep(&mut self, group: usize) {
        for held in &mut self.kept.held {
            if held.owner == Some(group) {
                held.owner = None;
            }
        }
        self.kept.reserved.retain(|(of, _)| *of != group);
    }

    /// Keeps room for a gang that found none, where others of its project have none kept.
    pub(super) fn reserve(&mut self, group: usize) {
        let project = self.groups[group].spec.project;
        let of_project = |(g, _): &(usize, Reservation)| self.groups[*g].spec.project == project;
        let kept = &self.kept.reserved;
        if kept.len() >= MAX_RESERVED || kept.iter().any(of_project) {
            return;
        }
        let found = self.earliest(group);
        if let Some(found) = found.filter(|found| self.leaves(self.ucu, group, found)) {
            self.keep(group, found);
        }
    }

    /// The nodes of one region, or of all where the gang may lie apart, that have room for all of it first.
    fn earliest(&mut self, group: usize) -> Option<Reservation> {
        let input = self.input;
        let (ends, now) = (input.gangs.ends.as_ref()?, input.now);
        let of = &self.groups[group];
        let size = of.gang.max(1);
        let mut regions: BTreeMap<Arc<str>, Vec<(Millis, u32, NodeId)>> = BTreeMap::new();
        for at in self.fleet.fitting(&of.digest, &of.spec).to_vec() {
            let class = self.fleet.class(at);
            if !class.is_online() {
                continue;
            }
            let name = match of.gang_regions() {
                GangRegions::One => class.region().clone(),
                GangRegions::Any => Arc::from(""),
            };
            let all = empty_slots(&class.spec, &of.spec, size);
            let rooms = regions.entry(name).or_default();
            for place in 0..class.len() {
                let id = class.id(place);
                if !of.is_open(&id) || self.is_kept(at, place) {
                    continue;
                }
                let ready = slots(class.free(place).clone(), of.need(), size);
                let end = ends.binary_search_by_key(&id, |(node, _)| *node);
                rooms.push((now, ready, id));
                // Of one that has something and is not named nobody knows.
                if let Ok(found) = end {
                    rooms.push((ends[found].1.max(now), all.saturating_sub(ready), id));
                }
            }
        }
        let found = regions.into_values().filter_map(|rooms| first(rooms, size));
        found.min_by(|a, b| a.at.cmp(&b.at).then_with(|| a.nodes.cmp(&b.nodes)))
    }

    /// Places the group's next task on a kept node, where it ends before that is needed. False where there is none.
    pub(super) fn backfill(&mut self, group: usize) -> bool {
        // Where a place depends on who is there it is left to the others.
        if self.kept.reserved.is_empty() || self.is_particular(group) {
            return false;
        }
        self.find_gaps(group);
        let of = &self.groups[group];
        let need = of.need();
        let Some(gaps) = self.kept.gaps.get_mut(&group) else {
            return false;
        };
        while let Some(at) = gaps.held.get(gaps.from).copied() {
            let held = &mut self.kept.held[at];
            let (class, place) = (held.class, held.place);
            let id = self.fleet.class(class).id(place);
            let afforded = self.ucu == NO_BOUND
                || self.fleet.ucu_of(&id, need.task.resources.cpus).0 <= self.ucu;
            if held.owner.is_some() && held.free.runs(need) && afforded {
                let devices = held.free.take(need);
                let there = self.fleet.class(class);
                let generation = there.generation(place);
                let offer = Offer {
                    cost: 0.0,
                    id,
                    class,
                    place,
                    ahead: 0,
                    here: Here::default(),
                    alone: true,
                    version: 0,
                    shown: self.shown,
                };
                self.assign(group, (generation, devices), &offer, None);
                return true;
            }
            gaps.from += 1;
        }
        false
    }

    fn find_gaps(&mut self, group: usize) {
        let (now, of) = (self.input.now, &self.groups[group]);
        let gaps = self.kept.gaps.entry(group).or_default();
        if gaps.seen == self.kept.held.len() {
            return;
        }
        let fitting = self.fleet.fitting(&of.digest, &of.spec).to_vec();
        for (at, held) in self.kept.held.iter().enumerate().skip(gaps.seen) {
            let class = self.fleet.class(held.class);
            let left = Millis(held.at.saturating_sub(now).0 * BACKFILL_SHARE / 1000);
            let runs = expected(of, class.traits.run_micros(of));
            if fitting.binary_search(&held.class).is_ok()
                && runs.is_some_and(|run| run <= left)
                && of.is_open(&class.id(held.place))
            {
                gaps.held.push(at);
            }
        }
        gaps.seen = self.kept.held.len();
    }
}

/// How long a task surely or probably runs; `None` where nobody knows.
fn expected(group: &Group, micros: f64) -> Option<Millis> {
    let probably = (!group.work.is_guess()).then_some(Millis((micros / 1000.0) as u64 + 1));
    match (group.spec.timing.timeout, probably) {
        (Some(surely), Some(probably)) => Some(surely.min(probably)),
        (one, other) => one.or(other),
    }
}

/// The first rooms by time that are together large enough, and when the last of them is there.
fn first(mut rooms: Vec<(Millis, u32, NodeId)>, size: u32) -> Option<Reservation> {
    rooms.retain(|(_, slots, _)| *slots > 0);
    rooms.sort_unstable_by_key(|(at, slots, id)| (*at, std::cmp::Reverse(*slots), *id));
    let (mut nodes, mut room) = (Vec::new(), 0u32);
    for (at, slots, id) in rooms {
        nodes.push(id);
        room = room.saturating_add(slots);
        if room >= size {
            nodes.sort_unstable();
            nodes.dedup();
            return Some(Reservation { nodes, at });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_room_that_is_large_enough_is_found() {
        let id = |n: u8| NodeId([n; 32]);
        let room = |at, slots, n| (Millis(at), slots, id(n));
        let rooms = vec![
            room(0, 1, 1),
            room(9, 3, 1),
            room(5, 2, 2),
            room(0, 0, 3),
            room(7, 4, 3),
        ];
        let found = |size| first(rooms.clone(), size).map(|r| (r.at.0, r.nodes));
        assert_eq!(found(1), Some((0, vec![id(1)])));
        assert_eq!(found(3), Some((5, vec![id(1), id(2)])));
        assert_eq!(found(7), Some((7, vec![id(1), id(2), id(3)])));
        assert_eq!(found(10), Some((9, vec![id(1), id(2), id(3)])));
        assert_eq!(found(11), None);
    }
}
