//! What makes way where something more urgent waits and no room is left.
//!
//! Owns the choice: of which node, and which of what runs there. Leaves whether it still holds to `farlane-state`, and
//! how long it may take to the agent.
//!
//! A task makes way only for one that goes before it: of its own project by rank, were both queued; of another project
//! where that one, having more, would still have no larger share than its own, having less. So what made way is not
//! placed before what it made way for, and two never take turns.

mod space;

use std::collections::BTreeMap;

use farlane_model::{Amount, DeviceLoads, NodeId, ProjectId, Resources};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis};

use self::space::Space;
use crate::devices::Need;
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
    /// The accelerators that it holds, as a set of places.
    pub devices: u64,
    /// Named resources that it holds.
    pub amounts: Vec<Amount>,
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
    /// Cores, memory and scratch that nothing holds; of accelerators `devices` says it.
    pub free: Resources,
    /// What is held of its accelerators.
    pub devices: DeviceLoads,
    /// Named resources that nothing holds.
    pub amounts: Vec<Amount>,
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
            let Some((cost, victims)) = victims(fleet, place, group.need(), &before) else {
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
    let found = victims(fleet, place, waits.need(), &before);
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
    let (size, need) = (gang.gang.max(1), gang.need());
    let left = shares
        .get(&gang.spec.project)
        .map_or(Left::ALL, |share| share.left);
    let least = kept
        .iter()
        .map(|place| fleet.ucu_of(&place.node, need.task.resources.cpus).0)
        .min();
    let units = least.unwrap_or(0).saturating_mul(size.into());
    if !gang.granter || !left.holds(&need.task.resources, size) || units > left.ucu {
        return Vec::new();
    }
    let before = |holder: &Holder| goes_before(gang, holder, &shares, &totals);
    let rooms = kept.iter().map(|place| Room::of(fleet, place, &before));
    let mut rooms: Vec<Room> = rooms.collect();
    let mut slots: u32 = rooms.iter().map(|room| room.space.slots(need, size)).sum();
    if slots >= size {
        return Vec::new();
    }
    let mut asked = 0;
    let mut next: Vec<_> = rooms.iter().map(|room| room.next(need)).collect();
    while slots < size {
        let costs = next.iter().zip(0..);
        let costs = costs.filter_map(|(next, at)| Some((next.as_ref()?.0, at)));
        let Some((_, at)) = costs.min() else {
            return Vec::new();
        };
        let (_, chosen) = next[at].take().unwrap_or_default();
        asked += chosen.len();
        if asked > MOST_OF_A_GANG {
            return Vec::new();
        }
        slots += rooms[at].open(chosen, need);
        // The others are as they were.
        next[at] = rooms[at].next(need);
    }
    let given = rooms.into_iter().enumerate();
    given
        .filter(|(_, room)| !room.victims.is_empty())
        .map(|(at, room)| (at, [room.victims, room.waiting].concat()))
        .collect()
}

/// A kept node, as more and more of it makes way.
struct Room<'a> {
    space: Space<'a>,
    /// Those that may be asked, the last of them first.
    running: Vec<usize>,
    victims: Vec<usize>,
    /// What waits there, and goes back where others are asked.
    waiting: Vec<usize>,
}

