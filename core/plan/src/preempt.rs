//! What makes way where something more urgent waits and no room is left.
//!
//! Owns the choice: of which node, and which of what runs there. Leaves whether it still holds to `farlane-state`, and
//! how long it may take to the agent.
//!
//! A task makes way only for one that goes before it: of its own project by rank, were both queued; of another project
//! where that one, having more, would still have no larger share than its own, having less. So what made way is not
//! placed before what it made way for, and two never take turns.

use std::collections::BTreeMap;

use farlane_model::{NodeId, ProjectId, Resources};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis};

use crate::fleet::{Fleet, Totals};
use crate::view::{Group, Left, Share, aged};

/// Most that makes way for one task. Source: choice; what needs more room than eight others hold waits.
const MOST_VICTIMS: usize = 8;
/// Most groups for which something makes way in one call. Source: choice; calls come once a second.
const MOST_GROUPS: usize = 16;
/// Most that makes way for one gang. Source: choice; eight for each member of one of eight.
const MOST_OF_A_GANG: usize = 64;

/// A lease on a node, as far as it matters who makes way.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Whose.
    pub project: ProjectId,
    /// Of its priority, as [`Group::urgency`].
    pub urgency: i16,
    /// Since it was submitted.
    pub waited: Millis,
    /// What it holds.
    pub need: Resources,
    /// Of a gang of so many, all of which make way with it; 1 for a task on its own.
    pub members: u32,
    /// What would have to be done again.
    pub ran: Millis,
    /// How it stands.
    pub stands: Stands,
}

impl Holder {
    /// What would have to be done again, milliseconds of all of its gang.
    fn undone(&self) -> u64 {
        self.ran.0.saturating_mul(self.members.max(1).into())
    }
}

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It runs.
    Running,
    /// It runs, and was asked to make way already.
    Yielding,
    /// It waits on the node for room.
    Waiting,
    /// It waits there, and cannot be called back: nobody could send it elsewhere.
    Stays,
    /// It may not be touched.
    Fixed,
}

/// A node and all its leases.
#[derive(Debug, Clone)]
pub struct Occupied {
    /// Which.
    pub node: NodeId,
    /// Cores, memory, scratch and whole GPUs that nothing holds.
    pub free: Resources,
    /// In any order.
    pub holders: Vec<Holder>,
}

/// What makes way for one task of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// Index into the groups.
    pub group: usize,
    /// Index into the nodes.
    pub node: usize,
    /// Indices into its holders: those that run, and all that wait there.
    pub victims: Vec<usize>,
}

/// Chooses for each group, the first ones first, on which node its next task costs least of what was done; a node is
/// chosen once. Deterministic.
///
/// *Shape*: at most [`MOST_GROUPS`]; a group for which something makes way already, or that fits somewhere, is passed
/// over.
pub fn preempt(
    fleet: &mut Fleet,
    groups: &[Group],
    occupied: &[Occupied],
    shares: &[Share],
) -> Vec<Preemption> {
    fleet.freshen();
    let totals = fleet.totals();
    let shares: BTreeMap<ProjectId, &Share> = shares.iter().map(|s| (s.project, s)).collect();
    let mut found: Vec<Preemption> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        if found.len() >= MOST_GROUPS {
            break;
        }
        let left = shares.get(&group.spec.project).map(|share| share.left);
        let allowed = left.is_none_or(|left| left.holds(&group.spec.resources, 1));
        // A gang makes way on the nodes that are kept for it: [`make_room`].
        if !group.granter || group.is_gang() || !allowed {
            continue;
        }
        let fitting = fleet.fitting(&group.digest, &group.spec).to_vec();
        let before = |holder: &Holder| goes_before(group, holder, &shares, &totals);
        let mut best: Option<(u64, Preemption)> = None;
        let mut served = false;
        for (at, place) in occupied.iter().enumerate() {
            let fits = fleet.class_of(&place.node).is_some_and(|class| {
                fitting.binary_search(&class).is_ok() && fleet.class(class).is_online()
            });
            let units = fleet.ucu_of(&place.node, group.spec.resources.cpus).0;
            let afforded = left.is_none_or(|left| units <= left.ucu);
            if !fits
                || !afforded
                || !group.is_open(&place.node)
                || found.iter().any(|f| f.node == at)
            {
                continue;
            }
            let Some((cost, victims)) = victims(place, &group.spec.resources, &before) else {
                continue;
            };
            served |= victims.is_empty();
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                let preemption = Preemption {
                    group: index,
                    node: at,
                    victims,
                };
                best = Some((cost, preemption));
            }
        }
        found.extend(best.filter(|_| !served).map(|(_, preemption)| preemption));
    }
    found
}

