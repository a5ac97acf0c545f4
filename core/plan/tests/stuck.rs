//! What waits on a node behind others for longer than was expected.
#![allow(clippy::unwrap_used)]

mod world;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{MilliCpu, Millis};
use proptest::prelude::*;
use world::*;

const fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// With no core free, and so many places behind what runs.
fn full(n: u8, price: i64, credit: u32) -> NodeView {
    NodeView {
        free_cpus: MilliCpu::ZERO,
        free_backlog: credit,
        ..node(n, 4, "eu-1", price)
    }
}

fn fleet(nodes: impl IntoIterator<Item = NodeView>) -> Fleet {
    let mut fleet = Fleet::new();
    nodes.into_iter().for_each(|node| fleet.put(node));
    fleet
}

fn on(n: u8, tasks: u32) -> Group {
    Group {
        not_on: vec![id(n)],
        ..group(task(1000, 11, &[]), tasks, u64::from(n))
    }
}

fn counts(fleet: &mut Fleet, groups: &[Group], kept: &[NodeId]) -> Vec<u32> {
    let found = elsewhere(fleet, groups, &INPUT, kept);
    assert!(!found.cut_short);
    found.counts
}

fn placed(fleet: &mut Fleet, tasks: u32) -> Vec<(NodeId, u32)> {
    let (found, _) = plan(fleet, &[group(task(1000, 11, &[]), tasks, 0)], &INPUT);
    let places = found.assignments.iter();
    places.map(|a| (a.node, a.tasks)).collect()
}

#[test]
fn as_many_go_elsewhere_as_run_there_at_once() {
    // Where they wait there is no room; a dearer one has four cores, another only places behind what runs.
    let nodes = [full(1, 100, 4), node(2, 4, "eu-1", 90_000), full(3, 100, 4)];
    let mut fleet = fleet(nodes);
    let urgent = Group {
        urgency: -5,
        ..on(3, 3)
    };
    let found = counts(&mut fleet, &[on(1, 3), urgent.clone()], &[]);
    assert_eq!(found, [1, 3], "the most urgent first");
    let again = counts(&mut fleet, &[on(1, 3), urgent], &[]);
    assert_eq!(again, [1, 3], "asking changed nothing");
    let there = counts(&mut fleet, &[on(2, 4)], &[]);
    assert_eq!(there, [0], "no room but where they are");
    let kept = counts(&mut fleet, &[on(1, 3)], &[id(2)]);
    assert_eq!(kept, [0], "kept for a gang");
    assert_eq!(counts(&mut fleet, &[on(1, 3)], &[]), [3]);
}

#[test]
fn what_was_not_looked_at_is_not_known() {
    let mut fleet = fleet([full(1, 100, 4), node(2, 4, "eu-1", 90_000)]);
    let input = PlanInput { budget: 2, ..INPUT };
    let found = elsewhere(&mut fleet, &[on(1, 3)], &input, &[]);
    assert_eq!((found.counts, found.cut_short), (vec![2], true));
}

#[test]
fn behind_what_runs_for_long_nothing_more_waits_until_something_ends() {
    let nodes = [full(1, 100, 4), node(2, 1, "eu-1", 9_000_000)];
    let mut fleet = fleet(nodes);
    assert_eq!(placed(&mut fleet, 2), [(id(1), 2)], "cheap, and soon");
    fleet.close(&id(1), MilliCpu::ZERO, Millis(0), Some(Millis(5_000)));
    assert_eq!(placed(&mut fleet, 2), [(id(2), 2)]);
    // What is told of it anew, of its heat or its place, opens nothing.
    fleet.put(NodeView {
        slowdown_milli: 2000,
        ..full(1, 100, 3)
    });
    assert_eq!(fleet.room(), 1_000 + 4);
    fleet.reopen(Millis(4_999));
    assert_eq!(placed(&mut fleet, 1), [(id(2), 1)]);
    fleet.reopen(Millis(5_000));
    assert_eq!(fleet.room(), 1_000 + 4 + 3);
    assert_eq!(placed(&mut fleet, 2), [(id(1), 2)]);
    // Something ends before its time is over.
    fleet.close(&id(1), MilliCpu::ZERO, Millis(5_000), Some(Millis(55_000)));
    fleet.put(NodeView {
        free_cpus: MilliCpu(1_000),
        ..full(1, 100, 3)
    });
    assert_eq!(placed(&mut fleet, 2), [(id(1), 2)]);
}

