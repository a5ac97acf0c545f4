//! Laws of the planner: never over capacity, nothing invented, input order irrelevant.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, Millis};
use proptest::prelude::*;
use world::*;

/// What a node of these rates and this accelerator counts as.
fn counts_as(id: u8, thousandths: Option<u64>, device: &str) -> Option<(u64, u64)> {
    let mut node = node(id, 2, "eu", 0);
    let spec = Arc::make_mut(&mut node.spec);
    let all = |thousandths| REFERENCE.fp32 * 2 * thousandths / 1000;
    spec.measured = thousandths.map(|thousandths| {
        let rate = MatrixRate {
            unit: VectorUnit::Avx2,
            one_core: 0,
            all_cores: all(thousandths),
        };
        Measured {
            at: Millis(u64::from(id)),
            cores: 2,
            fp32: rate,
            bf16: rate,
            int8: rate,
            memory_mib_s: u64::from(id),
            disk_write_mib_s: None,
            disk_read_mib_s: None,
            network_mib_s: None,
        }
    });
    spec.devices = vec![Device {
        kind: DeviceKind::Gpu { cuda_cores: 6912 },
        model: device.to_owned(),
        memory: ByteCount::gib(40),
        tdp_watts: 400,
        id: format!("GPU-{id}"),
        measured: None,
    }];
    let mut fleet = Fleet::new();
    fleet.put(node);
    fleet
        .hardware(&NodeId([id; 32]))
        .map(|(kind, rates)| (kind, rates.rate(farlane_model::WorkKind::Fp32).0))
}

#[test]
fn nodes_are_alike_whose_rates_are_in_one_step_and_only_those() {
    let one = counts_as(1, Some(1500), "A100");
    assert_eq!(one, counts_as(2, Some(1520), "A100"));
    assert_ne!(one, counts_as(3, Some(2500), "A100"));
    assert_ne!(one, counts_as(4, Some(1500), "H100"));
    let core = one.map_or(0, |(_, core)| core);
    assert!(core.abs_diff(1500) <= 1500 / 8, "{core}");
    assert_eq!(counts_as(5, None, "A100").map(|known| known.1), Some(1000));
    // What no core is, is held to what one could be.
    let bounds = [Some(0), Some(u64::from(u32::MAX))].map(|rate| counts_as(6, rate, "A100"));
    let cores = bounds.map(|known| known.map_or(0, |(_, core)| core));
    assert!(cores[0] >= 1 && cores[1] <= 1_200_000, "{cores:?}");
}

#[test]
fn a_node_that_the_granter_refused_takes_nothing_of_that_group() {
    let nodes = vec![node(1, 4, "eu", 0), node(2, 4, "eu", 90_000)];
    let (cheap, dear) = (nodes[0].id, nodes[1].id);
    let of = |not_on: Vec<NodeId>| Group {
        not_on,
        ..group(task(1000, 11, &[]), 1, 0)
    };
    let placed = |not_on| {
        let waiting = vec![of(not_on)];
        let nodes = nodes.clone();
        let (plan, _) = View { nodes, waiting }.plan(&INPUT);
        plan.assignments.first().map(|a| a.node)
    };
    assert_eq!(placed(vec![]), Some(cheap));
    assert_eq!(placed(vec![cheap]), Some(dear));
    assert_eq!(placed(vec![cheap, dear]), None);
}

#[test]
fn cheaper_nodes_fill_first_and_capacity_goes_before_backlog() {
    let view = View {
        nodes: vec![node(1, 1, "us", 90_000), node(2, 1, "eu", 10_000)],
        waiting: vec![group(task(1000, 11, &[]), 2, 0)],
    };
    let (plan, report) = view.plan(&INPUT);
    let nodes: Vec<usize> = plan.assignments.iter().map(|a| view.at(a.node)).collect();
    assert_eq!(
        nodes,
        [1, 0],
        "the cheap one, then the free one rather than a queue"
    );
    assert_eq!(report.placed, 2);
    let first = plan.assignments[0];
    assert!(first.bill.total() < first.runner_up.unwrap().1);
}

