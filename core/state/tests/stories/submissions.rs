//! Stories of submissions: numbers, verdicts, keys.

use farlane_model::*;
use farlane_state::*;

use crate::world::*;
use crate::*;

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
        "SubmitBatch: through 2; \n\
         SubmitBatch: through 3; \n\
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
    assert_eq!(w.state.counts().queued, 1);
    w.restart();
    w.order(order);
    assert_eq!(w.state.counts().queued, 1);
    let mut other = task_spec("g");
    other.project = ProjectId::new(2, [1; 10]);
    w.submit('A', 4, 1, &other);
    let mut bad = task_spec("h");
    bad.priority = 101;
    w.submit('A', 5, 1, &bad);
    assert_eq!(
        w.story(),
        "SubmitBatch: through 3, 1 refused: the task's spec is unknown to this session, \
         2 refused: the task's envelope is not valid: wrapped_key; \n\
         SubmitBatch: through 3, 1 refused: the task's spec is unknown to this session, \
         2 refused: the task's envelope is not valid: wrapped_key; \n\
         SubmitBatch: through 4, 4 refused: the task belongs to another project than the key; \n\
         SubmitBatch: through 5, 5 refused: the task's spec is not valid: \
         priority must be between -100 and 100; \n"
    );
}

#[test]
fn a_batch_sent_again_within_the_window_gets_its_verdicts_and_older_ones_are_forgotten() {
    let mut w = World::new();
    let nobodys = Digest::of(b"nobody sent this");
    let batch = |first_seq, count: u64| SubmitBatch {
        session: session('A'),
        first_seq,
        specs: vec![],
        tasks: vec![submitted(nobodys); count as usize],
    };
    let first = batch(1, 512);
    let answer = w.order(first.clone());
    let Outcome::Submitted { refused, .. } = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(refused.len(), 512);
    let refused_of = |outcome: Outcome| match outcome {
        Outcome::Submitted { refused, .. } => refused,
        other => panic!("{other:?}"),
    };
    let mut next = 513;
    while next <= VERDICT_WINDOW {
        w.order(batch(next, 512));
        next += 512;
    }
    assert_eq!(&refused_of(w.order(first.clone())), refused);
    w.order(batch(next, 1));
    assert_eq!(refused_of(w.order(first)).len(), 511);
    assert_eq!(w.count(Table::Verdicts), VERDICT_WINDOW as usize);
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
        "SubmitBatch: through 1; \n\
         SubmitBatch: through 1, 1 is A1; \n\
         SubmitBatch: through 1, 1 is A1; \n\
         SubmitBatch: through 2; \n"
    );
    w.tick(DAY);
    assert_eq!(w.count(Table::Idempotency), 0);
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
fn a_batch_sent_again_brings_nothing_new() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    let (events, specs) = (w.events().len(), w.count(Table::Specs));
    // What was taken before is answered however full the outbox is: so it must not fill it.
    let again = SubmitBatch {
        specs: vec![task_spec("g").to_canonical().into()],
        ..w.submit_order('A', 1, 1, &task_spec("f"))
    };
    assert!(matches!(w.order(again), Outcome::Submitted { refused, .. } if refused.is_empty()));
    assert_eq!((w.events().len(), w.count(Table::Specs)), (events, specs));
}
