//! How far an agent is, and how much goes through: what it does when it is asked.

use bytes::Bytes;
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