#[test]
fn what_no_node_can_run_is_named() {
    let view = View {
        nodes: vec![node(1, 2, "us-west", 1)],
        waiting: vec![
            group(task(1000, 10, &[]), 1, 0),
            group(task(1000, 11, &["eu-*"]), 1, 1),
        ],
    };
    let (plan, report) = view.plan(&INPUT);
    assert!(plan.assignments.is_empty());
    assert_eq!(report.unfit, [0, 1]);
    let mut fleet = view.fleet();
    let feasible = |fleet: &mut Fleet, group: &Group, but: &[NodeId]| {
        fleet.feasible(&group.digest, &group.spec, but)
    };
    assert!(!feasible(&mut fleet, &view.waiting[0], &[]));
    let fine = group(task(1000, 11, &["us-*"]), 1, 2);
    assert!(feasible(&mut fleet, &fine, &[]));
    assert!(!feasible(&mut fleet, &fine, &[view.nodes[0].id]));
    let why = explain(&mut fleet, &view.waiting[0]);
    assert_eq!(
        why.classes[0].lacks[0].to_string(),
        "has Python 3.11, the task needs 3.10"
    );
    let why = explain(&mut fleet, &view.waiting[1]);
    assert_eq!(
        why.classes[0].lacks[0].to_string(),
        "is in us-west, the task wants eu-*"
    );
    assert!(why.best.is_none() && why.summary.contains("none of the 1"));
}

#[test]
fn urgent_groups_go_first_and_ungranted_ones_not_at_all() {
    let mut urgent = group(task(1000, 11, &[]), 6, 9);
    urgent.urgency = -5;
    let mut away = group(task(1000, 11, &[]), 1, 0);
    away.granter = false;
    let view = View {
        nodes: vec![node(1, 2, "us", 1)],
        waiting: vec![group(task(1000, 11, &[]), 6, 0), away, urgent],
    };
    let (plan, _) = view.plan(&INPUT);
    assert!(
        plan.assignments.iter().all(|a| a.group == 2),
        "six slots, all for the urgent"
    );
}

/// A group of a project of its own.
/// Tasks placed of each group.
fn placed(view: &View, plan: &Plan) -> Vec<u32> {
    let mut placed = vec![0; view.waiting.len()];
    plan.assignments
        .iter()
        .for_each(|a| placed[a.group] += a.tasks);
    placed
}

#[test]
fn projects_share_by_their_dominant_resource_and_weight() {
    let wide = |n: u8| node(n, 64, "us", 1);
    let view = View {
        // 256 cores and 16 GiB: memory is what a task of 64 MiB a core runs short of.
        nodes: (1..=4).map(wide).collect(),
        waiting: vec![of_project(1, 1000, 1000, 0), of_project(2, 2000, 1000, 1)],
    };
    let shares = |weights: [u32; 2]| {
        let share = |project: u8, weight| Share {
            project: ProjectId::new(0, [project; 10]),
            weight,
            cpus: 0,
            memory: ByteCount(0),
            gpus: 0,
            left: Left::ALL,
        };
        vec![share(1, weights[0]), share(2, weights[1])]
    };
    let of = |weights, budget| {
        let input = PlanInput {
            shares: shares(weights),
            presence: Presence::new(),
            budget,
            ..INPUT
        };
        placed(&view, &view.plan(&input).0)
    };
    // A task of the first holds 1/256 of memory and of cores, one of the second 2/256 of cores.
    assert_eq!(of([1000, 1000], 90), [60, 30]);
    assert_eq!(of([1000, 2000], 90), [45, 45]);
    // Who holds much already waits until the other has as much.
    let mut held = shares([1000, 1000]);
    held[0].cpus = 64_000;
    let input = PlanInput {
        shares: held,
        presence: Presence::new(),
        budget: 32,
        ..INPUT
    };
    assert_eq!(placed(&view, &view.plan(&input).0), [0, 32]);
}

