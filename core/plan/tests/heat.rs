//! What the heat of a node is worth.
#![allow(clippy::unwrap_used)]

mod world;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{Micros, MilliGpu, Ppm};
use std::sync::Arc;
use world::*;

/// A node of four cores, whose processors and accelerators are so hot.
fn hot(id: u8, cores: u32, gpus: u32) -> NodeView {
    NodeView {
        heat: Heat {
            cores: Ppm(cores),
            gpus: Ppm(gpus),
        },
        ..node(id, 4, "eu-1", 50_000)
    }
}

fn fleet(nodes: impl IntoIterator<Item = NodeView>) -> Fleet {
    let mut fleet = Fleet::new();
    nodes.into_iter().for_each(|node| fleet.put(node));
    fleet
}

/// Minutes of work, which do not wait behind each other.
fn minutes(tasks: u32) -> Group {
    Group {
        work: Work::of(Micros(60_000_000)),
        ..group(task(1000, 11, &[]), tasks, 0)
    }
}

fn thermal(node: NodeView, group: &Group) -> Option<Term> {
    let (_, terms) = explain(&mut fleet([node]), group).best.unwrap();
    terms
        .into_iter()
        .find(|term| term.kind == TermKind::Thermal)
}

#[test]
fn a_node_that_throttles_gets_less_work_and_never_none() {
    let placed = |tasks| {
        let mut fleet = fleet([hot(1, 1_000_000, 0), hot(2, 0, 0)]);
        let (found, _) = plan(&mut fleet, &[minutes(tasks)], &INPUT);
        let of = |id| {
            let there = found
                .assignments
                .iter()
                .filter(move |a| a.node == NodeId([id; 32]));
            there.map(|a| a.tasks).sum::<u32>()
        };
        (of(1), of(2))
    };
    assert_eq!(placed(4), (0, 4));
    assert_eq!(
        placed(6),
        (2, 4),
        "what the cool one has no room for does not wait for it"
    );
    let (found, _) = plan(&mut fleet([hot(1, 1_000_000, 0)]), &[minutes(1)], &INPUT);
    assert_eq!(found.assignments.len(), 1);
}

#[test]
fn the_term_is_the_slow_down_of_price_and_run_and_cool_nodes_have_none() {
    let group = minutes(1);
    assert_eq!(
        thermal(hot(1, 0, 500_000), &group),
        None,
        "it holds no accelerator"
    );
    let term = thermal(hot(1, 250_000, 0), &group).unwrap();
    // A minute at $0.05 a core-hour and $0.50 an hour of waiting, and a quarter of both.
    let run = (50_000.0 + 500_000.0) / 60.0;
    assert!((term.usd_micros - run / 4.0).abs() < 1e-6, "{term:?}");
    assert_eq!(term.detail, "25.0 % longer for its heat × (price + run)");
    // It is kept with the attempt.
    let mut fleet = fleet([hot(1, 250_000, 0)]);
    let (found, _) = plan(&mut fleet, std::slice::from_ref(&group), &INPUT);
    let quote = fleet.quote(&group, &found.assignments[0]);
    let kept = quote
        .terms
        .iter()
        .find(|(kind, _)| *kind == TermKind::Thermal);
    let (kind, cost) = kept.unwrap();
    assert_eq!(quote.detail(*kind, *cost), "25.0 % longer × (price + run)");
}

#[test]
fn who_holds_an_accelerator_pays_for_its_heat() {
    let mut spec = TaskSpec::clone(&task(1000, 11, &[]));
    spec.resources.gpus = MilliGpu(1000);
    let holds = Group {
        work: Work::of(Micros(60_000_000)),
        ..group(Arc::new(spec), 1, 0)
    };
    let with_gpu = |cores, gpus| {
        let node = hot(1, cores, gpus);
        let device = Device {
            kind: DeviceKind::Gpu { cuda_cores: 1 },
            model: "T4".into(),
            memory: farlane_units::ByteCount::gib(16),
            tdp_watts: 70,
            id: "GPU-1".into(),
            measured: None,
        };
        let spec = NodeSpec {
            devices: vec![device],
            ..NodeSpec::clone(&node.spec)
        };
        NodeView {
            spec: Arc::new(spec),
            ..node
        }
    };
    let share = |cores, gpus| thermal(with_gpu(cores, gpus), &holds).unwrap().detail;
    assert!(share(125_000, 500_000).starts_with("50.0 %"));
    assert!(share(500_000, 125_000).starts_with("50.0 %"));
}
