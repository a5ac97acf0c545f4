//! Between lines and what the scheduler knows: what a task asks, what a node is.

use farlane_model::{
    BlobRef, Demand as Label, Device, DeviceKind, Digest, Gang, GangRegions, Glob, GpuRequest,
    LabelRule, NodeSpec, ProjectId, PythonVersion, Resources, TaskSpec, Tier,
};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, UsdMicros};

use crate::{Demand, Fault, Gpu, Kind, Node, Policy, Rule, Salt};

/// What stands for an interpreter that nobody named. Source: choice; kinds and nodes that name none meet in it.
const PYTHON: PythonVersion = PythonVersion {
    major: 3,
    minor: 11,
};
const TIERS: [Tier; 4] = [
    Tier::Process,
    Tier::Namespaces,
    Tier::UserKernel,
    Tier::MicroVm,
];

/// A version as people write it: 3.11.
pub(crate) fn version(text: &str) -> Option<PythonVersion> {
    let (major, minor) = text.split_once('.')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    (major > 0).then_some(PythonVersion { major, minor })
}

fn thousandths(x: f64) -> u32 {
    (x * 1000.0 + 0.5) as u32
}

fn tier(number: u8) -> Tier {
    TIERS[usize::from(number).min(TIERS.len() - 1)]
}

fn number(of: Tier) -> u8 {
    TIERS.iter().position(|tier| *tier == of).unwrap_or(0) as u8
}

fn mib(bytes: ByteCount) -> u64 {
    bytes.0 >> 20
}

impl Kind {
    /// As a task's spec, of a project.
    ///
    /// *Errors*: what it asks no task can ask.
    pub fn spec(&self, project: ProjectId) -> Result<TaskSpec, Fault> {
        let code = BlobRef {
            digest: Digest::of(self.name.as_bytes()),
            size: ByteCount(1),
        };
        let python = self.python.as_deref().and_then(version).unwrap_or(PYTHON);
        let mut spec = TaskSpec::new(project, code, python);
        spec.function = self.function.clone();
        spec.resources = Resources {
            cpus: MilliCpu(thousandths(self.cores)),
            memory: ByteCount::mib(self.memory_mib),
            scratch: ByteCount::mib(self.scratch_mib),
            gpus: MilliGpu(thousandths(self.gpus)),
        };
        spec.gpu = GpuRequest {
            models: self.gpu_models.clone(),
            memory: self.gpu_memory_mib.map(ByteCount::mib),
        };
        let globs = |list: &[String]| list.iter().flat_map(|g| Glob::new(g.as_str())).collect();
        let node = &mut spec.node;
        (node.regions, node.residency) = (globs(&self.regions), globs(&self.residency));
        node.providers = self.providers.iter().map(|p| provider(p)).collect();
        node.providers.sort_unstable();
        node.labels = self.labels.iter().map(Rule::asked).collect();
        node.labels.sort_unstable();
        node.labels.dedup();
        node.tier = tier(self.tier);
        node.max_price = self.max_core_hour_usd_micros.map(UsdMicros);
        node.max_carbon = self.max_g_kwh;
        spec.priority = self.priority;
        spec.gang = (self.gang > 1).then_some(Gang {
            size: self.gang,
            regions: match self.gang_apart {
                true => GangRegions::Any,
                false => GangRegions::One,
            },
        });
        spec.check()?;
        Ok(spec)
    }

    /// Of a task's spec, with every name hashed. Named resources, affinities and what it keeps on are left out.
    pub fn of(spec: &TaskSpec, name: &Digest, salt: &Salt) -> Self {
        let (need, node) = (&spec.resources, &spec.node);
        let globs = |list: &[Glob]| list.iter().map(|g| g.as_str().to_owned()).collect();
        let project = salt.project(&spec.project);
        Self {
            name: salt.name("k", &name.0),
            function: salt.name("f", format!("{project} {}", spec.function).as_bytes()),
            project,
            cores: f64::from(need.cpus.0) / 1000.0,
            memory_mib: mib(need.memory),
            scratch_mib: mib(need.scratch),
            gpus: f64::from(need.gpus.0) / 1000.0,
            gpu_models: spec.gpu.models.clone(),
            gpu_memory_mib: spec.gpu.memory.map(mib),
            regions: globs(&node.regions),
            residency: globs(&node.residency),
            providers: node.providers.iter().map(|p| salt.provider(p)).collect(),
            labels: node
                .labels
                .iter()
                .map(|rule| Rule::of(rule, salt))
                .collect(),
            python: Some(node.python.to_string()),
            tier: number(node.tier),
            max_core_hour_usd_micros: node.max_price.map(|price| price.0),
            max_g_kwh: node.max_carbon,
            policy: spec.policy.map(|name| Policy(name.prices())),
            priority: spec.priority,
            gang: spec.gang.map_or(1, |gang| gang.size),
            gang_apart: spec
                .gang
                .is_some_and(|gang| gang.regions == GangRegions::Any),
        }
    }
}

