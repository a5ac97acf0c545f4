//! What servers may ask of an agent, and what they may not: clocks, leaders, certificates, slow transfers.

use std::time::{Duration, Instant};

use farlane_model::*;
use farlane_units::Millis;
use farlane_wire::v1::control_frame::Body;
use farlane_wire::{ErrorCode, v1};

use crate::network::{Network, now};
use crate::node::{Node, config};
use crate::work::{Ask, Function};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lived_certificate_is_renewed_under_a_running_agent() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    network.treatment.lock().certificate_ms = 1_500;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "1");
    network
        .until("two renewals", |seen| (seen.renewals >= 2).then_some(()))
        .await;
    assert_eq!(f.call(0).await.value(), "1", "the connection is the same");
    assert_eq!(network.seen.lock().hellos.len(), 1);
    network.hang_up();
    let shown = network
        .until("the next connection", |seen| {
            (seen.certificates.len() > 1).then(|| seen.certificates.clone())
        })
        .await;
    assert_ne!(shown[0], shown[1], "the renewed one is shown");
    node.stop().await;
    // And kept: the next process of this agent needs no join file.
    network.seen.lock().prekeys.clear();
    let state = farlane_daemon::AgentConfig::new(dir.path().join("state"));
    let node = Node::start(&network, state).await;
    let shown = network.seen.lock().certificates.clone();
    assert_ne!(shown.first(), shown.last());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_certificate_ended_while_no_server_answered_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let life_ms = 2_000;
    network.treatment.lock().certificate_ms = life_ms;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    network.treatment.lock().away = true;
    network.hang_up();
    let (ended, before) = (now().0 + life_ms, network.seen.lock().proofs);
    network
        .until("a try after the end of the certificate", |seen| {
            (seen.turned_away > 0 && now().0 > ended).then_some(())
        })
        .await;
    {
        let mut treatment = network.treatment.lock();
        (treatment.away, treatment.certificate_ms) = (false, 86_400_000);
    }
    network
        .until("the node again", |seen| {
            (seen.hellos.len() == 2).then_some(())
        })
        .await;
    assert_eq!(network.seen.lock().proofs, before + 1);
    assert_eq!(f.call(0).await.value(), "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_certificate_and_the_identity_are_enough_to_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    network.treatment.lock().certificate_ms = 1;
    let node = Node::start(&network, config(&network, dir.path())).await;
    node.stop().await;
    let state = farlane_daemon::AgentConfig::new(dir.path().join("state"));
    // Removed meanwhile: it is told so, and ends.
    network.treatment.lock().removed = true;
    let shutdown = farlane_runtime::Shutdown::new();
    let agent = farlane_daemon::Agent::start(state.clone(), shutdown.requested()).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), agent.unwrap().wait()).await;
    let ended = ended.unwrap().unwrap_err();
    assert!(
        matches!(&ended, farlane_daemon::AgentError::Removed(why) if why.contains("removed")),
        "{ended}"
    );
    let before = {
        let mut treatment = network.treatment.lock();
        (treatment.removed, treatment.certificate_ms) = (false, 86_400_000);
        let mut seen = network.seen.lock();
        seen.prekeys.clear();
        seen.proofs
    };
    let node = Node::start(&network, state).await;
    assert_eq!(network.seen.lock().proofs, before + 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_no_server_takes_is_replaced_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    network.treatment.lock().ended_certificates = 1;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let (proofs, hellos) = {
        let seen = network.seen.lock();
        (seen.proofs, seen.hellos.len())
    };
    assert_eq!((proofs, hellos), (1, 1));
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_where_a_server_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let follower = network.follower().await;
    let mut config = config(&network, dir.path());
    config.join_file = Some(network.join_file_at(&follower));
    let node = Node::start(&network, config).await;
    let f = Function::new(&network, "def f(): return 'led'", &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "'led'");
    let (sent_on, hellos) = {
        let seen = network.seen.lock();
        (seen.sent_on, seen.hellos.len())
    };
    assert_eq!((sent_on, hellos), (1, 1));
    // After the leader hangs up it asks the one it knows again.
    network.hang_up();
    network
        .until("the leader again", |seen| {
            (seen.hellos.len() == 2).then_some(())
        })
        .await;
    assert_eq!(f.call(0).await.value(), "'led'");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_clock_is_followed_but_not_back_to_what_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    network.treatment.lock().skew_ms = -30_000;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    let told = f.call(0).await.completion;
    let behind = now().0 - told.ended_ms;
    assert!((29_000..40_000).contains(&behind), "{behind}");
    // A year back: certificates are checked by wall clocks, so no honest server is a day behind.
    network.treatment.lock().skew_ms = -365 * 86_400_000;
    network.hang_up();
    network
        .until("the next hello", |seen| {
            (seen.hellos.len() > 1).then_some(())
        })
        .await;
    let (call, assignment, mut grant) = f.prepare(0);
    grant.open_by = Millis(now().0 - 30 * 86_400_000);
    network.tell(f.assign(vec![assignment])).await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    let told = f.call(0).await.completion;
    let behind = now().0 - told.ended_ms;
    assert!((86_000_000..87_000_000).contains(&behind), "{behind}");
    assert!(
        !network.seen.lock().completions.contains_key(&call.at),
        "a grant that was over a month ago opens nothing"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_of_a_server_lengthens_a_lease() {
    for skew_ms in [-365 * 86_400_000, 365 * 86_400_000] {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::start(true).await;
        *network.treatment.lock() = crate::network::Treatment {
            lease_ms: 1_500,
            renews: false,
            skew_ms,
            ..Default::default()
        };
        let node = Node::start(&network, config(&network, dir.path())).await;
        let word = format!("76543{}", u8::from(skew_ms > 0));
        let source =
            format!("def f():\n    import subprocess\n    subprocess.run(['sleep', '{word}'])");
        let f = Function::new(&network, &source, &["()"], Ask::default());
        let (call, assignment, mut grant) = f.prepare(0);
        grant.open_by = Millis(now().0 + 2 * 365 * 86_400_000);
        network.tell(f.assign(vec![assignment])).await;
        network.tell(Body::Grant(network.grant(&[grant]))).await;
        let began = Instant::now();
        while crate::tasks::runs(&word) || began.elapsed() < Duration::from_millis(1_600) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "it runs past its lease"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!network.seen.lock().completions.contains_key(&call.at));
        node.stop().await;
    }
}

fn stop(call: &crate::work::Call) -> Body {
    Body::Stop(v1::Stop {
        attempts: vec![call.at.into()],
        reason: "enough".into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_upload_too() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let node = Node::start(&network, config(&network, dir.path())).await;
    network.treatment.lock().stalls_uploads = true;
    let source = "import os\ndef f(size): return os.urandom(size)";
    let f = Function::new(&network, source, &["(3_000_000,)", "(10,)"], Ask::default());
    let call = f.submit(0, 1).await.remove(0);
    network
        .until("an upload", |seen| (seen.stalled == 1).then_some(()))
        .await;
    network.tell(stop(&call)).await;
    let exit = f.outcome(&call).await.exit;
    assert_eq!(
        (exit.kind, exit.message.as_str()),
        (ExitKind::Cancelled, "enough")
    );
    network
        .until("the upload's end", |seen| {
            (seen.given_up == 1).then_some(())
        })
        .await;
    // One that the server forgot ends silently.
    let call = f.submit(0, 1).await.remove(0);
    network
        .until("an upload", |seen| (seen.stalled == 2).then_some(()))
        .await;
    let desired = v1::Desired {
        index: 9,
        attempts: vec![],
    };
    network.tell(Body::Desired(desired)).await;
    network
        .until("the upload's end", |seen| {
            (seen.given_up == 2).then_some(())
        })
        .await;
    assert!(!network.seen.lock().completions.contains_key(&call.at));
    network.treatment.lock().stalls_uploads = false;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_that_stand_still_are_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.transfer_patience = Some(Duration::from_millis(300));
    let node = Node::start(&network, config).await;
    network.treatment.lock().stalls_downloads = true;
    let source = "import os\ndef f(size): return os.urandom(size)";
    let f = Function::new(&network, source, &["(10,)", "(3_000_000,)"], Ask::default());
    // Its function comes with the second try.
    assert_eq!(f.call(0).await.exit.kind, ExitKind::Returned);
    assert_eq!(network.seen.lock().stalled, 1);
    network.treatment.lock().stalls_uploads = true;
    let call = f.submit(1, 1).await.remove(0);
    network
        .until("a second try", |seen| {
            (seen.stalled >= 3 && seen.given_up >= 1).then_some(())
        })
        .await;
    network.treatment.lock().stalls_uploads = false;
    assert_eq!(f.outcome(&call).await.exit.kind, ExitKind::Returned);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_the_network_does_not_know_asks_again_and_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    // A server that is behind for a moment is no reason to end.
    network.treatment.lock().unknown = 3;
    let node = Node::start(&network, config(&network, dir.path())).await;
    assert_eq!(network.seen.lock().unknown, 3);
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "1");
    network.treatment.lock().unknown = 1000;
    network.hang_up();
    let ended = tokio::time::timeout(Duration::from_secs(60), node.agent.wait()).await;
    let ended = ended.unwrap().unwrap_err();
    assert!(
        matches!(&ended, farlane_daemon::AgentError::Unknown(why) if why == "there is no such node"),
        "{ended}"
    );
    assert_eq!(network.seen.lock().unknown, 3 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_finds_no_room_is_the_call_s_end_and_its_time_counts() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let source = "def f(fails):\n    import os, time\n    time.sleep(0.05)\n    \
                  if fails: raise ValueError(os.urandom(20_000).hex())\n    return len(os.urandom(1)), os.urandom(100_000)";
    let f = Function::new(&network, source, &["(False,)", "(True,)"], Ask::default());
    for (n, code, what) in [
        (0, ErrorCode::StorageFull, "the result could not"),
        (0, ErrorCode::QuotaExceeded, "the result could not"),
        (1, ErrorCode::StorageFull, "the exception could not"),
    ] {
        network.treatment.lock().refuses_uploads = Some(code);
        let before = network.seen.lock().refused;
        let outcome = f.call(n).await;
        let message = outcome.raised("message");
        assert!(
            message.contains(what) && message.contains("disk of the blobs is full"),
            "{message}"
        );
        assert_eq!(outcome.raised("type"), r#"Str("FarlaneError")"#);
        let told = &outcome.completion;
        assert!(told.ended_ms >= told.started_ms + 50, "{told:?}");
        assert_eq!(network.seen.lock().refused, before + 1);
    }
    network.treatment.lock().refuses_uploads = None;
    assert_eq!(f.call(0).await.exit.kind, ExitKind::Returned);
    node.stop().await;
}
