//! Laws of units at once: no plan takes more of them than a project's quota leaves, and near the bound work goes to nodes
//! of which it takes less.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, MilliCpu, Millis};
use proptest::prelude::*;
use world::*;

/// Each core of it does what so many thousandths of one of the reference node do; 0 is not measured.
fn measured(mut node: NodeView, core: u64) -> NodeView {
    let spec = Arc::make_mut(&mut node.spec);
    let cores = spec.cpus.0 / 1000;
    let rate = REFERENCE.fp32 * core * u64::from(cores) / 1000;
    spec.measured = (core > 0).then(|| Measured::even(cores, rate));
    node
}

fn share(project: u8, ucu: u64) -> Share {
    Share {
        project: ProjectId::new(0, [project; 10]),
        weight: 1000,
        cpus: 0,
        memory: ByteCount(0),
        gpus: 0,
        left: Left { ucu, ..Left::ALL },
    }
}

fn input(ucu: u64) -> PlanInput {
    PlanInput {
        shares: vec![share(0, ucu)],
        presence: Presence::new(),
        ..INPUT
    }
}

fn takes(view: &View, group: usize, node: NodeId) -> u64 {
    let need = view.waiting[group].spec.resources;
    view.nodes[view.at(node)].spec.ucu_of(need.cpus).0
}

/// What a plan takes of the units of the project of these groups.
fn taken(view: &View, plan: &Plan, project: u8) -> u64 {
    let id = ProjectId::new(0, [project; 10]);
    let of = |a: &&Assignment| view.waiting[a.group].spec.project == id;
    let mine = plan.assignments.iter().filter(of);
    mine.map(|a| u64::from(a.tasks) * takes(view, a.group, a.node))
        .sum()
}

/// Placed on each node.
fn on(view: &View, plan: &Plan) -> Vec<u32> {
    let mut on = vec![0; view.nodes.len()];
    plan.assignments
        .iter()
        .for_each(|a| on[view.at(a.node)] += a.tasks);
    on
}

#[test]
fn near_the_bound_a_task_goes_where_it_takes_less() {
    let view = View {
        nodes: vec![
            measured(node(1, 4, "us", 1), 3000),
            measured(node(2, 4, "us", 90_000), 900),
            node(3, 4, "us", 300_000),
        ],
        waiting: vec![group(task(1000, 11, &[]), 12, 0)],
    };
    let of = |left| on(&view, &view.plan(&input(left)).0);
    assert_eq!(of(12_000)[0], 4, "the cheap one, while there are units");
    // Two there; then one that takes 0.9, since one that nobody measured takes a whole unit.
    assert_eq!(of(6_900), [2, 1, 0]);
    assert_eq!(of(2_999), [0, 3, 0]);
    assert_eq!(of(4_600), [1, 1, 0]);
    assert_eq!(of(899), [0, 0, 0]);
}

#[test]
fn nodes_of_one_class_are_told_apart() {
    // Alike within a step: the first of them takes more than is left.
    let view = View {
        nodes: vec![
            measured(node(1, 4, "us", 1), 1180),
            measured(node(2, 4, "us", 1), 1030),
        ],
        waiting: vec![group(task(1000, 11, &[]), 4, 0)],
    };
    assert_eq!(on(&view, &view.plan(&input(1100)).0), [0, 1]);
    assert_eq!(on(&view, &view.plan(&input(2250)).0), [1, 1]);
    let mut fleet = view.fleet();
    let of = &view.waiting[0];
    let mut least = |mut looks| fleet.least_ucu(&of.digest, &of.spec, &mut looks);
    assert_eq!(least(10).unwrap().0, 1030);
    assert_eq!(
        least(0).unwrap().0,
        1024,
        "where nobody may look: no more than that"
    );
}

#[test]
fn what_must_stay_takes_what_the_nodes_that_it_must_stay_on_take() {
    let mut spec = task(1000, 11, &[]);
    Arc::make_mut(&mut spec).node.keep_on = vec![node(1, 4, "us", 1).id, node(9, 4, "us", 1).id];
    let view = View {
        nodes: vec![
            measured(node(1, 4, "us", 1), 3000),
            measured(node(2, 4, "us", 1), 900),
        ],
        waiting: vec![group(spec, 1, 0)],
    };
    let of = &view.waiting[0];
    let least = view.fleet().least_ucu(&of.digest, &of.spec, &mut 10);
    assert_eq!(least.unwrap().0, 3000);
    assert_eq!(on(&view, &view.plan(&input(2999)).0), [0, 0]);
    assert_eq!(on(&view, &view.plan(&input(3000)).0), [1, 0]);
}

