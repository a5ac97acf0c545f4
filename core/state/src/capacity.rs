//! What running leases hold of a node, and what is free for one more.
//!
//! Owns the choice of GPUs: the same on every server, never more than there is, never one GPU for two tenants.

use std::collections::BTreeMap;

use farlane_model::{Amount, NodeSpec, TaskSpec, TenantId};
use farlane_units::{ByteCount, MilliCpu};
use serde::Serialize;

/// What one GPU can give, thousandths.
const WHOLE: u32 = 1000;

/// What a lease asks of a node.
#[derive(Clone, Copy)]
pub(crate) struct Need<'a> {
    pub task: &'a TaskSpec,
    /// Whose task it is.
    pub tenant: TenantId,
}

/// What is held of one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceLoad {
    /// Thousandths.
    pub held: u32,
    /// Whose tasks hold it; `None` while nobody does.
    pub tenant: Option<TenantId>,
}

/// What running leases hold together.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    cpus: u64,
    memory: u64,
    scratch: u64,
    /// By place in the node's list of devices; those after the last that was ever held are free.
    devices: Vec<DeviceLoad>,
    /// Named resources; without those of which nothing is held.
    amounts: BTreeMap<Box<str>, u64>,
}

impl Capacity {
    pub fn free_cpus(&self, spec: &NodeSpec) -> MilliCpu {
        MilliCpu(u64::from(spec.cpus.0).saturating_sub(self.cpus) as u32)
    }
    pub fn free_memory(&self, spec: &NodeSpec) -> ByteCount {
        ByteCount(spec.memory.0.saturating_sub(self.memory))
    }
    pub fn free_scratch(&self, spec: &NodeSpec) -> ByteCount {
        ByteCount(spec.disk.0.saturating_sub(self.scratch))
    }
    pub fn device(&self, place: usize) -> DeviceLoad {
        self.devices.get(place).copied().unwrap_or_default()
    }
    pub fn free_amount(&self, spec: &NodeSpec, name: &str) -> u32 {
        let held = self.amounts.get(name).copied().unwrap_or(0);
        u64::from(Amount::of(&spec.resources, name)).saturating_sub(held) as u32
    }

    /// The GPUs that one more would hold, as a set of places (bit 0 is the first); `None` where it does not fit now.
    pub fn fits_now(&self, spec: &NodeSpec, need: &Need) -> Option<u64> {
        let resources = &need.task.resources;
        let fits = resources.cpus <= self.free_cpus(spec)
            && resources.memory <= self.free_memory(spec)
            && resources.scratch <= self.free_scratch(spec)
            && need
                .task
                .amounts
                .iter()
                .all(|one| one.amount <= self.free_amount(spec, &one.name));
        match fits {
            true => self.devices_for(spec, need),
            false => None,
        }
    }

    /// Whole GPUs: the first that are free. A part of one: where the least is left after it, so that others stay
    /// whole; the first of those that are alike.
    fn devices_for(&self, spec: &NodeSpec, need: &Need) -> Option<u64> {
        let (count, share) = (need.task.resources.devices(), need.task.resources.share());
        if count == 0 {
            return Some(0);
        }
        let serves = |place: &usize| {
            let load = self.device(*place);
            let open = load.held == 0 || share < WHOLE && load.tenant == Some(need.tenant);
            open && load.held + share <= WHOLE && need.task.gpu.matches(&spec.devices[*place])
        };
        // A set has 64 places, and a node no more devices.
        let mut found = (0..spec.devices.len().min(64)).filter(serves);
        if share < WHOLE {
            let fullest = |place: &usize| (WHOLE - self.device(*place).held, *place);
            return found.min_by_key(fullest).map(|place| 1 << place);
        }
        let mut set = 0;
        for _ in 0..count {
            set |= 1 << found.next()?;
        }
        Some(set)
    }

    pub fn take(&mut self, need: &Need, devices: u64) {
        let resources = &need.task.resources;
        self.cpus += u64::from(resources.cpus.0);
        self.memory += resources.memory.0;
        self.scratch += resources.scratch.0;
        for one in &need.task.amounts {
            let held = self.amounts.entry(one.name.as_str().into());
            *held.or_default() += u64::from(one.amount);
        }
        for place in places(devices) {
            if self.devices.len() <= place {
                self.devices.resize(place + 1, DeviceLoad::default());
            }
            self.devices[place].held += resources.share();
            self.devices[place].tenant = Some(need.tenant);
        }
    }

    pub fn give_back(&mut self, need: &Need, devices: u64) {
        let resources = &need.task.resources;
        self.cpus = self.cpus.saturating_sub(u64::from(resources.cpus.0));
        self.memory = self.memory.saturating_sub(resources.memory.0);
        self.scratch = self.scratch.saturating_sub(resources.scratch.0);
        for one in &need.task.amounts {
            if let Some(held) = self.amounts.get_mut(one.name.as_str()) {
                *held = held.saturating_sub(u64::from(one.amount));
            }
        }
        self.amounts.retain(|_, held| *held > 0);
        for place in places(devices) {
            if let Some(load) = self.devices.get_mut(place) {
                load.held = load.held.saturating_sub(resources.share());
                if load.held == 0 {
                    load.tenant = None;
                }
            }
        }
        while self.devices.last().is_some_and(|load| load.held == 0) {
            self.devices.pop();
        }
    }

    /// GPUs and named resources that are held, for comparing replicas.
    pub fn image(&self) -> (&[DeviceLoad], &BTreeMap<Box<str>, u64>) {
        (&self.devices, &self.amounts)
    }
}