#[test]
fn a_gang_is_placed_whole_in_one_region_or_not_at_all() {
    let gang = |size, tasks| Group {
        gang: size,
        ..group(task(1000, 11, &[]), tasks, 0)
    };
    let view = |size, tasks| View {
        nodes: vec![
            node(1, 3, "eu", 10),
            node(2, 3, "us", 50),
            node(3, 3, "us", 50),
            node(4, 1, "eu", 0),
        ],
        waiting: vec![gang(size, tasks), group(task(1000, 11, &[]), 1, 1)],
    };
    let regions = |view: &View| -> Vec<Vec<String>> {
        let (plan, _) = view.plan(&INPUT);
        let mut of = vec![Vec::new(); 2];
        for a in &plan.assignments {
            let region = view.nodes[view.at(a.node)].region.to_string();
            of[a.group].extend(vec![region; a.tasks as usize]);
        }
        of
    };
    assert_eq!(regions(&view(4, 4))[0], ["eu"; 4], "the cheaper one");
    assert_eq!(
        regions(&view(6, 6))[0],
        ["us"; 6],
        "where there is room for six"
    );
    assert_eq!(
        regions(&view(7, 7))[0],
        [""; 0],
        "ten cores, in no one region"
    );
    let two = regions(&view(4, 8));
    assert_eq!(two[0].len(), 8, "two gangs");
    assert_eq!(two[0].iter().filter(|r| *r == "eu").count(), 4);
    // What waits behind a gang that cannot be placed is placed.
    assert_eq!(regions(&view(7, 7))[1].len(), 1);
    // Half a gang is none.
    assert_eq!(regions(&view(4, 3))[0], [""; 0]);
}

/// The view after its plan was carried out.
fn carried_out(view: &View, plan: &Plan) -> View {
    let mut view = view.clone();
    for a in &plan.assignments {
        let need = view.waiting[a.group].spec.resources;
        view.waiting[a.group].tasks -= a.tasks;
        let at = view.at(a.node);
        let node = &mut view.nodes[at];
        for _ in 0..a.tasks {
            let runs =
                node.backlog == 0 && need.cpus <= node.free_cpus && need.memory <= node.free_memory;
            if runs {
                node.free_cpus = node.free_cpus.saturating_sub(need.cpus);
                node.free_memory = node.free_memory.saturating_sub(need.memory);
            } else {
                node.free_backlog -= 1;
                node.backlog += 1;
            }
        }
    }
    view
}

/// One row for each task that is placed, in order.
fn one_by_one(plan: &Plan) -> Vec<(usize, NodeId)> {
    let rows = plan.assignments.iter();
    rows.flat_map(|a| vec![(a.group, a.node); a.tasks as usize])
        .collect()
}

prop_compose! {
    fn any_view()(
        nodes in prop::collection::vec((1u32..5, 0u32..9, any::<bool>(), 0i64..3, 0u64..3), 0..9),
        groups in prop::collection::vec((1u32..5, 0u32..40, -3i16..3, any::<bool>(), 0u8..3, 1u32..4), 0..6),
    ) -> View {
        View {
            nodes: nodes.into_iter().enumerate().map(|(i, (cores, credit, online, price, trip))| {
                let region = if i % 2 == 0 { "eu" } else { "us" };
                let round_trip = Micros(trip * 20_000);
                NodeView { free_backlog: credit, online, round_trip, ..node(i as u8 + 1, cores, region, price * 50_000) }
            }).collect(),
            waiting: groups.into_iter().enumerate().map(|(i, (cores, tasks, urgency, granter, project, gang))| {
                Group { urgency, granter, gang, ..of_project(project, cores * 1000, tasks, i as u64) }
            }).collect(),
        }
    }
}