#[test]
fn a_gang_goes_where_all_of_it_is_within_the_bound() {
    let gang = Group {
        gang: 3,
        ..group(task(1000, 11, &[]), 3, 0)
    };
    let view = View {
        nodes: vec![
            measured(node(1, 4, "us", 1), 3000),
            measured(node(2, 2, "us", 90_000), 900),
            measured(node(3, 2, "us", 90_000), 900),
        ],
        waiting: vec![gang],
    };
    let of = |left| on(&view, &view.plan(&input(left)).0);
    assert_eq!(of(9000), [3, 0, 0]);
    let slow = of(2700);
    assert_eq!((slow[0], slow[1] + slow[2]), (0, 3));
    assert_eq!(of(2699), [0; 3]);
    // What is kept back by its quota keeps no room from others.
    let busy = Gangs {
        known: Vec::new(),
        ends: Some(Vec::new()),
    };
    let (_, report) = view.plan(&PlanInput {
        gangs: busy,
        ..input(2699)
    });
    assert!(report.reserved.is_empty(), "{report:?}");
}

#[test]
fn nothing_makes_way_for_what_its_quota_would_refuse_there() {
    let mut fleet = Fleet::new();
    let nodes = [
        measured(node(1, 4, "us", 1), 3000),
        measured(node(2, 4, "us", 1), 900),
    ];
    nodes.iter().for_each(|n| fleet.put(n.clone()));
    let waits = [of_project(1, 1000, 1, 0)];
    let need = waits[0].spec.resources;
    let full = |node: &NodeView, ran| Occupied {
        node: node.id,
        free: Resources {
            cpus: MilliCpu(0),
            ..need
        },
        devices: DeviceLoads::default(),
        amounts: Vec::new(),
        holders: vec![
            Holder {
                project: ProjectId::new(0, [2; 10]),
                urgency: 0,
                waited: Millis(0),
                need,
                devices: 0,
                amounts: Vec::new(),
                members: 1,
                ran: Millis(ran),
                stands: Stands::Running,
            };
            4
        ],
    };
    let occupied = [full(&nodes[0], 1), full(&nodes[1], 1000)];
    let mut other = share(2, u64::MAX);
    other.cpus = 8000;
    let mut on = |left| {
        let found = preempt(&mut fleet, &waits, &occupied, &[share(1, left), other]);
        found.first().map(|p| p.node)
    };
    assert_eq!((on(3000), on(2999), on(899)), (Some(0), Some(1), None));
}

fn world() -> impl Strategy<Value = View> {
    let core = prop_oneof![
        Just(0u64),
        Just(500),
        800u64..1300,
        Just(3000),
        Just(12_500)
    ];
    let region = prop_oneof![Just("us"), Just("eu")];
    let nodes = prop::collection::vec((core, 1u32..5, region, 0i64..100_000), 1..8);
    let groups = prop::collection::vec((0u8..2, 1u32..4, 1u32..6, 1u32..4), 1..6);
    (nodes, groups).prop_map(|(nodes, groups)| View {
        nodes: (1u8..)
            .zip(nodes)
            .map(|(id, (core, cores, region, price))| {
                measured(node(id, cores, region, price), core)
            })
            .collect(),
        waiting: groups
            .into_iter()
            .enumerate()
            .map(|(at, (project, half, tasks, gang))| Group {
                gang,
                ..of_project(project, half * 500, tasks * gang, at as u64)
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn no_plan_takes_more_units_than_are_left(view in world(), left in [0u64..20_000, 0u64..20_000]) {
        let shares = vec![share(0, left[0]), share(1, left[1])];
        let gangs = Gangs { known: Vec::new(), ends: Some(Vec::new()) };
        let input = PlanInput { shares, gangs, presence: Presence::new(), ..INPUT };
        let (plan, report) = view.plan(&input);
        for project in 0..2u8 {
            let used = taken(&view, &plan, project);
            let left = left[usize::from(project)];
            prop_assert!(used <= left, "{} of {}", used, left);
            if !report.reserved.is_empty() {
                continue;
            }
            // And nothing is held back that would run at once within what is left.
            for (at, of) in view.waiting.iter().enumerate() {
                let placed: u32 = plan.assignments.iter().filter(|a| a.group == at).map(|a| a.tasks).sum();
                if of.spec.project.to_bytes()[15] != project || of.gang > 1 || placed == of.tasks {
                    continue;
                }
                for node in &view.nodes {
                    let held: u32 = plan.assignments.iter().filter(|a| a.node == node.id)
                        .map(|a| a.tasks * view.waiting[a.group].spec.resources.cpus.0).sum();
                    let room = node.free_cpus.0 >= held + of.spec.resources.cpus.0;
                    prop_assert!(!room || used + takes(&view, at, node.id) > left);
                }
            }
        }
    }
}
