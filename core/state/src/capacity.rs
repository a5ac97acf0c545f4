//! What running leases hold of a node, and what is free for one more.
//!
//! Owns the sums. Leaves the choice of GPUs to `DeviceLoads`, so that the planner's is the same.

use std::collections::BTreeMap;

use farlane_model::{Amount, DeviceLoad, DeviceLoads, NodeSpec, TaskSpec, TenantId};
use farlane_units::{ByteCount, MilliCpu};

/// What a lease asks of a node.
#[derive(Clone, Copy)]
pub(crate) struct Need<'a> {
    pub task: &'a TaskSpec,
    /// Whose task it is.
    pub tenant: TenantId,
}

/// What running leases hold together.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    cpus: u64,
    memory: u64,
    scratch: u64,
    devices: DeviceLoads,
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
    pub fn devices(&self) -> &DeviceLoads {
        &self.devices
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
            true => self.devices.choose(&spec.devices, need.task, &need.tenant),
            false => None,
        }
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
        self.devices.take(devices, resources.share(), need.tenant);
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
        self.devices.give_back(devices, resources.share());
    }

    /// GPUs and named resources that are held, for comparing replicas.
    pub fn image(&self) -> (&[DeviceLoad], &BTreeMap<Box<str>, u64>) {
        (self.devices.as_slice(), &self.amounts)
    }
}

/// Whether a node with nothing on it could hold it.
pub(crate) fn could_ever(spec: &NodeSpec, need: &Need) -> bool {
    Capacity::default().fits_now(spec, need).is_some()
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
}
