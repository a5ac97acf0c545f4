//! Wrong input, and what goes away in the middle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{PythonVersion, SessionId};
use farlane_seal::SessionKey;
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body as FromAgent;
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::v1::session_frame::Body as Down;
use farlane_wire::{ErrorCode, channel};

use crate::enrolment::{enrol, token};
use crate::machine::Machine;
use crate::person::{self, Person, api, exit_kind, open, opening, spec, with_key};
use crate::world::{World, soon, wall};

fn fresh_session() -> SessionId {
    SessionId::new(wall().0, farlane_seal::random::bytes::<5>())
}

#[tokio::test]
async fn a_wrong_an_expired_and_a_revoked_key_are_told_apart() {
    let world = World::start().await;
    let mut api = api(&world).await;
    let status = |key: &str| with_key(v1::GetStatusRequest {}, key);
    let code = |status: tonic::Status| ErrorCode::of(&status);
    let none = api.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(code(none), Some(ErrorCode::Unauthenticated));
    let mut wrong = world.key.clone();
    wrong.replace_range(wrong.len() - 2.., "zz");
    let refused = api.get_status(status(&wrong)).await.unwrap_err();
    assert_eq!(code(refused), Some(ErrorCode::Unauthenticated));

    let make = |name: &str, ttl_ms, scopes: &[&str]| v1::CreateKeyRequest {
        name: name.into(),
        scopes: scopes.iter().map(|s| s.to_string()).collect(),
        ttl_ms,
        ..Default::default()
    };
    let brief = api
        .create_key(with_key(make("brief", 300, &["read"]), &world.key))
        .await
        .unwrap()
        .into_inner();
    assert!(api.get_status(status(&brief.secret)).await.is_ok());
    tokio::time::sleep(Duration::from_millis(400)).await;
    let expired = api.get_status(status(&brief.secret)).await.unwrap_err();
    assert_eq!(code(expired), Some(ErrorCode::KeyExpired));

    let reader = api
        .create_key(with_key(make("reader", 0, &["read"]), &world.key))
        .await
        .unwrap()
        .into_inner();
    let beyond = api
        .create_key(with_key(make("more", 0, &["admin"]), &reader.secret))
        .await
        .unwrap_err();
    assert_eq!(code(beyond), Some(ErrorCode::PermissionDenied));

    let mut person = Person::connect(&world).await;
    let submitter = api
        .create_key(with_key(make("s", 0, &["submit", "read"]), &world.key))
        .await
        .unwrap()
        .into_inner();
    let session = opening(&world, fresh_session(), &SessionKey::generate());
    let (_up, mut down, first) = open(&mut api, &submitter.secret, session).await.unwrap();
    assert!(matches!(first, Down::Opened(_)));
    let id = submitter.key.unwrap().id;
    api.revoke_key(with_key(v1::RevokeKeyRequest { id }, &world.key))
        .await
        .unwrap();
    // The open stream ends at once, others of the project do not.
    let last = soon("the refusal", down.message())
        .await
        .unwrap()
        .unwrap()
        .body
        .unwrap();
    assert!(matches!(last, Down::Refused(r) if r.code == "key_revoked"));
    let revoked = api.get_status(status(&submitter.secret)).await.unwrap_err();
    assert_eq!(code(revoked), Some(ErrorCode::KeyRevoked));
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    assert!(matches!(person.next().await, Down::Submitted(_)));
    let keys = api
        .list_keys(with_key(v1::ListKeysRequest {}, &world.key))
        .await
        .unwrap()
        .into_inner()
        .keys;
    assert_eq!(keys.iter().filter(|k| k.revoked).count(), 1);
}

#[tokio::test]
async fn a_payload_that_is_not_sealed_is_refused() {
    let world = World::start().await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    let mut batch = person.batch(&world, &spec, &[b"secret argument"]);
    let plain =
        bytes::Bytes::from_static(b"a pickle, in the clear, of some length that could be a stream");
    batch.tasks[0].payload = Some(v1::Sealed {
        place: Some(v1::sealed::Place::Inline(plain)),
    });
    person.send(Up::Submit(batch)).await;
    assert_eq!(person.refusal().await, "unsealed_payload");
}

#[tokio::test]
async fn a_batch_beyond_its_bounds_ends_the_stream() {
    let world = World::start().await;
    let spec = spec(&world, |_| {});
    let mut person = Person::connect(&world).await;
    let many = person.batch(&world, &spec, &[b"x".as_slice(); 513]);
    person.send(Up::Submit(many)).await;
    assert_eq!(person.refusal().await, "invalid_argument");
    let mut person = Person::connect(&world).await;
    let heavy = vec![7u8; 14_000];
    let large = person.batch(&world, &spec, &[heavy.as_slice(); 40]);
    person.send(Up::Submit(large)).await;
    assert_eq!(person.refusal().await, "payload_too_large");
}

