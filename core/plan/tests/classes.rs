//! Which machines are one class, and who waits on a node.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, MilliGpu};
use world::*;

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
        measured: None,
    };
    let carbon = |milliwatts_gpu: u32, gpus: u32| {
        let bare = node(1, 4, "eu", 50_000);
        let mut fleet = Fleet::new();
        fleet.put(NodeView {
            spec: Arc::new(NodeSpec {
                devices: vec![gpu.clone()],
                ..(*bare.spec).clone()
            }),
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

#[test]
fn nodes_that_are_all_different_change_their_classes_at_once() {
    let (mut fleet, many) = (Fleet::new(), 20_000u32);
    let of = |n: u32, price| {
        let mut one = node(1, 4, "us", price);
        one.id.0[..4].copy_from_slice(&n.to_be_bytes());
        Arc::make_mut(&mut one.spec).labels = [("rack".to_owned(), n.to_string())].into();
        one
    };
    let nodes: Vec<NodeView> = (0..many).map(|n| of(n, 1)).collect();
    let later: Vec<NodeView> = (0..many).map(|n| of(n, 2)).collect();
    let mut put = |nodes: Vec<NodeView>| {
        let began = std::time::Instant::now();
        nodes.into_iter().for_each(|n| fleet.put(n));
        began.elapsed()
    };
    let (came, changed) = (put(nodes), put(later));
    println!("came in {came:?}, changed in {changed:?}");
    // Looking at all classes at each change took some thirty times as long.
    assert!(changed < came * 15, "{changed:?}, {came:?}");
    assert_eq!(fleet.len(), many as usize);
}
