//! Who makes way for whom, between projects.

mod world;

use farlane_model::*;
use farlane_plan::*;
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis};
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
            devices: 0,
            amounts: Vec::new(),
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
                devices: DeviceLoads::default(),
                amounts: Vec::new(),
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
        devices: 0,
        amounts: Vec::new(),
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
        devices: DeviceLoads::default(),
        amounts: Vec::new(),
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

/// A node with an A100, two T4 and four licenses, and what holds them: so many thousandths of these GPUs, and so many
/// licenses, for so long.
fn gpus(held: &[(u64, u32, u32, u64)]) -> (Fleet, Occupied) {
    let mut there = node(1, 8, "us", 1);
    let device = |model: &str| Device {
        kind: DeviceKind::Gpu { cuda_cores: 1 },
        model: model.to_owned(),
        memory: ByteCount::gib(40),
        tdp_watts: 0,
        id: String::new(),
        measured: None,
    };
    let license = |amount| {
        vec![Amount {
            name: "license".to_owned(),
            amount,
        }]
    };
    let spec = std::sync::Arc::make_mut(&mut there.spec);
    spec.devices = ["A100", "T4", "T4"].map(device).into();
    spec.resources = license(4);
    let none = Resources {
        cpus: MilliCpu(0),
        memory: ByteCount(0),
        scratch: ByteCount(0),
        gpus: MilliGpu::ZERO,
    };
    let mut loads = DeviceLoads::default();
    let mut left = 4;
    let mut holders = Vec::new();
    for (set, share, licenses, ran) in held {
        loads.take(*set, *share, TenantId([2; 32]));
        left -= licenses;
        holders.push(Holder {
            devices: *set,
            amounts: license(*licenses),
            ..holder(
                0,
                *ran,
                1,
                Resources {
                    gpus: MilliGpu(share * set.count_ones()),
                    ..none
                },
                Stands::Running,
            )
        });
    }
    let mut fleet = Fleet::new();
    fleet.put(there);
    let occupied = Occupied {
        node: NodeId([1; 32]),
        free: Resources {
            cpus: MilliCpu(4000),
            memory: ByteCount::gib(4),
            scratch: ByteCount::gib(4),
            ..none
        },
        devices: loads,
        amounts: license(left),
        holders,
    };
    (fleet, occupied)
}

#[test]
fn what_makes_way_has_what_is_lacking() {
    let way = |held: &[(u64, u32, u32, u64)], gpus_wanted: u32, model: &str, licenses: u32| {
        let (mut fleet, occupied) = gpus(held);
        let mut waits = of_project(1, 1000, 1, 0);
        waits.urgency = -5;
        let spec = std::sync::Arc::make_mut(&mut waits.spec);
        spec.resources.gpus = MilliGpu(gpus_wanted);
        spec.gpu.models = (!model.is_empty())
            .then(|| model.to_owned())
            .into_iter()
            .collect();
        spec.amounts = Amount::new("license", licenses).into_iter().collect();
        waits.digest = Digest::of(&waits.spec.to_canonical());
        let found = preempt(&mut fleet, &[waits], &[occupied], &[]);
        found.into_iter().next().map(|found| found.victims)
    };
    // The A100's holder is asked though a T4 is free, and nobody who holds a T4.
    let one_free = [(0b001, 1000, 0, 90), (0b010, 1000, 0, 1)];
    assert_eq!(way(&one_free, 1000, "A100", 0), Some(vec![0]));
    assert_eq!(way(&one_free, 1000, "T4", 0), None, "one is free");
    assert_eq!(way(&one_free, 2000, "T4", 0), Some(vec![1]));
    // Halves of two GPUs are no whole one, and another tenant's half is none for a part.
    let halves = [
        (0b001, 500, 0, 5),
        (0b010, 500, 0, 3),
        (0b100, 500, 0, 6),
        (0b010, 500, 0, 2),
    ];
    assert_eq!(way(&halves, 1000, "", 0), Some(vec![3, 1]));
    assert_eq!(way(&halves, 1000, "A100", 0), Some(vec![0]));
    assert_eq!(way(&halves, 500, "", 0), Some(vec![3, 1]));
    assert_eq!(way(&halves[..1], 2000, "", 0), None, "two are free");
    // Named resources are given by who holds them.
    let named = [(0, 0, 0, 1), (0, 0, 3, 9), (0, 0, 1, 2)];
    assert_eq!(way(&named, 0, "", 1), Some(vec![2]));
    assert_eq!(way(&named, 0, "", 2), Some(vec![1]));
    assert_eq!(way(&named, 0, "", 4), Some(vec![2, 1]));
}
