//! Laws of quotas, whatever order comes: no project holds more than its quota, but where the quota was lowered under
//! what it held; charges of a month never go back, and nothing is placed once they reach its budget.
#![allow(clippy::unwrap_used)]

mod world;

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;
use proptest::prelude::*;
use world::*;

const HOUR: u64 = 3_600_000;

#[derive(Debug, Clone)]
enum Step {
    Submit {
        n: u64,
        wide: bool,
        gpu: bool,
    },
    Place {
        tasks: Vec<u64>,
        node: u8,
    },
    Complete {
        tasks: Vec<u64>,
        hours: u64,
    },
    Return {
        task: u64,
        lost: bool,
    },
    Cancel {
        task: u64,
    },
    /// A gang of so many.
    SubmitGang {
        size: u16,
    },
    /// The first that waits, its members by turns on two nodes, from this one on.
    PlaceGang {
        node: u8,
    },
    Preempt {
        task: u64,
    },
    /// The agent says what its node's cores are: so many thousandths of a reference node's together.
    Measure {
        node: u8,
        all: Option<u64>,
    },
    Remove {
        node: u8,
    },
    Set {
        quota: Quota,
    },
    Tick {
        ms: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let some = |most| prop::option::of(0u64..most);
    let tasks = || prop::collection::vec(1u64..30, 1..8);
    prop_oneof![
        4 => (1u64..6, any::<bool>(), any::<bool>()).prop_map(|(n, wide, gpu)| Step::Submit { n, wide, gpu }),
        8 => (tasks(), 1u8..3).prop_map(|(tasks, node)| Step::Place { tasks, node }),
        4 => (tasks(), 0u64..3).prop_map(|(tasks, hours)| Step::Complete { tasks, hours }),
        2 => (1u64..30, any::<bool>()).prop_map(|(task, lost)| Step::Return { task, lost }),
        1 => (1u64..30).prop_map(|task| Step::Cancel { task }),
        2 => (some(6), some(6000), some(2000), some(9000), prop::option::of(0i64..200_000))
            .prop_map(|(tasks, cpus, gpus, ucu, budget)| Step::Set {
                quota: Quota { tasks, cpus, gpus, ucu, budget: budget.map(UsdMicros) },
            }),
        2 => (2u16..4).prop_map(|size| Step::SubmitGang { size }),
        3 => (1u8..3).prop_map(|node| Step::PlaceGang { node }),
        2 => (1u64..30).prop_map(|task| Step::Preempt { task }),
        3 => (1u8..3, prop::option::of(0u64..40_000)).prop_map(|(node, all)| Step::Measure { node, all }),
        1 => (2u8..3).prop_map(|node| Step::Remove { node }),
        2 => prop_oneof![Just(900u64), Just(HOUR), Just(32 * 24 * HOUR)].prop_map(|ms| Step::Tick { ms }),
        1 => Just(Step::Restart),
    ]
}

fn take(w: &mut World, step: Step) {
    match step {
        Step::Submit { n, wide, gpu } => {
            let next = w.state.session(&session('A')).map_or(1, |s| s.next_seq);
            let mut spec = task_spec("f");
            spec.resources.cpus = MilliCpu(if wide { 1500 } else { 1000 });
            spec.resources.gpus = MilliGpu(if gpu { 500 } else { 0 });
            w.submit('A', next, n, &spec);
        }
        Step::Place { tasks, node } => {
            let tasks: Vec<_> = tasks.into_iter().map(|n| task('A', n)).collect();
            w.place(&tasks, node);
        }
        Step::Complete { tasks, hours } => {
            for id in tasks.into_iter().map(|n| task('A', n)) {
                let Some(live) = w.state.task(id) else {
                    continue;
                };
                let Some(placed) = live.placed else { continue };
                let (n, attempt) = (placed.node.id.0[0], live.attempt);
                w.now += hours * HOUR;
                let mut done = w.completion(id, attempt, ExitKind::Returned);
                done.started = Millis(w.now - hours * HOUR);
                let order = w.complete_order(n, n, vec![done]);
                w.order(order);
            }
        }
        Step::Return { task: n, lost } => {
            let id = task('A', n);
            let attempt = w.state.task(id).map_or(1, |t| t.attempt);
            let reason = match lost {
                true => ReturnReason::Lost(LostCause::LeaseExpired),
                false => ReturnReason::NotGranted,
            };
            w.give_back(id, attempt, reason);
        }
        Step::Cancel { task: n } => drop(w.cancel(&[task('A', n)])),
        Step::SubmitGang { size } => {
            let next = w.state.session(&session('A')).map_or(1, |s| s.next_seq);
            let mut spec = task_spec("gang");
            spec.gang = Some(Gang {
                size,
                regions: GangRegions::Any,
            });
            spec.retry.lost = 3;
            w.submit('A', next, u64::from(size), &spec);
        }
        Step::PlaceGang { node } => {
            let waits = w.state.waiting().find_map(|queue| queue.gangs().next());
            let on = |at: usize| if at.is_multiple_of(2) { node } else { 3 - node };
            let members = waits.unwrap_or_default();
            let members = members.iter().enumerate();
            let placements = members
                .map(|(at, id)| w.place_order(&[*id], on(at)).placements[0])
                .collect();
            w.order(Place {
                based_on: w.index,
                placements,
                quotes: Vec::new(),
            });
        }
        Step::Preempt { task: n } => {
            let attempt = w.state.task(task('A', n)).map_or(1, |t| t.attempt);
            let attempts = vec![w.attempt(task('A', n), attempt)];
            w.order(Preempt { attempts });
        }
        Step::Measure { node: n, all } => {
            let cores = if n == 1 { 8 } else { 4 };
            let mut spec = node_spec(cores, if n == 1 { 3 } else { 0 });
            spec.measured = all.map(|all| measured(cores, all));
            w.order(UpdateNode {
                node: node(n),
                boot: boot(n),
                spec: spec.to_canonical().into(),
            });
        }
        Step::Remove { node: n } => {
            w.order(RemoveNode { node: node(n) });
            w.join(n, 4, 0);
        }
        Step::Set { quota } => {
            let set = w.state.project(&project()).set();
            let order = SetProject {
                project: project(),
                after: set.map_or(0, |s| s.revision),
                settings: ProjectSettings {
                    weight: 1,
                    quota,
                    policy: None,
                },
                by: key(),
            };
            assert_eq!(w.order(order), Outcome::Done);
        }
        Step::Tick { ms } => w.tick(ms),
        Step::Restart => w.restart(),
    }
}

/// What its leases hold, added up anew.
fn held(w: &World) -> Holding {
    let mut held = Holding::default();
    for live in w.state.tasks().filter(|t| t.placed.is_some()) {
        let need = live.spec.task.resources;
        held.tasks += 1;
        held.cpus += u64::from(need.cpus.0);
        held.memory += u128::from(need.memory.0);
        held.gpus += u64::from(need.gpus.0);
        held.ucu += u128::from(live.placed.unwrap().lease.ucu.0);
    }
    held
}

fn attempts(w: &World) -> Vec<(TaskId, u32)> {
    w.state.tasks().map(|t| (t.id, t.attempt)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn no_quota_is_passed_and_no_budget_goes_back(steps in prop::collection::vec(step(), 1..60)) {
        let mut w = World::new();
        w.join(1, 8, 3);
        w.join(2, 4, 0);
        for step in steps {
            let (before, tried) = (held(&w), attempts(&w));
            let (began, spent) = (Millis(w.now), w.state.project(&project()).spent(Millis(w.now)));
            let quota = w.state.project(&project()).quota();
            let broke = quota.budget.is_some_and(|most| spent >= most);
            let placing = matches!(step, Step::Place { .. } | Step::PlaceGang { .. });
            let known: Vec<AttemptRef> = w.state.tasks().filter(|t| t.placed.is_some()).map(|t| t.attempt_ref()).collect();
            take(&mut w, step);
            // What a new lease counts for is what its node was measured to be when it was placed.
            for live in w.state.tasks().filter(|t| placing && !known.contains(&t.attempt_ref())) {
                let Some(placed) = live.placed else { continue };
                let counts = placed.node.spec.ucu_of(live.spec.task.resources.cpus);
                prop_assert_eq!(placed.lease.ucu, counts);
            }
            let (now, known) = (held(&w), w.state.project(&project()));
            prop_assert_eq!(now, known.held());
            let quota = known.quota();
            for (most, held, had) in [
                (quota.tasks, now.tasks, before.tasks),
                (quota.cpus, now.cpus, before.cpus),
                (quota.gpus, now.gpus, before.gpus),
                (quota.ucu, now.ucu as u64, before.ucu as u64),
            ] {
                let most = most.unwrap_or(u64::MAX);
                prop_assert!(held <= most.max(had), "{} held of {}", held, most);
            }
            if Month::of(began) == Month::of(Millis(w.now)) {
                prop_assert!(known.spent(Millis(w.now)) >= spent, "a month's charges went back");
                if placing && broke {
                    prop_assert_eq!(attempts(&w), tried, "placed with nothing left of the budget");
                }
            }
        }
    }
}
