//! What lies on a node already: tasks that must stay with it, and bytes that need not be moved.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, ByteRate, Micros, UsdMicros};
use world::*;

const fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// A task that must stay on these nodes.
fn kept(on: &[u8], regions: &[&str]) -> Arc<TaskSpec> {
    let mut spec = TaskSpec::clone(&task(1000, 11, regions));
    spec.node.keep_on = on.iter().map(|n| id(*n)).collect();
    Arc::new(spec)
}

fn fleet(nodes: impl IntoIterator<Item = NodeView>) -> Fleet {
    let mut fleet = Fleet::new();
    nodes.into_iter().for_each(|node| fleet.put(node));
    fleet
}

fn placed(fleet: &mut Fleet, group: Group) -> Vec<(NodeId, u32)> {
    let (found, _) = plan(fleet, &[group], &INPUT);
    found
        .assignments
        .iter()
        .map(|a| (a.node, a.tasks))
        .collect()
}

#[test]
fn a_task_goes_to_no_node_but_those_that_it_must_stay_on() {
    // One of ten that are alike, and the dearest there is.
    let alike = (1..=10).map(|n| node(n, 4, "eu-1", 10_000));
    let mut fleet = fleet(alike.chain([node(11, 4, "us-1", 90_000)]));
    let long = |spec, tasks| Group {
        work: Work::of(Micros(60_000_000)),
        ..group(spec, tasks, 0)
    };
    assert_eq!(placed(&mut fleet, long(kept(&[7], &[]), 3)), [(id(7), 3)]);
    assert_eq!(
        placed(&mut fleet, long(kept(&[7], &[]), 6)),
        [(id(7), 4)],
        "the rest waits there"
    );
    assert_eq!(
        placed(&mut fleet, long(kept(&[7, 11], &[]), 6)),
        [(id(7), 4), (id(11), 2)]
    );
    // Its granter has refused one of both.
    let refused = Group {
        not_on: vec![id(7)],
        ..long(kept(&[7, 11], &[]), 1)
    };
    assert_eq!(placed(&mut fleet, refused), [(id(11), 1)]);
    // And a gang.
    let gang = |on: &[u8]| {
        let mut spec = TaskSpec::clone(&kept(on, &[]));
        spec.gang = Some(Gang {
            size: 6,
            regions: GangRegions::Any,
        });
        Group {
            gang: 6,
            ..group(Arc::new(spec), 6, 0)
        }
    };
    assert_eq!(placed(&mut fleet, gang(&[7])), []);
    let two = placed(&mut fleet, gang(&[3, 7]));
    assert!(
        two.iter().all(|(node, _)| [id(3), id(7)].contains(node)),
        "{two:?}"
    );
    assert_eq!(two.iter().map(|(_, tasks)| tasks).sum::<u32>(), 6);
    let feasible = |fleet: &mut Fleet, of: Group| fleet.feasible_gang(&of.digest, &of.spec, &[], 6);
    assert!(feasible(&mut fleet, gang(&[3, 7])) && !feasible(&mut fleet, gang(&[7])));
}