/// Whether a node with nothing on it could hold it.
pub(crate) fn could_ever(spec: &NodeSpec, need: &Need) -> bool {
    Capacity::default().fits_now(spec, need).is_some()
}

/// Places of a set, lowest first.
pub(crate) fn places(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (place < 64).then_some(place as usize)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{BlobRef, Device, DeviceKind, Digest, ProjectId, PythonVersion, Tier};
    use farlane_units::{MilliGpu, UsdMicros};

    fn gpu(model: &str, gib: u64) -> Device {
        Device {
            kind: DeviceKind::Gpu { cuda_cores: 1 },
            model: model.into(),
            memory: ByteCount::gib(gib),
            tdp_watts: 0,
            id: String::new(),
            measured: None,
        }
    }

    fn spec() -> NodeSpec {
        NodeSpec {
            name: "n".into(),
            cpu_model: "x".into(),
            cpus: MilliCpu(64_000),
            clock_mhz: 1,
            memory: ByteCount::gib(64),
            disk: ByteCount::gib(64),
            interpreters: [].into(),
            tier: Tier::Namespaces,
            enforced: [].into(),
            labels: [].into(),
            price_usd_micros_core_hour: UsdMicros(0),
            backlog_credit: 0,
            os: "linux".into(),
            arch: "x86_64".into(),
            agent: "0".into(),
            devices: vec![
                gpu("T4", 15),
                gpu("A100", 40),
                gpu("A100", 80),
                gpu("A100", 40),
            ],
            measured: None,
            resources: vec![Amount::new("license", 2).unwrap()],
        }
    }

    fn task(gpus: u32, models: &[&str], gib: Option<u64>, licenses: u32) -> TaskSpec {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut task = TaskSpec::new(ProjectId::new(0, [0; 10]), code, python);
        task.resources.gpus = MilliGpu(gpus);
        task.gpu.models = models.iter().map(|m| (*m).to_owned()).collect();
        task.gpu.memory = gib.map(ByteCount::gib);
        task.amounts = Amount::new("license", licenses).into_iter().collect();
        task
    }

    fn of(task: &TaskSpec, tenant: u8) -> Need<'_> {
        Need {
            task,
            tenant: TenantId([tenant; 32]),
        }
    }

    #[test]
    fn whole_gpus_are_the_first_free_that_match() {
        let (spec, mut held) = (spec(), Capacity::default());
        let two = task(2000, &["A100"], Some(40), 0);
        assert_eq!(held.fits_now(&spec, &of(&two, 1)), Some(0b0110));
        held.take(&of(&two, 1), 0b0110);
        assert_eq!(held.fits_now(&spec, &of(&two, 1)), None, "one is left");
        let one = task(1000, &[], None, 0);
        assert_eq!(held.fits_now(&spec, &of(&one, 2)), Some(0b0001));
        let large = task(1000, &[], Some(80), 0);
        assert_eq!(held.fits_now(&spec, &of(&large, 1)), None, "it is taken");
        held.give_back(&of(&two, 1), 0b0110);
        assert_eq!(held.fits_now(&spec, &of(&large, 1)), Some(0b0100));
        assert_eq!(held.image(), (&[][..], &BTreeMap::new()));
    }

    #[test]
    fn parts_fill_one_gpu_of_one_tenant() {
        let (spec, mut held) = (spec(), Capacity::default());
        let (half, fifth) = (task(500, &["A100"], None, 0), task(200, &[], None, 0));
        assert_eq!(held.fits_now(&spec, &of(&half, 1)), Some(0b0010));
        held.take(&of(&half, 1), 0b0010);
        // The same tenant's next goes beside it, another's to one that is free.
        assert_eq!(held.fits_now(&spec, &of(&fifth, 1)), Some(0b0010));
        assert_eq!(held.fits_now(&spec, &of(&fifth, 2)), Some(0b0001));
        held.take(&of(&fifth, 1), 0b0010);
        assert_eq!(
            held.fits_now(&spec, &of(&half, 1)),
            Some(0b0100),
            "no room beside it"
        );
        let whole = task(1000, &["A100"], Some(40), 0);
        assert_eq!(
            held.fits_now(&spec, &of(&whole, 1)),
            Some(0b0100),
            "not the one in parts"
        );
        held.give_back(&of(&half, 1), 0b0010);
        held.give_back(&of(&fifth, 1), 0b0010);
        assert_eq!(
            held.fits_now(&spec, &of(&half, 2)),
            Some(0b0010),
            "free for anybody"
        );
    }

    #[test]
    fn named_resources_are_counted() {
        let (spec, mut held) = (spec(), Capacity::default());
        let (one, two, three) = (
            task(0, &[], None, 1),
            task(0, &[], None, 2),
            task(0, &[], None, 3),
        );
        assert!(could_ever(&spec, &of(&two, 1)) && !could_ever(&spec, &of(&three, 1)));
        held.take(&of(&one, 1), 0);
        assert_eq!(held.fits_now(&spec, &of(&two, 1)), None);
        assert_eq!(held.fits_now(&spec, &of(&one, 1)), Some(0));
        held.take(&of(&one, 1), 0);
        assert_eq!(held.free_amount(&spec, "license"), 0);
        held.give_back(&of(&one, 1), 0);
        assert_eq!(held.free_amount(&spec, "license"), 1);
    }

    #[test]
    fn a_set_names_its_places() {
        assert_eq!(places(0).count(), 0);
        assert_eq!(places(0b1010).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(places(u64::MAX).last(), Some(63));
    }
}
