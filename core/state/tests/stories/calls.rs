//! Stories of placement: what is leased where, and what is refused.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

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
        "SubmitBatch: through 1; \n\
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
    let asked = w.events().into_iter().find_map(|e| match e {
        OutboxEvent::Spec { digest, spec } => Some((digest, spec)),
        _ => None,
    });
    let (digest, asked) = asked.unwrap();
    assert_eq!((usage.spec, Digest::of(&asked)), (digest, digest));
    assert_eq!((usage.submitted, usage.rank), (done.submitted, None));
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
fn what_waits_on_a_node_is_called_back_for_free_and_what_has_its_room_is_not() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    spec.retry.lost = 0;
    w.submit('A', 1, 3, &spec);
    // Two cores and one backlog credit.
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    w.story();
    w.give_back(task('A', 2), 1, ReturnReason::CalledBack);
    w.give_back(task('A', 3), 1, ReturnReason::CalledBack);
    w.give_back(task('A', 3), 1, ReturnReason::CalledBack);
    w.place(&[task('A', 3)], 1);
    assert_eq!(
        w.story(),
        "Return: settled 0; \n\
         Return: settled 1; stop A3#1 on node 1, A3 queued\n\
         Return: settled 0; \n\
         Place: placed 1; A3#2 to node 1, A grants A3#2\n"
    );
    // It moves up before the order arrives.
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.story();
    w.give_back(task('A', 3), 2, ReturnReason::CalledBack);
    assert_eq!(w.story(), "Return: settled 0; \n");
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
