//! Machines that are not what they say: what becomes of them.

use bytes::Bytes;
use farlane_audit::Challenge;
use farlane_model::{Measured, NodeSpec};
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as Down;

use crate::machine::{Machine, node_spec};
use crate::person::{self, Person, exit_kind, spec, with_key};
use crate::world::{World, soon};

/// A network that audits each machine every second or so.
async fn world() -> World {
    World::start_with(|config| config.audit_every = 1).await
}

/// Says that it was measured, at next to nothing: what is asked of it is then as short as can be.
fn measured(millions: u64) -> NodeSpec {
    NodeSpec {
        measured: Some(Measured::even(1, millions)),
        ..node_spec(4)
    }
}

async fn machine(world: &World) -> Machine {
    let kept = Machine::enrolled(
        world,
        &[("disk", "nvme"), ("driver", "550.54")],
        measured(1),
    )
    .await;
    let machine = Machine::start(world, kept).await;
    machine.beat();
    machine
}

async fn challenged(machine: &mut Machine) -> v1::Challenge {
    loop {
        if let Down::Challenge(asked) = machine.frame().await {
            return asked;
        }
    }
}

/// What the work comes to, done as plainly as can be.
fn answer(asked: &v1::Challenge) -> Vec<u8> {
    let challenge = Challenge {
        seed: asked.seed.as_ref().try_into().unwrap(),
        cores: asked.cores,
        steps: asked.steps,
        rounds: asked.rounds,
    };
    challenge.plain()
}

async fn hand_in(machine: &Machine, id: u64, links: Vec<u8>) {
    let links = Bytes::from(links);
    machine
        .send(Up::Answer(v1::ChallengeAnswer { id, links }))
        .await;
}

async fn standing(world: &World) -> v1::NodeStanding {
    let request = with_key(v1::ListNodesRequest {}, &world.key);
    let reply = person::api(world).await.list_nodes(request).await;
    reply
        .unwrap()
        .into_inner()
        .nodes
        .remove(0)
        .standing
        .unwrap()
}

/// Waits for a standing of this name.
async fn stands(world: &World, name: &str) -> v1::NodeStanding {
    let wait = async {
        loop {
            let now = standing(world).await;
            if now.name == name {
                return now;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    soon(name, wait).await
}

#[tokio::test]
async fn a_machine_that_does_the_work_stands_good_and_its_page_says_how_fast() {
    let world = world().await;
    let mut machine = machine(&world).await;
    let asked = challenged(&mut machine).await;
    let links = tokio::task::spawn_blocking(move || (asked.id, answer(&asked)));
    let (id, links) = links.await.unwrap();
    hand_in(&machine, id, links).await;
    let known = async {
        loop {
            let now = standing(&world).await;
            if now.challenges == 1 {
                return now;
            }
        }
    };
    let now = soon("the verdict", known).await;
    assert_eq!((now.name.as_str(), now.passed), ("good", 1));
    // It claims next to nothing, and does far more.
    assert!(now.last_share_milli > 1000 && now.last_ms > 0, "{now:?}");
    // An answer to what was never asked is nothing.
    hand_in(&machine, 99, vec![0; 16]).await;
    assert_eq!(standing(&world).await.name, "good");
}

#[tokio::test]
async fn one_that_makes_answers_up_gets_no_work_until_it_is_pardoned() {
    let mut world = world().await;
    let mut liar = machine(&world).await;
    let asked = challenged(&mut liar).await;
    let made_up = vec![7; asked.cores as usize * asked.steps as usize * 16];
    hand_in(&liar, asked.id, made_up).await;
    let found = stands(&world, "quarantined").await;
    assert!(
        found.reason.contains("wrongly") && !found.lifts,
        "{found:?}"
    );

    let mut person = Person::connect(&world).await;
    let task = spec(&world, |_| {});
    person.submit(&world, &task, &[b"x"]).await;
    let request = v1::ExplainRequest {
        spec_bytes: task.to_canonical().into(),
        ..Default::default()
    };
    let explained = person.api.explain(with_key(request, &person.key)).await;
    let explained = explained.unwrap().into_inner();
    let reasons: Vec<_> = explained.classes.iter().flat_map(|c| &c.reasons).collect();
    assert_eq!(reasons, ["is in quarantine"]);
    assert_eq!(
        explained.summary,
        "every node that fits is offline or in quarantine"
    );

    let pardon = v1::PardonNodeRequest {
        node: farlane_wire::id::node_bytes(&liar.node),
    };
    let mut api = person::api(&world).await;
    let done = api.pardon_node(with_key(pardon.clone(), &world.key)).await;
    done.unwrap();
    let again = api
        .pardon_node(with_key(pardon, &world.key))
        .await
        .unwrap_err();
    assert!(again.message().contains("good standing"), "{again}");
    let agent = tokio::spawn(async move {
        let ready = liar.ready(1).await;
        liar.complete(&ready).await;
        liar
    });
    let results = soon("the result", person.results(&world, 1)).await;
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);
    agent.await.unwrap();
    // A standing is the network's: it outlives the server.
    world.kill_and_restart().await;
    assert_eq!(standing(&world).await.name, "good");
}

#[tokio::test]
async fn one_that_says_nothing_is_marked_and_counts_as_slower() {
    let world = world().await;
    let mut silent = machine(&world).await;
    let reads = tokio::spawn(async move {
        loop {
            silent.frame().await;
        }
    });
    let marked = stands(&world, "marked").await;
    assert!(marked.reason.contains("2 of its last 3"), "{marked:?}");
    assert_eq!((marked.slowdown_milli, marked.passed), (10_000, 0));
    reads.abort();
}

#[tokio::test]
async fn one_that_answers_sooner_than_light_could_is_not_where_it_says() {
    let world = World::start_with(|config| {
        config.audit_every = 1;
        config.location = "50.1,8.7".into();
        config.locations = vec![("eu-*".into(), "-33.9,151.2,100".into())];
    })
    .await;
    let mut near = machine(&world).await;
    let reads = tokio::spawn(async move {
        loop {
            near.frame().await;
        }
    });
    let found = stands(&world, "quarantined").await;
    assert!(
        found.reason.contains("km away") && !found.lifts,
        "{found:?}"
    );
    reads.abort();
}
