//! Nodes, tasks and groups for laws.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, MilliCpu, MilliGpu, Millis, Ppm, UsdMicros};

pub fn task(cpus: u32, python: u8, regions: &[&str]) -> Arc<TaskSpec> {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: python,
    };
    Arc::new(TaskSpec {
        resources: Resources {
            cpus: MilliCpu(cpus),
            memory: ByteCount::mib(64),
            scratch: ByteCount(0),
            gpus: MilliGpu::ZERO,
        },
        node: NodeRequest {
            regions: regions.iter().map(|r| Glob::new(*r).unwrap()).collect(),
            tier: Tier::Namespaces,
            ..NodeRequest::any(python)
        },
        ..TaskSpec::new(ProjectId::new(0, [0; 10]), code, python)
    })
}

pub fn node(id: u8, cores: u32, region: &str, price: i64) -> NodeView {
    NodeView {
        id: NodeId([id; 32]),
        generation: 3,
        provider: Digest([9; 32]),
        price: UsdMicros(price),
        carbon: None,
        milliwatts_core: 0,
        milliwatts_gpu: 0,
        risk: Ppm(0),
        slowdown_milli: 1000,
        heat: Heat::default(),
        quarantined: false,
        spec: Arc::new(NodeSpec {
            name: format!("n{id}"),
            cpu_model: "x".into(),
            cpus: MilliCpu(cores * 1000),
            clock_mhz: 2000,
            memory: ByteCount::gib(4),
            disk: ByteCount::gib(4),
            interpreters: [Interpreter {
                version: PythonVersion {
                    major: 3,
                    minor: 11,
                },
                full: "3.11.2".into(),
            }]
            .into(),
            tier: Tier::Namespaces,
            enforced: [].into(),
            labels: [].into(),
            price_usd_micros_core_hour: UsdMicros(price),
            backlog_credit: 4,
            os: "linux".into(),
            arch: "x86_64".into(),
            agent: "0".into(),
            devices: Vec::new(),
            measured: None,
            resources: Vec::new(),
        }),
        region: region.into(),
        online: true,
        free_cpus: MilliCpu(cores * 1000),
        free_memory: ByteCount::gib(4),
        free_scratch: ByteCount::gib(4),
        devices: DeviceLoads::default(),
        free_amounts: Vec::new(),
        free_backlog: 4,
        backlog: 0,
        round_trip: Micros(500),
        bandwidth: None,
        egress: Egress::default(),
    }
}

pub fn group(spec: Arc<TaskSpec>, tasks: u32, since: u64) -> Group {
    Group {
        digest: Digest::of(&spec.to_canonical()),
        spec,
        tenant: TenantId([7; 32]),
        tasks,
        urgency: 0,
        waited: Millis::ZERO,
        since,
        work: Work::of(Micros(100_000)),
        start: Micros(0),
        warm: std::sync::Arc::new([]),
        lies: Vec::new(),
        bytes_there: ByteCount::ZERO,
        bytes_back: ByteCount::ZERO,
        policy: Policy::BALANCED,
        granter: true,
        at_once: false,
        not_on: Vec::new(),
        gang: 1,
    }
}

/// Nodes and what waits for them.
#[derive(Debug, Clone)]
pub struct View {
    pub nodes: Vec<NodeView>,
    pub waiting: Vec<Group>,
}

impl View {
    pub fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new();
        self.nodes.iter().for_each(|n| fleet.put(n.clone()));
        fleet
    }
    pub fn plan(&self, input: &PlanInput) -> (Plan, Report) {
        plan(&mut self.fleet(), &self.waiting, input)
    }
    pub fn at(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|n| n.id == id).unwrap()
    }
}

pub const INPUT: PlanInput = PlanInput {
    now: Millis(0),
    seed: 7,
    budget: 10_000,
    shares: Vec::new(),
    presence: Presence::new(),
    gangs: Gangs {
        known: Vec::new(),
        ends: None,
    },
};

pub fn of_project(project: u8, cpus: u32, tasks: u32, since: u64) -> Group {
    let mut spec = (*task(cpus, 11, &[])).clone();
    spec.project = ProjectId::new(0, [project; 10]);
    group(Arc::new(spec), tasks, since)
}
