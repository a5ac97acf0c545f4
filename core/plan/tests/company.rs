//! Places that depend on more than a class and its room: who is there, what is ready there, what is named there.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, Millis};

const PYTHON: PythonVersion = PythonVersion {
    major: 3,
    minor: 11,
};

fn node(id: u8, region: &str, price: i64) -> NodeView {
    let node = world::node(id, 4, region, price);
    let spec = NodeSpec {
        memory: ByteCount::gib(16),
        disk: ByteCount::gib(16),
        labels: [("zone".into(), "a".into())].into(),
        backlog_credit: 2,
        resources: vec![Amount::new("license", 1).unwrap()],
        ..(*node.spec).clone()
    };
    NodeView {
        carbon: Some(300),
        milliwatts_core: 5000,
        free_memory: spec.memory,
        free_scratch: spec.disk,
        free_amounts: spec.resources.clone(),
        free_backlog: spec.backlog_credit,
        spec: Arc::new(spec),
        ..node
    }
}

fn group(tasks: u32, change: impl FnOnce(&mut TaskSpec)) -> Group {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let mut spec = TaskSpec::new(ProjectId::new(0, [0; 10]), code, PYTHON);
    spec.node.tier = Tier::Namespaces;
    change(&mut spec);
    Group {
        work: Work::of(Micros(1_000_000)),
        ..world::group(Arc::new(spec), tasks, 0)
    }
}

fn run(nodes: &[NodeView], groups: &[Group], presence: Presence) -> BTreeMap<u8, u32> {
    let mut fleet = Fleet::new();
    nodes.iter().for_each(|node| fleet.put(node.clone()));
    let input = PlanInput {
        now: Millis(1),
        seed: 1,
        budget: 1000,
        shares: Vec::new(),
        presence,
        gangs: Gangs::default(),
    };
    let (found, _) = plan(&mut fleet, groups, &input);
    let mut counts = BTreeMap::new();
    for one in &found.assignments {
        *counts.entry(one.node.0[0]).or_default() += one.tasks;
    }
    counts
}

fn wish(tag: &str, direction: Direction, scope: Scope, strength: Strength) -> Affinity {
    Affinity {
        tag: tag.into(),
        direction,
        scope,
        strength,
    }
}

fn counts(of: &[(u8, u32)]) -> BTreeMap<u8, u32> {
    of.iter().copied().collect()
}

#[test]
fn a_dearer_node_that_is_ready_is_taken_until_its_start_is_worth_less() {
    let nodes = [node(1, "eu", 50_000), node(2, "eu", 60_000)];
    let warm = |start| Group {
        start: Micros(start),
        warm: Arc::new([NodeId([2; 32])]),
        ..group(1, |_| {})
    };
    // Half a minute of an hour worth $0.50 is far more than a second of a cent an hour.
    assert_eq!(
        run(&nodes, &[warm(30_000_000)], Presence::new()),
        counts(&[(2, 1)])
    );
    assert_eq!(run(&nodes, &[warm(0)], Presence::new()), counts(&[(1, 1)]));
    assert_eq!(run(&nodes, &[warm(10)], Presence::new()), counts(&[(1, 1)]));
}

#[test]
fn what_spreads_goes_over_nodes_and_regions_before_it_doubles() {
    let nodes = [
        node(1, "eu", 50_000),
        node(2, "eu", 50_000),
        node(3, "us", 51_000),
    ];
    let spread = |scope, tasks| group(tasks, |spec| spec.company.spread = Some(scope));
    let over_nodes = run(&nodes, &[spread(Scope::Node, 3)], Presence::new());
    assert_eq!(over_nodes, counts(&[(1, 1), (2, 1), (3, 1)]));
    let over_regions = run(&nodes, &[spread(Scope::Region, 4)], Presence::new());
    assert_eq!(over_regions[&3], 2);
    // Those of an earlier round count.
    let of = spread(Scope::Node, 1);
    let mut presence = Presence::new();
    for id in [1, 3] {
        let region = nodes[usize::from(id) - 1].region.clone();
        presence.note(Kin::Spec(of.digest), NodeId([id; 32]), &region, 1);
    }
    assert_eq!(run(&nodes, &[of], presence), counts(&[(2, 1)]));
}

