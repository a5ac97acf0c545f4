//! Stories of tasks, sessions and nodes, told order by order.
#![allow(clippy::unwrap_used)]

mod world;

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;
use world::*;

const RETURNED: ExitKind = ExitKind::Returned;
const DAY: u64 = 24 * 3600 * 1000;
const HOUR: u64 = 3600 * 1000;

#[test]
fn a_call_is_submitted_placed_and_completed() {
    let mut w = World::new();
    let spec = task_spec("f");
    let submit = w.submit_order('A', 1, 1, &spec);
    let place = w.place_order(&[task('A', 1)], 1);
    w.entry(vec![submit.into(), place.into()]);
    w.now += 1000;
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    assert_eq!(
        w.story(),
        "SubmitBatch: through 1; A1 queued\n\
         Place: placed 1; node 1 low on prekeys, A1#1 to node 1, A grants A1#1\n\
         CompleteBatch: counted; A1 finished\n"
    );
    let done = w.finished(task('A', 1)).unwrap();
    assert_eq!(
        (done.attempt, done.exit.kind, done.retries),
        (1, RETURNED, 0)
    );
    assert_eq!(
        done.sealed,
        Some(Sealed::Inline(bytes::Bytes::from_static(b"sealed result")))
    );
    assert_eq!(
        (done.node, done.region.as_str()),
        (Some(node(1)), "us-west")
    );
    assert_eq!(
        (done.batch, done.leaf, done.at),
        (
            Some(0),
            0,
            Cursor {
                index: w.index,
                ordinal: 0
            }
        )
    );
    assert!(done.forward_secret);
    // Half a second of one core at 3.6 cents an hour.
    assert_eq!(done.cost, UsdMicros(5));
    let usage = w.events().into_iter().find_map(|e| match e {
        OutboxEvent::Attempt(usage) => Some(usage),
        _ => None,
    });
    let usage = usage.unwrap();
    assert_eq!(
        (usage.cost, usage.exit, usage.last),
        (UsdMicros(5), RETURNED, true)
    );
    assert_eq!(
        (
            w.count(Table::Tasks),
            w.count(Table::Attempts),
            w.count(Table::Batches)
        ),
        (0, 0, 1)
    );
    assert_eq!(w.state.counts().placed, 0);
    assert_eq!(w.state.node(&node(1)).unwrap().free_cpus(), MilliCpu(2000));
    let batch = w.get(
        Table::Batches,
        &keys::result(
            session('A'),
            Cursor {
                index: w.index,
                ordinal: 0,
            },
        ),
    );
    assert_eq!(BatchRow::from_bytes(batch.unwrap()).unwrap().node, node(1));
}

#[test]
fn a_resent_submission_is_the_same_task_and_a_gap_is_refused() {
    let mut w = World::new();
    let spec = task_spec("f");
    w.submit('A', 1, 2, &spec);
    w.submit('A', 1, 3, &spec);
    w.submit('A', 5, 1, &spec);
    w.submit('A', 0, 1, &spec);
    w.submit('B', 1, 1, &spec);
    w.open('B');
    w.submit('B', 2, 1, &spec);
    assert_eq!(
        w.story(),
        "SubmitBatch: through 2; A1 queued, A2 queued\n\
         SubmitBatch: through 3; A3 queued\n\
         SubmitBatch: refused, expected sequence number 4; \n\
         SubmitBatch: refused, expected sequence number 4; \n\
         SubmitBatch: refused, the session is unknown; open it first; \n\
         OpenSession: done; \n\
         SubmitBatch: refused, expected sequence number 1; \n"
    );
}

