//! How far machines are: the server asks, and whoever answers late, or not, is far.

use std::time::Duration;

use bytes::Bytes;
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body as Up;

use crate::machine::{Machine, node_spec};
use crate::person::{Person, with_key};
use crate::world::World;

async fn node(person: &mut Person, machine: &Machine) -> v1::NodeView {
    let listed = person
        .api
        .list_nodes(with_key(v1::ListNodesRequest {}, &person.key))
        .await;
    let id = farlane_wire::id::node_bytes(&machine.node);
    let mut nodes = listed.unwrap().into_inner().nodes.into_iter();
    nodes.find(|n| n.node == id).unwrap()
}

/// Reads what comes, for so long.
async fn read(machine: &mut Machine, time: Duration) {
    let _ = tokio::time::timeout(time, async {
        loop {
            machine.frame().await;
        }
    })
    .await;
}

async fn machine(world: &World) -> Machine {
    let kept = Machine::enrolled(world, &[], node_spec(4)).await;
    let machine = Machine::start(world, kept).await;
    machine.beat();
    machine
}

#[tokio::test]
async fn a_machine_is_as_far_as_it_answers_and_silence_brings_none_nearer() {
    let world = World::start().await;
    let mut person = Person::connect(&world).await;
    let (mut near, mut far, mut mute) = (
        machine(&world).await,
        machine(&world).await,
        machine(&world).await,
    );
    far.late = Some(Duration::from_millis(250));
    mute.late = None;
    // An answer to what nobody asked is none.
    let nonce = Bytes::from_static(&[7; 8]);
    mute.send(Up::Pong(v1::Pong { nonce })).await;
    let claim = v1::Heartbeat {
        down_bytes_s: 1_000_000,
        ..Default::default()
    };
    near.send(Up::Heartbeat(claim)).await;
    let time = Duration::from_millis(4_000);
    tokio::join!(
        read(&mut near, time),
        read(&mut far, time),
        read(&mut mute, time)
    );
    let (near, far, mute) = (
        node(&mut person, &near).await,
        node(&mut person, &far).await,
        node(&mut person, &mute).await,
    );
    assert!(near.round_trip_micros > 0 && near.round_trip_micros < far.round_trip_micros);
    // It answered at once while it started: the least says so still.
    assert!(far.round_trip_micros >= 250_000, "{far:?}");
    assert!(far.least_round_trip_micros > 0 && far.least_round_trip_micros < 250_000);
    assert!(mute.round_trip_micros > 1_000_000, "{mute:?}");
    assert_eq!(
        (near.bandwidth_bytes_s, far.bandwidth_bytes_s),
        (1_000_000, 0)
    );
    let regions = person
        .api
        .list_regions(with_key(v1::ListRegionsRequest {}, &person.key))
        .await;
    let region = regions.unwrap().into_inner().regions.remove(0);
    assert_eq!((region.nodes, region.bandwidth_bytes_s), (3, 1_000_000));
    let middle = region.round_trip_micros;
    assert!(
        middle >= 250_000 && middle < mute.round_trip_micros,
        "{middle}"
    );
}
