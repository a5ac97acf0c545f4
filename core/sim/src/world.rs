//! Nodes in regions, and what people ask of them.

use std::sync::Arc;

use farlane_model::{
    BlobRef, Digest, Glob, Interpreter, LabelRule, NodeId, NodeSpec, ProjectId, PythonVersion,
    Resources, TaskSpec, Tier,
};
use farlane_plan::{Group, NodeView, Policy, Work};
use farlane_units::{ByteCount, Micros, MilliCpu, MilliGpu, Ppm, UsdMicros};

use crate::Random;

/// A kind of machine.
struct Kind {
    cores: u32,
    gib: u64,
    labels: &'static [(&'static str, &'static str)],
    /// Thousandths of the usual price.
    price: i64,
    /// Chance that an attempt is lost.
    risk: Ppm,
}

const fn kind(cores: u32, gib: u64, labels: &'static [(&str, &str)], price: i64) -> Kind {
    Kind {
        cores,
        gib,
        labels,
        price,
        risk: Ppm(500),
    }
}

/// Kinds of machines. Source: sizes that clouds offer most, and what people have at home; the last is lent
/// out cheaply and taken back now and then.
const KINDS: [Kind; 8] = [
    kind(4, 8, &[("disk", "ssd")], 1000),
    kind(8, 16, &[("disk", "ssd")], 1000),
    kind(8, 64, &[("disk", "nvme")], 1150),
    kind(16, 64, &[("disk", "nvme")], 1050),
    kind(32, 128, &[("disk", "nvme")], 1000),
    kind(64, 256, &[("disk", "nvme"), ("net", "25g")], 1000),
    kind(96, 768, &[("disk", "nvme"), ("net", "100g")], 1200),
    Kind {
        risk: Ppm(20_000),
        ..kind(16, 32, &[("disk", "ssd"), ("spot", "yes")], 350)
    },
];
/// A core for an hour on demand, micro-dollars. Source: common list prices of 2025.
const CORE_HOUR: i64 = 45_000;
/// Leases ahead of capacity that each node takes.
const CREDIT: u32 = 4;

/// How mixed what is asked for is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// One kind of task that any node runs.
    Plain,
    /// Cores, memory, regions, labels, interpreters and tiers, all different.
    Mixed,
}

/// A made-up network.
#[derive(Debug)]
pub struct World {
    random: Random,
    regions: Vec<Region>,
    /// Shared by nodes of one kind, as agents of one kind of machine report the same.
    kinds: Vec<Arc<NodeSpec>>,
    nodes: u64,
    specs: u64,
}

#[derive(Debug)]
struct Region {
    name: Arc<str>,
    /// Thousandths of the usual price.
    price: i64,
    /// g CO2e a kWh.
    carbon: u32,
    /// To the server, microseconds.
    trip: u64,
}

impl World {
    /// One with so many regions and no nodes.
    pub fn new(seed: u64, regions: usize) -> Self {
        let mut random = Random::new(seed);
        let continents = ["us", "eu", "ap", "sa", "af"];
        let region = |n: usize| Region {
            name: format!(
                "{}-{}",
                continents[n % continents.len()],
                n / continents.len()
            )
            .into(),
            price: 700 + random.below(700) as i64,
            carbon: 20 + random.below(700) as u32,
            trip: 1_000 + random.below(250_000),
        };
        let regions = (0..regions).map(region).collect();
        Self {
            random,
            regions,
            kinds: KINDS.iter().map(|kind| Arc::new(spec_of(kind))).collect(),
            nodes: 0,
            specs: 0,
        }
    }

