//! What the scheduler does on one core; prints one line of JSON. `cargo xtask bench scheduler` builds and
//! runs it.
//!
//! Every round plans on the fleet, puts what was placed into it, and takes out what was placed `KEEP` rounds
//! before, as a controller does: the cost of keeping the fleet up to date is in every figure.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod applied;
mod floods;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use farlane_model::{Digest, NodeId, Resources};
use farlane_plan::{Fleet, Gangs, Group, NodeView, Plan, PlanInput, Presence, plan};
use farlane_sim::{Mix, Random, World, same_plan};
use farlane_state::{Genesis, Outcome, RegisterNode, Stamp, State, apply};
use farlane_units::Millis;

/// Rounds that a task runs for.
const KEEP: usize = 8;

/// The nodes as the state would have them, and the fleet made from them.
struct Network {
    nodes: HashMap<NodeId, NodeView>,
    fleet: Fleet,
    running: VecDeque<Vec<(NodeId, Resources, bool)>>,
}

fn input(seed: u64, budget: u32) -> PlanInput {
    PlanInput {
        now: Millis(0),
        seed,
        budget,
        shares: Vec::new(),
        presence: Presence::new(),
        gangs: Gangs::default(),
    }
}

impl Network {
    fn new(world: &mut World, nodes: usize) -> Self {
        let nodes: Vec<NodeView> = (0..nodes).map(|_| world.node()).collect();
        let mut fleet = Fleet::new();
        nodes.iter().for_each(|node| fleet.put(node.clone()));
        Self {
            nodes: nodes.into_iter().map(|n| (n.id, n)).collect(),
            fleet,
            running: VecDeque::new(),
        }
    }

    /// Carries a plan out, and ends what was placed some rounds before.
    fn carry_out(&mut self, groups: &[Group], plan: &Plan) -> u32 {
        let (mut placed, mut count) = (Vec::new(), 0);
        for a in &plan.assignments {
            let need = groups[a.group].spec.resources;
            let node = self.nodes.get_mut(&a.node).unwrap();
            for _ in 0..a.tasks {
                placed.push((a.node, need, take(node, &need)));
            }
            count += a.tasks;
            self.fleet.put(node.clone());
        }
        self.running.push_back(placed);
        if self.running.len() > KEEP {
            for (id, need, ran) in self.running.pop_front().unwrap_or_default() {
                let node = self.nodes.get_mut(&id).unwrap();
                give(node, &need, ran);
                self.fleet.put(node.clone());
            }
        }
        count
    }
}

fn take(node: &mut NodeView, need: &Resources) -> bool {
    let runs = node.backlog == 0
        && need.cpus <= node.free_cpus
        && need.memory <= node.free_memory
        && need.scratch <= node.free_scratch;
    if runs {
        node.free_cpus = node.free_cpus.checked_sub(need.cpus).unwrap();
        node.free_memory = node.free_memory.checked_sub(need.memory).unwrap();
        node.free_scratch = node.free_scratch.checked_sub(need.scratch).unwrap();
    } else {
        node.free_backlog = node.free_backlog.checked_sub(1).unwrap();
        node.backlog += 1;
    }
    runs
}

fn give(node: &mut NodeView, need: &Resources, ran: bool) {
    if ran {
        node.free_cpus = node.free_cpus.saturating_add(need.cpus);
        node.free_memory = node.free_memory.saturating_add(need.memory);
        node.free_scratch = node.free_scratch.saturating_add(need.scratch);
    } else {
        node.free_backlog += 1;
        node.backlog -= 1;
    }
}

/// Placements a second: rounds of 2,048 out of two hundred kinds of task that wait.
fn throughput(nodes: usize, rounds: u64) -> f64 {
    let mut world = World::new(1, 20);
    let mut network = Network::new(&mut world, nodes);
    let mut groups: Vec<Group> = (0..200).map(|_| world.group(Mix::Mixed, 10, 0)).collect();
    let (mut placed, mut seconds) = (0, 0.0);
    for round in 0..rounds + KEEP as u64 {
        groups.iter_mut().for_each(|group| group.tasks = 200);
        let begin = Instant::now();
        let (found, _) = plan(&mut network.fleet, &groups, &input(round, 2048));
        let count = network.carry_out(&groups, &found);
        if round >= KEEP as u64 {
            seconds += begin.elapsed().as_secs_f64();
            placed += count;
        }
    }
    f64::from(placed) / seconds
}