proptest! {
    /// Nothing starves: after 255 steps a group of any priority goes before all that came later, whatever theirs.
    #[test]
    fn what_waits_long_enough_goes_first(low in -127i16..=128, other in -127i16..=128, more in 0u64..1_000_000, less in 1u64..100_000_000) {
        let waited = Millis(255 * AGEING.0 + more);
        let old = Group { urgency: low, waited, ..of_project(1, 1000, 1, 1) };
        let later = Millis(waited.0.saturating_sub(less));
        let new = Group { urgency: other, waited: later, ..of_project(1, 1000, 1, 0) };
        prop_assert!(old.rank() < new.rank());
        let view = View { nodes: vec![node(1, 1, "us", 1)], waiting: vec![new, old] };
        let input = PlanInput { budget: 1, ..INPUT };
        prop_assert_eq!(view.plan(&input).0.assignments[0].group, 1);
    }


    #[test]
    fn never_over_capacity_and_nothing_invented(view in any_view(), seed: u64) {
        let (plan, report) = view.plan(&PlanInput { seed, ..INPUT });
        let mut cpus = vec![0u64; view.nodes.len()];
        let mut count = vec![0u32; view.nodes.len()];
        for a in &plan.assignments {
            let at = view.at(a.node);
            prop_assert!(a.tasks > 0 && view.nodes[at].online && view.waiting[a.group].granter);
            prop_assert_eq!(a.generation, view.nodes[at].generation);
            for _ in 0..a.tasks {
                let need = u64::from(view.waiting[a.group].spec.resources.cpus.0);
                prop_assert!(need <= u64::from(view.nodes[at].spec.cpus.0));
                if cpus[at] + need <= u64::from(view.nodes[at].free_cpus.0) && count[at] == 0 {
                    cpus[at] += need;
                } else {
                    count[at] += 1;
                }
            }
        }
        for (node, used) in view.nodes.iter().zip(&count) {
            prop_assert!(*used <= node.free_backlog, "credit {} used {used}", node.free_backlog);
        }
        let placed = placed(&view, &plan);
        for (group, n) in view.waiting.iter().zip(&placed) {
            prop_assert!(*n <= group.tasks && n % group.gang == 0, "whole gangs");
        }
        prop_assert_eq!(placed.iter().sum::<u32>(), report.placed);
    }

    #[test]
    fn input_order_is_irrelevant(view in any_view(), seed: u64) {
        let mut turned = view.clone();
        turned.nodes.reverse();
        turned.waiting.reverse();
        let input = PlanInput { seed, ..INPUT };
        let named = |view: &View, plan: &Plan| -> Vec<(u64, NodeId, u32)> {
            let name = |a: &Assignment| (view.waiting[a.group].since, a.node, a.tasks);
            plan.assignments.iter().map(name).collect()
        };
        prop_assert_eq!(named(&view, &view.plan(&input).0), named(&turned, &turned.plan(&input).0));
    }

    #[test]
    fn a_fleet_that_was_changed_is_one_that_was_made_so(
        view in any_view(), before in any_view(), gone in 0usize..9, seed: u64,
    ) {
        let mut fleet = before.fleet();
        before.nodes.iter().skip(view.nodes.len()).for_each(|n| fleet.remove(&n.id));
        let _ = plan(&mut fleet, &view.waiting, &INPUT);
        if let Some(node) = view.nodes.get(gone) {
            fleet.remove(&node.id);
        }
        view.nodes.iter().for_each(|n| fleet.put(n.clone()));
        let input = PlanInput { seed, ..INPUT };
        let changed = plan(&mut fleet, &view.waiting, &input);
        prop_assert_eq!(fleet.totals(), view.fleet().totals());
        prop_assert_eq!(&changed, &plan(&mut fleet, &view.waiting, &input), "a plan leaves no trace");
        prop_assert_eq!(changed, view.plan(&input));
    }

    #[test]
    fn settled_stays_settled(view in any_view(), seed: u64, again: u64) {
        let (first, report) = view.plan(&PlanInput { seed, ..INPUT });
        prop_assert!(!report.cut_short);
        let (second, _) = carried_out(&view, &first).plan(&PlanInput { seed: again, ..INPUT });
        prop_assert_eq!(second, Plan::default());
    }

    #[test]
    fn a_smaller_budget_gives_the_beginning_of_the_same_plan(view in any_view(), budget in 0u32..20) {
        let (whole, _) = view.plan(&INPUT);
        let (part, report) = view.plan(&PlanInput { budget, ..INPUT });
        prop_assert!(report.placed <= budget);
        let (whole, part) = (one_by_one(&whole), one_by_one(&part));
        prop_assert_eq!(&whole[..part.len()], &part[..]);
    }
}