impl Rule {
    fn asked(&self) -> LabelRule {
        let sorted = |values: &[String]| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values.dedup();
            values
        };
        LabelRule {
            key: self.key.clone(),
            demand: match &self.is {
                Demand::In(values) => Label::In(sorted(values)),
                Demand::NotIn(values) => Label::NotIn(sorted(values)),
                Demand::Exists => Label::Exists,
                Demand::Absent => Label::Absent,
            },
        }
    }

    /// A range of versions becomes that there is one: hashes have no order.
    fn of(rule: &LabelRule, salt: &Salt) -> Self {
        let hashed = |values: &[String]| values.iter().map(|v| salt.value(v)).collect();
        Self {
            key: salt.key(&rule.key),
            is: match &rule.demand {
                Label::In(values) => Demand::In(hashed(values)),
                Label::NotIn(values) => Demand::NotIn(hashed(values)),
                Label::Exists | Label::Version(_) => Demand::Exists,
                Label::Absent => Demand::Absent,
            },
        }
    }
}

/// What stands for a provider that a trace names.
fn provider(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

impl Node {
    /// Fingerprint that stands for its provider.
    pub fn owner(&self) -> Digest {
        provider(&self.provider)
    }

    /// Its sandbox's tier.
    pub fn strongest(&self) -> Tier {
        tier(self.tier)
    }

    /// Its interpreters.
    pub fn interpreters(&self) -> Vec<PythonVersion> {
        match self.pythons.is_empty() {
            true => vec![PYTHON],
            false => self.pythons.iter().filter_map(|v| version(v)).collect(),
        }
    }

    /// Its cores.
    pub fn cpus(&self) -> MilliCpu {
        MilliCpu(thousandths(self.cores))
    }

    /// Of what its agent said of it, with every name hashed: `name` is its own, `core_ucu` what a core of it was
    /// measured to be. What the network knows of it is still to be filled in.
    pub fn of(spec: &NodeSpec, name: String, core_ucu: Option<f64>, salt: &Salt) -> Self {
        let gpu = |device: &Device| match device.kind {
            DeviceKind::Gpu { cuda_cores } => Some(Gpu {
                model: device.model.clone(),
                memory_mib: mib(device.memory).max(1),
                cuda_cores,
            }),
            DeviceKind::Tpu { .. } => None,
        };
        let label = |(key, value): &(String, String)| (salt.key(key), salt.value(value));
        let mut labels: Vec<(String, String)> = spec.labels.iter().map(label).collect();
        labels.sort_unstable();
        let mut pythons: Vec<String> = Vec::new();
        for one in spec.interpreters.iter().map(|i| i.version.to_string()) {
            if !pythons.contains(&one) {
                pythons.push(one);
            }
        }
        Self {
            name,
            region: String::new(),
            provider: String::new(),
            cores: f64::from(spec.cpus.0) / 1000.0,
            memory_mib: mib(spec.memory).max(1),
            disk_mib: mib(spec.disk).max(1),
            gpus: spec.devices.iter().filter_map(gpu).collect(),
            core_ucu,
            core_hour_usd_micros: Vec::new(),
            core_watts: 0.0,
            gpu_watts: 0.0,
            round_trip_ms: 0.0,
            backlog: spec.backlog_credit,
            pythons,
            tier: number(spec.tier),
            labels,
            from_ms: 0,
            until_ms: None,
        }
    }
}