#[test]
fn a_refused_task_consumes_its_number_and_is_refused_again() {
    let mut w = World::new();
    let mut order = w.submit_order('A', 1, 3, &task_spec("f"));
    order.tasks[0].spec = Digest::of(b"nobody sent this");
    order.tasks[1].wrapped_key = bytes::Bytes::from_static(b"short");
    w.order(order.clone());
    w.restart();
    w.order(order);
    let mut other = task_spec("g");
    other.project = ProjectId::new(2, [1; 10]);
    w.submit('A', 4, 1, &other);
    let mut bad = task_spec("h");
    bad.priority = 101;
    w.submit('A', 5, 1, &bad);
    assert_eq!(
        w.story(),
        "SubmitBatch: through 3, 1 refused: the task's spec is unknown to this session, \
         2 refused: the task's envelope is not valid: wrapped_key; A3 queued\n\
         SubmitBatch: through 3, 1 refused: the task's spec is unknown to this session, \
         2 refused: the task's envelope is not valid: wrapped_key; \n\
         SubmitBatch: through 4, 4 refused: the task belongs to another project than the key; \n\
         SubmitBatch: through 5, 5 refused: the task's spec is not valid: \
         priority must be between -100 and 100; \n"
    );
}

#[test]
fn an_idempotency_key_names_one_task_for_a_day() {
    let mut w = World::new();
    w.open('B');
    w.story();
    let key = Some(Digest::of(b"once"));
    let mut first = w.submit_order('A', 1, 1, &task_spec("f"));
    first.tasks[0].idempotency = key;
    let mut second = w.submit_order('B', 1, 1, &task_spec("f"));
    second.tasks[0].idempotency = key;
    w.order(first);
    w.order(second.clone());
    w.order(second.clone());
    w.now += DAY;
    second.first_seq = 2;
    w.order(second);
    assert_eq!(
        w.story(),
        "SubmitBatch: through 1; A1 queued\n\
         SubmitBatch: through 1, 1 is A1; \n\
         SubmitBatch: through 1, 1 is A1; \n\
         SubmitBatch: through 2; B2 queued\n"
    );
    w.tick(DAY);
    assert_eq!(w.count(Table::Idempotency), 0);
}

#[test]
fn a_placement_is_judged_again() {
    let mut w = World::new();
    w.submit('A', 1, 6, &task_spec("f"));
    w.story();
    let tasks: Vec<_> = (1..=5).map(|n| task('A', n)).collect();
    // Two cores and one backlog credit: three fit.
    w.place(&tasks[..4], 1);
    w.place(&tasks[..1], 1);
    w.place(&[task('A', 9)], 1);
    w.place(&[task('A', 5)], 7);
    let mut stale = w.place_order(&[task('A', 5)], 1);
    stale.placements[0].generation -= 1;
    w.order(stale);
    assert_eq!(
        w.story(),
        "Place: placed 3, A4 refused: the node is full; node 1 low on prekeys, \
         A1#1 to node 1, A grants A1#1, A2#1 to node 1, A grants A2#1, A3#1 to node 1, A grants A3#1\n\
         Place: placed 0, A1 refused: the task is placed already; \n\
         Place: placed 0, A9 refused: the task is not live; \n\
         Place: placed 0, A5 refused: the node is unknown; \n\
         Place: placed 0, A5 refused: the node has changed since the plan was made; \n"
    );
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!((at.running(), at.waiting(), at.free_backlog()), (2, 1, 0));
    // One ends: the one in the backlog moves up, and a place in the backlog is free again.
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!((at.running(), at.waiting(), at.free_backlog()), (2, 0, 1));
    let order: Vec<_> = w.state.desired(&node(1)).map(|t| t.id).collect();
    assert_eq!(order, [task('A', 2), task('A', 3)]);
}

#[test]
fn a_task_larger_than_the_node_is_not_taken_on_credit() {
    let mut w = World::new();
    let mut spec = task_spec("huge");
    spec.resources.cpus = MilliCpu(3000);
    w.submit('A', 1, 1, &spec);
    w.story();
    w.place(&[task('A', 1)], 1);
    assert_eq!(
        w.story(),
        "Place: placed 0, A1 refused: the node is full; \n"
    );
}

