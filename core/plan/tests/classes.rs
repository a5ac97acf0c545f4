//! Which machines are one class, and who waits on a node.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, MilliCpu, MilliGpu, Millis, Ppm, UsdMicros};

fn task(cpus: u32, python: u8, regions: &[&str]) -> Arc<TaskSpec> {
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

fn node(id: u8, cores: u32, region: &str, price: i64) -> NodeView {
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
        quarantined: false,
        spec: Arc::new(NodeSpec {
            name: format!("n{id}"),
            cpu_model: "x".into(),
            cpus: MilliCpu(cores * 1000),
            clock_mhz: 2000,
            memory: ByteCount::gib(4),
            disk: ByteCount::gib(4),
            interpreters: vec![Interpreter {
                version: PythonVersion {
                    major: 3,
                    minor: 11,
                },
                full: "3.11.2".into(),
            }],
            tier: Tier::Namespaces,
            enforced: vec![],
            labels: vec![],
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
        free_gpus: MilliGpu::ZERO,
        free_gpu_part: MilliGpu::ZERO,
        free_amounts: Vec::new(),
        free_backlog: 4,
        backlog: 0,
        round_trip: Micros(500),
        bandwidth: None,
        egress: Egress::default(),
    }
}

fn group(spec: Arc<TaskSpec>, tasks: u32, since: u64) -> Group {
    Group {
        digest: Digest::of(&spec.to_canonical()),
        spec,
        tasks,
        urgency: 0,
        waited: Millis::ZERO,
        since,
        work: Work::of(Micros(100_000)),
        start: Micros(0),
        warm: Arc::new([]),
        bytes_there: ByteCount::ZERO,
        bytes_back: ByteCount::ZERO,
        policy: Policy::BALANCED,
        granter: true,
        not_on: Vec::new(),
        gang: 1,
    }
}

const INPUT: PlanInput = PlanInput {
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

#[test]
fn machines_of_one_kind_are_one_class_whatever_their_disks_hold() {
    // As two agents on machines of one kind said: free disk, usable memory and the clock of the moment differ.
    let like = |id: u8, disk: u64, memory: u64, clock_mhz: u32| {
        let view = node(id, 4, "eu-1", 0);
        NodeView {
            free_memory: ByteCount(memory),
            free_scratch: ByteCount(disk),
            spec: Arc::new(NodeSpec {
                disk: ByteCount(disk),
                memory: ByteCount(memory),
                clock_mhz,
                ..NodeSpec::clone(&view.spec)
            }),
            ..view
        }
    };
    let mut fleet = Fleet::new();
    fleet.put(like(1, 31_138_512_896, 16_768_311_296, 2_794));
    fleet.put(like(2, 98_340_712_448, 16_768_303_104, 2_899));
    let class = |fleet: &Fleet, id| fleet.hardware(&NodeId([id; 32])).unwrap().0;
    assert_eq!(class(&fleet, 1), class(&fleet, 2));
    // What only one of them has room for goes to that one; what neither has is none's.
    let asks = |scratch: u64| {
        let spec = task(1000, 11, &[]);
        let resources = Resources {
            scratch: ByteCount(scratch),
            ..spec.resources
        };
        group(
            Arc::new(TaskSpec {
                resources,
                ..TaskSpec::clone(&spec)
            }),
            1,
            0,
        )
    };
    let (found, _) = plan(&mut fleet, &[asks(50_000_000_000)], &INPUT);
    assert_eq!(found.assignments[0].node, NodeId([2; 32]));
    let (_, report) = plan(&mut fleet, &[asks(99_000_000_000)], &INPUT);
    assert_eq!(report.unfit, [0]);
    // A larger one of the same kind comes: what fitted nowhere fits now.
    fleet.put(like(3, 120_000_000_000, 16_768_303_104, 2_800));
    let (found, _) = plan(&mut fleet, &[asks(99_000_000_000)], &INPUT);
    assert_eq!(found.assignments[0].node, NodeId([3; 32]));
}

#[test]
fn long_tasks_do_not_wait_behind_others_on_a_node() {
    let known = |micros| Group {
        work: Work::of(Micros(micros)),
        ..group(task(4000, 11, &[]), 3, 0)
    };
    let placed = |waiting| {
        let mut fleet = Fleet::new();
        fleet.put(node(1, 4, "eu-1", 0));
        plan(&mut fleet, &[waiting], &INPUT).1.placed
    };
    // One runs; a minute behind it would bind the others to a node that may not be the first with room.
    assert_eq!(placed(known(60_000_000)), 1);
    assert_eq!(placed(known(1_000)), 3);
}

#[test]
fn what_a_gpu_draws_counts_for_who_holds_one() {
    let gpu = Device {
        kind: DeviceKind::Gpu { cuda_cores: 1 },
        model: "A100".into(),
        memory: ByteCount::gib(40),
        tdp_watts: 400,
        id: "GPU-0".into(),
    };
    let carbon = |milliwatts_gpu: u32, gpus: u32| {
        let bare = node(1, 4, "eu", 50_000);
        let mut fleet = Fleet::new();
        fleet.put(NodeView {
            spec: Arc::new(NodeSpec {
                devices: vec![gpu.clone()],
                ..(*bare.spec).clone()
            }),
            free_gpus: MilliGpu(1000),
            carbon: Some(400),
            milliwatts_core: 5_000,
            milliwatts_gpu,
            ..bare
        });
        let mut spec = (*task(1000, 11, &["eu"])).clone();
        spec.resources.gpus = MilliGpu(gpus);
        let explained = explain(&mut fleet, &group(Arc::new(spec), 1, 0));
        let (_, terms) = explained.best.unwrap();
        let term = terms.iter().find(|t| t.kind == TermKind::Carbon).unwrap();
        term.usd_micros
    };
    let (without, with) = (carbon(620_000, 0), carbon(620_000, 1000));
    // 5 W of a core, and 620 W of the GPU beside it.
    assert!((with / without - 125.0).abs() < 0.01, "{with} {without}");
    assert!((carbon(620_000, 500) / without - 63.0).abs() < 0.01);
}