#[tokio::test]
async fn a_submission_sent_again_is_the_same_and_a_gap_is_refused() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 8).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    let batch = person.batch(&world, &spec, &[b"a", b"b"]);
    for _ in 0..3 {
        person.send(Up::Submit(batch.clone())).await;
    }
    let agent = tokio::spawn(async move {
        let ready = machine.ready(2).await;
        machine.complete(&ready).await;
        machine
    });
    let results = soon("two results", person.results(&world, 2)).await;
    assert_eq!(results.len(), 2);
    person.next_seq = 9;
    person.submit(&world, &spec, &[b"c"]).await;
    assert_eq!(person.refusal().await, "bad_sequence");
    agent.await.unwrap();

    // A first number above 1 from a session that nobody knows.
    let mut stranger = Person::connect(&world).await;
    stranger.next_seq = 2;
    stranger.submit(&world, &spec, &[b"d"]).await;
    assert_eq!(stranger.refusal().await, "bad_sequence");
}

#[tokio::test]
async fn a_completion_counts_once_and_only_from_the_node_that_holds_the_attempt() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 8).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"a"]).await;
    let task = person.task(1);
    let client = tokio::spawn(async move {
        let results = person.results(&world, 1).await;
        (person, world, results)
    });
    let ready = machine.ready(1).await;
    let done = vec![machine.run(ready[0])];
    let mut wrong_attempt = machine.signed(task.session(), done.clone());
    wrong_attempt.items[0].attempt.as_mut().unwrap().attempt = 2;
    assert_eq!(machine.report(wrong_attempt).await.stale, [0]);
    let right = machine.signed(task.session(), done.clone());
    assert_eq!(machine.report(right.clone()).await.stale, Vec::<u32>::new());
    // Sent again, as after a lost acknowledgement, and replayed under another number.
    machine.report(right).await;
    let replayed = machine.signed(task.session(), done);
    assert_eq!(machine.report(replayed).await.stale, [0]);
    let (mut person, world, results) = client.await.unwrap();
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);

    // Another node reports an attempt that it does not hold.
    let mut other = Machine::join(&world, 8).await;
    person.submit(&world, &spec, &[b"b"]).await;
    let (ready, mut holder) = loop {
        match person.next().await {
            Down::GrantsWanted(request) => {
                let grants = person.grants(&world, &request);
                person.send(Up::Grant(grants)).await;
                let first = request.node.as_ref() == machine.node.0;
                if !first {
                    std::mem::swap(&mut machine, &mut other);
                }
                break (machine.ready(1).await, machine);
            }
            Down::Submitted(_) => {}
            frame => panic!("{frame:?}"),
        }
    };
    let done = holder.run(ready[0]);
    let forged = other.signed(task.session(), vec![done.clone()]);
    assert_eq!(other.report(forged).await.stale, [0]);
    let honest = holder.signed(task.session(), vec![done]);
    assert!(holder.report(honest).await.stale.is_empty());
}

#[tokio::test]
async fn an_agent_that_falls_silent_loses_its_work_after_ten_seconds() {
    let world = Arc::new(World::start().await);
    let mut silent = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"a"]).await;
    let began = std::time::Instant::now();
    let shared = world.clone();
    let client = tokio::spawn(async move { person.results(&shared, 1).await });
    assert_eq!(silent.ready(1).await[0].attempt, 1);
    // It lives on and holds the connection, but sends no heartbeat: frozen, as far as anyone can see.
    while let Ok(Some(_)) = soon("the stream's end", silent.down.message()).await {}
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(13),
        "{took:?}"
    );
    // Thawed, it attaches anew, and is given the second attempt.
    silent.assigned.clear();
    let mut thawed = silent.reconnect(&world).await;
    let ready = thawed.ready(1).await;
    assert_eq!(ready[0].attempt, 2);
    thawed.complete(&ready).await;
    let results = soon("the result", client).await.unwrap();
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);
    assert_eq!(results[0].0.attempt.as_ref().unwrap().attempt, 2);
}

#[tokio::test]
async fn a_restarted_agent_loses_what_ran_and_goes_on() {
    let world = Arc::new(World::start().await);
    let mut machine = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"a"]).await;
    let shared = world.clone();
    let client = tokio::spawn(async move { person.results(&shared, 1).await });
    assert_eq!(machine.ready(1).await[0].attempt, 1);
    let beat = v1::Heartbeat {
        sent_ms: 42,
        running: 1,
        waiting: 0,
        ..Default::default()
    };
    machine.send(FromAgent::Heartbeat(beat)).await;
    loop {
        if let ToAgent::Heartbeat(ack) = machine.frame().await {
            assert!(ack.sent_ms == 42 && ack.applied_index > 0 && ack.cluster_time_ms > 0);
            break;
        }
    }
    let kept = machine.kept.clone();
    drop(machine);
    let mut again = Machine::start(&world, kept).await;
    let ready = again.ready(1).await;
    assert_eq!(ready[0].attempt, 2);
    again.complete(&ready).await;
    let results = soon("the result", client).await.unwrap();
    assert_eq!(results[0].0.attempt.as_ref().unwrap().attempt, 2);
}

