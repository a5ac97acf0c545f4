//! Laws of the planner: never over capacity, nothing invented, input order irrelevant.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, MilliCpu, Millis, UsdMicros};
use proptest::prelude::*;

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
        }),
        region: region.into(),
        online: true,
        free_cpus: MilliCpu(cores * 1000),
        free_memory: ByteCount::gib(4),
        free_scratch: ByteCount::gib(4),
        free_backlog: 4,
        backlog: 0,
        round_trip: Micros(500),
    }
}

fn group(spec: Arc<TaskSpec>, tasks: u32, since: u64) -> Group {
    Group {
        spec,
        tasks,
        urgency: 0,
        since,
        run_time: Micros(100_000),
        granter: true,
        not_on: Vec::new(),
    }
}

const INPUT: PlanInput = PlanInput {
    now: Millis(0),
    seed: 7,
    budget: 10_000,
};

#[test]
fn a_node_that_the_granter_refused_takes_nothing_of_that_group() {
    let nodes = vec![node(1, 4, "eu", 0), node(2, 4, "eu", 90_000)];
    let (cheap, dear) = (nodes[0].id, nodes[1].id);
    let of = |not_on: Vec<NodeId>| Group {
        not_on,
        ..group(task(1000, 11, &[]), 1, 0)
    };
    let placed = |not_on| {
        let view = ClusterView {
            nodes: nodes.clone(),
            waiting: vec![of(not_on)],
        };
        let (plan, _) = plan(&view, INPUT);
        plan.assignments.first().map(|a| view.nodes[a.node].id)
    };
    assert_eq!(placed(vec![]), Some(cheap));
    assert_eq!(placed(vec![cheap]), Some(dear));
    assert_eq!(placed(vec![cheap, dear]), None);
}

#[test]
fn cheaper_nodes_fill_first_and_capacity_goes_before_backlog() {
    let view = ClusterView {
        nodes: vec![node(1, 1, "us", 90_000), node(2, 1, "eu", 10_000)],
        waiting: vec![group(task(1000, 11, &[]), 2, 0)],
    };
    let (plan, report) = plan(&view, INPUT);
    let nodes: Vec<usize> = plan.assignments.iter().map(|a| a.node).collect();
    assert_eq!(
        nodes,
        [1, 0],
        "the cheap one, then the free one rather than a queue"
    );
    assert_eq!(report.placed, 2);
}

#[test]
fn what_no_node_can_run_is_named() {
    let view = ClusterView {
        nodes: vec![node(1, 2, "us-west", 1)],
        waiting: vec![
            group(task(1000, 10, &[]), 1, 0),
            group(task(1000, 11, &["eu-*"]), 1, 1),
        ],
    };
    let (plan, report) = plan(&view, INPUT);
    assert!(plan.assignments.is_empty());
    assert_eq!(report.unfit, [0, 1]);
    assert!(!feasible(&view, &view.waiting[0].spec));
    let why = explain(&view, &view.waiting[0].spec, Micros(1), true);
    assert_eq!(
        why.classes[0].lacks[0].to_string(),
        "has Python 3.11, the task needs 3.10"
    );
    let why = explain(&view, &view.waiting[1].spec, Micros(1), true);
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
    let view = ClusterView {
        nodes: vec![node(1, 2, "us", 1)],
        waiting: vec![group(task(1000, 11, &[]), 6, 0), away, urgent],
    };
    let (plan, _) = plan(&view, INPUT);
    assert!(
        plan.assignments.iter().all(|a| a.group == 2),
        "six slots, all for the urgent"
    );
}

#[test]
fn projects_take_turns() {
    let of = |project: u8, since| {
        let mut spec = (*task(1000, 11, &[])).clone();
        spec.project = ProjectId::new(0, [project; 10]);
        group(Arc::new(spec), 1000, since)
    };
    let view = ClusterView {
        nodes: vec![node(1, 250, "us", 1)],
        waiting: vec![of(1, 0), of(2, 1)],
    };
    for seed in 0..4 {
        let (plan, report) = plan(&view, PlanInput { seed, ..INPUT });
        let share = |group| -> u32 {
            let of_it = plan.assignments.iter().filter(|a| a.group == group);
            of_it.map(|a| a.tasks).sum()
        };
        assert_eq!(report.placed, 68, "memory for 64, and credit for 4");
        let first = (seed % 2) as usize;
        assert_eq!((share(first), share(1 - first)), (64, 4));
    }
    let mut wide = view.clone();
    wide.nodes = (1..=4).map(|n| node(n, 250, "us", 1)).collect();
    let (plan, _) = plan(&wide, INPUT);
    let of = |group| plan.assignments.iter().filter(move |a| a.group == group);
    let share = |group| of(group).map(|a| a.tasks).sum::<u32>();
    assert_eq!(
        share(0).min(share(1)),
        128,
        "two turns each, and the rest to one"
    );
}