#[test]
fn what_a_plan_takes_and_gives_back_opens_nothing() {
    let with = |cores: u32| NodeView {
        free_cpus: MilliCpu(cores * 1000),
        ..full(1, 100, 4)
    };
    let wide = || [group(task(4000, 11, &[]), 1, 0)];
    let mut fleet = fleet([with(2), node(2, 4, "eu-1", 9_000_000)]);
    let place = |fleet: &mut Fleet| plan(fleet, &wide(), &INPUT).0.assignments[0].node;
    assert_eq!(place(&mut fleet), id(1), "cheap, and soon");
    fleet.close(&id(1), MilliCpu(2000), Millis(0), Some(Millis(60_000)));
    assert_eq!(place(&mut fleet), id(2));
    // Something small is on its way there, and then the state knows of none.
    fleet.put(with(1));
    fleet.put(with(2));
    assert_eq!(place(&mut fleet), id(2));
    fleet.put(with(3));
    assert_eq!(place(&mut fleet), id(1), "something ended");
}

#[test]
fn what_was_called_back_goes_where_it_runs_at_once() {
    // Dear, and free.
    let mut fleet = fleet([full(1, 100, 4), node(2, 1, "eu-1", 9_000_000)]);
    let called = |tasks| Group {
        at_once: true,
        ..group(task(1000, 11, &[]), tasks, 0)
    };
    assert_eq!(placed(&mut fleet, 2), [(id(1), 2)], "cheap, and soon");
    let (found, _) = plan(&mut fleet, &[called(2)], &INPUT);
    let places = found.assignments.iter().map(|a| (a.node, a.tasks));
    assert_eq!(places.collect::<Vec<_>>(), [(id(2), 1)]);
}

#[test]
fn what_runs_once_at_most_waits_in_its_queue() {
    let mut fleet = fleet([full(1, 100, 4)]);
    let mut spec = TaskSpec::clone(&task(1000, 11, &[]));
    assert_eq!(placed(&mut fleet, 1), [(id(1), 1)]);
    spec.retry.at_most_once = true;
    let (found, _) = plan(&mut fleet, &[group(spec.into(), 1, 0)], &INPUT);
    assert_eq!(found.assignments, []);
}

proptest! {
    /// What is said to run elsewhere does so when it is placed anew.
    #[test]
    fn what_goes_elsewhere_finds_room_there(
        cores in prop::collection::vec(0u32..3, 2..8),
        stuck in prop::collection::vec((0u8..8, 1u32..6, 1u32..3), 1..6),
    ) {
        let nodes: Vec<NodeView> = cores.iter().zip(0u8..).map(|(free, n)| NodeView {
            free_cpus: MilliCpu(free * 1000),
            ..full(n, 100 * i64::from(n), 4)
        }).collect();
        let mut fleet = fleet(nodes);
        let groups: Vec<Group> = stuck.iter().map(|(n, tasks, cpus)| Group {
            not_on: vec![id(n % cores.len() as u8)],
            ..group(task(cpus * 1000, 11, &[]), *tasks, u64::from(*n))
        }).collect();
        let found = counts(&mut fleet, &groups, &[]);
        let cpus = |at: usize| groups[at].spec.resources.cpus.0;
        let taken: u32 = found.iter().enumerate().map(|(at, count)| count * cpus(at)).sum();
        prop_assert!(taken <= cores.iter().sum::<u32>() * 1000);
        for ((group, count), at) in groups.iter().zip(&found).zip(0..) {
            prop_assert!(*count <= group.tasks);
            // More of it fits nowhere, even alone.
            let alone = counts(&mut fleet, std::slice::from_ref(group), &[]);
            prop_assert!(alone[0] >= *count);
            if found.iter().zip(0..).all(|(c, other)| other == at || *c == 0) {
                prop_assert_eq!(alone[0], *count);
            }
        }
    }
}
