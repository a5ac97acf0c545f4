//! What is held of a node's accelerators, and which of them one more task gets.
//!
//! Owns the choice, which the planner and the state machine make alike: never more than there is, never one GPU for
//! two tenants. Leaves who holds what, and for how long, to them.

use farlane_units::MilliGpu;
use serde::Serialize;

use crate::{Device, MAX_DEVICES, TaskSpec, TenantId};

/// What one GPU can give, thousandths.
const WHOLE: u32 = 1000;

/// What is held of one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceLoad {
    /// Thousandths.
    pub held: u32,
    /// Whose tasks hold it; `None` while nobody does.
    pub tenant: Option<TenantId>,
}

/// What is held of all of a node's.
///
/// *Shape*: by place in the node's list of devices; those after the last that is held are left out, so that a node
/// without load, or without any, has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceLoads(Vec<DeviceLoad>);

impl DeviceLoads {
    /// Of the device at this place.
    pub fn at(&self, place: usize) -> DeviceLoad {
        self.0.get(place).copied().unwrap_or_default()
    }

    /// Of those up to the last that is held.
    pub fn as_slice(&self) -> &[DeviceLoad] {
        &self.0
    }

    /// What nobody holds of so many devices, and the most that is left of one that is held in part: no task gets more,
    /// and not every one as much.
    pub fn free(&self, devices: usize) -> (MilliGpu, MilliGpu) {
        let (mut free, mut part) = (0, 0);
        for place in 0..devices {
            match self.at(place).held {
                0 => free += WHOLE,
                held => part = part.max(WHOLE.saturating_sub(held)),
            }
        }
        (MilliGpu(free), MilliGpu(part))
    }

    /// The GPUs of these that one more task would hold, as a set of places (bit 0 is the first); `None` where it does not
    /// fit now. Whole ones: the first that are free. A part of one: where the least is left after it, so that others
    /// stay whole; the first of those that are alike.
    pub fn choose(&self, devices: &[Device], task: &TaskSpec, tenant: &TenantId) -> Option<u64> {
        let (count, share) = (task.resources.devices(), task.resources.share());
        if count == 0 {
            return Some(0);
        }
        let mut found = self.serving(devices, task, tenant);
        if share < WHOLE {
            let fullest = |place: &usize| (WHOLE - self.at(*place).held, *place);
            return found.min_by_key(fullest).map(|place| 1 << place);
        }
        let mut set = 0;
        for _ in 0..count {
            set |= 1 << found.next()?;
        }
        Some(set)
    }

    /// How many such tasks these GPUs take at once; `None` where they ask for none.
    pub fn slots(&self, devices: &[Device], task: &TaskSpec, tenant: &TenantId) -> Option<u32> {
        let (count, share) = (task.resources.devices(), task.resources.share());
        let serving = self.serving(devices, task, tenant);
        match share {
            0 => None,
            WHOLE => Some(serving.count() as u32 / count),
            _ => Some(serving.map(|at| (WHOLE - self.at(at).held) / share).sum()),
        }
    }

    /// Those that have what the task asks of each.
    fn serving<'a>(
        &'a self,
        devices: &'a [Device],
        task: &'a TaskSpec,
        tenant: &'a TenantId,
    ) -> impl Iterator<Item = usize> + 'a {
        let share = task.resources.share();
        let serves = move |place: &usize| {
            let load = self.at(*place);
            let open = load.held == 0 || share < WHOLE && load.tenant.as_ref() == Some(tenant);
            open && load.held + share <= WHOLE && task.gpu.matches(&devices[*place])
        };
        (0..devices.len().min(MAX_DEVICES)).filter(serves)
    }

    /// A task of this tenant takes so many thousandths of each of a set.
    pub fn take(&mut self, set: u64, share: u32, tenant: TenantId) {
        for place in places(set) {
            if self.0.len() <= place {
                self.0.resize(place + 1, DeviceLoad::default());
            }
            self.0[place].held += share;
            self.0[place].tenant = Some(tenant);
        }
    }

    /// One gives them back.
    pub fn give_back(&mut self, set: u64, share: u32) {
        for place in places(set) {
            if let Some(load) = self.0.get_mut(place) {
                load.held = load.held.saturating_sub(share);
                if load.held == 0 {
                    load.tenant = None;
                }
            }
        }
        while self.0.last().is_some_and(|load| load.held == 0) {
            self.0.pop();
        }
    }
}

/// Places of a set, lowest first. *Shape*: a set has 64, and a node no more devices.
pub fn places(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (place < 64).then_some(place as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_its_places() {
        assert_eq!(places(0).count(), 0);
        assert_eq!(places(0b1010).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(places(u64::MAX).last(), Some(63));
    }
}
