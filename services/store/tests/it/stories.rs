//! What must hold on any database.

use farlane_ledger::{OutboxId, Outcome, Usage};
use farlane_model::{Digest, NodeId, ProjectId, SessionId, TenantId};
use farlane_store::{
    AuditEntry, AuthError, JoinError, NewJoinToken, NewKey, NewNode, Scope, Scopes, Store,
    StoreError,
};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};

pub const NOW: Millis = Millis(1_700_000_000_000);

pub fn later(ms: u64) -> Millis {
    Millis(NOW.0 + ms)
}

pub fn id(index: u64, row: u32) -> OutboxId {
    OutboxId {
        epoch: 1,
        index,
        ordinal: 0,
        row,
    }
}

pub fn usage(project: ProjectId, seq: u64, run_ms: u64) -> Usage {
    Usage {
        project,
        task: SessionId::new(NOW.0, [1; 5]).task(seq),
        attempt: 1,
        node: NodeId([7; 32]),
        region: "eu-central".into(),
        function: "train".into(),
        spec: Digest([9; 32]),
        rank: None,
        submitted: NOW,
        started: NOW,
        ended: later(run_ms),
        cpus: MilliCpu(1000),
        peak_memory: ByteCount::mib(20),
        cpu_time: Millis(1),
        price: UsdMicros(36_000),
        moved_there: ByteCount(seq),
        moved_back: ByteCount::ZERO,
        egress: UsdFemtos(seq),
        emitted: Some(NanoGramsCo2(run_ms)),
        outcome: Outcome::Returned,
        last: true,
    }
}

pub async fn keys_open_only_what_they_should(store: Store) {
    let project = store.projects().ensure("default", NOW).await.unwrap();
    let new = NewKey {
        project: project.id,
        name: "laptop".into(),
        scopes: [Scope::Read, Scope::Submit].into_iter().collect(),
        expires: later(1000),
    };
    let (key, secret) = store.keys().create(new.clone(), NOW).await.unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    let who = store
        .keys()
        .authenticate(secret.reveal(), NOW)
        .await
        .unwrap();
    assert_eq!(
        (who.key, who.project, who.scopes),
        (key.id, project.id, new.scopes)
    );
    assert_eq!((who.project_name.as_str(), who.tenant), ("default", None));
    assert!(!who.scopes.contains(Scope::Admin));
    assert_eq!(
        store.keys().list(project.id).await.unwrap(),
        vec![key.clone()]
    );

    let late = store
        .keys()
        .authenticate(secret.reveal(), later(1000))
        .await;
    assert!(matches!(late, Err(AuthError::Expired)), "{late:?}");

    let other = store.projects().ensure("other", NOW).await.unwrap();
    assert!(
        !store.keys().revoke(other.id, key.id, NOW).await.unwrap(),
        "another project's key"
    );
    assert!(
        store
            .keys()
            .revoke(project.id, key.id, later(5))
            .await
            .unwrap()
    );
    assert!(
        store
            .keys()
            .revoke(project.id, key.id, later(9))
            .await
            .unwrap(),
        "twice is fine"
    );
    let revoked = store.keys().authenticate(secret.reveal(), later(6)).await;
    assert!(matches!(revoked, Err(AuthError::Revoked)), "{revoked:?}");
    assert_eq!(
        store.keys().list(project.id).await.unwrap()[0].revoked,
        Some(later(5))
    );
    assert_eq!(store.keys().revoked(NOW).await.unwrap(), vec![key.id]);
    assert_eq!(store.keys().revoked(later(5000)).await.unwrap(), vec![]);

    let nameless = store
        .keys()
        .create(
            NewKey {
                name: " ".into(),
                ..new
            },
            NOW,
        )
        .await;
    assert!(matches!(nameless, Err(StoreError::BadName { .. })));
}

pub async fn a_key_is_checked_to_the_last_bit(store: Store) {
    let project = store.projects().ensure("default", NOW).await.unwrap();
    let new = NewKey {
        project: project.id,
        name: "ci".into(),
        scopes: Scopes::all(),
        expires: later(1000),
    };
    let (_, secret) = store.keys().create(new.clone(), NOW).await.unwrap();
    let (_, other) = store.keys().create(new, NOW).await.unwrap();
    let text = secret.reveal().to_owned();
    for position in 0..text.len() {
        let mut wrong = text.clone().into_bytes();
        wrong[position] = if wrong[position] == b'1' { b'0' } else { b'1' };
        let wrong = String::from_utf8(wrong).unwrap();
        let answer = store.keys().authenticate(&wrong, NOW).await;
        assert!(
            matches!(answer, Err(AuthError::Unknown)),
            "{position}: {answer:?}"
        );
    }
    // One key's id with another key's secret.
    let swapped = format!(
        "{}{}",
        &text[..text.len() - 64],
        &other.reveal()[text.len() - 64..]
    );
    assert!(matches!(
        store.keys().authenticate(&swapped, NOW).await,
        Err(AuthError::Unknown)
    ));
}