#[test]
fn a_lost_worker_is_retried_until_the_budget_ends() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry.lost = 1;
    w.submit('A', 1, 1, &spec);
    w.place(&[task('A', 1)], 1);
    w.story();
    let killed = ExitKind::Lost(LostCause::Signal(9));
    w.complete(1, 1, &[(task('A', 1), 1, killed)]);
    w.place(&[task('A', 1)], 1);
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.give_back(task('A', 1), 2, ReturnReason::Lost(LostCause::LeaseExpired));
    w.complete(1, 1, &[(task('A', 1), 2, RETURNED)]);
    assert_eq!(
        w.story(),
        "CompleteBatch: counted; A1 queued\n\
         Place: placed 1; A1#2 to node 1, A grants A1#2\n\
         CompleteBatch: stale [0]; \n\
         Return: settled 1; stop A1#2 on node 1, A1 finished\n\
         CompleteBatch: stale [0]; \n"
    );
    let done = w.finished(task('A', 1)).unwrap();
    assert_eq!(done.exit.kind, ExitKind::Lost(LostCause::LeaseExpired));
    assert_eq!((done.attempt, done.retries, done.batch), (2, 1, None));
}

#[test]
fn exceptions_are_retried_only_when_asked() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry.raised = 1;
    w.submit('A', 1, 1, &spec);
    w.submit('A', 2, 1, &task_spec("g"));
    w.place(&[task('A', 1), task('A', 2)], 1);
    w.story();
    let raised = ExitKind::Raised;
    w.now += 1000;
    w.complete(
        1,
        1,
        &[(task('A', 1), 1, raised), (task('A', 2), 1, raised)],
    );
    w.place(&[task('A', 1)], 1);
    w.now += 1000;
    w.complete(1, 1, &[(task('A', 1), 2, raised)]);
    assert_eq!(
        w.story(),
        "CompleteBatch: counted; A1 queued, A2 finished\n\
         Place: placed 1; A1#2 to node 1, A grants A1#2\n\
         CompleteBatch: counted; A1 finished\n"
    );
    // Both attempts are paid for, half a second each.
    assert_eq!(w.finished(task('A', 1)).unwrap().cost, UsdMicros(10));
}

#[test]
fn what_may_run_once_is_never_retried() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry = Retry {
        lost: 3,
        raised: 3,
        at_most_once: true,
    };
    w.submit('A', 1, 1, &spec);
    w.place(&[task('A', 1)], 1);
    w.story();
    w.give_back(
        task('A', 1),
        1,
        ReturnReason::Lost(LostCause::NodeRestarted),
    );
    assert_eq!(
        w.story(),
        "Return: settled 1; stop A1#1 on node 1, A1 finished\n"
    );
}

#[test]
fn an_ungranted_placement_comes_back_for_free() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry.lost = 0;
    w.submit('A', 1, 1, &spec);
    w.place(&[task('A', 1)], 1);
    w.detach('A');
    w.story();
    w.give_back(task('A', 1), 1, ReturnReason::NotGranted);
    w.place(&[task('A', 1)], 1);
    w.attach('S', true);
    w.place(&[task('A', 1)], 1);
    assert_eq!(
        w.story(),
        "Return: settled 1; stop A1#1 on node 1, A1 queued\n\
         Place: placed 0, A1 refused: no granter of the project is attached; \n\
         AttachGranter: done; \n\
         Place: placed 1; node 1 low on prekeys, A1#2 to node 1, S grants A1#2\n"
    );
}

#[test]
fn cancelling_wins_over_a_result_that_comes_later() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.place(&[task('A', 2)], 1);
    w.story();
    w.cancel(&[task('A', 1), task('A', 2), task('A', 3)]);
    w.complete(1, 1, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(
        w.story(),
        "Cancel: cancelled A2 A3; stop A2#1 on node 1, A2 finished, A3 finished\n\
         CompleteBatch: stale [0]; \n"
    );
    assert_eq!(w.finished(task('A', 1)).unwrap().exit.kind, RETURNED);
    assert_eq!(
        w.finished(task('A', 3)).unwrap().exit,
        Exit::new(ExitKind::Cancelled, "asked")
    );
    let other = ProjectId::new(5, [1; 10]);
    w.submit('A', 4, 1, &task_spec("f"));
    w.order(Cancel {
        project: other,
        tasks: vec![task('A', 4)],
        reason: String::new(),
    });
    assert!(
        w.state.task(task('A', 4)).is_some(),
        "strangers cancel nothing"
    );
}

