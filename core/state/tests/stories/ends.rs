//! Stories of ends: results, retries, cancelling, time.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

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
