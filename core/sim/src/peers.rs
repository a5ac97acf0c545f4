//! How others choose a node: the same world and the same judge, another chooser.
//!
//! Owns the peers' rules, as they publish them. Each takes tasks in the order in which they came, and only nodes
//! that run the task at once: none of them places ahead of room.

use farlane_plan::{Assignment, Bill, Group, NodeView, Plan, Report, Site};
use farlane_units::Micros;

use crate::Random;
use crate::machine::speed;

/// Who chooses nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// The planner of this network.
    Farlane,
    /// Any that has room.
    Random,
    /// The next that has room.
    RoundRobin,
    /// The one whose cores are the least in use, as a share.
    LeastLoaded,
    /// The fullest one that has room, by the score of Nomad's bin packing.
    BinPack,
    /// The least of latency, run time and price, each over the worst one's, in equal parts.
    WeightedSum,
}

impl Chooser {
    /// All of them, this network's first.
    pub const ALL: [Self; 6] = [
        Self::Farlane,
        Self::Random,
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::BinPack,
        Self::WeightedSum,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Farlane => "farlane",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::BinPack => "bin-pack",
            Self::WeightedSum => "weighted sum",
        }
    }
}

/// A chooser other than the planner.
pub(crate) struct Peer {
    chooser: Chooser,
    random: Random,
    /// Where round-robin goes on.
    next: usize,
}

impl Peer {
    /// `None` where the planner chooses.
    pub fn of(chooser: Chooser, seed: u64) -> Option<Self> {
        (chooser != Chooser::Farlane).then(|| Self {
            chooser,
            random: Random::new(seed ^ 0x9ee5),
            next: 0,
        })
    }

    /// Places what it can; takes the room of it off the nodes.
    pub fn plan(
        &mut self,
        nodes: &mut [NodeView],
        groups: &[Group],
        budget: u32,
    ) -> (Plan, Report) {
        let (mut plan, mut report) = (Plan::default(), Report::default());
        for (index, group) in groups.iter().enumerate() {
            let fitting = fitting(nodes, group);
            let mut wanted = group.tasks;
            while wanted >= group.gang && report.placed + group.gang <= budget {
                let Some(members) = self.members(nodes, &fitting, group) else {
                    break;
                };
                for at in members {
                    plan.assignments.push(Assignment {
                        group: index,
                        node: nodes[at].id,
                        generation: nodes[at].generation,
                        tasks: 1,
                        devices: 0,
                        bill: Bill::default(),
                        run: Micros(0),
                        emits: None,
                        runner_up: None,
                    });
                }
                wanted -= group.gang;
                report.placed += group.gang;
            }
        }
        report.cut_short = report.placed == budget;
        (plan, report)
    }

    /// Nodes for a whole gang in one region, or for one task; their room is taken.
    fn members(
        &mut self,
        nodes: &mut [NodeView],
        fitting: &[usize],
        group: &Group,
    ) -> Option<Vec<usize>> {
        let mut tried: Vec<std::sync::Arc<str>> = Vec::new();
        loop {
            let open = |at: &&usize| !tried.contains(&nodes[**at].region);
            let some: Vec<usize> = fitting.iter().filter(open).copied().collect();
            let first = self.choose(nodes, &some, group)?;
            let region = nodes[first].region.clone();
            let before: Vec<NodeView> = nodes.to_vec();
            let mut members = vec![first];
            take(&mut nodes[first], group);
            while members.len() < group.gang as usize {
                let there = some.iter().filter(|at| nodes[**at].region == region);
                let there: Vec<usize> = there.copied().collect();
                let Some(next) = self.choose(nodes, &there, group) else {
                    break;
                };
                take(&mut nodes[next], group);
                members.push(next);
            }
            if members.len() == group.gang as usize {
                return Some(members);
            }
            nodes.clone_from_slice(&before);
            tried.push(region);
        }
    }

