//! The path of a call, and what stays when the server does not.

use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as Down;

use crate::machine::Machine;
use crate::person::{self, Person, exit_kind, spec, with_key};
use crate::world::{World, soon};

#[tokio::test]
async fn a_call_goes_out_sealed_and_its_result_comes_back() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 16).await;
    let mut person = Person::connect(&world).await;
    assert_eq!(person.opened.network, machine.hello.network);
    let spec = spec(&world, |_| {});
    person
        .submit(&world, &spec, &[b"one", b"two", b"three"])
        .await;

    let agent = tokio::spawn(async move {
        let ready = machine.ready(3).await;
        // Nobody is believed to have run before it was placed, or after it was reported.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let ack = machine.complete_in(&ready, 10).await;
        assert_eq!(ack.stale, Vec::<u32>::new());
        machine
    });
    let results = soon("three results", person.results(&world, 3)).await;
    let plain: Vec<_> = results.iter().map(|(_, p)| p.clone().unwrap()).collect();
    assert_eq!(
        plain,
        [
            b"oneone".to_vec(),
            b"twotwo".to_vec(),
            b"threethree".to_vec()
        ]
    );
    for (result, _) in &results {
        assert_eq!(exit_kind(result), v1::ExitKind::Returned);
        assert_eq!(
            (result.region.as_str(), result.node_name.as_str()),
            ("eu-central", "box")
        );
        // The provider's price, not the agent's word: $36 an hour is 10 millionths a millisecond.
        let run = result.ended_ms - result.started_ms;
        assert!(run >= 5, "{run}");
        assert_eq!(result.cost_usd_micros, 10 * run as i64);
    }
    let machine = agent.await.unwrap();

    let task = farlane_wire::id::task_bytes(&person.task(2));
    let view = person
        .api
        .get_task(with_key(
            v1::GetTaskRequest { task: task.clone() },
            &person.key,
        ))
        .await;
    let view = view.unwrap().into_inner();
    assert_eq!(
        (view.function.as_str(), view.phase()),
        ("double", v1::TaskPhase::Finished)
    );
    assert!(
        view.signature.is_some()
            && !view.record_bytes.is_empty()
            && !view.wrapped_session_key.is_empty()
    );
    let explained = person
        .api
        .explain(with_key(
            v1::ExplainRequest {
                task,
                ..Default::default()
            },
            &person.key,
        ))
        .await;
    assert!(
        explained
            .unwrap()
            .into_inner()
            .summary
            .contains("on box in eu-central")
    );
    let nodes = person
        .api
        .list_nodes(with_key(v1::ListNodesRequest {}, &person.key))
        .await
        .unwrap();
    let nodes = nodes.into_inner().nodes;
    assert!(nodes.len() == 1 && nodes[0].online && nodes[0].node.as_ref() == machine.node.0);
    let status = person
        .api
        .get_status(with_key(v1::GetStatusRequest {}, &person.key))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.queued, status.placed, status.nodes_online),
        (0, 0, 1)
    );
    let listed = person.api.list_tasks(with_key(
        v1::ListTasksRequest {
            limit: 2,
            ..Default::default()
        },
        &person.key,
    ));
    assert_eq!(listed.await.unwrap().into_inner().tasks.len(), 2);
}

#[tokio::test]
async fn a_queue_longer_than_the_room_drains_in_order() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    let payloads: Vec<String> = (0..300).map(|i| format!("task {i}")).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(|p| p.as_bytes()).collect();
    for some in payloads.chunks(100) {
        person.submit(&world, &spec, some).await;
    }
    let agent = tokio::spawn(async move {
        let mut done = 0;
        let mut most = 0;
        while done < 300 {
            let ready = machine.ready(1).await;
            most = most.max(machine.assigned.len());
            machine.complete(&ready).await;
            done += ready.len();
        }
        most
    });
    let results = soon("300 results", person.results(&world, 300)).await;
    let seqs: std::collections::BTreeSet<_> = results
        .iter()
        .map(|(r, _)| r.attempt.as_ref().unwrap().task.clone())
        .collect();
    assert_eq!(seqs.len(), 300);
    // Two cores and a credit of four.
    assert!(agent.await.unwrap() <= 6);
}

