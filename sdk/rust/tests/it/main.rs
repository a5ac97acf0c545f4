//! The client against a network in one process: real wire, real seals (see `mock`).
#![allow(clippy::unwrap_used)]

mod away;
mod grants;
mod mock;
mod order;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farlane::{
    Call, Client, ConnectOptions, Delivered, Error, Network, Outcome, Phase, Spec, Template,
};
use farlane_model::{NodeRequest, PythonVersion, Resources, Retry, TaskId, Tier};
use farlane_units::ByteCount;
use farlane_wire::ErrorCode;
use mock::{Answer, Mock, ProviderRootNode, distinct};
use parking_lot::Mutex;

type Landed = Arc<Mutex<Vec<Delivered>>>;

fn options() -> ConnectOptions {
    ConnectOptions {
        connect_timeout: Duration::from_secs(3),
        // No folder: what does not say where to remember leaves nothing behind.
        memory: Some("/dev/null/memory".into()),
        ..ConnectOptions::default()
    }
}

async fn client(mock: &Mock, mut options: ConnectOptions) -> (Client, Landed) {
    options.memory = Some(mock.memory.path().to_owned());
    let landed: Landed = Arc::default();
    let sink = landed.clone();
    let sink: farlane::Sink = Box::new(move |batch| sink.lock().extend(batch));
    let client = Client::connect((*mock.identity).clone(), options, sink)
        .await
        .unwrap();
    (client, landed)
}

fn template() -> Template {
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    Template {
        resources: Resources {
            memory: ByteCount::mib(64),
            scratch: ByteCount::mib(64),
            ..Resources::default()
        },
        ..Template::new("echo", python)
    }
}

fn spec(client: &Client) -> Spec {
    client
        .spec(template(), &client.code(b"pickled code"), None)
        .unwrap()
}

