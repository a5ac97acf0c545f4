//! Three servers that speak TLS to each other; the leader goes, and what was acknowledged stays.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use farlane_server::{MemberConfig, ServerConfig};
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::session_frame::Body as Down;
use farlane_wire::{channel, v1};

use crate::machine::Machine;
use crate::person::{Api, Person, exit_kind, open, opening, spec, with_key};
use crate::world::{World, soon};

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Three servers of one network: the same root, accounts and pepper.
async fn three() -> Vec<World> {
    let ports = [port(), port(), port()];
    let members: Vec<MemberConfig> = (1u64..)
        .zip(ports)
        .map(|(id, port)| MemberConfig {
            id,
            url: format!("https://127.0.0.1:{port}"),
            region: String::new(),
        })
        .collect();
    let mut worlds = Vec::new();
    for (id, port) in (1u64..).zip(ports) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(dir.path());
        config.id = id;
        config.listen.set_port(port);
        config.members.clone_from(&members);
        let shared = worlds.first().map_or(dir.path(), World::folder).to_owned();
        config.database = format!("sqlite://{}", shared.join("accounts.db").display());
        (config.blobs, config.blobs_shared) = (shared.join("blobs"), true);
        if !worlds.is_empty() {
            std::fs::create_dir(dir.path().join("ca")).unwrap();
            for file in ["ca/root.key", "ca/root.pem", "pepper"] {
                std::fs::copy(shared.join(file), dir.path().join(file)).unwrap();
            }
        }
        let mut world = World::unstarted(dir, config);
        world.boot().await;
        worlds.push(world);
    }
    worlds
}

/// The address of whoever leads, by asking each server that answers.
async fn leader(worlds: &[World], key: &str, not: &str) -> String {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody leads");
        for world in worlds {
            let Ok(channel) = channel::connect(&world.urls(), world.ca(), None).await else {
                continue;
            };
            let mut api = Api::new(channel);
            if let Ok(status) = api.get_status(with_key(v1::GetStatusRequest {}, key)).await {
                let leader = status.into_inner().leader;
                if !leader.is_empty() && leader != not {
                    return leader;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_leader_dies_and_the_others_finish_what_it_acknowledged() {
    let mut worlds = three().await;
    worlds[0].let_owner_in().await;
    let key = worlds[0].key.clone();
    let first = leader(&worlds, &key, "").await;

    // A follower says where to go.
    let at = worlds
        .iter()
        .position(|w| w.running().urls()[0] != first)
        .unwrap();
    let channel = channel::connect(&worlds[at].urls(), worlds[at].ca(), None)
        .await
        .unwrap();
    let session = farlane_model::SessionId::new(1, [9; 5]);
    let frame = opening(&worlds[0], session, &farlane_seal::SessionKey::generate());
    let (_up, _down, answer) = open(&mut Api::new(channel), &key, frame).await.unwrap();
    let Down::Opened(opened) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(opened.leader, first);

    worlds[0].front = Some(first.clone());
    let mut machine = Machine::join(&worlds[0], 2).await;
    machine.beat();
    let mut person = Person::connect(&worlds[0]).await;
    let spec = spec(&worlds[0], |_| {});
    person
        .submit(&worlds[0], &spec, &[b"x".as_slice(); 40])
        .await;
    let (mut acknowledged, mut granted) = (false, false);
    while !acknowledged || !granted {
        match person.next().await {
            Down::Submitted(ack) => acknowledged = ack.through_seq == 40,
            Down::GrantsWanted(request) => {
                let grants = person.grants(&worlds[0], &request);
                person.send(Up::Grant(grants)).await;
                granted = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let ready = machine.ready(2).await;
    machine.complete(&ready).await;

    let dead = worlds
        .iter()
        .position(|w| w.running().urls()[0] == first)
        .unwrap();
    worlds[dead].kill();
    // Asking goes by each server's own address again; the first holds the tenant's keys, alive or not.
    worlds[0].front = (dead == 0).then(|| first.clone());
    let second = leader(&worlds, &key, &first).await;
    worlds[0].front = Some(second);
    let world = &worlds[0];
    let mut machine = soon("the agent's new stream", machine.reconnect(world)).await;
    machine.beat();
    let mut person = soon("the client's new stream", person.reconnect(world)).await;
    assert_eq!(person.opened.acknowledged_seq, 40);
    let agent = tokio::spawn(async move {
        loop {
            let ready = machine.ready(1).await;
            machine.complete(&ready).await;
        }
    });
    let results = soon("all results", person.results(world, 40)).await;
    let tasks: std::collections::BTreeSet<_> = results
        .iter()
        .map(|(r, _)| r.attempt.as_ref().unwrap().task.clone())
        .collect();
    assert_eq!(tasks.len(), 40);
    assert!(
        results
            .iter()
            .all(|(r, _)| exit_kind(r) == v1::ExitKind::Returned)
    );
    agent.abort();
}