#[tokio::test]
async fn a_killed_server_comes_back_with_queue_leases_and_results() {
    let mut world = World::start().await;
    let port = world.running().local_addr().port();
    let mut machine = Machine::join(&world, 1).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    let payloads: Vec<&[u8]> = vec![b"a"; 20];
    let batch = person.batch(&world, &spec, &payloads);
    person.send(Up::Submit(batch.clone())).await;
    let (mut acknowledged, mut granted) = (false, false);
    while !acknowledged || !granted {
        match person.next().await {
            Down::Submitted(ack) => acknowledged = ack.through_seq == 20,
            Down::GrantsWanted(request) => {
                let grants = person.grants(&world, &request);
                person.send(Up::Grant(grants)).await;
                granted = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let first = machine.ready(3).await;
    let done = machine.complete(&first[..1]).await;
    assert!(done.stale.is_empty());

    world.kill_and_restart().await;
    assert_eq!(world.running().local_addr().port(), port);
    let mut machine = machine.reconnect(&world).await;
    let mut person = person.reconnect(&world).await;
    assert_eq!(person.opened.acknowledged_seq, 20);
    // Sent again, as a client does that never saw the acknowledgement: the same tasks.
    person.send(Up::Submit(batch)).await;
    let agent = tokio::spawn(async move {
        let mut done = 1;
        while done < 20 {
            let ready = machine.ready(1).await;
            let ack = machine.complete(&ready).await;
            done += ready.len() - ack.stale.len();
        }
        machine
    });
    let results = soon("20 results", person.results(&world, 20)).await;
    let tasks: std::collections::BTreeSet<_> = results
        .iter()
        .map(|(r, _)| r.attempt.as_ref().unwrap().task.clone())
        .collect();
    assert_eq!(tasks.len(), 20);
    assert!(
        results
            .iter()
            .all(|(r, plain)| exit_kind(r) == v1::ExitKind::Returned && plain.is_some())
    );
    agent.await.unwrap();
}

#[tokio::test]
async fn a_task_is_cancelled_while_queued_and_while_placed() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |s| s.resources.cpus.0 = 2000);
    person.submit(&world, &spec, &[b"placed", b"queued"]).await;
    loop {
        match person.next().await {
            Down::GrantsWanted(request) => {
                let grants = person.grants(&world, &request);
                person.send(Up::Grant(grants)).await;
                break;
            }
            Down::Submitted(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let placed = machine.ready(1).await;
    assert_eq!(placed[0].task, person.task(1));
    let tasks = [1, 2]
        .map(|seq| farlane_wire::id::task_bytes(&person.task(seq)))
        .to_vec();
    person
        .send(Up::Cancel(v1::CancelBatch {
            tasks,
            reason: "enough".into(),
        }))
        .await;
    let mut results = Vec::new();
    let mut confirmed = 0;
    while results.len() < 2 || confirmed < 2 {
        match person.next().await {
            Down::Results(batch) => results.extend(person.open_results(&world, batch)),
            Down::Cancelled(ack) => confirmed = ack.tasks.len(),
            Down::Submitted(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        results
            .iter()
            .all(|(r, _)| exit_kind(r) == v1::ExitKind::Cancelled)
    );
    loop {
        if let ToAgent::Stop(stop) = machine.frame().await {
            assert_eq!(stop.attempts, vec![placed[0].into()]);
            break;
        }
    }
}

#[tokio::test]
async fn another_process_of_the_project_watches_and_cancels_nothing_of_others() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let watcher = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    let task = farlane_wire::id::task_bytes(&person.task(1));
    let agent = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        machine.complete(&ready).await;
        machine
    });
    soon("the result", person.results(&world, 1)).await;
    let mut watcher = watcher;
    watcher
        .send(Up::Watch(v1::Watch {
            tasks: vec![task.clone()],
        }))
        .await;
    match watcher.next().await {
        Down::Results(batch) => {
            assert!(batch.cursor.is_none() && batch.signature.is_some());
            assert_eq!(batch.results[0].attempt.as_ref().unwrap().task, task);
        }
        other => panic!("{other:?}"),
    }
    agent.await.unwrap();
}

#[tokio::test]
async fn a_watcher_of_more_than_its_queue_holds_gets_each_result_and_keeps_its_stream() {
    let world = World::start().await;
    let mut person = Person::connect(&world).await;
    let mut watcher = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    let count = 500;
    person
        .submit(&world, &spec, &vec![b"x".as_slice(); count])
        .await;
    let name = |n: &u64| farlane_wire::id::task_bytes(&person.task(*n));
    let numbers: Vec<u64> = (1..=count as u64).collect();
    let all: Vec<bytes::Bytes> = numbers.iter().map(name).collect();
    while !matches!(person.next().await, Down::Submitted(_)) {}
    let (early, late) = all.split_at(count / 2);
    let watch = |tasks: &[bytes::Bytes]| {
        Up::Watch(v1::Watch {
            tasks: tasks.to_vec(),
        })
    };
    // Some before they have finished, some after.
    watcher.send(watch(early)).await;
    let cancel = v1::CancelBatch {
        tasks: all.clone(),
        reason: "enough".into(),
    };
    person.send(Up::Cancel(cancel)).await;
    while !matches!(person.next().await, Down::Cancelled(_)) {}
    watcher.send(watch(late)).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        let Down::Results(batch) = watcher.next().await else {
            panic!("nothing else is asked for")
        };
        for result in batch.results {
            let task = result.attempt.unwrap().task;
            assert!(all.contains(&task) && seen.insert(task), "each once");
        }
    }
    // What was sent is no longer watched, and may be asked for again.
    watcher.send(watch(&early[..1])).await;
    let Down::Results(again) = watcher.next().await else {
        panic!("the same result")
    };
    assert_eq!(again.results[0].attempt.as_ref().unwrap().task, early[0]);
}

#[tokio::test]
async fn blobs_and_sealed_output_are_kept_for_those_who_may_ask() {
    use farlane_seal::{StreamContext, StreamKind, TaskKey, stream};
    let world = World::start().await;
    let mut machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let context = StreamContext::blob(StreamKind::Code, world.tenant.public().tenant());
    let sealed = stream::seal_padded(&TaskKey::generate(), &context, &vec![7u8; 700_000]);
    let name = farlane_model::BlobRef {
        digest: farlane_model::Digest::of(&sealed),
        size: farlane_units::ByteCount(sealed.len() as u64),
    };
    let chunks: Vec<v1::BlobChunk> = sealed
        .chunks(256 * 1024)
        .enumerate()
        .map(|(i, data)| v1::BlobChunk {
            blob: (i == 0).then(|| name.into()),
            offset: (i * 256 * 1024) as u64,
            data: data.to_vec().into(),
        })
        .collect();
    let put = |chunks: Vec<v1::BlobChunk>| with_key(tokio_stream::iter(chunks), &world.key);
    let receipt = person
        .api
        .put_blob(put(chunks.clone()))
        .await
        .unwrap()
        .into_inner();
    assert!(!receipt.already_there);
    let get = v1::GetBlobRequest {
        digest: farlane_wire::id::digest_bytes(&name.digest),
        ..Default::default()
    };
    let mut down = machine.fleet.get_blob(get).await.unwrap().into_inner();
    let mut back = Vec::new();
    while let Some(chunk) = down.message().await.unwrap() {
        back.extend_from_slice(&chunk.data);
    }
    assert_eq!(back, sealed);
    let mut plain = chunks;
    plain[0].data = vec![0u8; 256 * 1024].into();
    let refused = person.api.put_blob(put(plain)).await.unwrap_err();
    assert_eq!(
        farlane_wire::ErrorCode::of(&refused),
        Some(farlane_wire::ErrorCode::UnsealedPayload)
    );

    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    let agent = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        let chunk = |number: u32, text: &'static str| v1::LogChunk {
            attempt: Some(ready[0].into()),
            chunk: number,
            node: farlane_wire::id::node_bytes(&machine.node),
            sealed: text.into(),
            last: number == 1,
            dropped_bytes: 0,
        };
        let chunks = tokio_stream::iter(vec![chunk(0, "sealed a"), chunk(1, "sealed b")]);
        let ack = machine.fleet.push_logs(chunks).await.unwrap().into_inner();
        assert_eq!(ack.chunks, 2);
        machine.complete(&ready).await;
    });
    soon("the result", person.results(&world, 1)).await;
    agent.await.unwrap();
    let task = farlane_wire::id::task_bytes(&person.task(1));
    let request = v1::LogsRequest {
        task,
        attempt: 0,
        follow: true,
        from_chunk: 0,
    };
    let mut api = person::api(&world).await;
    let mut logs = api
        .logs(with_key(request, &world.key))
        .await
        .unwrap()
        .into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = soon("output", logs.message()).await.unwrap() {
        text.push(chunk.sealed);
    }
    assert_eq!(text, ["sealed a", "sealed b"]);
}

