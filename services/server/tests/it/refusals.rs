//! Granters that refuse a node.

use farlane_seal::ProviderRoot;
use farlane_seal::record::RevocationList;
use farlane_units::Millis;
use farlane_wire::v1;

use crate::machine::Machine;
use crate::person::{Person, exit_kind, spec, with_key};
use crate::world::{World, soon};

async fn explained(person: &Person, seq: u64) -> v1::ExplainReply {
    let task = farlane_wire::id::task_bytes(&person.task(seq));
    let request = v1::ExplainRequest {
        task,
        ..Default::default()
    };
    let mut api = person.api.clone();
    let reply = api.explain(with_key(request, &person.key)).await;
    reply.unwrap().into_inner()
}

#[tokio::test]
async fn a_refused_node_is_not_tried_again_and_another_runs_it_for_free() {
    let world = World::start().await;
    let machines = [
        Machine::join(&world, 4).await,
        Machine::join(&world, 4).await,
    ];
    let mut person = Person::connect(&world).await;
    let once = spec(&world, |s| s.retry.lost = 0);
    person.submit(&world, &once, &[b"x"]).await;
    let first = person.request().await;
    let begun = std::time::Instant::now();
    person.refuse(&first, "a node that nobody knows").await;
    let second = person.request().await;
    assert!(
        begun.elapsed().as_millis() < 1500,
        "at once, not when its time is over"
    );
    assert_ne!(second.node, first.node);
    assert!(!second.record_bytes.is_empty());
    assert_eq!(second.tasks[0].attempt.as_ref().unwrap().attempt, 2);
    let grants = person.grants(&world, &second);
    person.send(v1::client_frame::Body::Grant(grants)).await;
    let at = machines.iter().position(|m| m.node.0[..] == second.node);
    let mut machines = machines.into_iter();
    let mut machine = machines.nth(at.unwrap()).unwrap();
    let ready = machine.ready(1).await;
    machine.complete(&ready).await;
    let results = soon("the result", person.results(&world, 1)).await;
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);
    let task = farlane_wire::id::task_bytes(&person.task(1));
    let view = with_key(v1::GetTaskRequest { task }, &person.key);
    assert_eq!(
        person
            .api
            .get_task(view)
            .await
            .unwrap()
            .into_inner()
            .retries,
        0
    );
}

#[tokio::test]
async fn a_task_refused_on_every_node_waits_for_others_and_ends_without_them() {
    let world = World::start().await;
    let away = Machine::join(&world, 4).await;
    let elsewhere = farlane_wire::id::node_bytes(&away.node);
    drop(away);
    let _machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    let mut request = person.request().await;
    if request.node == elsewhere {
        // Its stream had not ended yet.
        person.refuse(&request, "gone").await;
        request = person.request().await;
    }
    person.refuse(&request, "not in my region\u{7}").await;
    // The other one fits and is away: it waits, and says why.
    let mut reply = explained(&person, 1).await;
    for _ in 0..50 {
        if reply.phase == "queued" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        reply = explained(&person, 1).await;
    }
    assert_eq!(reply.phase, "queued");
    assert!(
        reply.summary.contains("by its granter: not in my region;"),
        "{}",
        reply.summary
    );
    // A refusal that comes again, or for what is not there, changes nothing.
    person.refuse(&request, "again").await;

    let remove = v1::RemoveNodeRequest {
        node: elsewhere,
        ..Default::default()
    };
    let mut api = person.api.clone();
    api.remove_node(with_key(remove, &person.key))
        .await
        .unwrap();
    let results = soon("the end", person.results(&world, 1)).await;
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Refused);
    let message = results[0].0.exit.clone().unwrap().message;
    assert!(
        message.contains("refuses every node that fits: not in my region"),
        "{message}"
    );
    let ended = explained(&person, 1).await;
    assert_eq!((ended.phase.as_str(), ended.summary), ("finished", message));

    // One that this granter has not refused is placed there still.
    person.submit(&world, &spec, &[b"y"]).await;
    assert_eq!(person.request().await.node, request.node);
}

#[tokio::test]
async fn a_providers_revocations_reach_granters_and_outlive_the_server() {
    let mut world = World::start().await;
    let gone = Machine::join(&world, 4).await;
    let node = gone.node;
    let remove = |revocations: bytes::Bytes, world: &World| {
        let request = v1::RemoveNodeRequest {
            node: farlane_wire::id::node_bytes(&node),
            revocations_bytes: revocations,
        };
        with_key(request, &world.key)
    };
    let list = |root: &ProviderRoot, issued: u64, nodes: &[farlane_model::NodeId]| {
        let list = RevocationList::sign(root, Millis(issued), nodes.to_vec());
        list.unwrap().to_bytes()
    };
    let mut api = crate::person::api(&world).await;
    let code = |status: tonic::Status| farlane_wire::ErrorCode::of(&status).unwrap();
    // Of somebody else, or without the node.
    for bad in [
        list(&ProviderRoot::generate(), 5, &[node]),
        list(&world.provider, 5, &[]),
    ] {
        let refused = api.remove_node(remove(bad, &world)).await.unwrap_err();
        assert_eq!(code(refused), farlane_wire::ErrorCode::InvalidArgument);
    }
    let good = list(&world.provider, 5, &[node]);
    api.remove_node(remove(good.clone(), &world)).await.unwrap();
    let old = list(&world.provider, 4, &[node]);
    let refused = api.remove_node(remove(old, &world)).await.unwrap_err();
    assert_eq!(code(refused), farlane_wire::ErrorCode::Stale);

    // Signed anew in time: nobody gets off it, and none goes back.
    let publish = |list: bytes::Bytes, world: &World| {
        let request = v1::PublishRevocationsRequest {
            revocations_bytes: list,
        };
        with_key(request, &world.key)
    };
    for (bad, why) in [
        (
            list(&world.provider, 6, &[]),
            farlane_wire::ErrorCode::InvalidArgument,
        ),
        (
            list(&world.provider, 5, &[node]),
            farlane_wire::ErrorCode::Stale,
        ),
        (
            bytes::Bytes::from_static(b"no list"),
            farlane_wire::ErrorCode::InvalidArgument,
        ),
    ] {
        let refused = api
            .publish_revocations(publish(bad, &world))
            .await
            .unwrap_err();
        assert_eq!(code(refused), why);
    }
    let good = list(&world.provider, 6, &[node]);
    api.publish_revocations(publish(good.clone(), &world))
        .await
        .unwrap();

    world.kill_and_restart().await;
    let _machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let request = with_key(v1::ListNodesRequest {}, &person.key);
    let listed = person.api.list_nodes(request).await.unwrap().into_inner();
    assert_eq!(listed.revocations_bytes, vec![good.clone()]);
    let provider = world.provider.public().fingerprint();
    assert!(
        listed
            .nodes
            .iter()
            .all(|n| n.provider == provider.0.to_vec())
    );
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    assert_eq!(person.request().await.revocations_bytes, good);
}
