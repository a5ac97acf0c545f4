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
    w.now += GRACE.0;
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

#[test]
fn a_task_that_says_so_has_longer_or_no_time_at_all() {
    let mut w = World::new();
    for (first, grace) in [(1, 60_000), (2, 0)] {
        let mut spec = task_spec("f");
        spec.timing.grace = Some(Millis(grace));
        w.submit('A', first, 1, &spec);
    }
    w.place(&[task('A', 1), task('A', 2)], 1);
    let began = w.now;
    assert_eq!((ask(&mut w, 1, 1), ask(&mut w, 2, 1)), (1, 1));
    let until = |n| live(&w, n).placed.unwrap().lease.yields.0;
    // An order takes the world a millisecond.
    assert_eq!((until(1), until(2)), (began + 60_001, began + 2));
    w.now += 5_000;
    let overdue = w.state.overdue_to_yield(Millis(w.now));
    let overdue: Vec<_> = overdue.map(|a| a.task).collect();
    assert_eq!(
        overdue,
        [task('A', 2)],
        "the first comes first, whoever was asked first"
    );
}

#[test]
fn a_gang_makes_way_whole_and_comes_back_whole() {
    let mut w = World::new();
    w.join(2, 2, 0);
    let mut spec = task_spec("gang");
    spec.gang = Some(Gang {
        size: 3,
        regions: GangRegions::One,
    });
    w.submit('A', 1, 3, &spec);
    let on = |w: &World, seq: u64, n: u8| w.place_order(&[task('A', seq)], n).placements[0];
    let all = |w: &World| Place {
        based_on: w.index,
        placements: vec![on(w, 1, 1), on(w, 2, 1), on(w, 3, 2)],
        quotes: Vec::new(),
    };
    let order = all(&w);
    w.order(order);
    w.story();
    // Whichever is named, all are asked, once, and have as long.
    assert_eq!(ask(&mut w, 2, 1), 3);
    assert_eq!((ask(&mut w, 1, 1), ask(&mut w, 3, 1)), (0, 0));
    let until: Vec<_> = (1..=3)
        .map(|n| live(&w, n).placed.unwrap().lease.yields)
        .collect();
    assert!(until[0] > Millis::ZERO && until.iter().all(|at| *at == until[0]));
    w.restart();
    // One ends by itself; the first that is ended takes the others with it, at the cost of no retry.
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.complete(2, 2, &[(task('A', 3), 1, PREEMPTED)]);
    assert!(w.finished(task('A', 1)).is_some());
    for n in [2, 3] {
        let one = live(&w, n);
        assert!(one.placed.is_none());
        assert_eq!((one.attempt, one.lost, one.preempted), (1, 0, 1), "{n}");
    }
    // What the other says after that is of an attempt that is no more.
    w.complete(1, 1, &[(task('A', 2), 1, PREEMPTED)]);
    assert_eq!(live(&w, 2).preempted, 1);
    assert_eq!(w.state.overdue_to_yield(Millis(w.now + HOUR)).count(), 0);
    // Its next turn is a minute long at least, for all of it.
    let order = Place {
        based_on: w.index,
        placements: vec![on(&w, 2, 1), on(&w, 3, 2)],
        quotes: Vec::new(),
    };
    w.order(order);
    assert_eq!(ask(&mut w, 3, 2), 0);
    w.now += PREEMPT_PAUSE.0;
    assert_eq!(ask(&mut w, 3, 2), 2);
    // A node that stays silent loses all of it too.
    w.now += GRACE.0 + 5_000;
    w.give_back(task('A', 2), 2, ReturnReason::Preempted);
    assert_eq!(w.state.counts().placed, 0);
    assert_eq!((live(&w, 3).lost, live(&w, 3).preempted), (0, 2));
}