#[test]
fn required_company_holds_and_the_rest_waits() {
    let nodes = [
        node(1, "eu", 50_000),
        node(2, "eu", 50_000),
        node(3, "us", 50_000),
    ];
    let apart = |scope| {
        group(9, |spec| {
            spec.company.tag = Some("web".into());
            spec.company.affinities =
                vec![wish("web", Direction::Apart, scope, Strength::Required)];
        })
    };
    let one_each = run(&nodes, &[apart(Scope::Node)], Presence::new());
    assert_eq!(one_each, counts(&[(1, 1), (2, 1), (3, 1)]));
    let regions = run(&nodes, &[apart(Scope::Region)], Presence::new());
    assert_eq!(regions.values().sum::<u32>(), 2);
    assert_eq!(regions[&3], 1);

    let near = group(2, |spec| {
        spec.company.affinities =
            vec![wish("db", Direction::Near, Scope::Node, Strength::Required)];
    });
    assert_eq!(
        run(&nodes, std::slice::from_ref(&near), Presence::new()),
        counts(&[])
    );
    let mut presence = Presence::new();
    let db = Kin::Tag(near.spec.project, "db".into());
    presence.note(db, NodeId([3; 32]), &"us".into(), 1);
    assert_eq!(run(&nodes, &[near], presence), counts(&[(3, 2)]));
}

#[test]
fn those_that_want_to_be_together_begin_somewhere_and_stay_there() {
    let nodes = [
        node(1, "eu", 50_000),
        node(2, "eu", 50_000),
        node(3, "us", 50_000),
    ];
    let together = group(3, |spec| {
        spec.company.tag = Some("ring".into());
        spec.company.affinities = vec![wish(
            "ring",
            Direction::Near,
            Scope::Node,
            Strength::Required,
        )];
    });
    let placed = run(&nodes, &[together], Presence::new());
    assert_eq!(placed.len(), 1);
}

#[test]
fn a_wish_is_worth_a_little_and_no_more() {
    let mut presence = Presence::new();
    let wishing = group(1, |spec| {
        spec.company.affinities = vec![wish(
            "db",
            Direction::Near,
            Scope::Region,
            Strength::Preferred,
        )];
    });
    let db = Kin::Tag(wishing.spec.project, "db".into());
    presence.note(db, NodeId([2; 32]), &"us".into(), 1);
    let placed = |price| {
        let nodes = [node(1, "eu", 50_000), node(2, "us", price)];
        run(&nodes, std::slice::from_ref(&wishing), presence.clone())
    };
    assert_eq!(placed(60_000), counts(&[(2, 1)]));
    assert_eq!(placed(500_000), counts(&[(1, 1)]));
}

#[test]
fn a_named_resource_is_taken_once_and_the_next_goes_elsewhere() {
    let nodes = [node(1, "eu", 50_000), node(2, "eu", 60_000)];
    let licensed = group(2, |spec| {
        spec.amounts = vec![Amount::new("license", 1).unwrap()];
    });
    let placed = run(&nodes, &[licensed], Presence::new());
    assert_eq!(placed, counts(&[(1, 1), (2, 1)]));
}

#[test]
fn a_label_that_no_node_has_is_named_with_the_nearest() {
    let mut fleet = Fleet::new();
    fleet.put(node(1, "eu", 1));
    let asked = group(1, |spec| {
        spec.node.labels = vec![LabelRule::equals("zome", "a")];
    });
    let said = explain(&mut fleet, &asked).summary;
    assert!(
        said.ends_with("; no node has a label `zome`; did you mean `zone`?"),
        "{said}"
    );
}

#[test]
fn the_answer_names_the_next_best_class_and_a_quote_keeps_it() {
    let mut fleet = Fleet::new();
    for one in [node(1, "eu", 50_000), node(2, "us", 60_000)] {
        fleet.put(one);
    }
    let asked = group(1, |_| {});
    let said = explain(&mut fleet, &asked);
    assert_eq!(said.best.unwrap().0, NodeId([1; 32]));
    assert_eq!(said.runner_up.unwrap().0, NodeId([2; 32]));
    let input = PlanInput {
        now: Millis(1),
        seed: 1,
        budget: 1,
        shares: Vec::new(),
        presence: Presence::new(),
        gangs: Gangs::default(),
    };
    let groups = [asked];
    let (found, _) = plan(&mut fleet, &groups, &input);
    let quote = fleet.quote(&groups[0], &found.assignments[0]);
    assert_eq!(quote.prices.name(), Some(PolicyName::Balanced));
    let other = quote.runner_up.clone().unwrap();
    assert_eq!((&*other.node_name, &*other.region), ("n2", "us"));
    assert!(other.cost > quote.total() && quote.run == Micros(1_000_000));
    // 5 W × 300 g/kWh are 1.5 g an hour.
    assert_eq!(quote.emits.unwrap().0, 1_500_000);
}