#[tokio::test]
async fn what_no_node_can_run_is_refused_with_the_reason() {
    let world = World::start().await;
    let _machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let old = spec(&world, |s| {
        s.node.python = PythonVersion {
            major: 3,
            minor: 10,
        }
    });
    person.submit(&world, &old, &[b"a"]).await;
    let results = soon("the refusal", person.results(&world, 1)).await;
    let exit = results[0].0.exit.clone().unwrap();
    assert_eq!(exit.kind(), v1::ExitKind::Infeasible);
    assert!(
        exit.message.contains("3.10") && exit.message.contains("3.11"),
        "{}",
        exit.message
    );
    // The provider certified another disk than the agent pretended.
    let pretended = spec(&world, |s| {
        s.node.labels = vec![farlane_model::LabelRule::equals("disk", "pretended")]
    });
    let request = v1::ExplainRequest {
        spec_bytes: pretended.to_canonical().into(),
        ..Default::default()
    };
    let explained = person
        .api
        .explain(with_key(request, &person.key))
        .await
        .unwrap()
        .into_inner();
    assert!(
        explained.classes.iter().all(|c| !c.reasons.is_empty()),
        "{explained:?}"
    );
}

#[tokio::test]
async fn an_ungranted_placement_returns_without_costing_a_retry() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    let once = spec(&world, |s| s.retry.lost = 0);
    person.submit(&world, &once, &[b"a"]).await;
    let mut attempts = Vec::new();
    while attempts.len() < 2 {
        if let Down::GrantsWanted(request) = person.next().await {
            attempts.push(request.tasks[0].attempt.clone().unwrap().attempt);
            let grants = person.grants(&world, &request);
            if attempts.len() == 2 {
                person.send(Up::Grant(grants)).await;
            }
        }
    }
    assert_eq!(attempts, [1, 2]);
    let agent = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        machine.complete(&ready).await;
        machine
    });
    let results = soon("the result", person.results(&world, 1)).await;
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);
    agent.await.unwrap();
}

#[tokio::test]
async fn a_join_token_serves_once_and_only_its_own_machine() {
    let world = World::start().await;
    let (identity, record) = world.enrolment("eu-central");
    let (_, other) = world.enrolment("eu-central");
    let secret = token(&world, &record, 60_000).await.unwrap();
    let stolen = enrol(&world, &secret, &other, 4).await.err().unwrap();
    assert_eq!(ErrorCode::of(&stolen), Some(ErrorCode::JoinRefused));
    let secret = token(&world, &record, 60_000).await.unwrap();
    let mut kept = enrol(&world, &secret, &record, 4).await.unwrap();
    kept.seed = *identity.expose();
    let late = token(&world, &record, 0).await.err().unwrap();
    assert_eq!(ErrorCode::of(&late), Some(ErrorCode::InvalidArgument));

    // Renewal needs the identity key, and gives a certificate for the same node.
    let mut own = kept.fleet(&world).await;
    let renewed = own.renew(kept.renewal().1).await.unwrap().into_inner();
    assert!(renewed.expires_ms > wall().0 + 23 * 3_600_000);
    let unsigned = v1::RenewRequest {
        signature: Bytes::new(),
        ..kept.renewal().1
    };
    let refused = own.renew(unsigned).await.unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::Unauthenticated));

    // A removed node may do nothing more.
    let mut api = person::api(&world).await;
    let node = farlane_wire::id::node_bytes(&record.node());
    let remove = v1::RemoveNodeRequest {
        node,
        ..Default::default()
    };
    api.remove_node(with_key(remove, &world.key)).await.unwrap();
    let refused = own.renew(kept.renewal().1).await.unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::NodeRevoked));
}

#[tokio::test]
async fn another_authority_is_not_taken_on_either_side() {
    let (world, other) = (World::start().await, World::start().await);
    assert!(
        channel::connect(&world.urls(), other.ca(), None)
            .await
            .is_err()
    );
    let machine = Machine::join(&other, 4).await;
    let identity = Some((
        machine.kept.chain_pem.as_str(),
        machine.kept.key_pem.as_str(),
    ));
    let foreign = channel::connect(&world.urls(), world.ca(), identity).await;
    // TLS 1.3 tells a client only with its first request that its certificate was not taken.
    if let Ok(channel) = foreign {
        let (_, wish) = machine.kept.renewal();
        assert!(FleetClient::new(channel).renew(wish).await.is_err());
    }
    let raft = v1::consensus_client::ConsensusClient::new(
        channel::connect(&world.urls(), world.ca(), None)
            .await
            .unwrap(),
    )
    .vote(v1::RaftMessage {
        body: Default::default(),
    })
    .await
    .unwrap_err();
    assert_eq!(ErrorCode::of(&raft), Some(ErrorCode::PermissionDenied));
}
