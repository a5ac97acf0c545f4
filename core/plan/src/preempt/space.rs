//! What of a node is free, as more and more of it makes way.
//!
//! Owns whether a task fits then, by the rules of the state machine: accelerators by model and tenant, named resources by
//! name. Leaves who may be asked to `preempt`.

use farlane_model::{Amount, Device, DeviceLoads, Resources, places};

use super::Occupied;
use crate::devices::Need;
use crate::fleet::Fleet;

/// The room of one node.
#[derive(Clone)]
pub(super) struct Space<'a> {
    place: &'a Occupied,
    spec: &'a [Device],
    free: Resources,
    devices: DeviceLoads,
    amounts: Vec<Amount>,
}

impl<'a> Space<'a> {
    pub fn of(fleet: &'a Fleet, place: &'a Occupied) -> Self {
        let spec = fleet.spec(&place.node);
        Self {
            place,
            spec: spec.map_or(&[], |spec| &spec.devices),
            free: place.free,
            devices: place.devices.clone(),
            amounts: place.amounts.clone(),
        }
    }

    /// One of its holders ends.
    pub fn give(&mut self, holder: usize) {
        let holder = &self.place.holders[holder];
        let (free, need) = (&mut self.free, &holder.need);
        free.cpus = free.cpus.saturating_add(need.cpus);
        free.memory = free.memory.saturating_add(need.memory);
        free.scratch = free.scratch.saturating_add(need.scratch);
        self.devices.give_back(holder.devices, need.share());
        for one in &mut self.amounts {
            let more = Amount::of(&holder.amounts, &one.name);
            one.amount = one.amount.saturating_add(more);
        }
    }

    /// How many such tasks run at once in it, as far as `most`. A node may claim room for thousands of millions.
    pub fn slots(&self, need: Need, most: u32) -> u32 {
        let of = |free: u64, need: u64| free.checked_div(need).unwrap_or(u64::MAX);
        let (free, asked) = (&self.free, &need.task.resources);
        let each = [
            of(free.cpus.0.into(), asked.cpus.0.into()),
            of(free.memory.0, asked.memory.0),
            of(free.scratch.0, asked.scratch.0),
        ];
        let devices = self.devices_for(need);
        let named = need.task.amounts.iter().map(|one| {
            let free = Amount::of(&self.amounts, &one.name);
            of(free.into(), one.amount.into())
        });
        let all = each.into_iter().chain(devices.map(u64::from)).chain(named);
        let least = all.fold(u64::from(most), u64::min);
        u32::try_from(least).unwrap_or(most)
    }

    pub fn fits(&self, need: Need) -> bool {
        self.slots(need, 1) > 0
    }

    /// Whether the end of one of its holders gives anything that the task lacks here.
    pub fn helps(&self, holder: usize, need: Need) -> bool {
        let (holder, asked) = (&self.place.holders[holder], &need.task.resources);
        let lacks = |name: &str, amount| amount > Amount::of(&self.amounts, name);
        let mut named = need.task.amounts.iter();
        let serves = |place: usize| {
            let device = self.spec.get(place);
            device.is_some_and(|device| need.task.gpu.matches(device))
        };
        asked.cpus > self.free.cpus
            || asked.memory > self.free.memory && holder.need.memory.0 > 0
            || asked.scratch > self.free.scratch && holder.need.scratch.0 > 0
            || self.devices_for(need) == Some(0) && places(holder.devices).any(serves)
            || named.any(|one| {
                lacks(&one.name, one.amount) && Amount::of(&holder.amounts, &one.name) > 0
            })
    }

    /// How many such tasks its accelerators take; `None` where they ask for none.
    fn devices_for(&self, need: Need) -> Option<u32> {
        self.devices.slots(self.spec, need.task, need.tenant)
    }

    /// Of those that are chosen, the least first, those without whom it is not enough: another kind of GPU makes no
    /// room, and what is large enough alone none for others.
    pub fn fewest(&self, mut chosen: Vec<usize>, enough: impl Fn(&Self) -> bool) -> Vec<usize> {
        for at in (0..chosen.len()).rev() {
            let mut without = self.clone();
            let others = chosen.iter().filter(|holder| **holder != chosen[at]);
            others.for_each(|holder| without.give(*holder));
            if enough(&without) {
                chosen.remove(at);
            }
        }
        chosen
    }

    /// What would have to be done again.
    pub fn undone(&self, chosen: &[usize]) -> u64 {
        let each = chosen.iter().map(|at| self.place.holders[*at].undone());
        each.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preempt::tests::task;
    use farlane_model::{NodeId, TenantId};
    use farlane_units::{ByteCount, MilliCpu, MilliGpu};

    #[test]
    fn room_is_counted_at_once_however_much_a_node_claims() {
        let room = |cpus, memory| Resources {
            cpus: MilliCpu(cpus),
            memory: ByteCount(memory),
            scratch: ByteCount(u64::MAX),
            gpus: MilliGpu::ZERO,
        };
        let slots = |free, resources: Resources, most| {
            let task = task(resources);
            let place = Occupied {
                node: NodeId([1; 32]),
                free,
                devices: DeviceLoads::default(),
                amounts: Vec::new(),
                holders: Vec::new(),
            };
            let tenant = &TenantId([1; 32]);
            let need = Need {
                task: &task,
                tenant,
            };
            Space::of(&Fleet::new(), &place).slots(need, most)
        };
        let need = Resources {
            scratch: ByteCount::ZERO,
            ..room(300, 7)
        };
        assert_eq!(slots(room(1000, 100), need, 9), 3);
        assert_eq!(slots(room(1000, 20), need, 9), 2);
        assert_eq!(slots(room(1000, 6), need, 9), 0);
        assert_eq!(slots(room(1000, 100), need, 2), 2);
        let small = Resources {
            cpus: MilliCpu(1),
            memory: ByteCount::ZERO,
            ..need
        };
        assert_eq!(slots(room(u32::MAX, 0), small, u32::MAX), u32::MAX);
        let gpus = Resources {
            gpus: MilliGpu(500),
            ..small
        };
        assert_eq!(slots(room(u32::MAX, 0), gpus, u32::MAX), 0);
    }
}
