//! A large plan, and its digest written down: builds that plan otherwise are told apart by it.
//!
//! Owns the view that is planned and what of a plan counts: every assignment, and every term of its bill to the last
//! bit. Leaves holding a build against it to the test and the bench.

use farlane_model::Digest;
use farlane_plan::{Fleet, Gangs, PlanInput, Presence, plan};
use farlane_units::{Millis, Ppm};

use crate::{Mix, Random, World};

/// Of the plan that every build must make.
pub const DIGEST: &str = "1ed01ad4f75f0fbbd27839fc825c1fd2be363e057d0c858ea6ffe1d28ab5c94e";

/// Of the plan that this build makes: 2,000 nodes in 20 regions, half of them busy, and 300 kinds of task of 12
/// projects, some in gangs.
pub fn digest() -> Digest {
    let mut world = World::new(17, 20);
    let mut random = Random::new(18);
    let mut fleet = Fleet::new();
    for _ in 0..2000 {
        let mut node = world.node();
        if random.below(2) == 0 {
            node.free_cpus.0 -= random.below(u64::from(node.free_cpus.0)) as u32;
            node.backlog = random.below(2) as u32;
            node.risk = Ppm(random.below(50_000) as u32);
        }
        fleet.put(node);
    }
    let mut groups: Vec<_> = (0..300).map(|_| world.group(Mix::Mixed, 12, 40)).collect();
    for group in &mut groups {
        group.gang = *random.of(&[1, 1, 1, 8]);
    }
    let mut said = Vec::new();
    for seed in 0..2 {
        let input = PlanInput {
            now: Millis(1),
            seed,
            budget: 3000,
            shares: Vec::new(),
            presence: Presence::default(),
            gangs: Gangs::default(),
        };
        let (found, _) = plan(&mut fleet, &groups, &input);
        for a in &found.assignments {
            said.extend_from_slice(&(a.group as u64).to_le_bytes());
            said.extend_from_slice(&a.node.0);
            said.extend_from_slice(&a.tasks.to_le_bytes());
            for (kind, usd_micros) in a.bill.terms() {
                said.push(kind as u8);
                said.extend_from_slice(&usd_micros.to_bits().to_le_bytes());
            }
        }
    }
    Digest::of(&said)
}
