//! Gangs over time: room is kept for one that waits, and what runs there meanwhile never delays it.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, Micros, MilliCpu, MilliGpu, Millis, UsdMicros};

/// Seconds in which nothing else may happen.
const TICK: u64 = 1000;

fn spec(name: &str, gang: Option<Gang>, project: u8) -> Arc<TaskSpec> {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    Arc::new(TaskSpec {
        function: name.to_owned(),
        gang,
        resources: Resources {
            cpus: MilliCpu(1000),
            memory: ByteCount::mib(64),
            scratch: ByteCount(0),
            gpus: MilliGpu::ZERO,
        },
        ..TaskSpec::new(ProjectId::new(0, [project; 10]), code, python)
    })
}

/// A world of nodes of one core, with a queue that never ends of tasks that run for `run`, and a gang.
struct World {
    nodes: BTreeMap<NodeId, Vec<u64>>,
    region: BTreeMap<NodeId, &'static str>,
    now: u64,
    known: Option<Reservation>,
    /// Whether room is kept.
    keeps: bool,
    /// What a task is expected to run, and does.
    small: (u64, u64),
    gang: u32,
    spread: GangRegions,
    started: Option<u64>,
    filled: u32,
}

impl World {
    fn new(nodes: &[(u8, &'static str)], gang: u32) -> Self {
        Self {
            nodes: nodes
                .iter()
                .map(|(n, _)| (NodeId([*n; 32]), Vec::new()))
                .collect(),
            region: nodes.iter().map(|(n, r)| (NodeId([*n; 32]), *r)).collect(),
            now: 0,
            known: None,
            keeps: true,
            small: (10_000, 10_000),
            gang,
            spread: GangRegions::One,
            started: None,
            filled: 0,
        }
    }

    fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new();
        for (id, running) in &self.nodes {
            let busy = running.len() as u32;
            fleet.put(node(*id, self.region[id], busy));
        }
        fleet
    }

    fn groups(&self) -> Vec<Group> {
        let group = |spec: Arc<TaskSpec>, tasks, gang, ms: u64| Group {
            work: Work::of(Micros(ms * 1000)),
            gang,
            ..world::group(spec, tasks, 0)
        };
        let (size, regions) = (self.gang as u16, self.spread);
        let mut groups = vec![group(spec("small", None, 1), 100, 1, self.small.0)];
        if self.started.is_none() {
            let gang = spec("gang", Some(Gang { size, regions }), 2);
            groups.push(group(gang, self.gang, self.gang, 5_000));
        }
        groups
    }

    /// One round: what ended goes, the plan is made and carried out.
    fn step(&mut self, at_most_small: u32) {
        let now = self.now;
        self.nodes
            .values_mut()
            .for_each(|running| running.retain(|end| *end > now));
        let mut fleet = self.fleet();
        let mut groups = self.groups();
        groups[0].tasks = at_most_small;
        let busy = self.nodes.iter().filter(|(_, r)| !r.is_empty());
        let ends = busy.map(|(id, r)| (*id, Millis(*r.iter().max().unwrap())));
        let ends: Vec<_> = ends.collect();
        let input = PlanInput {
            now: Millis(now),
            seed: 1,
            budget: 1000,
            shares: Vec::new(),
            presence: Presence::new(),
            gangs: Gangs {
                known: self.known.take().map(|r| (1, r)).into_iter().collect(),
                ends: self.keeps.then_some(ends),
            },
        };
        let (found, report) = plan(&mut fleet, &groups, &input);
        let again = plan(&mut fleet, &groups, &input);
        assert_eq!(
            (&found, &report),
            (&again.0, &again.1),
            "and nothing is left of a plan"
        );
        self.known = report.reserved.into_iter().map(|(_, r)| r).next();
        let gang: u32 = found
            .assignments
            .iter()
            .filter(|a| a.group == 1)
            .map(|a| a.tasks)
            .sum();
        assert!(gang == 0 || gang == self.gang, "{gang} of a gang");
        for a in &found.assignments {
            let running = self.nodes.get_mut(&a.node).unwrap();
            let (run, expected) = match a.group {
                0 => (self.small.1, self.small.0),
                _ => (5_000, 5_000),
            };
            (0..a.tasks).for_each(|_| running.push(now + run));
            assert!(running.len() <= 1, "a node of one core");
            if let (0, Some(kept)) = (a.group, &self.known)
                && kept.nodes.contains(&a.node)
            {
                self.filled += 1;
                assert!(
                    now + expected <= kept.at.0,
                    "what is let in ends before the gang's turn"
                );
            }
        }
        if gang > 0 {
            self.started = Some(now);
        }
        self.now += TICK;
    }
}

fn node(id: NodeId, region: &str, busy: u32) -> NodeView {
    let node = world::node(id.0[0], 1, region, 40_000);
    let spec = NodeSpec {
        price_usd_micros_core_hour: UsdMicros(0),
        backlog_credit: 0,
        ..(*node.spec).clone()
    };
    NodeView {
        free_cpus: MilliCpu(1000 * (1 - busy)),
        free_backlog: 0,
        spec: Arc::new(spec),
        ..node
    }
}

const FOUR: [(u8, &str); 4] = [(1, "a"), (2, "a"), (3, "a"), (4, "a")];

/// Fills the nodes one after the other, so that they never are free together.
fn staggered(mut world: World) -> World {
    let gang = world.started.replace(0);
    for _ in 0..8 {
        world.step(1);
    }
    world.started = gang;
    world
}

#[test]
fn a_stream_of_small_tasks_does_not_starve_a_gang() {
    let mut starved = staggered(World::new(&FOUR, 4));
    starved.keeps = false;
    let mut served = staggered(World::new(&FOUR, 4));
    let begin = served.now;
    (0..100).for_each(|_| {
        starved.step(100);
        served.step(100);
    });
    assert_eq!(starved.started, None, "without room kept it waits for ever");
    let waited = served.started.unwrap() - begin;
    assert!(
        waited <= 10_000,
        "no longer than the longest that ran: {waited} ms"
    );
}

#[test]
fn what_ends_before_the_gangs_turn_runs_on_its_nodes() {
    let mut world = staggered(World::new(&FOUR, 4));
    let begin = world.now;
    // From now on only short ones come.
    world.small = (1_000, 1_000);
    world.step(100);
    let at = world.known.as_ref().unwrap().at.0;
    while world.started.is_none() {
        world.step(100);
        assert!(world.now < begin + 30_000);
    }
    assert!(world.filled >= 3, "{} ran meanwhile", world.filled);
    assert!(world.started.unwrap() <= at, "and none of them delayed it");
}

#[test]
fn what_runs_longer_than_expected_is_not_followed_by_more_of_it() {
    let mut world = staggered(World::new(&FOUR, 4));
    let begin = world.now;
    // They are expected to run for a second, and take twenty.
    world.small = (1_000, 20_000);
    while world.started.is_none() {
        world.step(100);
        assert!(world.now < begin + 60_000);
    }
    let waited = world.started.unwrap() - begin;
    assert!(waited <= 30_000, "{waited} ms");
}

#[test]
fn a_reservation_goes_with_its_nodes() {
    let mut world = staggered(World::new(
        &[(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b")],
        2,
    ));
    world.step(100);
    let first = world.known.clone().unwrap();
    assert_eq!(first.nodes.len(), 2, "of one region");
    assert_eq!(world.region[&first.nodes[0]], world.region[&first.nodes[1]]);
    world.step(0);
    assert!(
        world.started.is_some() || world.known == Some(first.clone()),
        "it stays as it is"
    );
    if world.started.is_none() {
        world.nodes.remove(&first.nodes[0]);
        world.step(100);
        let second = world.known.clone();
        assert!(world.started.is_some() || second.is_some_and(|s| s != first));
    }
}

#[test]
fn a_gang_may_lie_in_several_regions_where_it_says_so() {
    let apart = [(1, "a"), (2, "b"), (3, "c")];
    let mut one = World::new(&apart, 3);
    let mut any = World::new(&apart, 3);
    any.spread = GangRegions::Any;
    one.step(0);
    any.step(0);
    assert_eq!((one.started, any.started), (None, Some(0)));
}

#[test]
fn two_gangs_that_each_need_most_of_the_fleet_take_turns() {
    let world = World::new(&FOUR, 3);
    let gangs = |which: &[u8]| -> Vec<Group> {
        let one = |project: &u8| {
            let gang = Gang {
                size: 3,
                regions: GangRegions::One,
            };
            let spec = spec("gang", Some(gang), *project);
            Group {
                digest: Digest::of(&spec.to_canonical()),
                spec,
                ..world.groups().remove(1)
            }
        };
        which.iter().map(one).collect()
    };
    let input = |known, ends| PlanInput {
        now: Millis(0),
        seed: 1,
        budget: 1000,
        shares: Vec::new(),
        presence: Presence::new(),
        gangs: Gangs { known, ends },
    };
    let (first, report) = plan(
        &mut world.fleet(),
        &gangs(&[2, 3]),
        &input(Vec::new(), Some(Vec::new())),
    );
    let placed: Vec<usize> = first.assignments.iter().map(|a| a.group).collect();
    assert_eq!(placed.len(), 3);
    assert!(
        placed.iter().all(|group| *group == placed[0]),
        "one of them whole: {placed:?}"
    );
    // Nobody knows when the nodes that it took are empty: room is kept once it has begun.
    assert_eq!(report.reserved, []);
    let other = [[3u8, 2][placed[0]]];
    let (second, _) = plan(&mut world.fleet(), &gangs(&other), &input(Vec::new(), None));
    assert_eq!(
        second.assignments.len(),
        3,
        "when that has ended the other goes"
    );
}

#[test]
fn the_slowest_link_of_a_gang_is_a_term_of_each_member() {
    let terms = |regions: [&'static str; 2]| {
        let nodes = [(1, regions[0]), (2, regions[1])];
        let mut world = World::new(&nodes, 2);
        world.spread = GangRegions::Any;
        let groups = world.groups();
        let (found, _) = plan(&mut world.fleet(), &groups[1..], &world::INPUT);
        let bills = found.assignments.iter().map(|a| a.bill);
        bills.map(|bill| bill[TermKind::Link]).collect::<Vec<f64>>()
    };
    assert_eq!(terms(["eu-1", "eu-1"]), [0.0, 0.0]);
    // Of two regions between which nobody measured: 0.2 s.
    let apart = 0.2 / 3600.0 * Policy::BALANCED.hour_usd_micros;
    let found = terms(["eu-1", "us-1"]);
    assert!(
        found.len() == 2 && found.iter().all(|t| (t - apart).abs() < 1e-9),
        "{found:?}"
    );
}