#[test]
fn what_must_stay_where_nobody_is_can_never_run_and_says_what_to_do() {
    let mut fleet = fleet([
        node(1, 4, "eu-1", 0),
        node(2, 4, "us-1", 0),
        NodeView {
            online: false,
            ..node(3, 4, "eu-1", 0)
        },
    ]);
    let mut asks = |on: &[u8], regions: &[&str]| {
        let group = group(kept(on, regions), 1, 0);
        let feasible = fleet.feasible(&group.digest, &group.spec, &[]);
        let explained = explain(&mut fleet, &group);
        let reasons: Vec<String> = explained
            .classes
            .iter()
            .map(|c| {
                c.lacks
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect();
        (feasible, explained.summary, reasons)
    };
    let (feasible, summary, reasons) = asks(&[1, 3], &[]);
    assert!(feasible);
    assert_eq!(
        summary,
        "n1 in eu-1 fits and has room; its keep_on allows n1 or n3 (gets no work now) alone"
    );
    assert_eq!(
        reasons,
        [
            "",
            "is not the node to stay on, 010101010101 or 030303030303",
            "would fit, but is offline"
        ]
    );
    // Where its data lies and where it may run exclude each other.
    let (feasible, _, reasons) = asks(&[2], &["eu-*"]);
    assert!(
        !feasible && reasons.contains(&"is in us-1, the task wants eu-*".to_owned()),
        "{reasons:?}"
    );
    let (feasible, summary, _) = asks(&[9], &[]);
    assert!(!feasible);
    assert_eq!(
        summary,
        "none of the 3 registered nodes can ever run it; no node that its keep_on names is in the network any more \
         (090909090909): submit it without keep_on, with the data among its arguments"
    );
}

/// Work that takes so much with it, of which some lies on a node.
fn carries(mib: u64, held: &[(u8, u64)]) -> Group {
    let lies = held.iter().map(|(node, mib)| Lies {
        nodes: Arc::new([id(*node)]),
        bytes: ByteCount::mib(*mib),
    });
    Group {
        bytes_there: ByteCount::mib(mib),
        lies: lies.collect(),
        ..group(task(1000, 11, &[]), 1, 0)
    }
}

fn line(n: u8) -> NodeView {
    NodeView {
        bandwidth: Some(ByteRate(10_000_000)),
        egress: Egress {
            there: UsdMicros(50_000),
            back: UsdMicros(0),
        },
        ..node(n, 4, "eu-1", 50_000)
    }
}

#[test]
fn a_node_that_holds_what_a_task_takes_with_it_is_chosen_among_those_alike() {
    let mut fleet = fleet((1..=9).map(line));
    assert_eq!(placed(&mut fleet, carries(64, &[])), [(id(1), 1)]);
    assert_eq!(placed(&mut fleet, carries(64, &[(5, 64)])), [(id(5), 1)]);
    // The one that holds more of it.
    assert_eq!(
        placed(&mut fleet, carries(64, &[(5, 8), (7, 32)])),
        [(id(7), 1)]
    );
    let explained = explain(&mut fleet, &carries(64, &[(7, 32)])).best.unwrap();
    assert_eq!(explained.0, id(7));
}

#[test]
fn bytes_that_are_there_cost_no_time_and_no_egress() {
    let terms = |held: &[(u8, u64)]| {
        let (_, terms) = explain(&mut fleet([line(1)]), &carries(64, held))
            .best
            .unwrap();
        let of = |kind| terms.iter().find(|t| t.kind == kind).unwrap().clone();
        (of(TermKind::Transfer), of(TermKind::Egress))
    };
    let (all, half, none) = (terms(&[]), terms(&[(1, 32)]), terms(&[(1, 32), (1, 64)]));
    assert!((half.0.usd_micros * 2.0 - all.0.usd_micros).abs() < 1e-9);
    assert!((half.1.usd_micros * 2.0 - all.1.usd_micros).abs() < 1e-9);
    assert_eq!((none.0.usd_micros, none.1.usd_micros), (0.0, 0.0));
    assert!(
        half.0
            .detail
            .starts_with("32 MiB there (32 MiB are there already) and 0 B back"),
        "{half:?}"
    );
    assert!(
        all.0.detail.starts_with("64 MiB there and 0 B back"),
        "{all:?}"
    );
}

#[test]
fn a_gang_counts_no_room_twice_on_a_node_that_holds_its_function() {
    let mut spec = TaskSpec::clone(&task(4000, 11, &[]));
    spec.gang = Some(Gang {
        size: 3,
        regions: GangRegions::One,
    });
    // Two of three hold it, as after a first attempt: each stands in an offer of its own and in its class's.
    let gang = |spec: &TaskSpec| Group {
        spec: Arc::new(spec.clone()),
        gang: 3,
        ..Group {
            tasks: 3,
            ..carries(1, &[(1, 1), (2, 1)])
        }
    };
    let mut found = placed(&mut fleet((1..=3).map(line)), gang(&spec));
    found.sort();
    assert_eq!(found, [(id(1), 1), (id(2), 1), (id(3), 1)]);
}
