//! What a machine says of its heat, from its heartbeat to the receipt.

use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body as Up;

use crate::machine::{Machine, node_spec};
use crate::person::{Person, spec, with_key};
use crate::world::{World, soon};

async fn thermal(person: &mut Person, request: v1::ExplainRequest) -> Option<v1::ScoreTerm> {
    let reply = person.api.explain(with_key(request, &person.key)).await;
    let mut terms = reply.unwrap().into_inner().terms.into_iter();
    terms.find(|term| term.name == "thermal")
}

/// Says so, and waits until the server knows.
async fn say(person: &mut Person, machine: &Machine, ppm: u32) {
    let beat = v1::Heartbeat {
        cores_heat_ppm: ppm,
        ..Default::default()
    };
    machine.send(Up::Heartbeat(beat)).await;
    soon("the heat", async {
        loop {
            let listed = person
                .api
                .list_nodes(with_key(v1::ListNodesRequest {}, &person.key));
            if listed.await.unwrap().into_inner().nodes[0].cores_heat_ppm == ppm {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_hot_machine_costs_more_while_it_says_so_and_the_receipt_keeps_it() {
    let world = World::start().await;
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(4)).await;
    let mut machine = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let asked = spec(&world, |_| ());
    let question = || v1::ExplainRequest {
        spec_bytes: asked.to_canonical().into(),
        ..Default::default()
    };
    assert_eq!(thermal(&mut person, question()).await, None);
    say(&mut person, &machine, 500_000).await;
    let told = thermal(&mut person, question()).await.unwrap();
    assert!(told.detail.starts_with("50.0 % longer"), "{told:?}");
    // It gets the work all the same.
    person.submit(&world, &asked, &[b"x"]).await;
    let agent = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        machine.complete(&ready).await;
        machine
    });
    soon("the result", person.results(&world, 1)).await;
    let machine = agent.await.unwrap();
    say(&mut person, &machine, 0).await;
    assert_eq!(thermal(&mut person, question()).await, None);
    let ended = v1::ExplainRequest {
        task: farlane_wire::id::task_bytes(&person.task(1)),
        ..Default::default()
    };
    let receipt = thermal(&mut person, ended).await.unwrap();
    assert_eq!(receipt.detail, "50.0 % longer × (price + run)");
    assert!(receipt.usd_picos > 0);
}