    /// Its regions' names.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.regions.iter().map(|region| &region.name)
    }

    /// One more node, idle.
    pub fn node(&mut self) -> NodeView {
        self.nodes += 1;
        let kind = self.random.below(KINDS.len() as u64) as usize;
        let region = self.random.of(&self.regions);
        let spec = self.kinds[kind].clone();
        let mut id = [0; 32];
        id[..8].copy_from_slice(&Random::new(self.nodes).bits().to_be_bytes());
        id[8..16].copy_from_slice(&self.nodes.to_be_bytes());
        NodeView {
            id: NodeId(id),
            generation: 1,
            region: region.name.clone(),
            provider: Digest([1; 32]),
            online: true,
            free_cpus: spec.cpus,
            free_memory: spec.memory,
            free_scratch: spec.disk,
            free_gpus: MilliGpu::ZERO,
            free_gpu_part: MilliGpu::ZERO,
            free_backlog: CREDIT,
            backlog: 0,
            round_trip: Micros(region.trip),
            price: UsdMicros(CORE_HOUR * region.price / 1000 * KINDS[kind].price / 1000),
            carbon: Some(region.carbon),
            milliwatts_core: 6_000,
            risk: KINDS[kind].risk,
            spec,
        }
    }

    /// One more kind of task, `tasks` of it, of one of the first `projects`.
    pub fn group(&mut self, mix: Mix, projects: u64, tasks: u32) -> Group {
        self.specs += 1;
        let project = self.random.below(projects);
        let code = BlobRef {
            digest: Digest::of(&self.specs.to_be_bytes()),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut spec = TaskSpec::new(ProjectId::new(project, [0; 10]), code, python);
        if mix == Mix::Mixed {
            self.ask(&mut spec);
        }
        let micros = 1_000.0 * (1.0 + 1_000.0 * self.random.unit());
        Group {
            digest: Digest::of(&self.specs.to_be_bytes()),
            spec: Arc::new(spec),
            tasks,
            urgency: 0,
            since: self.specs,
            work: Work::of(Micros(micros as u64)),
            policy: *self.random.of(&[
                Policy::BALANCED,
                Policy::FAST,
                Policy::CHEAP,
                Policy::GREEN,
            ]),
            granter: true,
            not_on: Vec::new(),
            gang: 1,
        }
    }

    fn ask(&mut self, spec: &mut TaskSpec) {
        let random = &mut self.random;
        spec.resources = Resources {
            cpus: MilliCpu(*random.of(&[250, 500, 1000, 1000, 1000, 2000, 4000])),
            memory: ByteCount::mib(*random.of(&[128, 512, 1024, 1024, 2048, 8192])),
            ..spec.resources
        };
        let node = &mut spec.node;
        let globs = random
            .of(&["", "", "", "eu-*", "us-* eu-*", "ap-1"])
            .split(' ');
        node.regions = globs.filter_map(|glob| Glob::new(glob).ok()).collect();
        if random.below(4) == 0 {
            node.labels = vec![LabelRule::equals("disk", "nvme")];
        }
        node.python.minor = *random.of(&[11, 11, 12]);
        node.tier = *random.of(&[Tier::Process, Tier::Namespaces]);
    }
}

fn spec_of(kind: &Kind) -> NodeSpec {
    let interpreter = |minor| Interpreter {
        version: PythonVersion { major: 3, minor },
        full: format!("3.{minor}.2"),
    };
    NodeSpec {
        name: format!("{}-core", kind.cores),
        cpu_model: "made up".into(),
        cpus: MilliCpu(kind.cores * 1000),
        clock_mhz: 3000,
        memory: ByteCount::gib(kind.gib),
        disk: ByteCount::gib(500),
        interpreters: vec![interpreter(12), interpreter(11)],
        tier: Tier::Namespaces,
        enforced: Vec::new(),
        labels: kind
            .labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        price_usd_micros_core_hour: UsdMicros(CORE_HOUR),
        backlog_credit: CREDIT,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: Vec::new(),
        measured: None,
        resources: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_world() {
        let world = |seed| {
            let mut world = World::new(seed, 20);
            let nodes: Vec<_> = (0..50).map(|_| world.node()).collect();
            let groups: Vec<_> = (0..50).map(|_| world.group(Mix::Mixed, 5, 1)).collect();
            format!("{nodes:?} {groups:?}")
        };
        assert_eq!(world(7), world(7));
        assert_ne!(world(7), world(8));
        let plain = World::new(7, 2).group(Mix::Plain, 1, 1);
        assert!(plain.spec.node.regions.is_empty() && plain.spec.node.labels.is_empty());
    }
}
