//! Which node of a class has room: the class's nodes as leaves of a tree whose inner nodes hold the most
//! that is free below them.
//!
//! ```text
//!                 ┌ most free: 8 cores, 32 GiB ┐            first with room for 8 cores, 1 GiB:
//!        ┌ 4 cores, 32 GiB ┐          ┌ 8 cores, 16 GiB ┐   left cannot, right can
//!     4, 2 GiB        1, 32 GiB    8, 16 GiB          full
//! ```

use farlane_units::{ByteCount, MilliCpu, MilliGpu};

use crate::devices::{Devices, Need};

/// What of a node is free, and what waits on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Free {
    pub cpus: MilliCpu,
    pub memory: ByteCount,
    pub scratch: ByteCount,
    /// Its accelerators; `None` where it has none.
    pub devices: Option<Devices>,
    /// Leases it still takes ahead of capacity.
    pub credit: u32,
    /// Leases it has taken ahead of capacity.
    pub backlog: u32,
}

impl Free {
    /// Whether a task runs here at once. What waits here goes first: a later one takes no room before it.
    pub fn runs(&self, need: Need) -> bool {
        self.holds(need) && self.choose(need).is_some()
    }

    /// Whether it would, were it not for accelerators.
    fn holds(&self, need: Need) -> bool {
        let need = &need.task.resources;
        self.backlog == 0
            && need.cpus <= self.cpus
            && need.memory <= self.memory
            && need.scratch <= self.scratch
    }

    /// The accelerators that it would get, none where it asks for none; `None` where it cannot have them.
    fn choose(&self, need: Need) -> Option<u64> {
        match &self.devices {
            _ if need.gpus().0 == 0 => Some(0),
            devices => devices.as_ref()?.choose(need),
        }
    }

    /// How many would be ahead of one more; `None` where there is no room for it at all.
    pub fn ahead(&self, need: Need) -> Option<u32> {
        if self.runs(need) {
            Some(0)
        } else if self.credit > 0 {
            Some(self.backlog.saturating_add(1))
        } else {
            None
        }
    }

    /// Bound on the tasks taken before it is full: none needs less than a thousandth of a core.
    pub fn room(&self) -> u64 {
        u64::from(self.cpus.0) + u64::from(self.credit)
    }

    /// Takes the room of one task that has been asked for; the accelerators that it gets, as a set of places.
    pub fn take(&mut self, need: Need) -> u64 {
        if let Some(set) = self.choose(need).filter(|_| self.holds(need)) {
            let resources = &need.task.resources;
            self.cpus = self.cpus.saturating_sub(resources.cpus);
            self.memory = self.memory.saturating_sub(resources.memory);
            self.scratch = self.scratch.saturating_sub(resources.scratch);
            if let Some(devices) = self.devices.as_mut().filter(|_| set != 0) {
                devices.take(set, need);
            }
            set
        } else {
            self.wait();
            0
        }
    }

    /// Takes the credit of one task that waits here.
    pub fn wait(&mut self) {
        self.credit = self.credit.saturating_sub(1);
        self.backlog = self.backlog.saturating_add(1);
    }
}

/// The best below one node of the tree.
#[derive(Debug, Clone, Copy)]
struct Most {
    cpus: MilliCpu,
    memory: ByteCount,
    scratch: ByteCount,
    /// Of accelerators no more than a bound: whose they are, and what they can, is looked at node by node.
    gpus: MilliGpu,
    gpu_part: MilliGpu,
    /// Shortest backlog where credit is left.
    backlog: u32,
}

/// No node below has any credit.
const NO_CREDIT: u32 = u32::MAX;

impl Most {
    const NOTHING: Self = Self {
        cpus: MilliCpu::ZERO,
        memory: ByteCount::ZERO,
        scratch: ByteCount::ZERO,
        gpus: MilliGpu::ZERO,
        gpu_part: MilliGpu::ZERO,
        backlog: NO_CREDIT,
    };

    fn of(free: &Free) -> Self {
        let backlog = match free.credit {
            0 => NO_CREDIT,
            _ => free.backlog,
        };
        let devices = free.devices.as_ref();
        let (gpus, gpu_part) = devices.map(Devices::most).unwrap_or_default();
        match free.backlog {
            0 => Self {
                cpus: free.cpus,
                memory: free.memory,
                scratch: free.scratch,
                gpus,
                gpu_part,
                backlog,
            },
            _ => Self {
                backlog,
                ..Self::NOTHING
            },
        }
    }

