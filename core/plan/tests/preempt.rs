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
            members: 1,
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

fn holder(urgency: i16, ran: u64, members: u32, need: Resources, stands: Stands) -> Holder {
    Holder {
        project: ProjectId::new(0, [1; 10]),
        urgency,
        waited: Millis(0),
        need,
        members,
        ran: Millis(ran),
        stands,
    }
}

#[test]
fn room_is_made_for_all_of_a_gang_or_for_none_of_it() {
    use Stands::*;
    let mut fleet = Fleet::new();
    (1..=2).for_each(|n| fleet.put(node(n, 2, "us", 1)));
    let mut waits = of_project(1, 1000, 3, 0);
    (waits.gang, waits.urgency) = (3, -5);
    let need = waits.spec.resources;
    let place = |n: u8, holders: Vec<Holder>| Occupied {
        node: NodeId([n; 32]),
        free: Resources {
            cpus: MilliCpu(0),
            ..need
        },
        holders,
    };
    let of = |urgency, ran, stands| holder(urgency, ran, 1, need, stands);
    let mut way = |all: [Vec<Holder>; 2]| {
        let [a, b] = all;
        make_room(&mut fleet, &waits, &[place(1, a), place(2, b)], &[])
    };
    // Three of four: what has done most stays.
    let four = [
        vec![of(0, 9, Running), of(0, 1, Running)],
        vec![of(0, 5, Running), of(0, 3, Running)],
    ];
    assert_eq!(way(four), [(0, vec![1]), (1, vec![1, 0])]);
    // Two of four may be asked, which is not enough; what comes anyway is waited for.
    let few = [
        vec![of(0, 9, Running), of(-9, 1, Running)],
        vec![of(0, 5, Running), of(0, 3, Fixed)],
    ];
    assert_eq!(way(few), []);
    let comes = [
        vec![of(0, 9, Yielding), of(0, 1, Yielding)],
        vec![of(0, 5, Yielding), of(0, 3, Running)],
    ];
    assert_eq!(way(comes), []);
    let some = [
        vec![of(0, 9, Yielding), of(0, 1, Yielding)],
        vec![of(0, 5, Running), of(0, 3, Running)],
    ];
    assert_eq!(way(some), [(1, vec![1])]);
    // Of a gang all is done again.
    let gang = [
        vec![holder(0, 2, 8, need, Running), of(0, 9, Running)],
        vec![of(0, 5, Running), of(0, 3, Running)],
    ];
    assert_eq!(way(gang), [(0, vec![1]), (1, vec![1, 0])]);
}