#[test]
fn deadlines_and_queue_timeouts_end_tasks() {
    let mut w = World::new();
    let mut queue = task_spec("impatient");
    queue.timing.queue_timeout = Some(Millis(1000));
    let mut both = task_spec("bounded");
    both.timing = Timing {
        queue_timeout: Some(Millis(1000)),
        deadline: Some(Millis(9000)),
        ..both.timing
    };
    w.submit('A', 1, 1, &queue);
    w.submit('A', 2, 2, &both);
    w.place(&[task('A', 2)], 1);
    w.story();
    // Too early: judged again, nothing counts.
    w.order(Expire {
        tasks: vec![task('A', 1), task('A', 2)],
        ..Expire::default()
    });
    w.tick(1000);
    w.tick(7000);
    w.tick(1000);
    assert_eq!(
        w.story(),
        "Expire: settled 0; \n\
         Expire: settled 2; A1 finished, A3 finished\n\
         Expire: settled 1; stop A2#1 on node 1, A2 finished\n"
    );
    let why = |n| w.finished(task('A', n)).unwrap().exit.message;
    assert_eq!(
        (why(1), why(2)),
        (
            "not placed within queue_timeout".into(),
            "the deadline passed".into()
        )
    );
}

#[test]
fn work_that_fits_nowhere_is_refused_with_the_reason() {
    let mut w = World::new();
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.story();
    let exit = Exit::new(ExitKind::Infeasible, "has Python 3.11, the task needs 3.10");
    w.order(Refuse {
        tasks: vec![task('A', 1), task('A', 2)],
        exit: exit.clone(),
    });
    assert_eq!(w.story(), "Refuse: settled 1; A2 finished\n");
    assert_eq!(w.finished(task('A', 2)).unwrap().exit, exit);
}

#[test]
fn only_the_node_and_boot_that_hold_an_attempt_can_end_it() {
    let mut w = World::new();
    w.join(2, 2, 0);
    w.submit('A', 1, 1, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.story();
    let done = [(task('A', 1), 1, RETURNED)];
    w.complete(2, 2, &done);
    w.complete(1, 2, &done);
    w.complete(9, 9, &done);
    let mut wrong_epoch = w.completion(task('A', 1), 1, RETURNED);
    wrong_epoch.attempt.epoch = 2;
    let order = w.complete_order(1, 1, vec![wrong_epoch]);
    w.order(order);
    let item = w.completion(task('A', 1), 1, RETURNED);
    let mut wrong_session = w.complete_order(1, 1, vec![item]);
    wrong_session.session = session('B');
    w.order(wrong_session);
    // The agent starts anew; the result that survived in its journal still counts.
    let spec = node_spec(2, 1).to_canonical().into();
    w.order(UpdateNode {
        node: node(1),
        boot: boot(3),
        spec,
    });
    w.complete(1, 3, &done);
    w.complete(1, 1, &done);
    w.complete(1, 1, &done);
    assert_eq!(
        w.story(),
        "CompleteBatch: stale [0]; \n\
         CompleteBatch: stale [0]; \n\
         CompleteBatch: refused, the node is unknown; \n\
         CompleteBatch: stale [0]; \n\
         CompleteBatch: stale [0]; \n\
         UpdateNode: done; node 1 low on prekeys, node 1 changed\n\
         CompleteBatch: stale [0]; \n\
         CompleteBatch: counted; A1 finished\n\
         CompleteBatch: stale [0]; \n"
    );
}

#[test]
fn a_node_may_not_claim_what_is_not_its_to_say() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry.lost = 0;
    w.submit('A', 1, 3, &spec);
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    let mut items: Vec<_> = [ExitKind::Infeasible, RETURNED, RETURNED]
        .iter()
        .zip(1..)
        .map(|(k, n)| w.completion(task('A', n), 1, *k))
        .collect();
    items[1].sealed = Some(Sealed::Inline(vec![0; MAX_ROW_BYTES + 1].into()));
    items[2].sealed = None;
    let order = w.complete_order(1, 1, items);
    w.order(order);
    for n in 1..=3 {
        let done = w.finished(task('A', n)).unwrap();
        assert_eq!(
            (done.exit.kind, done.sealed),
            (ExitKind::Lost(LostCause::Sandbox), None),
            "{n}"
        );
    }
    let item = w.completion(task('A', 1), 1, RETURNED);
    let mut order = w.complete_order(1, 1, vec![item]);
    order.signature.as_mut().unwrap().leaves = bytes::Bytes::new();
    assert!(matches!(
        w.order(order),
        Outcome::Refused(Refusal::EnvelopeInvalid { .. })
    ));
}