/// Chooses what makes way on a node for a task that waits there for room: `place` is that node without it, and without
/// what waits behind it. Empty where room comes anyway, or cannot be had.
pub fn make_way(
    fleet: &mut Fleet,
    waits: &Group,
    place: &Occupied,
    shares: &[Share],
) -> Vec<usize> {
    fleet.freshen();
    let totals = fleet.totals();
    let shares: BTreeMap<ProjectId, &Share> = shares.iter().map(|s| (s.project, s)).collect();
    let before = |holder: &Holder| goes_before(waits, holder, &shares, &totals);
    let found = victims(place, &waits.spec.resources, &before);
    found.map_or_else(Vec::new, |(_, victims)| victims)
}

/// Chooses what makes way on the nodes that are kept for a gang, so that all of it has room there at once; empty where
/// room comes anyway, or cannot be had for all of it. One node of many slots may give some of them.
///
/// *Shape*: for each node that gives, its index and those of its holders.
pub fn make_room(
    fleet: &mut Fleet,
    gang: &Group,
    kept: &[Occupied],
    shares: &[Share],
) -> Vec<(usize, Vec<usize>)> {
    fleet.freshen();
    let totals = fleet.totals();
    let shares: BTreeMap<ProjectId, &Share> = shares.iter().map(|s| (s.project, s)).collect();
    let (size, need) = (gang.gang.max(1), &gang.spec.resources);
    let left = shares
        .get(&gang.spec.project)
        .map_or(Left::ALL, |share| share.left);
    let least = kept
        .iter()
        .map(|place| fleet.ucu_of(&place.node, need.cpus).0)
        .min();
    let units = least.unwrap_or(0).saturating_mul(size.into());
    if !gang.granter || !left.holds(need, size) || units > left.ucu {
        return Vec::new();
    }
    let before = |holder: &Holder| goes_before(gang, holder, &shares, &totals);
    let mut rooms: Vec<Room> = kept.iter().map(|place| Room::of(place, &before)).collect();
    let mut slots: u32 = rooms.iter().map(|room| slots(room.free, need, size)).sum();
    let mut asked = 0;
    while slots < size {
        let next = rooms.iter().enumerate();
        let next = next.filter_map(|(at, room)| Some((room.next(need)?, at)));
        let Some(((_, count), at)) = next.min_by_key(|((cost, _), at)| (*cost, *at)) else {
            return Vec::new();
        };
        asked += count;
        if asked > MOST_OF_A_GANG {
            return Vec::new();
        }
        slots += rooms[at].open(count, need);
    }
    let given = rooms.into_iter().enumerate();
    given
        .filter(|(_, room)| !room.victims.is_empty())
        .map(|(at, room)| (at, [room.victims, room.waiting].concat()))
        .collect()
}

/// A kept node, as more and more of it makes way.
struct Room<'a> {
    place: &'a Occupied,
    free: Resources,
    /// Those that may be asked, the last of them first.
    running: Vec<usize>,
    victims: Vec<usize>,
    /// What waits there, and goes back where others are asked.
    waiting: Vec<usize>,
}

impl<'a> Room<'a> {
    fn of(place: &'a Occupied, before: &dyn Fn(&Holder) -> bool) -> Self {
        let (mut running, mut waiting, mut free) = (Vec::new(), Vec::new(), place.free);
        let mut taken = false;
        for (index, holder) in place.holders.iter().enumerate() {
            match holder.stands {
                Stands::Yielding => give(&mut free, &holder.need),
                Stands::Running if before(holder) => running.push(index),
                Stands::Waiting if before(holder) => waiting.push(index),
                // What waits there takes what comes free.
                Stands::Waiting | Stands::Stays => taken = true,
                Stands::Running | Stands::Fixed => {}
            }
        }
        if taken {
            running.clear();
        }
        running.sort_by_key(|index| {
            let holder = &place.holders[*index];
            std::cmp::Reverse((-holder.urgency, holder.undone(), *index))
        });
        Self {
            place,
            free,
            running,
            victims: Vec::new(),
            waiting,
        }
    }

