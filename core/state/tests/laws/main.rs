//! Laws that hold whatever order comes: nothing panics, no node holds more than it has, each task
//! ends exactly once, and the rows alone are the state.
#![allow(clippy::unwrap_used)]

mod room;
#[path = "../world/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;
use proptest::prelude::*;
use room::*;
use world::*;

/// What may come next. Numbers are small, so that they often hit something.
#[derive(Debug, Clone)]
enum Step {
    Submit {
        session: u8,
        from: i8,
        n: u64,
        spec: u8,
        idempotency: Option<u8>,
    },
    Place {
        tasks: Vec<(u8, u64)>,
        node: u8,
        stale: bool,
    },
    Complete {
        node: u8,
        boot: u8,
        items: Vec<(u8, u64, u32, u8)>,
    },
    Return {
        task: (u8, u64),
        attempt: u32,
        reason: ReturnReason,
    },
    Cancel {
        task: (u8, u64),
    },
    Preempt {
        task: (u8, u64),
        attempt: u32,
    },
    Refuse {
        task: (u8, u64),
    },
    /// Gangs that wait, each member somewhere.
    PlaceGangs {
        nodes: Vec<u8>,
    },
    Tick {
        ms: u64,
    },
    Ack {
        session: u8,
        back: u64,
    },
    Join {
        node: u8,
        cores: u32,
        credit: u32,
    },
    Boot {
        node: u8,
        boot: u8,
        cores: u32,
    },
    Stock {
        node: u8,
        boot: u8,
        keys: usize,
    },
    Remove {
        node: u8,
    },
    Revoke {
        node: u8,
    },
    Granter {
        session: u8,
        attach: bool,
        standing: bool,
    },
    Outbox {
        back: u64,
        n: u32,
    },
    Price {
        node: u8,
        price: Option<i64>,
        ahead: u64,
    },
    Restart,
}

fn call() -> impl Strategy<Value = (u8, u64)> {
    (0u8..2, 1u64..14)
}

fn reason() -> impl Strategy<Value = ReturnReason> {
    prop_oneof![
        2 => Just(ReturnReason::Lost(LostCause::LeaseExpired)),
        1 => Just(ReturnReason::NotGranted),
        2 => Just(ReturnReason::CalledBack),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..2, -2i8..2, 1u64..5, 0u8..8, prop::option::weighted(0.2, 0u8..3))
            .prop_map(|(session, from, n, spec, idempotency)| Step::Submit { session, from, n, spec, idempotency }),
        10 => (prop::collection::vec(call(), 1..6), 1u8..4, prop::bool::weighted(0.1))
            .prop_map(|(tasks, node, stale)| Step::Place { tasks, node, stale }),
        4 => prop::collection::vec(1u8..4, 2..8).prop_map(|nodes| Step::PlaceGangs { nodes }),
        8 => (1u8..4, 1u8..4, prop::collection::vec((0u8..2, 1u64..14, 1u32..4, 0u8..8), 1..5))
            .prop_map(|(node, boot, items)| Step::Complete { node, boot, items }),
        4 => (call(), 1u32..4, reason())
            .prop_map(|(task, attempt, reason)| Step::Return { task, attempt, reason }),
        1 => call().prop_map(|task| Step::Cancel { task }),
        3 => (call(), 1u32..4).prop_map(|(task, attempt)| Step::Preempt { task, attempt }),
        1 => call().prop_map(|task| Step::Refuse { task }),
        3 => prop_oneof![Just(900u64), Just(3_700_000), Just(90_000_000), Just(200_000_000)]
            .prop_map(|ms| Step::Tick { ms }),
        2 => (0u8..2, 0u64..8).prop_map(|(session, back)| Step::Ack { session, back }),
        2 => (1u8..4, 1u32..4, 0u32..3)
            .prop_map(|(node, cores, credit)| Step::Join { node, cores, credit }),
        1 => (1u8..4, 1u8..9, 1u32..4).prop_map(|(node, boot, cores)| Step::Boot { node, boot, cores }),
        2 => (1u8..4, 1u8..4, 0usize..3).prop_map(|(node, boot, keys)| Step::Stock { node, boot, keys }),
        1 => (1u8..4).prop_map(|node| Step::Remove { node }),
        1 => (3u8..4).prop_map(|node| Step::Revoke { node }),
        2 => (0u8..3, any::<bool>(), any::<bool>())
            .prop_map(|(session, attach, standing)| Step::Granter { session, attach, standing }),
        1 => (0u64..20, 0u32..3).prop_map(|(back, n)| Step::Outbox { back, n }),
        1 => (1u8..4, prop::option::of(-1i64..3), 0u64..2_000)
            .prop_map(|(node, price, ahead)| Step::Price { node, price, ahead }),
        1 => Just(Step::Restart),
    ]
}