/// Milliseconds of one call's placement, p50 and p99: half of the calls are of a kind never seen before.
fn one_decision(nodes: usize, calls: usize) -> (f64, f64) {
    let mut world = World::new(2, 20);
    let mut network = Network::new(&mut world, nodes);
    let known: Vec<Group> = (0..200).map(|_| world.group(Mix::Mixed, 10, 1)).collect();
    let mut random = Random::new(3);
    let mut times = Vec::with_capacity(calls);
    for call in 0..calls {
        let group = match call % 2 {
            0 => random.of(&known).clone(),
            _ => world.group(Mix::Mixed, 10, 1),
        };
        let groups = [group];
        let begin = Instant::now();
        let (found, _) = plan(&mut network.fleet, &groups, &input(call as u64, 1));
        network.carry_out(&groups, &found);
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    (times[calls / 2], times[calls * 99 / 100])
}

/// Milliseconds of a round of 5,000 placements, the median, with a million tasks of a thousand kinds waiting.
fn large_round(nodes: usize) -> f64 {
    let mut world = World::new(4, 20);
    let mut network = Network::new(&mut world, nodes);
    let groups: Vec<Group> = (0..1000)
        .map(|_| world.group(Mix::Mixed, 50, 1000))
        .collect();
    let mut times: Vec<f64> = (0..11)
        .map(|round| {
            let begin = Instant::now();
            let (found, report) = plan(&mut network.fleet, &groups, &input(round, 5000));
            network.carry_out(&groups, &found);
            assert_eq!(report.placed, 5000);
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Gangs of eight placed a second.
fn gangs(nodes: usize, rounds: u64) -> f64 {
    let mut world = World::new(5, 20);
    let mut network = Network::new(&mut world, nodes);
    let mut groups: Vec<Group> = (0..50).map(|_| world.group(Mix::Mixed, 10, 0)).collect();
    let (mut placed, mut seconds) = (0, 0.0);
    for round in 0..rounds + KEEP as u64 {
        for group in &mut groups {
            (group.gang, group.tasks) = (8, 64);
        }
        let begin = Instant::now();
        let (found, _) = plan(&mut network.fleet, &groups, &input(round, 2048));
        let count = network.carry_out(&groups, &found);
        if round >= KEEP as u64 {
            seconds += begin.elapsed().as_secs_f64();
            placed += count;
        }
    }
    f64::from(placed / 8) / seconds
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse().ok());
    pages.unwrap_or(0u64) * 4096
}

/// Bytes of a signed record, its certificate within. Source: those that agents made, 640 to 700.
const RECORD: usize = 700;

/// Bytes of state and fleet for each node of 100,000.
fn bytes_a_node() -> u64 {
    let nodes = 100_000;
    let mut world = World::new(6, 20);
    let before = resident();
    let (mut state, mut fleet) = (State::empty(), Fleet::new());
    let genesis = Genesis {
        network: Digest([1; 32]),
        epoch: 1,
        cluster_version: 1,
    };
    apply(&mut state, stamp(1), 0, genesis.into());
    for n in 0..nodes {
        let node = world.node();
        let mut spec = (*node.spec).clone();
        spec.name = format!("node-{n}");
        let register = RegisterNode {
            node: node.id,
            record: vec![7; RECORD].into(),
            spec: spec.to_canonical().into(),
            region: node.region.to_string(),
            provider: node.provider,
        };
        let applied = apply(&mut state, stamp(2 + n), 0, register.into());
        assert!(
            matches!(applied.outcome, Outcome::Done),
            "{:?}",
            applied.outcome
        );
        let spec = state.node(&node.id).unwrap().spec.clone();
        fleet.put(NodeView { spec, ..node });
    }
    let groups = [world.group(Mix::Plain, 1, 1)];
    let _ = plan(&mut fleet, &groups, &input(0, 1));
    assert_eq!(state.counts().nodes as u64, nodes);
    resident().saturating_sub(before) / nodes
}

fn stamp(index: u64) -> Stamp {
    Stamp {
        index,
        term: 1,
        now: Millis(1_000_000),
    }
}

fn main() {
    let plan = same_plan::digest().to_string();
    assert_eq!(
        plan,
        same_plan::DIGEST,
        "this build plans otherwise than others"
    );
    let bytes = bytes_a_node();
    let (p50, p99) = one_decision(10_000, 20_000);
    let applied = applied::rate(10_000, 40);
    let (alone, beside_unfit, beside_waiting) = floods::waits();
    println!(
        "{{\"placements_per_s\": {:.0}, \"applied_per_s\": {applied:.0}, \
         \"wait_alone_ms\": {alone}, \"wait_beside_unfit_ms\": {beside_unfit}, \
         \"wait_beside_waiting_ms\": {beside_waiting}, \"decision_p50_ms\": {p50:.4}, \"decision_p99_ms\": {p99:.4}, \
         \"round_of_5000_ms\": {:.2}, \"gangs_per_s\": {:.0}, \"bytes_a_node\": {bytes}}}",
        throughput(10_000, 200),
        large_round(100_000),
        gangs(10_000, 50),
    );
}
