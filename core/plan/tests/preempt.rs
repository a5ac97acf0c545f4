//! Who makes way for whom, between projects.

mod world;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, MilliCpu, Millis};
use world::*;

#[test]
fn a_project_above_its_share_makes_way_until_shares_are_even() {
    let mut fleet = Fleet::new();
    fleet.put(node(1, 4, "us", 1));
    let waits = [of_project(1, 1000, 5, 0)];
    let need = waits[0].spec.resources;
    let mut way = |mine: u64, weight| {
        let share = |project: u8, weight, cores: u64| Share {
            project: ProjectId::new(0, [project; 10]),
            weight,
            cpus: cores * 1000,
            memory: ByteCount(0),
            gpus: 0,
            left: Left::ALL,
        };
        let theirs = Holder {
            project: ProjectId::new(0, [2; 10]),
            urgency: -9,
            waited: Millis(0),
            need,
            ran: Millis(5),
            stands: Stands::Running,
        };
        let (node, cpus) = (NodeId([1; 32]), MilliCpu(0));
        let (free, holders) = (Resources { cpus, ..need }, vec![theirs; 4 - mine as usize]);
        let (node, shares) = (
            Occupied {
                node,
                free,
                holders,
            },
            [share(1, weight, mine), share(2, 1000, 4 - mine)],
        );
        preempt(&mut fleet, &waits, &[node], &shares).len()
    };
    // However urgent theirs is: priorities of two projects are never held against each other.
    assert_eq!([way(0, 1000), way(1, 1000), way(2, 1000)], [1, 1, 0]);
    assert_eq!([way(2, 3000), way(3, 3000)], [1, 0]);
}