    fn choose(&mut self, nodes: &[NodeView], some: &[usize], group: &Group) -> Option<usize> {
        let room = some.iter().filter(|at| has_room(&nodes[**at], group));
        let room: Vec<usize> = room.copied().collect();
        if room.is_empty() {
            return None;
        }
        let least = |score: &dyn Fn(&NodeView) -> f64| {
            let least = room.iter().min_by(|a, b| {
                let (a, b) = (score(&nodes[**a]), score(&nodes[**b]));
                a.total_cmp(&b)
            });
            least.copied()
        };
        match self.chooser {
            Chooser::Farlane => None,
            Chooser::Random => Some(*self.random.of(&room)),
            Chooser::RoundRobin => {
                let after = room.iter().find(|at| **at >= self.next);
                let at = *after.unwrap_or(&room[0]);
                self.next = at + 1;
                Some(at)
            }
            Chooser::LeastLoaded => least(&|node| -free(node).0),
            Chooser::BinPack => least(&|node| bin_pack(node, group)),
            Chooser::WeightedSum => {
                let figures = |node: &NodeView| {
                    let run = 1.0 / speed(&node.spec, &group.spec) as f64;
                    (node.round_trip.0 as f64, run, run * node.price.0 as f64)
                };
                let all = room.iter().map(|at| figures(&nodes[*at]));
                let worst = all.fold((1e-9f64, 1e-9f64, 1e-9f64), |w, f| {
                    (w.0.max(f.0), w.1.max(f.1), w.2.max(f.2))
                });
                least(&|node| {
                    let of = figures(node);
                    of.0 / worst.0 + of.1 / worst.1 + of.2 / worst.2
                })
            }
        }
    }
}

fn fitting(nodes: &[NodeView], group: &Group) -> Vec<usize> {
    let fits = |node: &NodeView| {
        let site = Site {
            node: Some(&node.id),
            price: node.price,
            carbon: node.carbon,
            ..Site::of(&node.spec, &node.region)
        };
        node.online && site.fits(&group.spec)
    };
    (0..nodes.len()).filter(|at| fits(&nodes[*at])).collect()
}

fn has_room(node: &NodeView, group: &Group) -> bool {
    let need = &group.spec.resources;
    node.backlog == 0
        && need.cpus <= node.free_cpus
        && need.memory <= node.free_memory
        && need.scratch <= node.free_scratch
        && gpus(node, group).is_some()
}

/// The accelerators that it would get.
fn gpus(node: &NodeView, group: &Group) -> Option<u64> {
    node.devices
        .choose(&node.spec.devices, &group.spec, &group.tenant)
}

fn take(node: &mut NodeView, group: &Group) {
    let need = &group.spec.resources;
    node.free_cpus = node.free_cpus.saturating_sub(need.cpus);
    node.free_memory = node.free_memory.saturating_sub(need.memory);
    node.free_scratch = node.free_scratch.saturating_sub(need.scratch);
    let gpus = gpus(node, group).unwrap_or_default();
    node.devices.take(gpus, need.share(), group.tenant);
}

/// Cores and memory that are free, as shares.
fn free(node: &NodeView) -> (f64, f64) {
    let of = |free: f64, all: f64| free / all.max(1.0);
    (
        of(f64::from(node.free_cpus.0), f64::from(node.spec.cpus.0)),
        of(node.free_memory.0 as f64, node.spec.memory.0 as f64),
    )
}

/// 10 to the share of cores that would be free, and of memory: the less, the better it is packed. Source:
/// hashicorp/nomad, nomad/structs/funcs.go, `ScoreFitBinPack`, which takes this from 20; Google's BestFit v3.
fn bin_pack(node: &NodeView, group: &Group) -> f64 {
    let mut after = node.clone();
    take(&mut after, group);
    let (cores, memory) = free(&after);
    10f64.powf(cores) + 10f64.powf(memory)
}
