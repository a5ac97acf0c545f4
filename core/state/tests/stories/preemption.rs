//! Stories of work that makes way: what it costs, how often it is asked, and who is believed.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

const PREEMPTED: ExitKind = ExitKind::Lost(LostCause::Preempted);

fn ask(w: &mut World, n: u64, attempt: u32) -> u32 {
    let attempts = vec![w.attempt(task('A', n), attempt)];
    match w.order(Preempt { attempts }) {
        Outcome::Settled { count } => count,
        other => panic!("{other:?}"),
    }
}

fn live(w: &World, n: u64) -> LiveTask<'_> {
    w.state.task(task('A', n)).unwrap()
}

#[test]
fn what_makes_way_is_queued_again_with_its_age_and_its_retries() {
    let mut w = World::new();
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1), task('A', 2)], 1);
    let submitted = live(&w, 1).submitted;
    w.story();
    assert_eq!(ask(&mut w, 1, 1), 1);
    assert_eq!(ask(&mut w, 1, 1), 0, "once is enough");
    w.restart();
    w.now += 1000;
    w.complete(1, 1, &[(task('A', 1), 1, PREEMPTED)]);
    // The other ends within its grace: that counts as any end.
    ask(&mut w, 2, 1);
    w.complete(1, 1, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(
        w.story(),
        "Preempt: settled 1; A1#1 to node 1\nPreempt: settled 0; \nCompleteBatch: counted; A1 queued\n\
         Preempt: settled 1; A2#1 to node 1\nCompleteBatch: counted; A2 finished\n"
    );
    let first = live(&w, 1);
    assert_eq!(
        (first.submitted, first.lost, first.preempted),
        (submitted, 0, 1)
    );
    // Its time is charged, as of any attempt.
    assert!(first.spent > UsdMicros::ZERO);
}

#[test]
fn a_task_is_asked_again_after_a_minute_and_ten_times_in_all() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    for n in 1..=u32::from(MAX_PREEMPTIONS) {
        w.place(&[task('A', 1)], 1);
        assert_eq!(ask(&mut w, 1, n), u32::from(n == 1));
        if n > 1 {
            w.now += PREEMPT_PAUSE.0;
            assert_eq!(ask(&mut w, 1, n), 1);
        }
        w.complete(1, 1, &[(task('A', 1), n, PREEMPTED)]);
    }
    w.place(&[task('A', 1)], 1);
    w.now += HOUR;
    assert_eq!(ask(&mut w, 1, 11), 0);
    assert_eq!(live(&w, 1).lost, 0);
}

#[test]
fn what_runs_once_and_what_only_waits_is_never_asked() {
    let mut w = World::new();
    let mut once = task_spec("once");
    once.retry.at_most_once = true;
    once.resources.cpus = MilliCpu(2000);
    w.submit('A', 1, 1, &once);
    w.submit('A', 2, 1, &task_spec("f"));
    w.place(&[task('A', 1), task('A', 2)], 1);
    assert!(live(&w, 2).placed.unwrap().lease.backlog);
    assert_eq!((ask(&mut w, 1, 1), ask(&mut w, 2, 1)), (0, 0));
}

#[test]
fn a_node_that_stays_silent_is_waited_for_and_one_that_was_not_asked_is_not_believed() {
    let mut w = World::new();
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1), task('A', 2)], 1);
    ask(&mut w, 1, 1);
    let overdue = |w: &World| w.state.overdue_to_yield(Millis(w.now)).count();
    w.now += PREEMPT_GRACE.0;
    assert_eq!(overdue(&w), 0);
    w.give_back(task('A', 1), 1, ReturnReason::Preempted);
    assert!(live(&w, 1).placed.is_some(), "not yet");
    w.now += 5_000;
    w.restart();
    assert_eq!(overdue(&w), 1);
    w.give_back(task('A', 1), 1, ReturnReason::Preempted);
    assert!(live(&w, 1).placed.is_none());
    assert_eq!(overdue(&w), 0);
    w.complete(1, 1, &[(task('A', 2), 1, PREEMPTED)]);
    assert_eq!((live(&w, 2).lost, live(&w, 2).preempted), (1, 0));
}