    fn both(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.max(other.cpus),
            memory: self.memory.max(other.memory),
            scratch: self.scratch.max(other.scratch),
            gpus: self.gpus.max(other.gpus),
            gpu_part: self.gpu_part.max(other.gpu_part),
            backlog: self.backlog.min(other.backlog),
        }
    }

    fn may_run(&self, need: Need) -> bool {
        let need = &need.task.resources;
        // A core that is needed is more than none: an empty leaf runs nothing.
        need.cpus <= self.cpus
            && need.memory <= self.memory
            && need.scratch <= self.scratch
            && need.gpus <= self.gpus.max(self.gpu_part)
    }
}

/// The nodes of a class, by their places in it.
#[derive(Debug)]
pub(crate) struct Tree {
    free: Vec<Free>,
    /// The root at 1, the children of `i` at `2i` and `2i + 1`; leaves from `free` padded to a power of two.
    most: Vec<Most>,
}

impl Tree {
    /// Over these nodes.
    pub fn new(free: Vec<Free>) -> Self {
        let mut tree = Self {
            free,
            most: Vec::new(),
        };
        tree.build();
        tree
    }

    /// Makes the inner nodes agree with the leaves.
    pub fn build(&mut self) {
        let width = self.free.len().next_power_of_two();
        let mut most = vec![Most::NOTHING; 2 * width];
        for (leaf, free) in most[width..].iter_mut().zip(&self.free) {
            *leaf = Most::of(free);
        }
        for at in (1..width).rev() {
            most[at] = most[2 * at].both(most[2 * at + 1]);
        }
        self.most = most;
    }

    /// One more; the tree is to be built before it is asked.
    pub fn insert(&mut self, place: usize, free: Free) {
        self.free.insert(place, free);
    }

    /// One less; likewise.
    pub fn remove(&mut self, place: usize) -> Free {
        self.free.remove(place)
    }

    /// A change to a tree that is to be built.
    pub fn note(&mut self, place: usize, free: Free) {
        self.free[place] = free;
    }

    pub fn free(&self, place: usize) -> &Free {
        &self.free[place]
    }

    /// *Cost*: the tree's height.
    pub fn set(&mut self, place: usize, free: Free) {
        let mut at = self.most.len() / 2 + place;
        self.most[at] = Most::of(&free);
        self.free[place] = free;
        while at > 1 {
            at /= 2;
            self.most[at] = self.most[2 * at].both(self.most[2 * at + 1]);
        }
    }

    /// The first place at or after `from` that runs a task at once.
    ///
    /// *Cost*: the tree's height where one kind of resource is short; more where nodes lack different ones.
    pub fn first_with_room(&self, need: Need, from: usize) -> Option<usize> {
        self.find(from, |most| most.may_run(need), |free| free.runs(need))
    }

    /// The place at or after `from` with the shortest backlog among those with credit, the first of equals.
    pub fn shortest_backlog(&self, from: usize) -> Option<usize> {
        let shortest = self.shortest(1, 0, self.most.len() / 2, from);
        if shortest == NO_CREDIT {
            return None;
        }
        self.find(
            from,
            |most| most.backlog <= shortest,
            |free| free.credit > 0 && free.backlog == shortest,
        )
    }

    fn shortest(&self, at: usize, begin: usize, width: usize, from: usize) -> u32 {
        if begin + width <= from {
            NO_CREDIT
        } else if begin >= from {
            self.most[at].backlog
        } else {
            let half = width / 2;
            let left = self.shortest(2 * at, begin, half, from);
            left.min(self.shortest(2 * at + 1, begin + half, half, from))
        }
    }