fn who(session: u8) -> char {
    ['A', 'B', 'S'][session as usize]
}
fn id((session, seq): (u8, u64)) -> TaskId {
    task(who(session), seq)
}

fn spec(n: u8) -> TaskSpec {
    let mut spec = task_spec(
        [
            "plain", "wide", "bounded", "once", "gpus", "part", "licensed", "gang",
        ][n as usize],
    );
    match n {
        1 => spec.resources.cpus = MilliCpu(2000),
        2 => {
            spec.timing.queue_timeout = Some(Millis(500));
            spec.timing.deadline = Some(Millis(5_000_000));
            spec.retry.raised = 1;
            spec.priority = 5;
        }
        3 => {
            spec.retry = Retry {
                lost: 1,
                raised: 1,
                at_most_once: true,
            };
            spec.forward_secrecy = ForwardSecrecy::Required;
        }
        4 => spec.resources.gpus = MilliGpu(1000),
        5 => spec.resources.gpus = MilliGpu(400),
        7 => {
            spec.gang = Some(Gang {
                size: 2,
                regions: GangRegions::Any,
            });
            spec.retry.raised = 1;
        }
        6 => spec.amounts = vec![Amount::new("license", 1).unwrap()],
        _ => spec.retry.lost = 1,
    }
    spec
}

fn exit(n: u8) -> ExitKind {
    [
        ExitKind::Returned,
        ExitKind::Raised,
        ExitKind::Lost(LostCause::Signal(9)),
        ExitKind::TimedOut,
        ExitKind::Refused,
        ExitKind::Infeasible,
        ExitKind::EnvFailed,
        ExitKind::Lost(LostCause::Preempted),
    ][n as usize]
}

/// What the world should remember of every call.
#[derive(Default)]
struct Books {
    taken: BTreeSet<TaskId>,
    ended: BTreeSet<TaskId>,
    forgotten: BTreeSet<TaskId>,
    attempts: BTreeMap<TaskId, u32>,
}

fn take(w: &mut World, step: Step) {
    match step {
        Step::Submit {
            session,
            from,
            n,
            spec: s,
            idempotency,
        } => {
            let next = w
                .state
                .session(&world::session(who(session)))
                .map_or(1, |s| s.next_seq);
            let first = next.saturating_add_signed(i64::from(from));
            let mut order = w.submit_order(who(session), first, n, &spec(s));
            if let (Some(key), Some(last)) = (idempotency, order.tasks.last_mut()) {
                last.idempotency = Some(Digest::of(&[key]));
            }
            w.order(order);
        }
        Step::Place { tasks, node, stale } => {
            let tasks: Vec<_> = tasks.into_iter().map(id).collect();
            let mut order = w.place_order(&tasks, node);
            if stale {
                order.placements.iter_mut().for_each(|p| p.generation += 1);
            }
            w.order(order);
        }
        Step::PlaceGangs { nodes } => {
            let waiting: Vec<TaskId> = w
                .state
                .waiting()
                .flat_map(|q| q.gangs().collect::<Vec<_>>())
                .flatten()
                .collect();
            let one = |(task, n): (TaskId, u8)| w.place_order(&[task], n).placements[0];
            let placements = waiting.into_iter().zip(nodes).map(one).collect();
            w.order(Place {
                placements,
                ..Place::default()
            });
        }
        Step::Complete { node, boot, items } => {
            let owner = items[0].0;
            let items = items
                .into_iter()
                .map(|(_, seq, attempt, kind)| w.completion(id((owner, seq)), attempt, exit(kind)));
            let items = items.collect();
            let order = w.complete_order(node, boot, items);
            w.order(order);
        }
        Step::Return {
            task,
            attempt,
            reason,
        } => drop(w.give_back(id(task), attempt, reason)),
        Step::Cancel { task } => drop(w.cancel(&[id(task)])),
        Step::Preempt { task, attempt } => {
            let attempts = vec![w.attempt(id(task), attempt)];
            w.order(Preempt { attempts });
        }
        Step::Refuse { task } => {
            let exit = Exit::plain(ExitKind::Infeasible);
            w.order(Refuse {
                tasks: vec![id(task)],
                exit,
            });
        }
        other => take_rest(w, other),
    }
}

