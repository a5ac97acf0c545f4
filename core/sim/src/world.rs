//! Nodes in regions, and what people ask of them.

use std::sync::Arc;

use farlane_model::{
    BlobRef, Digest, Glob, LabelRule, NodeSpec, ProjectId, PythonVersion, Resources, TaskSpec, Tier,
};
use farlane_plan::{Group, NodeView, Policy, Work};
use farlane_units::{ByteCount, Micros, MilliCpu, Millis, UsdMicros};

use crate::found::TENANT;
use crate::machine::{Grid, Kind, Machine, Machines, idle, spec_of};
use crate::{Random, Scenario};

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
    kinds: &'static [Kind],
    /// Shared by nodes of one kind, as agents of one kind of machine report the same.
    specs_of: Vec<Arc<NodeSpec>>,
    nodes: u64,
    specs: u64,
}

#[derive(Debug)]
struct Region {
    name: Arc<str>,
    /// Thousandths of the usual price.
    price: i64,
    grid: Grid,
    /// To the server, microseconds.
    trip: u64,
}

impl World {
    /// One with so many regions and no nodes.
    pub fn new(seed: u64, regions: usize) -> Self {
        Self::made(seed, regions, Machines::Mixed, (1.0, 251.0), 0.0)
    }

    /// The one that a scenario names, without nodes.
    pub fn of(scenario: &Scenario) -> Self {
        let [nearest, farthest] = scenario.round_trip_ms;
        Self::made(
            scenario.seed,
            scenario.regions,
            scenario.machines,
            (nearest, farthest),
            scenario.carbon_swing,
        )
    }

    fn made(
        seed: u64,
        regions: usize,
        machines: Machines,
        (nearest, farthest): (f64, f64),
        swing: f64,
    ) -> Self {
        let mut random = Random::new(seed);
        // From the nearest to the farthest, microseconds.
        let spread = ((farthest - nearest) * 1000.0).max(1.0) as u64;
        let continents = ["us", "eu", "ap", "sa", "af"];
        let region = |n: usize| Region {
            name: format!(
                "{}-{}",
                continents[n % continents.len()],
                n / continents.len()
            )
            .into(),
            price: 700 + random.below(700) as i64,
            grid: Grid {
                grams: 20 + random.below(700) as u32,
                swing,
                // Its hour when the history begins: regions lie around the world.
                turn: n as f64 / regions as f64,
            },
            trip: (nearest * 1000.0) as u64 + random.below(spread),
        };
        let regions = (0..regions).map(region).collect();
        Self {
            random,
            regions,
            kinds: machines.kinds(),
            specs_of: machines
                .kinds()
                .iter()
                .map(|k| Arc::new(spec_of(k)))
                .collect(),
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
        self.machine().view
    }

    /// One more node, idle, with its grid.
    pub(crate) fn machine(&mut self) -> Machine {
        self.nodes += 1;
        let at = self.random.below(self.kinds.len() as u64) as usize;
        let kind = &self.kinds[at];
        let region = self.random.of(&self.regions);
        let spec = self.specs_of[at].clone();
        let view = NodeView {
            provider: Digest([1; 32]),
            round_trip: Micros(region.trip),
            price: UsdMicros(kind.core_hour() * region.price / 1000),
            carbon: Some(region.grid.at(0)),
            milliwatts_core: kind.milliwatts_core(),
            risk: kind.risk,
            ..idle(self.nodes, region.name.clone(), spec)
        };
        Machine {
            view,
            grid: region.grid,
            course: None,
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
            tenant: TENANT,
            tasks,
            urgency: 0,
            waited: Millis::ZERO,
            since: self.specs,
            work: Work::of(Micros(micros as u64)),
            start: Micros(0),
            warm: std::sync::Arc::new([]),
            lies: Vec::new(),
            bytes_there: ByteCount::ZERO,
            bytes_back: ByteCount::ZERO,
            policy: *self.random.of(&[
                Policy::BALANCED,
                Policy::FAST,
                Policy::CHEAP,
                Policy::GREEN,
            ]),
            granter: true,
            at_once: false,
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