impl<'a> Room<'a> {
    fn of(fleet: &'a Fleet, place: &'a Occupied, before: &dyn Fn(&Holder) -> bool) -> Self {
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        let (mut space, mut taken) = (Space::of(fleet, place), false);
        for (index, holder) in place.holders.iter().enumerate() {
            match holder.stands {
                Stands::Yielding => space.give(index),
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
            space,
            running,
            victims: Vec::new(),
            waiting,
        }
    }

    /// What one more slot costs, and who makes way for it.
    fn next(&self, need: Need) -> Option<(u64, Vec<usize>)> {
        let have = self.space.slots(need, u32::MAX);
        let more = |space: &Space| space.slots(need, u32::MAX) > have;
        let (mut space, mut chosen) = (self.space.clone(), Vec::new());
        for index in self.running.iter().rev().take(MOST_OF_A_GANG) {
            space.give(*index);
            chosen.push(*index);
            if more(&space) {
                let chosen = self.space.fewest(chosen, more);
                return Some((self.space.undone(&chosen), chosen));
            }
        }
        None
    }

    /// These make way; how many slots that gives.
    fn open(&mut self, chosen: Vec<usize>, need: Need) -> u32 {
        let have = self.space.slots(need, u32::MAX);
        self.running.retain(|index| !chosen.contains(index));
        chosen.iter().for_each(|index| self.space.give(*index));
        self.victims.extend(chosen);
        self.space.slots(need, u32::MAX) - have
    }
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
    fleet: &Fleet,
    place: &Occupied,
    need: Need,
    before: &dyn Fn(&Holder) -> bool,
) -> Option<(u64, Vec<usize>)> {
    let mut space = Space::of(fleet, place);
    let mut waiting = Vec::new();
    let mut running = Vec::new();
    let mut comes = false;
    for (index, holder) in place.holders.iter().enumerate() {
        match holder.stands {
            Stands::Yielding => {
                space.give(index);
                comes = true;
            }
            Stands::Running if before(holder) => running.push(index),
            // What waits here takes the room before anything that comes later.
            Stands::Stays => return None,
            Stands::Waiting if !before(holder) => return None,
            Stands::Waiting => waiting.push(index),
            Stands::Running | Stands::Fixed => {}
        }
    }
    if space.fits(need) {
        // Room that comes anyway, or room that only the queue stands before.
        return Some((0, if comes { Vec::new() } else { waiting }));
    }
    // The least urgent first, then what has done least.
    running.retain(|index| space.helps(*index, need));
    running.sort_by_key(|index| {
        let holder = &place.holders[*index];
        (-holder.urgency, holder.undone(), *index)
    });
    let (before, mut chosen) = (space.clone(), Vec::new());
    for index in running.into_iter().take(MOST_VICTIMS) {
        space.give(index);
        chosen.push(index);
        if space.fits(need) {
            let chosen = before.fewest(chosen, |space| space.fits(need));
            return Some((before.undone(&chosen), [waiting, chosen].concat()));
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use farlane_model::{BlobRef, Digest, PythonVersion, TaskSpec, TenantId};

    /// A task that asks for so much.
    pub fn task(resources: Resources) -> TaskSpec {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        TaskSpec {
            resources,
            ..TaskSpec::new(ProjectId::new(1, [1; 10]), code, python)
        }
    }

    /// What makes way for a task of so many cores.
    fn way(
        place: &Occupied,
        n: u32,
        before: &dyn Fn(&Holder) -> bool,
    ) -> Option<(u64, Vec<usize>)> {
        let task = task(cores(n));
        let need = Need {
            task: &task,
            tenant: &TenantId([1; 32]),
        };
        victims(&Fleet::new(), place, need, before)
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
            devices: 0,
            amounts: Vec::new(),
            members: 1,
            ran: Millis(ran),
            stands,
        }
    }

    fn place(free: u32, holders: Vec<Holder>) -> Occupied {
        Occupied {
            node: NodeId([1; 32]),
            free: cores(free),
            devices: DeviceLoads::default(),
            amounts: Vec::new(),
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
        assert_eq!(way(&at, 1, &lower), Some((90, vec![1])));
        assert_eq!(way(&at, 2, &lower), Some((92, vec![1, 2])));
        assert_eq!(way(&at, 4, &lower), None, "one stays");
        let large = place(0, vec![holder(1, 0, 1, Running), holder(4, 0, 9, Running)]);
        assert_eq!(
            way(&large, 4, &lower),
            Some((9, vec![1])),
            "what is of no use to it goes on"
        );
    }

    #[test]
    fn room_that_comes_is_waited_for_and_a_queue_that_goes_first_is_respected() {
        use Stands::*;
        let lower = |h: &Holder| h.urgency > -5;
        let comes = place(0, vec![holder(1, 0, 5, Yielding), holder(1, 0, 5, Running)]);
        assert_eq!(way(&comes, 1, &lower), Some((0, vec![])));
        assert_eq!(way(&comes, 2, &lower), Some((5, vec![1])));
        let queue = |urgency| {
            place(
                0,
                vec![holder(1, 0, 5, Running), holder(1, urgency, 0, Waiting)],
            )
        };
        assert_eq!(way(&queue(0), 1, &lower), Some((5, vec![1, 0])));
        assert_eq!(way(&queue(-9), 1, &lower), None);
        let fixed = place(0, vec![holder(1, 0, 5, Fixed)]);
        assert_eq!(way(&fixed, 1, &lower), None);
    }
}