    /// What one more slot costs, and how many make way for it.
    fn next(&self, need: &Resources) -> Option<(u64, usize)> {
        let (mut free, mut cost) = (self.free, 0u64);
        let have = slots(free, need, u32::MAX);
        for (count, index) in self.running.iter().rev().enumerate() {
            let holder = &self.place.holders[*index];
            give(&mut free, &holder.need);
            cost = cost.saturating_add(holder.undone());
            if slots(free, need, u32::MAX) > have {
                return Some((cost, count + 1));
            }
        }
        None
    }

    /// So many make way; how many slots that gives.
    fn open(&mut self, count: usize, need: &Resources) -> u32 {
        let have = slots(self.free, need, u32::MAX);
        let chosen = self.running.split_off(self.running.len() - count);
        for index in chosen.iter().rev() {
            give(&mut self.free, &self.place.holders[*index].need);
        }
        self.victims.extend(chosen.into_iter().rev());
        slots(self.free, need, u32::MAX) - have
    }
}

/// How many such tasks run in so much room, as far as `most`. A node may claim room for thousands of millions.
fn slots(free: Resources, need: &Resources, most: u32) -> u32 {
    let of = |free: u64, need: u64| free.checked_div(need).unwrap_or(u64::MAX);
    let each = [
        of(free.cpus.0.into(), need.cpus.0.into()),
        of(free.memory.0, need.memory.0),
        of(free.scratch.0, need.scratch.0),
        of(free.gpus.0.into(), need.gpus.0.into()),
    ];
    let least = each.into_iter().fold(u64::from(most), u64::min);
    u32::try_from(least).unwrap_or(most)
}

/// Whether the group's next task goes before a holder's.
fn goes_before(
    group: &Group,
    holder: &Holder,
    shares: &BTreeMap<ProjectId, &Share>,
    totals: &Totals,
) -> bool {
    let project = group.spec.project;
    if holder.project == project {
        return aged(holder.urgency, holder.waited) > aged(group.urgency, group.waited);
    }
    let of = |id: &ProjectId, with: &Resources, sign: f64| {
        shares
            .get(id)
            .map_or(0.0, |share| share.with(with, sign, totals))
    };
    let ours = match shares.contains_key(&project) {
        true => of(&project, &group.spec.resources, 1.0),
        false => Share::none(project).with(&group.spec.resources, 1.0, totals),
    };
    let theirs = times(&holder.need, holder.members);
    ours <= of(&holder.project, &theirs, -1.0)
}

/// What makes way on a node, and how much would have to be done again; empty where room comes anyway, `None` where it
/// cannot be had.
fn victims(
    place: &Occupied,
    need: &Resources,
    before: &dyn Fn(&Holder) -> bool,
) -> Option<(u64, Vec<usize>)> {
    let mut free = place.free;
    let mut victims = Vec::new();
    let mut running = Vec::new();
    let mut comes = false;
    for (index, holder) in place.holders.iter().enumerate() {
        match holder.stands {
            Stands::Yielding => {
                give(&mut free, &holder.need);
                comes = true;
            }
            Stands::Running if before(holder) => running.push(index),
            // What waits here takes the room before anything that comes later.
            Stands::Stays => return None,
            Stands::Waiting if !before(holder) => return None,
            Stands::Waiting => victims.push(index),
            Stands::Running | Stands::Fixed => {}
        }
    }
    if fits(&free, need) {
        // Room that comes anyway, or room that only the queue stands before.
        return Some((0, if comes { Vec::new() } else { victims }));
    }
    // The least urgent first, then what has done least.
    running.sort_by_key(|index| {
        let holder = &place.holders[*index];
        (-holder.urgency, holder.undone(), *index)
    });
    let mut cost = 0;
    for index in running.into_iter().take(MOST_VICTIMS) {
        let holder = &place.holders[index];
        give(&mut free, &holder.need);
        cost += holder.undone();
        victims.push(index);
        if fits(&free, need) {
            return Some((cost, victims));
        }
    }
    None
}