    fn find(
        &self,
        from: usize,
        may: impl Fn(&Most) -> bool,
        is: impl Fn(&Free) -> bool,
    ) -> Option<usize> {
        let width = self.most.len() / 2;
        if from >= self.free.len() {
            return None;
        }
        let mut at = width + from;
        loop {
            if may(&self.most[at]) {
                if at >= width {
                    let place = at - width;
                    if place < self.free.len() && is(&self.free[place]) {
                        return Some(place);
                    }
                } else {
                    at *= 2;
                    continue;
                }
            }
            // On to what lies right of it: up while it is a right child.
            while at & 1 == 1 {
                at /= 2;
            }
            if at == 0 {
                return None;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use farlane_model::*;
    use farlane_units::UsdMicros;
    use proptest::prelude::*;

    /// So many accelerators, one of them an A100.
    fn machine(count: usize) -> Arc<NodeSpec> {
        let device = |model: &str| Device {
            kind: DeviceKind::Gpu { cuda_cores: 1 },
            model: model.to_owned(),
            memory: ByteCount::gib(15),
            tdp_watts: 0,
            id: String::new(),
            measured: None,
        };
        Arc::new(NodeSpec {
            name: "n".into(),
            cpu_model: "x".into(),
            cpus: MilliCpu(1),
            clock_mhz: 1,
            memory: ByteCount(0),
            disk: ByteCount(0),
            interpreters: [].into(),
            tier: Tier::Namespaces,
            enforced: [].into(),
            labels: [].into(),
            price_usd_micros_core_hour: UsdMicros(0),
            backlog_credit: 0,
            os: "linux".into(),
            arch: "x86_64".into(),
            agent: "0".into(),
            devices: ["A100", "T4"].map(device).into_iter().take(count).collect(),
            measured: None,
            resources: Vec::new(),
        })
    }

    /// What two tenants hold.
    fn loads(held: u32) -> DeviceLoads {
        let mut loads = DeviceLoads::default();
        loads.take(0b01, 250 * (held % 5), TenantId([1; 32]));
        loads.take(0b10, 250 * (held % 3), TenantId([2; 32]));
        loads
    }

    fn free(cpus: u32, memory: u64, credit: u32, backlog: u32) -> Free {
        Free {
            cpus: MilliCpu(cpus),
            memory: ByteCount(memory),
            scratch: ByteCount(1),
            devices: Devices::of(&machine(cpus as usize % 3), &loads(memory as u32)),
            credit,
            backlog,
        }
    }

    fn task(cpus: u32, memory: u64, gpus: u32, model: usize) -> TaskSpec {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut task = TaskSpec::new(ProjectId::new(0, [0; 10]), code, python);
        task.resources = Resources {
            cpus: MilliCpu(cpus),
            memory: ByteCount(memory),
            scratch: ByteCount(0),
            gpus: MilliGpu(gpus),
        };
        task.gpu.models = MODELS[model].iter().map(|m| (*m).to_owned()).collect();
        task
    }

    const MODELS: [&[&str]; 3] = [&[], &["A100"], &["T4"]];

    prop_compose! {
        fn any_free()(cpus in 0u32..5, memory in 0u64..15, credit in 0u32..3, backlog in 0u32..3) -> Free {
            free(cpus, memory, credit, backlog)
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_walk_over_all_finds(
            nodes in prop::collection::vec(any_free(), 0..20),
            changes in prop::collection::vec((0usize..20, any_free()), 0..10),
            cpus in 1u32..5, memory in 0u64..15, (gpus, model, tenant) in (0u32..8, 0usize..3, 1u8..3),
            from in 0usize..22,
        ) {
            let mut tree = Tree::new(nodes.clone());
            let mut nodes = nodes;
            for (place, free) in changes {
                if place < nodes.len() {
                    nodes[place] = free.clone();
                    tree.set(place, free);
                }
            }
            let (task, tenant) = (task(cpus, memory, gpus * 250, model), TenantId([tenant; 32]));
            let need = Need { task: &task, tenant: &tenant };
            let runs = nodes.iter().enumerate().skip(from).find(|(_, free)| free.runs(need));
            prop_assert_eq!(tree.first_with_room(need, from), runs.map(|(place, _)| place));
            let credit = nodes.iter().enumerate().skip(from).filter(|(_, free)| free.credit > 0);
            let shortest = credit.min_by_key(|(place, free)| (free.backlog, *place));
            prop_assert_eq!(tree.shortest_backlog(from), shortest.map(|(place, _)| place));
        }
    }
}