pub async fn projects_are_made_once_and_bound_once(store: Store) {
    let first = store.projects().ensure("lab", NOW).await.unwrap();
    let again = store.projects().ensure("lab", later(9)).await.unwrap();
    assert_eq!(first, again);
    let (mine, theirs) = (TenantId([1; 32]), TenantId([2; 32]));
    assert_eq!(
        store.projects().bind_tenant(first.id, mine).await.unwrap(),
        mine
    );
    assert_eq!(
        store
            .projects()
            .bind_tenant(first.id, theirs)
            .await
            .unwrap(),
        mine
    );
    assert_eq!(
        store
            .projects()
            .get(first.id)
            .await
            .unwrap()
            .unwrap()
            .tenant,
        Some(mine)
    );
    assert_eq!(store.projects().list().await.unwrap().len(), 1);
    assert_eq!(
        store
            .projects()
            .get(ProjectId::from_bytes([9; 16]))
            .await
            .unwrap(),
        None
    );
    assert!(store.projects().ensure(&"x".repeat(65), NOW).await.is_err());
}

fn token(secret: &[u8], expires: Millis) -> NewJoinToken {
    NewJoinToken {
        hash: Digest::of(secret),
        expires,
        enrolment: vec![0, 255, 1, 254],
        created_by: "me".into(),
    }
}

pub async fn a_join_token_works_once(store: Store) {
    let tokens = store.join_tokens();
    tokens.create(token(b"one", later(10)), NOW).await.unwrap();
    tokens
        .create(token(b"two", later(10)), later(1))
        .await
        .unwrap();
    assert!(matches!(
        tokens.take(b"three", [1; 32], NOW).await,
        Err(JoinError::Unknown)
    ));
    let taken = tokens.take(b"one", [1; 32], later(5)).await.unwrap();
    assert_eq!(
        (&taken.enrolment, taken.taken, taken.taken_by),
        (&vec![0, 255, 1, 254], Some(later(5)), Some([1; 32]))
    );
    // A machine whose server went away before it was registered takes it again, even late.
    let again = tokens.take(b"one", [1; 32], later(20)).await.unwrap();
    assert_eq!(again, taken);
    assert!(matches!(
        tokens.take(b"one", [2; 32], later(6)).await,
        Err(JoinError::Taken)
    ));
    assert!(matches!(
        tokens.take(b"two", [1; 32], later(10)).await,
        Err(JoinError::Expired)
    ));
    // Registering a taken token again does not open it.
    tokens
        .create(token(b"one", later(99)), later(7))
        .await
        .unwrap();
    assert!(matches!(
        tokens.take(b"one", [2; 32], later(8)).await,
        Err(JoinError::Taken)
    ));
    assert_eq!(tokens.list().await.unwrap().len(), 2);
    assert_eq!(tokens.forget_expired(later(10)).await.unwrap(), 1);
    // One that was taken stays in the list; one that was not can be revoked.
    tokens.create(token(b"four", later(30)), NOW).await.unwrap();
    let (one, four) = (Digest::of(b"one"), Digest::of(b"four"));
    assert!(!tokens.revoke(one).await.unwrap());
    assert!(tokens.revoke(four).await.unwrap());
    assert!(!tokens.revoke(four).await.unwrap());
    assert!(matches!(
        tokens.take(b"four", [1; 32], NOW).await,
        Err(JoinError::Unknown)
    ));
    let huge = NewJoinToken {
        enrolment: vec![0; 20_000],
        ..token(b"huge", later(1))
    };
    assert!(matches!(
        tokens.create(huge, NOW).await,
        Err(JoinError::TooLarge)
    ));
}

pub async fn of_many_takers_one_gets_the_token(store: Store) {
    store
        .join_tokens()
        .create(token(b"x", later(10)), NOW)
        .await
        .unwrap();
    let takers: Vec<_> = (0..16u8)
        .map(|machine| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .join_tokens()
                    .take(b"x", [machine; 32], NOW)
                    .await
                    .is_ok()
            })
        })
        .collect();
    let mut winners = 0;
    for taker in takers {
        winners += usize::from(taker.await.unwrap());
    }
    assert_eq!(winners, 1);
}

pub async fn nodes_are_noted_and_removed(store: Store) {
    let new = |spec: Vec<u8>| NewNode {
        node: NodeId([4; 32]),
        name: "rack-1".into(),
        region: "us-west".into(),
        provider: Digest([5; 32]),
        spec,
    };
    store.nodes().upsert(new(vec![1]), NOW).await.unwrap();
    store.nodes().upsert(new(vec![]), later(5)).await.unwrap();
    let rows = store.nodes().list(None).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].spec.len(), rows[0].first_seen, rows[0].changed),
        (0, NOW, later(5))
    );
    assert!(store.nodes().remove(rows[0].node, later(6)).await.unwrap());
    assert!(!store.nodes().remove(rows[0].node, later(7)).await.unwrap());
    store.nodes().upsert(new(vec![1]), later(8)).await.unwrap();
    assert_eq!(
        store.nodes().list(None).await.unwrap()[0].removed,
        Some(later(6))
    );
    assert!(
        store
            .nodes()
            .list(Some(NodeId([4; 32])))
            .await
            .unwrap()
            .is_empty()
    );
}