#[tokio::test]
async fn a_standing_granter_is_shown_a_spec_once_and_then_its_digest() {
    let world = World::start().await;
    let _machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |s| s.retry.at_most_once = true);
    person.submit(&world, &spec, &[b"one", b"two"]).await;
    while !matches!(person.next().await, Down::Submitted(_)) {}

    let session_key = farlane_seal::SessionKey::generate();
    let session = farlane_model::SessionId::new(1, [3; 5]);
    let mut opening = person::opening(&world, session, &session_key);
    opening.granter = v1::GranterKind::Standing.into();
    let mut api = person::api(&world).await;
    let (_up, mut down, first) = person::open(&mut api, &world.key, opening).await.unwrap();
    assert!(matches!(first, Down::Opened(_)));
    // The client goes without having granted: its tasks fall to the standing granter.
    drop(person);
    let mut wanted = Vec::new();
    while wanted.len() < 2 {
        let frame = soon("a request", down.message()).await.unwrap().unwrap();
        if let Some(Down::GrantsWanted(request)) = frame.body {
            wanted.extend(request.tasks);
        }
    }
    let canonical = spec.to_canonical();
    let digest = farlane_model::Digest::of(&canonical);
    assert_eq!(wanted[0].spec, canonical);
    assert_eq!(wanted[1].spec, digest.0.to_vec());
    assert!(!wanted[0].wrapped_session_key.is_empty() && wanted[1].wrapped_session_key.is_empty());
    assert!(
        wanted
            .iter()
            .all(|w| !w.wrapped_key.is_empty() && !w.payload_digest.is_empty())
    );
}
