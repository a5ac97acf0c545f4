//! Submission: windows, batches, repetitions, and what the control plane says of them.

use std::time::{Duration, Instant};

use farlane::{ConnectOptions, Error, Outcome, Spec, Template};
use farlane_model::{Gang, GangRegions};
use farlane_units::ByteCount;

use super::mock::{Answer, Mock};
use super::{call, client, echoed, options, spec, template, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_call_leaves_at_once_and_its_result_is_acknowledged() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    client.submit(call(&spec, 1, "warm")).await.unwrap();
    until("the first", || landed.lock().len() == 1).await;
    client.submit(call(&spec, 2, "lone")).await.unwrap();
    until("the second", || landed.lock().len() == 2).await;
    assert_eq!(mock.knobs.lock().batches, [1, 1]);
    until("an acknowledgement", || {
        mock.knobs.lock().acks_seen.last().map(|c| c.index) == Some(3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_holds_callers_back_until_acknowledged() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().withhold_acks = true;
    let window = ByteCount::kib(64);
    let (client, _landed) = client(
        &mock,
        ConnectOptions {
            window,
            ..options()
        },
    )
    .await;
    let spec = spec(&client);
    let mut taken = 0u64;
    let refused = loop {
        let attempt = client
            .submit_within(call(&spec, taken, vec![0; 1000]), Duration::ZERO)
            .unwrap();
        match attempt {
            Ok(_) => taken += 1,
            Err(call) => break call,
        }
        assert!(taken < 1000, "the window never fills");
    };
    assert_eq!(taken, 65_536 / 2024);
    let begun = Instant::now();
    let again = client
        .submit_within(*refused, Duration::from_millis(60))
        .unwrap();
    assert!(
        again.is_err() && begun.elapsed() >= Duration::from_millis(60),
        "it waits, then hands back"
    );
    assert!(!client.wait_acknowledged(Duration::from_millis(20)));
    // Acknowledgements come with the new stream's opening.
    mock.knobs.lock().withhold_acks = false;
    mock.cut();
    let waiting = client.clone();
    let spec2 = spec.clone();
    waiting.submit(call(&spec2, 1000, "late")).await.unwrap();
    assert!(client.wait_acknowledged(Duration::from_secs(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_control_plane_decides_arrives_without_an_attempt() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Infeasible;
    let (client, landed) = client(&mock, options()).await;
    let spec = spec(&client);
    client.submit(call(&spec, 1, "x")).await.unwrap();
    until("the verdict", || landed.lock().len() == 1).await;
    let Outcome::Ended(exit) = landed.lock()[0].outcome.clone() else {
        panic!("no verdict")
    };
    assert_eq!(exit.message, "no node has 64 cores");
    mock.knobs.lock().answer = Answer::Malformed;
    client.submit(call(&spec, 2, "x")).await.unwrap();
    until("the failure", || landed.lock().len() == 2).await;
    let failed = landed.lock()[1].outcome.clone();
    assert!(matches!(failed, Outcome::Failed(Error::Integrity(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_with_a_known_key_is_the_earlier_task() {
    let mock = Mock::start(true).await;
    let (first, landed) = client(&mock, options()).await;
    let spec1 = spec(&first);
    let keyed = |spec: &Spec, token, arguments: &'static str| {
        let mut call = call(spec, token, arguments);
        call.idempotency_key = Some("order 66".to_owned());
        call
    };
    let task = first.submit(keyed(&spec1, 1, "once")).await.unwrap();
    until("the first", || landed.lock().len() == 1).await;
    let (second, again) = client(&mock, options()).await;
    let spec2 = spec(&second);
    let other = second.submit(keyed(&spec2, 2, "twice")).await.unwrap();
    until("the second", || again.lock().len() == 1).await;
    let again = again.lock()[0].clone();
    assert_eq!((again.token, again.attempt.task), (2, task));
    assert_eq!(echoed(&again), b"once", "the earlier task's result");
    assert_eq!(second.task(other.seq()), task);
    assert_eq!(mock.submitted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_until_the_network_knows_the_task() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().withhold_acks = true;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, _landed) = client(&mock, options()).await;
    let task = client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    client.cancel(vec![task], "early");
    until("the submission", || mock.submitted() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        mock.knobs.lock().cancelled.is_empty(),
        "not yet acknowledged"
    );
    mock.cut();
    until("the cancel", || mock.knobs.lock().cancelled == [task]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_a_call_wait_for_its_acknowledgement() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, _) = client(&mock, options()).await;
    let spec = spec(&client);
    // Nobody has let the driver send: each question comes before its call is there.
    for i in 0..50 {
        let task = client.submit(call(&spec, i, "x")).await.unwrap();
        let (view, attached) = tokio::join!(client.view(task), client.attach(task, i));
        assert_eq!(view.unwrap().task, task.to_bytes().to_vec());
        assert!(attached.is_ok());
    }
    mock.knobs.lock().withhold_acks = true;
    let task = client.submit(call(&spec, 99, "x")).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), client.view(task)).await;
    assert!(early.is_err(), "it waits");
    let never = client.session().task(1_000);
    assert!(matches!(
        client.view(never).await,
        Err(Error::UnknownTask(_))
    ));
    let waiting = client.clone();
    let asked = tokio::spawn(async move { waiting.view(task).await });
    mock.knobs.lock().withhold_acks = false;
    mock.cut();
    assert!(asked.await.unwrap().is_ok(), "resuming acknowledges it");

    mock.knobs.lock().withhold_acks = true;
    let last = client.submit(call(&spec, 100, "x")).await.unwrap();
    let waiting = client.clone();
    let asked = tokio::spawn(async move { waiting.explain(last).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.close();
    assert!(matches!(asked.await.unwrap(), Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_leaves_in_one_batch_however_large_its_calls_are() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().withhold_acks = true;
    let (client, landed) = client(&mock, options()).await;
    let alone = spec(&client);
    let gang = Gang {
        size: 256,
        regions: GangRegions::One,
    };
    let template = Template {
        gang: Some(gang),
        ..template()
    };
    let spec = client
        .spec(template, &client.code(b"pickled code"), None)
        .unwrap();
    // Two batches are on their way; the rest gathers.
    for i in 0..300 {
        client.submit(call(&alone, i, "alone")).await.unwrap();
    }
    // What an entry holds of 256 is 832 bytes each: these lie in the blob store.
    let arguments = |i: u64| {
        // Noise: it must not become smaller when it is compressed.
        let mut state = i + 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..3000).map(|_| next()).collect::<Vec<_>>()
    };
    let members = |n: u64| {
        (0..n)
            .map(|i| call(&spec, 1000 + i, arguments(i)))
            .collect::<Vec<_>>()
    };
    let tasks = client.submit_gang(members(256)).await.unwrap();
    assert!(tasks.windows(2).all(|two| two[0].seq() + 1 == two[1].seq()));
    client.submit(call(&alone, 2000, "alone")).await.unwrap();
    // Fewer than there are, and none, are no gang of this spec.
    for calls in [members(255), Vec::new(), vec![call(&alone, 1, "alone")]] {
        let refused = client.submit_gang(calls).await.unwrap_err();
        assert!(matches!(refused, Error::Spec(_)), "{refused}");
    }
    mock.knobs.lock().withhold_acks = false;
    mock.cut();
    until("all of it", || landed.lock().len() == 557).await;
    let batches = mock.knobs.lock().batches.clone();
    // Alone before it there were too many for one batch.
    assert!(
        batches.contains(&256) || batches.contains(&257),
        "{batches:?}"
    );
    assert!(mock.blobs() >= 256);
    let landed = landed.lock();
    let member = landed.iter().find(|d| d.token == 1007).unwrap();
    assert_eq!(echoed(member), arguments(7));
}