#[test]
fn contexts_are_shared_for_ten_minutes_and_prekeys_used_once() {
    let mut w = World::new();
    w.submit('A', 1, 9, &task_spec("f"));
    let context = |w: &World, n| {
        let live = w.state.task(task('A', n)).unwrap();
        live.placed.unwrap().lease.context
    };
    w.place(&[task('A', 1)], 1);
    let first = w.index;
    w.place(&[task('A', 2)], 1);
    assert_eq!((context(&w, 1), context(&w, 2)), (first, first));
    assert_eq!(w.state.node(&node(1)).unwrap().one_time.len(), 1);
    w.complete(
        1,
        1,
        &[(task('A', 1), 1, RETURNED), (task('A', 2), 1, RETURNED)],
    );
    // Ten minutes later a new prekey is taken; after that the daily key serves.
    for (n, left, kind) in [(3, 0, PrekeyKind::OneTime), (4, 0, PrekeyKind::Daily)] {
        w.now += CONTEXT_LIFE.0;
        w.place(&[task('A', n)], 1);
        let at = w.state.node(&node(1)).unwrap();
        assert_eq!(
            (at.one_time.len(), at.contexts[&session('A')].kind),
            (left, kind)
        );
        assert_eq!(context(&w, n), w.index);
    }
    assert_eq!(w.count(Table::Prekeys), 0);
    // Who demands forward secrecy waits for stock.
    let mut strict = task_spec("strict");
    strict.forward_secrecy = ForwardSecrecy::Required;
    w.submit('A', 10, 1, &strict);
    w.story();
    w.place(&[task('A', 10)], 1);
    w.stock(1, 1, 1);
    w.place(&[task('A', 10)], 1);
    assert_eq!(
        w.story(),
        "Place: placed 0, A10 refused: the node has no prekey left that the task accepts; node 1 low on prekeys\n\
         StockPrekeys: done; node 1 changed\n\
         Place: placed 1; node 1 low on prekeys, A10#1 to node 1, A grants A10#1\n"
    );
}

#[test]
fn a_new_boot_voids_prekeys_and_contexts() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    let spec: bytes::Bytes = node_spec(2, 1).to_canonical().into();
    w.order(UpdateNode {
        node: node(1),
        boot: boot(2),
        spec,
    });
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!(
        (at.one_time.len(), at.contexts.len(), at.daily.is_some()),
        (0, 0, false)
    );
    assert_eq!((w.count(Table::Prekeys), w.count(Table::Contexts)), (0, 0));
    assert_eq!(w.stock(1, 1, 2), Outcome::Refused(Refusal::BootUnknown));
    assert_eq!(w.stock(1, 2, 2), Outcome::Done);
    // The attempt is still desired, and says under which boot it was placed.
    let live: Vec<_> = w.state.desired(&node(1)).collect();
    assert_eq!(live[0].placed.unwrap().boot(), Some(boot(1)));
}

