//! Stories of what is kept and what is forgotten, and of the machine itself.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

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
fn a_signature_goes_with_the_last_result_of_its_batch_wherever_the_page_ends() {
    for limit in 1..=5 {
        let mut w = World::new();
        w.submit('A', 1, 4, &task_spec("f"));
        for pair in [[1, 2], [3, 4]] {
            let pair = pair.map(|n| task('A', n));
            w.place(&pair, 1);
            w.complete(1, 1, &pair.map(|t| (t, 1, RETURNED)));
        }
        w.now += DAY;
        let mut rounds = 0;
        while let (Some(due), _) = expired(&w.state, &w, Millis(w.now), limit, None) {
            assert!(due.results.len() <= limit && rounds < 5);
            w.order(due);
            rounds += 1;
        }
        assert_eq!((w.count(Table::Results), w.count(Table::Finished)), (0, 0));
        assert_eq!(w.count(Table::Batches), 0, "pages of {limit}");
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
    // Registered, what the calls ask, and three attempts.
    assert_eq!((w.state.counts().outbox, w.events().len()), (5, 5));
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