/// The view after its plan was carried out.
fn carried_out(view: &ClusterView, plan: &Plan) -> ClusterView {
    let mut view = view.clone();
    for a in &plan.assignments {
        let need = view.waiting[a.group].spec.resources;
        view.waiting[a.group].tasks -= a.tasks;
        let node = &mut view.nodes[a.node];
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

prop_compose! {
    fn any_view()(
        nodes in prop::collection::vec((1u32..5, 0u32..9, any::<bool>(), 0i64..100_000), 0..6),
        groups in prop::collection::vec((1u32..5, 0u32..40, -3i16..3, any::<bool>()), 0..6),
    ) -> ClusterView {
        ClusterView {
            nodes: nodes.into_iter().enumerate().map(|(i, (cores, credit, online, price))| {
                NodeView { free_backlog: credit, online, ..node(i as u8 + 1, cores, "eu", price) }
            }).collect(),
            waiting: groups.into_iter().enumerate().map(|(i, (cores, tasks, urgency, granter))| {
                Group { urgency, granter, ..group(task(cores * 1000, 11, &[]), tasks, i as u64) }
            }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn never_over_capacity_and_nothing_invented(view in any_view(), seed: u64) {
        let (plan, report) = plan(&view, PlanInput { seed, ..INPUT });
        let mut placed = vec![0u32; view.waiting.len()];
        let mut cpus = vec![0u64; view.nodes.len()];
        let mut count = vec![0u32; view.nodes.len()];
        for a in &plan.assignments {
            prop_assert!(a.tasks > 0 && view.nodes[a.node].online && view.waiting[a.group].granter);
            placed[a.group] += a.tasks;
            for _ in 0..a.tasks {
                let need = u64::from(view.waiting[a.group].spec.resources.cpus.0);
                prop_assert!(need <= u64::from(view.nodes[a.node].spec.cpus.0));
                if cpus[a.node] + need <= u64::from(view.nodes[a.node].free_cpus.0) && count[a.node] == 0 {
                    cpus[a.node] += need;
                } else {
                    count[a.node] += 1;
                }
            }
        }
        for (node, used) in view.nodes.iter().zip(&count) {
            prop_assert!(*used <= node.free_backlog, "credit {} used {used}", node.free_backlog);
        }
        for (group, n) in view.waiting.iter().zip(&placed) {
            prop_assert!(*n <= group.tasks);
        }
        prop_assert_eq!(placed.iter().sum::<u32>(), report.placed);
    }

    #[test]
    fn input_order_is_irrelevant(view in any_view(), seed: u64) {
        let mut turned = view.clone();
        turned.nodes.reverse();
        turned.waiting.reverse();
        let input = PlanInput { seed, ..INPUT };
        let named = |view: &ClusterView, plan: &Plan| -> Vec<(u64, NodeId, u32)> {
            let name = |a: &Assignment| (view.waiting[a.group].since, view.nodes[a.node].id, a.tasks);
            plan.assignments.iter().map(name).collect()
        };
        prop_assert_eq!(named(&view, &plan(&view, input).0), named(&turned, &plan(&turned, input).0));
    }

    #[test]
    fn settled_stays_settled(view in any_view(), seed: u64, again: u64) {
        let (first, report) = plan(&view, PlanInput { seed, ..INPUT });
        prop_assert!(!report.cut_short);
        let (second, _) = plan(&carried_out(&view, &first), PlanInput { seed: again, ..INPUT });
        prop_assert_eq!(second, Plan::default());
    }

    #[test]
    fn budget_bounds_the_steps(view in any_view(), budget in 0u32..20) {
        let (_, report) = plan(&view, PlanInput { budget, ..INPUT });
        prop_assert!(report.placed <= budget);
    }
}
