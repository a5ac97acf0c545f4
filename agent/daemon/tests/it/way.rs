//! How far an agent is, and how much goes through: what it does when it is asked.

use std::time::Duration;

use bytes::Bytes;
use farlane_wire::hello::PROBE_BYTES;
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body;

use crate::network::Network;
use crate::node::{Node, config};

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_comes_back_with_its_nonce() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let nonce = Bytes::from_static(b"12345678");
    let ping = v1::Ping {
        nonce: nonce.clone(),
    };
    network.tell(Body::Ping(ping)).await;
    network
        .until("an answer", |seen| {
            seen.pongs.contains(&nonce).then_some(())
        })
        .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_probes_its_way_once_and_looks_how_far_other_servers_are() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let url = network.follower().await;
    network.treatment.lock().others = vec![v1::ServerAt { server: 2, url }];
    let mut config = config(&network, dir.path());
    config.calibrate_after = Some(Duration::ZERO);
    let node = Node::start(&network, config).await;
    let told = network.until("what goes through, and another server", |seen| {
        let down = seen.beats.iter().find(|beat| beat.down_bytes_s > 0)?;
        let far = seen.beats.iter().find(|beat| !beat.servers.is_empty())?;
        Some((down.down_bytes_s, far.servers.clone()))
    });
    let (down, servers) = told.await;
    assert!(down > 1_000_000, "{down}");
    assert!(servers.len() == 1 && servers[0].server == 2 && servers[0].round_trip_micros > 0);
    assert_eq!(network.seen.lock().probes, [PROBE_BYTES]);
    node.stop().await;
}