#[test]
fn a_removed_node_loses_its_work_and_a_revoked_one_stays_away() {
    let mut w = World::new();
    w.join(2, 2, 0);
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.place(&[task('A', 2)], 2);
    w.story();
    w.order(RemoveNode { node: node(1) });
    w.order(Revoke {
        subject: Revoked::Node(node(2)),
    });
    w.place(&[task('A', 2)], 2);
    w.complete(2, 2, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(
        w.story(),
        "RemoveNode: done; stop A1#1 on node 1, A1 queued, node 1 changed\n\
         Revoke: done; stop A2#1 on node 2, A2 queued, node 2 changed\n\
         Place: placed 0, A2 refused: the node has been revoked; \n\
         CompleteBatch: refused, the node has been revoked; \n"
    );
    w.join(1, 2, 0);
    w.place(&[task('A', 1)], 1);
    assert!(w.state.task(task('A', 1)).unwrap().placed.is_some());
    let spec: bytes::Bytes = node_spec(2, 1).to_canonical().into();
    let again = UpdateNode {
        node: node(2),
        boot: boot(9),
        spec,
    };
    assert_eq!(w.order(again), Outcome::Refused(Refusal::NodeRevoked));
}

#[test]
fn a_revoked_key_takes_no_more_work() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    w.story();
    w.order(Revoke {
        subject: Revoked::Key(key()),
    });
    w.submit('A', 2, 1, &task_spec("f"));
    w.open('B');
    w.place(&[task('A', 1)], 1);
    assert_eq!(
        w.story(),
        "Revoke: done; key revoked\n\
         SubmitBatch: refused, the key has been revoked; \n\
         OpenSession: refused, the key has been revoked; \n\
         Place: placed 1; node 1 low on prekeys, A1#1 to node 1, A grants A1#1\n"
    );
}

#[test]
fn results_stay_a_day_or_an_hour_after_they_were_read() {
    let mut w = World::new();
    let mut long = task_spec("long");
    long.timing.result_ttl = Some(Millis(3 * DAY));
    w.submit('A', 1, 2, &task_spec("f"));
    w.submit('A', 3, 1, &long);
    let all: Vec<_> = (1..=3).map(|n| task('A', n)).collect();
    w.place(&all, 1);
    w.complete(1, 1, &[(all[0], 1, RETURNED)]);
    let read = w.index;
    w.complete(1, 1, &[(all[1], 1, RETURNED), (all[2], 1, RETURNED)]);
    w.order(AckResults {
        session: session('A'),
        through: Cursor {
            index: read,
            ordinal: 0,
        },
    });
    let kept = |w: &World| all.iter().filter(|t| w.finished(**t).is_some()).count();
    w.tick(HOUR - 1000);
    assert_eq!(
        (kept(&w), w.state.session(&session('A')).unwrap().kept),
        (3, 3)
    );
    w.tick(1000);
    assert_eq!(
        (kept(&w), w.count(Table::Batches), w.count(Table::Results)),
        (2, 1, 2)
    );
    w.tick(DAY);
    assert_eq!(
        (kept(&w), w.count(Table::Batches)),
        (1, 1),
        "the signature stays with the last of its batch"
    );
    w.tick(3 * DAY);
    assert_eq!(
        (kept(&w), w.count(Table::Batches), w.count(Table::Results)),
        (0, 0, 0)
    );
    assert!(
        w.state.session(&session('A')).is_some(),
        "its granter is attached"
    );
    w.detach('A');
    w.tick(2 * DAY);
    assert!(w.state.session(&session('A')).is_none());
    for table in [
        Table::Sessions,
        Table::Marks,
        Table::Specs,
        Table::SessionSpecs,
    ] {
        assert_eq!(w.count(table), 0, "{}", table.name());
    }
}