pub async fn the_outbox_counts_every_row_once(store: Store) {
    let project = ProjectId::from_bytes([1; 16]);
    let rows: Vec<_> = (0..300)
        .map(|n| {
            (
                id(10 + u64::from(n) / 100, n % 100),
                usage(project, n.into(), 1000),
            )
        })
        .collect();
    let first = store.outbox().ingest("sql", &rows[..200]).await.unwrap();
    assert_eq!(
        (first.added, first.repeated, first.mark),
        (200, 0, rows[199].0)
    );
    // The acknowledgement was lost: a new leader delivers everything again.
    let second = store.outbox().ingest("sql", &rows).await.unwrap();
    assert_eq!(
        (second.added, second.repeated, second.mark),
        (100, 200, rows[299].0)
    );
    let third = store.outbox().ingest("sql", &rows).await.unwrap();
    assert_eq!((third.added, third.mark), (0, rows[299].0));
    assert_eq!(store.outbox().mark("sql").await.unwrap(), rows[299].0);
    assert_eq!(
        store.outbox().mark("webhook").await.unwrap(),
        OutboxId::default()
    );

    let charges = store
        .charges()
        .list(project, Millis(0), later(600_000))
        .await
        .unwrap();
    assert_eq!(charges.iter().map(|c| c.attempts).sum::<u64>(), 300);
    // 300 seconds of a core at $0.036 an hour.
    assert_eq!(charges.iter().map(|c| c.cost().0).sum::<i64>(), 3000);

    // A restored cluster begins a new epoch with small indexes; they are new.
    let fresh = OutboxId {
        epoch: 2,
        index: 1,
        ordinal: 0,
        row: 0,
    };
    let again = store
        .outbox()
        .ingest("sql", &[(fresh, usage(project, 500, 10))])
        .await
        .unwrap();
    assert_eq!((again.added, again.mark), (1, fresh));
}

pub async fn a_failed_delivery_leaves_nothing(store: Store) {
    let project = ProjectId::from_bytes([1; 16]);
    store
        .outbox()
        .ingest("a", &[(id(5, 0), usage(project, 1, 10))])
        .await
        .unwrap();
    // Another sink's mark is lower, so row (5, 0) comes again and meets the primary key.
    let rows = [
        (id(4, 0), usage(project, 2, 10)),
        (id(5, 0), usage(project, 1, 10)),
    ];
    assert!(store.outbox().ingest("b", &rows).await.is_err());
    assert_eq!(store.outbox().mark("b").await.unwrap(), OutboxId::default());
    assert_eq!(
        store
            .usage()
            .history(project, None, 100)
            .await
            .unwrap()
            .len(),
        1
    );
    let charges = store
        .charges()
        .list(project, Millis(0), later(600_000))
        .await
        .unwrap();
    assert_eq!(charges.iter().map(|c| c.attempts).sum::<u64>(), 1);
}

pub async fn history_reads_page_by_page(store: Store) {
    let project = ProjectId::from_bytes([1; 16]);
    let mut rows: Vec<_> = (1..=10)
        .map(|n| (id(n, 0), usage(project, n, n * 10)))
        .collect();
    rows.push((id(11, 0), usage(ProjectId::from_bytes([2; 16]), 11, 10)));
    rows[9].1.attempt = 2;
    rows[9].1.task = rows[8].1.task;
    rows[8].1.outcome = Outcome::Lost;
    store.outbox().ingest("sql", &rows).await.unwrap();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.usage().history(project, before, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        seen.extend(page.into_iter().map(|e| (e.id, e.usage)));
    }
    let wanted: Vec<_> = rows[..10].iter().rev().cloned().collect();
    assert_eq!(seen, wanted);
    let receipt = store
        .usage()
        .receipt(project, rows[8].1.task)
        .await
        .unwrap();
    assert_eq!(
        receipt.lines.iter().map(|l| l.outcome).collect::<Vec<_>>(),
        [Outcome::Lost, Outcome::Returned]
    );
    assert_eq!(receipt.run_time(), Millis(190));
    let foreign = store
        .usage()
        .receipt(project, rows[10].1.task)
        .await
        .unwrap();
    assert!(foreign.lines.is_empty(), "another project's call");
}

pub async fn the_audit_grows(store: Store) {
    for n in 0..3u64 {
        let entry = AuditEntry {
            at: later(n),
            actor: "server".into(),
            action: "node.enrol".into(),
            subject: n.to_string(),
            detail: "é".repeat(900),
        };
        store.audit().append(entry).await.unwrap();
    }
    let newest = store.audit().list(later(2), 10).await.unwrap();
    assert_eq!(
        newest
            .iter()
            .map(|e| e.subject.as_str())
            .collect::<Vec<_>>(),
        ["1", "0"]
    );
    assert_eq!(newest[0].detail.len(), 1024);
    assert_eq!(store.audit().list(later(9), 1).await.unwrap().len(), 1);
}
