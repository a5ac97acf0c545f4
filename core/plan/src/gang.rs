//! Gangs: how many of one run at once in each region, now, and when nothing else runs.
//!
//! Owns whether a gang can ever run, and what is said of one that waits. Leaves where its members lie to the search.

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::{
    Amount, DeviceLoads, Digest, GangRegions, NodeId, NodeSpec, TaskSpec, TenantId,
};

use crate::devices::{Devices, Need};
use crate::fleet::Fleet;
use crate::tree::Free;
use crate::view::Group;

impl Group {
    /// Whether its tasks run at once, also where one is all that is left of them.
    pub fn is_gang(&self) -> bool {
        self.gang > 1 || self.spec.gang.is_some()
    }

    /// Where its members may lie towards each other.
    pub(crate) fn gang_regions(&self) -> GangRegions {
        self.spec.gang.map(|gang| gang.regions).unwrap_or_default()
    }
}

/// A node's room where nothing runs on it.
fn empty(node: &Arc<NodeSpec>) -> Free {
    Free {
        cpus: node.cpus,
        memory: node.memory,
        scratch: node.disk,
        devices: Devices::of(node, &DeviceLoads::default()),
        ..Free::default()
    }
}

/// How many such tasks run at once on a node where nothing else does, as far as `most`.
pub(crate) fn empty_slots(node: &Arc<NodeSpec>, task: &TaskSpec, most: u32) -> u32 {
    let amounts = task.amounts.iter();
    let each = amounts.map(|one| Amount::of(&node.resources, &one.name) / one.amount.max(1));
    // Where nobody holds anything all tenants are alike.
    let tenant = &TenantId([0; 32]);
    slots(empty(node), Need { task, tenant }, most).min(each.min().unwrap_or(most))
}

/// How many such tasks run at once in that room, as far as `most`.
pub(crate) fn slots(mut free: Free, need: Need, most: u32) -> u32 {
    let mut slots = 0;
    while slots < most && free.runs(need) {
        free.take(need);
        slots += 1;
    }
    slots
}

/// How many tasks of a gang run at once in a region, or anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    now: u32,
    /// When nothing else runs on what is online.
    online: u32,
    /// The same, with what is offline.
    ever: u32,
}

impl Fleet {
    /// Whether so many tasks could ever run at once without these nodes, offline ones counted.
    ///
    /// *Cost*: each class once.
    pub fn feasible_gang(
        &mut self,
        digest: &Digest,
        spec: &TaskSpec,
        but: &[NodeId],
        size: u32,
    ) -> bool {
        let regions = spec.gang.map(|gang| gang.regions).unwrap_or_default();
        let mut rooms: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for at in self.fitting(digest, spec).to_vec() {
            let class = self.class(at);
            let each = empty_slots(&class.spec, spec, size);
            let room = rooms.entry(class.region().clone()).or_default();
            *room += u64::from(each) * class.open(spec, but) as u64;
        }
        match regions {
            GangRegions::One => rooms.into_values().any(|room| room >= u64::from(size)),
            GangRegions::Any => rooms.into_values().sum::<u64>() >= u64::from(size),
        }
    }
}

/// Rooms by region; under no name that of all together, where members may lie apart.
fn rooms(fleet: &Fleet, group: &Group) -> BTreeMap<Arc<str>, Room> {
    let (spec, most) = (&group.spec, group.gang.max(1));
    let mut rooms: BTreeMap<Arc<str>, Room> = BTreeMap::new();
    for class in fleet.classes().filter(|c| c.site().fits(spec)) {
        let name = match group.gang_regions() {
            GangRegions::One => class.region().clone(),
            GangRegions::Any => Arc::from(""),
        };
        let room = rooms.entry(name).or_default();
        let each = empty_slots(&class.spec, spec, most);
        let open = (0..class.len()).filter(|p| group.is_open(&class.id(*p)));
        for place in open {
            room.ever = room.ever.saturating_add(each);
            if class.is_online() {
                room.online = room.online.saturating_add(each);
                room.now =
                    room.now
                        .saturating_add(slots(class.free(place).clone(), group.need(), most));
            }
        }
    }
    rooms
}

/// What a gang waits for, or why it never runs; `None` where no node fits even one of it.
pub(crate) fn summary(fleet: &Fleet, group: &Group) -> Option<String> {
    let size = group.gang.max(1);
    let rooms = rooms(fleet, group);
    let by_room = |(name, room): &(&Arc<str>, &Room)| {
        (
            room.now,
            room.online,
            room.ever,
            std::cmp::Reverse(name.len()),
        )
    };
    let (name, room) = rooms.iter().max_by_key(by_room)?;
    let place = match &**name {
        "" => "on all nodes that fit".to_owned(),
        region => format!("in {region}"),
    };
    let ever = rooms.values().max_by_key(|room| room.ever)?;
    let online = rooms.values().max_by_key(|room| room.online)?;
    Some(if room.now >= size {
        format!("a gang of {size} fits {place} and has room")
    } else if online.online >= size {
        format!(
            "a gang of {size} waits for room: {} of it would run {place} now",
            room.now
        )
    } else if ever.ever >= size {
        let known = online.online;
        format!(
            "a gang of {size} waits for nodes that are offline: those online have room for {known}"
        )
    } else {
        let known = ever.ever;
        format!(
            "a gang of {size} can never run at once: the nodes that fit have room for {known} together, even empty"
        )
    })
}