#[test]
fn a_client_resumes_from_where_it_had_read() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    let all: Vec<_> = (1..=3).map(|n| task('A', n)).collect();
    w.place(&all, 1);
    w.complete(1, 1, &[(all[2], 1, RETURNED), (all[0], 1, RETURNED)]);
    let seen = w.finished(all[2]).unwrap().at;
    w.complete(1, 1, &[(all[1], 1, RETURNED)]);
    let (from, to) = keys::results_after(session('A'), seen);
    let rest: Vec<u64> = w
        .scan(Table::Results, &from, &to, 10)
        .into_iter()
        .map(|(_, v)| ResultRow::from_bytes(v).unwrap().seq)
        .collect();
    assert_eq!(rest, [1, 2]);
}

#[test]
fn the_outbox_forgets_what_its_sink_has_taken_in() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    let all: Vec<_> = (1..=3).map(|n| task('A', n)).collect();
    w.place(&all, 1);
    w.complete(
        1,
        1,
        &[
            (all[0], 1, RETURNED),
            (all[1], 1, RETURNED),
            (all[2], 1, RETURNED),
        ],
    );
    // Registered, and three attempts.
    assert_eq!((w.state.counts().outbox, w.events().len()), (4, 4));
    let through = OutboxKey {
        index: w.index,
        ordinal: 0,
        n: 1,
    };
    w.order(AckOutbox { sink: 0, through });
    assert_eq!((w.state.counts().outbox, w.events().len()), (1, 1));
    assert_eq!(w.state.sink(0), Some(through));
    w.order(AckOutbox {
        sink: 0,
        through: OutboxKey::default(),
    });
    assert_eq!(w.state.sink(0), Some(through), "a mark never goes back");
    w.order(AckOutbox {
        sink: 0,
        through: OutboxKey {
            index: w.index,
            ordinal: 9,
            n: 9,
        },
    });
    assert_eq!(w.state.counts().outbox, 0);
    assert!(matches!(
        w.order(AckOutbox { sink: 99, through }),
        Outcome::Refused(_)
    ));
}

#[test]
fn nothing_is_done_before_genesis_and_genesis_is_done_once() {
    let mut w = World::void();
    assert_eq!(w.open('A'), Outcome::Refused(Refusal::NotFounded));
    w.found();
    let again = Genesis {
        network: Digest::of(b"other"),
        epoch: 2,
        cluster_version: 1,
    };
    assert_eq!(w.order(again), Outcome::Refused(Refusal::AlreadyFounded));
    assert_eq!(
        (w.state.network(), w.state.epoch()),
        (Digest::of(b"net"), 1)
    );
}

#[test]
fn queues_show_heads_by_priority() {
    let mut w = World::new();
    let mut urgent = task_spec("urgent");
    urgent.priority = 10;
    w.submit('A', 1, 3, &task_spec("f"));
    w.submit('A', 4, 2, &urgent);
    let queues: Vec<_> = w
        .state
        .waiting()
        .map(|q| (q.priority, q.count(), q.heads().next().unwrap(), q.granter))
        .collect();
    let granter = Some(session('A'));
    assert_eq!(
        queues,
        [
            (10, 2, task('A', 4), granter),
            (0, 3, task('A', 1), granter)
        ]
    );
}

#[test]
fn cluster_time_never_goes_back() {
    let mut w = World::new();
    let before = w.state.now();
    let stamp = Stamp {
        index: w.index + 1,
        term: 2,
        now: Millis(5),
    };
    apply(
        &mut w.state,
        stamp,
        0,
        DetachGranter {
            granter: session('Z'),
        }
        .into(),
    );
    assert_eq!(w.state.now(), before);
}

#[test]
fn unknown_commands_stop_the_replica() {
    let body = bytes::Bytes::from_static(b"?");
    for (kind, version) in [(0, 1), (99, 1), (9, 2)] {
        let command = Command {
            kind,
            version,
            body: body.clone(),
        };
        assert_eq!(
            Order::decode(&command),
            Err(UnknownCommand::Kind { kind, version })
        );
    }
    for kind in [1, 9, 10, 11] {
        let command = Command {
            kind,
            version: 1,
            body: body.clone(),
        };
        assert_eq!(
            Order::decode(&command),
            Err(UnknownCommand::Body { kind, version: 1 })
        );
    }
}
