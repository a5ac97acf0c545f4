//! What a trace is made of: attempts by submission, and what they asked.

use bytes::Bytes;
use farlane_ledger::Usage;
use farlane_model::{Digest, ProjectId};
use farlane_store::{MAX_PAGE, Span, Store};
use farlane_units::{Millis, UsdFemtos};

use crate::stories::{NOW, id, later, usage};

pub async fn tasks_are_read_by_submission_whatever_order_they_ended_in(store: Store) {
    let (project, other) = (
        ProjectId::from_bytes([1; 16]),
        ProjectId::from_bytes([2; 16]),
    );
    let many = u64::from(MAX_PAGE) + 200;
    let of = |n: u64| Usage {
        // What came last ended first, and three came at once.
        submitted: later((many - n) / 3),
        rank: Some(n as u16),
        ..usage(if n.is_multiple_of(10) { other } else { project }, n, 10)
    };
    let mut rows: Vec<_> = (0..many).map(|n| (id(1 + n, 0), of(n))).collect();
    let lost = Usage {
        last: false,
        ..of(7)
    };
    let again = Usage {
        attempt: 2,
        ..of(7)
    };
    rows[7].1 = lost;
    rows.push((id(many + 1, 0), again));
    for chunk in rows.chunks(500) {
        store.outbox().ingest("sql", chunk).await.unwrap();
    }
    let read = async |span: Span| {
        let mut seen: Vec<Usage> = Vec::new();
        loop {
            let page = store.usage().submitted(&span, seen.last()).await.unwrap();
            if page.is_empty() {
                return seen;
            }
            seen.extend(page);
        }
    };
    let all = Span {
        from: NOW,
        to: later(1_000_000),
        project: None,
    };
    let mut wanted: Vec<Usage> = rows.iter().map(|(_, usage)| usage.clone()).collect();
    wanted.sort_by_key(|u| (u.submitted, u.task, u.attempt));
    assert_eq!(read(all.clone()).await, wanted);
    assert_eq!(store.usage().ended(&all, 10_000).await.unwrap(), many);
    assert_eq!(store.usage().ended(&all, 5).await.unwrap(), 5);
    let some = Span {
        from: later(10),
        to: later(20),
        project: Some(other),
    };
    let within = |u: &&Usage| u.project == other && (later(10)..later(20)).contains(&u.submitted);
    let wanted: Vec<Usage> = wanted.iter().filter(within).cloned().collect();
    assert!(!wanted.is_empty());
    assert_eq!(
        store.usage().ended(&some, 100).await.unwrap(),
        wanted.len() as u64
    );
    assert_eq!(read(some).await, wanted);

    let (digest, spec) = (Digest([3; 32]), Bytes::from_static(b"a spec"));
    let specs = store.specs();
    assert_eq!(specs.get(digest).await.unwrap(), None);
    for _ in 0..2 {
        // A page that was not acknowledged comes again.
        specs.keep(&[(digest, spec.clone())]).await.unwrap();
    }
    assert_eq!(specs.get(digest).await.unwrap(), Some(spec.to_vec()));
}

pub async fn charges_beyond_all_bounds_are_held_there_and_stop_nobody(store: Store) {
    let project = ProjectId::from_bytes([1; 16]);
    // A result of 20 GB at the dearest price of a GB, again and again within a minute.
    for index in 1..=3 {
        let row = Usage {
            egress: UsdFemtos::MAX,
            ..usage(project, index, 10)
        };
        store
            .outbox()
            .ingest("sql", &[(id(index, 0), row)])
            .await
            .unwrap();
    }
    let charges = store.charges();
    let from = Millis(NOW.0 - 60_000);
    let charges = charges.list(project, from, later(60_000)).await.unwrap();
    assert_eq!((charges.len(), charges[0].attempts), (1, 3));
    assert_eq!(charges[0].egress, UsdFemtos(i64::MAX as u64));
    assert_eq!(charges[0].core_time.0, 3 * 10 * 1000);
}