fn times(need: &Resources, count: u32) -> Resources {
    let count = count.max(1);
    Resources {
        cpus: MilliCpu(need.cpus.0.saturating_mul(count)),
        memory: ByteCount(need.memory.0.saturating_mul(count.into())),
        scratch: ByteCount(need.scratch.0.saturating_mul(count.into())),
        gpus: MilliGpu(need.gpus.0.saturating_mul(count)),
    }
}

fn give(free: &mut Resources, more: &Resources) {
    free.cpus = free.cpus.saturating_add(more.cpus);
    free.memory = free.memory.saturating_add(more.memory);
    free.scratch = free.scratch.saturating_add(more.scratch);
    free.gpus = free.gpus.saturating_add(more.gpus);
}

fn fits(free: &Resources, need: &Resources) -> bool {
    need.cpus <= free.cpus
        && need.memory <= free.memory
        && need.scratch <= free.scratch
        && need.gpus <= free.gpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_at_once_however_much_a_node_claims() {
        let room = |cpus, memory| Resources {
            cpus: MilliCpu(cpus),
            memory: ByteCount(memory),
            scratch: ByteCount(u64::MAX),
            gpus: MilliGpu::ZERO,
        };
        let need = Resources {
            scratch: ByteCount::ZERO,
            ..room(300, 7)
        };
        assert_eq!(slots(room(1000, 100), &need, 9), 3);
        assert_eq!(slots(room(1000, 20), &need, 9), 2);
        assert_eq!(slots(room(1000, 6), &need, 9), 0);
        assert_eq!(slots(room(1000, 100), &need, 2), 2);
        let small = Resources {
            cpus: MilliCpu(1),
            memory: ByteCount::ZERO,
            ..need
        };
        assert_eq!(slots(room(u32::MAX, 0), &small, u32::MAX), u32::MAX);
        let gpus = Resources {
            gpus: MilliGpu(500),
            ..small
        };
        assert_eq!(slots(room(u32::MAX, 0), &gpus, u32::MAX), 0);
    }

    fn cores(n: u32) -> Resources {
        Resources {
            cpus: MilliCpu(n * 1000),
            memory: ByteCount(0),
            scratch: ByteCount(0),
            gpus: MilliGpu::ZERO,
        }
    }

    fn holder(n: u32, urgency: i16, ran: u64, stands: Stands) -> Holder {
        Holder {
            project: ProjectId::new(1, [1; 10]),
            urgency,
            waited: Millis(ran),
            need: cores(n),
            members: 1,
            ran: Millis(ran),
            stands,
        }
    }

    fn place(free: u32, holders: Vec<Holder>) -> Occupied {
        Occupied {
            node: NodeId([1; 32]),
            free: cores(free),
            holders,
        }
    }

    #[test]
    fn the_least_urgent_makes_way_then_what_has_done_least() {
        use Stands::*;
        let all = vec![
            holder(1, 0, 5, Running),
            holder(1, 3, 90, Running),
            holder(1, 0, 2, Running),
            holder(1, -9, 1, Running),
        ];
        let lower = |h: &Holder| h.urgency > -5;
        let at = place(0, all);
        assert_eq!(victims(&at, &cores(1), &lower), Some((90, vec![1])));
        assert_eq!(victims(&at, &cores(2), &lower), Some((92, vec![1, 2])));
        assert_eq!(victims(&at, &cores(4), &lower), None, "one stays");
    }

    #[test]
    fn room_that_comes_is_waited_for_and_a_queue_that_goes_first_is_respected() {
        use Stands::*;
        let lower = |h: &Holder| h.urgency > -5;
        let comes = place(0, vec![holder(1, 0, 5, Yielding), holder(1, 0, 5, Running)]);
        assert_eq!(victims(&comes, &cores(1), &lower), Some((0, vec![])));
        assert_eq!(victims(&comes, &cores(2), &lower), Some((5, vec![1])));
        let queue = |urgency| {
            place(
                0,
                vec![holder(1, 0, 5, Running), holder(1, urgency, 0, Waiting)],
            )
        };
        assert_eq!(victims(&queue(0), &cores(1), &lower), Some((5, vec![1, 0])));
        assert_eq!(victims(&queue(-9), &cores(1), &lower), None);
        let fixed = place(0, vec![holder(1, 0, 5, Fixed)]);
        assert_eq!(victims(&fixed, &cores(1), &lower), None);
    }
}