fn take_rest(w: &mut World, step: Step) {
    match step {
        Step::Tick { ms } => w.tick(ms),
        Step::Ack { session, back } => {
            let index = w.index.saturating_sub(back);
            let through = Cursor { index, ordinal: 1 };
            w.order(AckResults {
                session: world::session(who(session)),
                through,
            });
        }
        Step::Join {
            node,
            cores,
            credit,
        } => w.join(node, cores, credit),
        Step::Boot { node, boot, cores } => {
            let mut spec = node_spec(cores, 1);
            // A driver that finds fewer, and a provider who offers less.
            spec.devices.truncate(cores as usize - 1);
            spec.resources.truncate(cores as usize - 1);
            let spec = spec.to_canonical().into();
            w.order(UpdateNode {
                node: world::node(node),
                boot: world::boot(boot),
                spec,
            });
        }
        Step::Stock { node, boot, keys } => drop(w.stock(node, boot, keys)),
        Step::Remove { node } => drop(w.order(RemoveNode {
            node: world::node(node),
        })),
        Step::Revoke { node } => {
            w.order(Revoke {
                subject: Revoked::Node(world::node(node)),
            });
        }
        Step::Granter {
            session,
            attach: true,
            standing,
        } => drop(w.attach(who(session), standing)),
        Step::Granter { session, .. } => drop(w.detach(who(session))),
        Step::Outbox { back, n } => {
            let through = OutboxKey {
                index: w.index.saturating_sub(back),
                ordinal: 0,
                n,
            };
            w.order(AckOutbox { sink: 0, through });
        }
        Step::Price { node, price, ahead } => {
            let dated = |since, price| DatedPrice {
                since: Millis(since),
                core_hour: price,
                egress: EgressPrice {
                    there: price.unwrap_or_default(),
                    back: UsdMicros::ZERO,
                },
            };
            let prices = vec![dated(0, None), dated(w.now + ahead, price.map(UsdMicros))];
            let node = world::node(node);
            w.order(SetPrices {
                nodes: vec![NodePrices { node, prices }],
            });
        }
        Step::Restart => w.restart(),
        work => unreachable!("{work:?} is taken above"),
    }
}

fn books_balance(w: &mut World, books: &mut Books) {
    let live: BTreeSet<TaskId> = w.state.tasks().map(|t| t.id).collect();
    for task in &live {
        assert!(
            !books.ended.contains(task),
            "{task} ended and is live again"
        );
        books.taken.insert(*task);
        let attempt = w.state.task(*task).unwrap().attempt;
        let known = books.attempts.insert(*task, attempt).unwrap_or(0);
        assert!(attempt >= known, "attempts count up");
    }
    for task in books.taken.clone() {
        let row = w.finished(task);
        assert!(
            !(row.is_some() && live.contains(&task)),
            "{task} is live and finished"
        );
        if row.is_some() {
            assert!(!books.forgotten.contains(&task), "{task} came back");
            books.ended.insert(task);
        } else if !live.contains(&task) {
            assert!(books.ended.contains(&task), "{task} went without an end");
            books.forgotten.insert(task);
        }
    }
    let counts = w.state.counts();
    assert_eq!(counts.queued + counts.placed, live.len());
    let waiting: usize = w.state.waiting().map(|q| q.heads().count()).sum();
    assert_eq!(waiting, counts.queued);
    assert_eq!(w.count(Table::Tasks), live.len());
    assert_eq!(w.count(Table::Finished), w.count(Table::Results));
    assert_eq!(
        w.state.project_kept(&project()) as usize,
        w.count(Table::Results)
    );
    assert_eq!(counts.outbox as usize, w.count(Table::Outbox));
}

fn finishes(story: &str) -> BTreeMap<&str, usize> {
    let mut out = BTreeMap::new();
    for line in story.lines() {
        let changes = line.split_once("; ").map_or("", |(_, c)| c);
        for change in changes.split(", ") {
            if let Some(task) = change.strip_suffix(" finished") {
                *out.entry(task).or_default() += 1;
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn laws_hold_whatever_comes(steps in prop::collection::vec(step(), 1..60)) {
        let mut w = World::new();
        w.join(2, 1, 2);
        w.open('B');
        w.attach('S', true);
        w.story();
        let (mut books, mut held, mut story) = (Books::default(), BTreeMap::new(), String::new());
        let mut devices = BTreeMap::new();
        for step in steps {
            // `World` itself holds the state against its rows after every entry.
            take(&mut w, step);
            story.push_str(&w.story());
            held = capacity_holds(&w, &held);
            devices = devices_hold(&w, &devices);
            books_balance(&mut w, &mut books);
            gangs_hold(&w);
        }
        for (task, times) in finishes(&story) {
            prop_assert_eq!(times, 1, "{} finished {} times", task, times);
        }
    }

    #[test]
    fn any_bytes_are_an_order_or_refused(kind in 0u16..24, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let command = Command { kind, version: 1, body: body.into() };
        if let Ok(order) = Order::decode(&command) {
            let mut w = World::new();
            w.entry(vec![order]);
        }
    }

    #[test]
    fn any_rows_are_a_state_or_refused(table in 0u8..21, key in prop::collection::vec(any::<u8>(), 0..60), value in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut w = World::new();
        w.submit('A', 1, 2, &task_spec("f"));
        let mut rows = w.rows.clone();
        rows.insert((Table::from_u8(table).unwrap(), key), value.into());
        // Damaged rows must not panic; whether they can be read is another matter.
        let _ = State::load(rows.into_iter().map(|((t, k), v)| (t, k.into(), v)));
    }
}