fn call(spec: &Spec, token: u64, arguments: impl Into<Bytes>) -> Call {
    let arguments = arguments.into();
    Call {
        spec: spec.clone(),
        arguments,
        blobs: Vec::new(),
        idempotency_key: None,
        token,
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "waited 20 s for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn echoed(delivered: &Delivered) -> &[u8] {
    match &delivered.outcome {
        Outcome::Returned { body, .. } => body,
        other => panic!("no value: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_come_back_sealed_granted_and_signed() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    for i in 0..3000u64 {
        client
            .submit(call(&spec, i, i.to_le_bytes().to_vec()))
            .await
            .unwrap();
    }
    until("3000 results", || landed.lock().len() == 3000).await;
    let landed = landed.lock();
    for delivered in landed.iter() {
        assert_eq!(echoed(delivered), delivered.token.to_le_bytes());
        assert_eq!(
            (delivered.receipt.attempt, delivered.receipt.cost.get()),
            (1, 7)
        );
    }
    let knobs = mock.knobs.lock();
    assert!(knobs.batches.iter().all(|n| *n <= farlane::MAX_BATCH_TASKS));
    assert!(
        knobs.batches.len() < 300,
        "calls gather: {} batches",
        knobs.batches.len()
    );
    assert!(
        knobs.openings_seen < knobs.batches.len().max(3),
        "one context serves many batches"
    );
    assert_eq!(client.unacknowledged(), 0);
    assert_eq!(client.awaited(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_sees_holds_no_plaintext() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    let secret = "incompressible-9f8e7d6c5b4a-needle";
    let big: Vec<u8> = secret.bytes().cycle().take(40_000).collect();
    client.submit(call(&spec, 1, secret)).await.unwrap();
    client.submit(call(&spec, 2, big)).await.unwrap();
    let mut with_blob = call(&spec, 3, "x");
    with_blob.blobs = vec![client.argument(secret.as_bytes())];
    client.submit(with_blob).await.unwrap();
    until("three results", || landed.lock().len() == 3).await;
    let seen = mock.everything();
    let find = |needle: &[u8]| seen.windows(needle.len()).any(|w| w == needle);
    assert!(!find(secret.as_bytes()) && !find(b"pickled code"));
    assert!(
        find(b"echo"),
        "the search works: a function's name is public"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_arguments_and_results_travel_as_blobs() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    let noise: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    client.submit(call(&spec, 1, noise.clone())).await.unwrap();
    let argument = client.argument(&noise);
    let same = client.argument(&noise);
    assert_eq!(argument.blob(), same.blob(), "the same bytes are put once");
    for token in 2..6 {
        let mut with_blob = call(&spec, token, "small");
        with_blob.blobs = vec![argument.clone(), same.clone()];
        client.submit(with_blob).await.unwrap();
    }
    until("five results", || landed.lock().len() == 5).await;
    let big = landed
        .lock()
        .iter()
        .find(|d| d.token == 1)
        .map(|d| echoed(d) == noise);
    assert_eq!(big, Some(true));
    assert_eq!(mock.blobs(), 4, "code, payload, argument, result");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_resumed_and_nothing_is_done_twice() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    client.submit(call(&spec, 0, "first")).await.unwrap();
    until("the first", || landed.lock().len() == 1).await;
    for round in 0..3u64 {
        // The server takes two more batches in and dies before it acknowledges the second.
        mock.knobs.lock().break_after = Some(1);
        for i in 0..500 {
            let token = 1 + round * 500 + i;
            client
                .submit(call(&spec, token, token.to_le_bytes().to_vec()))
                .await
                .unwrap();
        }
        until("the round", || {
            landed.lock().len() as u64 == 1 + (round + 1) * 500
        })
        .await;
        mock.cut();
    }
    let landed = landed.lock();
    let tasks: Vec<TaskId> = landed.iter().map(|d| d.attempt.task).collect();
    assert_eq!(
        (landed.len(), distinct(&tasks), mock.submitted()),
        (1501, 1501, 1501)
    );
    assert!(
        landed
            .iter()
            .skip(1)
            .all(|d| echoed(d) == d.token.to_le_bytes())
    );
    let resumes = mock.knobs.lock().resumes.clone();
    assert!(resumes.len() >= 3 && resumes[0].is_none());
    assert!(
        resumes[1..].iter().all(Option::is_some),
        "a new stream resumes after what was seen"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_unsigned_and_foreign_results_are_integrity_errors() {
    for (answer, own, says) in [
        (Answer::FlipSealed, true, "not what its node signed"),
        (Answer::FlipSignature, true, "signature"),
        (Answer::Unsigned, true, "not signed"),
        (Answer::Echo, false, "not your own"),
    ] {
        let mock = Mock::start(own).await;
        mock.knobs.lock().answer = answer;
        let (client, landed) = client(&mock, options()).await;
        client.submit(call(&spec(&client), 1, "x")).await.unwrap();
        until("the result", || landed.lock().len() == 1).await;
        let landed = landed.lock();
        let Outcome::Failed(Error::Integrity(text)) = &landed[0].outcome else {
            panic!("{answer:?}: {:?}", landed[0].outcome)
        };
        assert!(text.contains(says), "{answer:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_provider_answers_in_the_codec_that_cannot_execute() {
    let mock = Mock::start(false).await;
    mock.knobs.lock().answer = Answer::Safe;
    let (client, landed) = client(&mock, options()).await;
    client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    until("the result", || landed.lock().len() == 1).await;
    assert_eq!(echoed(&landed.lock()[0]), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_node_gets_no_grant_and_the_same_node_may_ask_again() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, landed) = client(&mock, options()).await;
    let task = client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    until("the first grant", || mock.knobs.lock().openings_seen == 1).await;
    mock.ask_again(task, Some(&ProviderRootNode::new()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(mock.finished(), 0);
    // The same attempt to the same node is idempotent.
    mock.knobs.lock().answer = Answer::Echo;
    mock.ask_again(task, None);
    until("the result", || landed.lock().len() == 1).await;
    assert_eq!(
        mock.knobs.lock().openings_seen,
        2,
        "unproven: the opening goes with it again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_device_of_the_project_attaches_with_the_vault() {
    let mock = Mock::start(true).await;
    let (first, landed) = client(&mock, options()).await;
    let task = first.submit(call(&spec(&first), 1, "kept")).await.unwrap();
    until("the result", || landed.lock().len() == 1).await;
    first.close();
    drop(first);

    let (second, landed) = client(&mock, options()).await;
    let spec = second.attach(task, 77).await.unwrap();
    assert_eq!(spec.map(|s| s.function), Some("echo".to_owned()));
    until("the result again", || landed.lock().len() == 1).await;
    let again = landed.lock()[0].clone();
    assert_eq!((again.token, echoed(&again)), (77, b"kept".as_slice()));
    let unknown = second.session().task(999);
    assert!(matches!(
        second.attach(unknown, 1).await,
        Err(Error::UnknownTask(_))
    ));

    let mut stranger = (*mock.identity).clone();
    stranger.vault = farlane_seal::vault::VaultSecret::generate();
    let stranger = Client::connect(stranger, options(), Box::new(|_| {}))
        .await
        .unwrap();
    assert!(matches!(
        stranger.attach(task, 1).await,
        Err(Error::Integrity(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_and_an_absent_server_are_told_apart() {
    let mock = Mock::start(true).await;
    let mut wrong = (*mock.identity).clone();
    wrong.api_key = "flk_wrong".to_owned().into();
    let refused = Client::connect(wrong, options(), Box::new(|_| {}))
        .await
        .err();
    assert!(
        matches!(&refused, Some(Error::Auth(text)) if text.contains("not known")),
        "{refused:?}"
    );
    mock.knobs.lock().refuse_key = Some(ErrorCode::KeyRevoked);
    let revoked = Client::connect((*mock.identity).clone(), options(), Box::new(|_| {}))
        .await
        .err();
    assert!(matches!(revoked, Some(Error::Auth(_))));

    let mut away = (*mock.identity).clone();
    away.urls = vec!["https://127.0.0.1:9".to_owned()];
    let patience = ConnectOptions {
        connect_timeout: Duration::from_millis(300),
        ..options()
    };
    let begun = Instant::now();
    let error = Client::connect(away.clone(), patience.clone(), Box::new(|_| {}))
        .await
        .err()
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let text = error.to_string();
    assert!(
        text.contains("https://127.0.0.1:9") && text.contains("answered within 0."),
        "{text}"
    );
    let single = Network::connect(away, patience).await.err().unwrap();
    assert!(matches!(single, Error::Connection { .. }));
    let mut foreign = (*mock.identity).clone();
    foreign.network = vec![1; 16];
    mock.knobs.lock().refuse_key = None;
    let foreign = Client::connect(foreign, options(), Box::new(|_| {}))
        .await
        .err();
    assert!(matches!(foreign, Some(Error::Auth(text)) if text.contains("another network")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_in_mid_session_fails_what_waits() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, landed) = client(&mock, options()).await;
    client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    until("the grant", || mock.knobs.lock().openings_seen == 1).await;
    mock.knobs.lock().refuse_key = Some(ErrorCode::KeyRevoked);
    mock.cut();
    until("the failure", || landed.lock().len() == 1).await;
    assert!(matches!(
        landed.lock()[0].outcome,
        Outcome::Failed(Error::Auth(_))
    ));
    assert!(matches!(
        client.submit(call(&spec(&client), 2, "y")).await,
        Err(Error::Auth(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_fails_what_waits_here_and_cancels_nothing_there() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, landed) = client(&mock, options()).await;
    let task = client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    assert!(client.wait_acknowledged(Duration::from_secs(5)));
    client.cancel(vec![task], "a test");
    until("the cancel", || mock.knobs.lock().cancelled == [task]).await;
    client.close();
    until("the failure", || landed.lock().len() == 1).await;
    assert!(matches!(
        landed.lock()[0].outcome,
        Outcome::Failed(Error::Closed)
    ));
    assert!(matches!(
        client.submit(call(&spec(&client), 2, "y")).await,
        Err(Error::Closed)
    ));
    assert_eq!(mock.knobs.lock().cancelled.len(), 1);
    assert!(mock.spec_of(task).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_granter_serves_and_stops() {
    let mock = Mock::start(true).await;
    let folder = tempfile::tempdir().unwrap();
    let standing = grants::standing(&mock, folder.path()).await;
    assert!(standing.is_serving());
    mock.knobs.lock().refuse_key = Some(ErrorCode::KeyRevoked);
    mock.cut();
    until("the end", || !standing.is_serving()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_granted_is_placed() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, _) = client(&mock, options()).await;
    let task = client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    until("the grant", || !mock.knobs.lock().granted.is_empty()).await;
    let state = client.standing(task).unwrap();
    assert_eq!((state.phase, state.attempt), (Phase::Placed, 1));
    assert!(state.node.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_is_kept_with_a_server_that_has_stopped() {
    let mock = Mock::start(true).await;
    // Bound and never accepted from: the system takes connections, and nobody answers.
    let stopped = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut identity = (*mock.identity).clone();
    identity.urls = vec![format!("https://{}", stopped.local_addr().unwrap())];
    let patience = Duration::from_millis(300);
    let options = || ConnectOptions {
        connect_timeout: patience,
        ..options()
    };
    let begun = Instant::now();
    let question = Network::connect(identity.clone(), options()).await;
    let session = Client::connect(identity, options(), Box::new(|_| {})).await;
    assert!(
        begun.elapsed() < farlane_wire::channel::CONNECT_TIMEOUT,
        "{:?} for two of 0.3 s",
        begun.elapsed()
    );
    for refused in [question.map(drop), session.map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(&error, Error::Connection { tried, .. } if *tried >= patience));
        let text = error.to_string();
        assert!(text.contains("answered within 0.3 s: no answer"), "{text}");
    }
}
