//! An idle node measures its machine, tells of it once, and knows it after a restart.

use std::time::Duration;

use farlane_audit::Challenge;
use farlane_daemon::{Calibrate, Survey, SurveyError};
use farlane_model::{VectorUnit, WorkKind};

use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body;

use crate::network::Network;
use crate::node::{Node, config};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_is_measured_and_what_it_measured_survives_it() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.calibrate_after = Some(Duration::ZERO);
    // On a machine that has other things to do there is nothing to measure.
    let looked = config.clone();
    let survey = tokio::task::spawn_blocking(move || Survey::take(&looked, Calibrate::Now));
    match survey.await.unwrap() {
        Err(SurveyError::Busy) => return println!("the machine has other things to do"),
        other => assert!(other.unwrap().spec.measured.is_some()),
    }
    let node = Node::start(&network, config.clone()).await;
    let told = tokio::time::timeout(
        Duration::from_secs(20),
        network.until("a measurement", |seen| {
            seen.updates.iter().find_map(|spec| spec.measured)
        }),
    );
    let Ok(measured) = told.await else {
        // It became busy in between; the node tries again in ten minutes.
        node.stop().await;
        return println!("the machine has other things to do");
    };
    for kind in WorkKind::ALL {
        assert!(measured.rate(kind) > 0, "{}", kind.name());
    }
    assert_ne!(measured.fp32.unit, VectorUnit::Avx512Bf16);
    assert_eq!(network.seen.lock().hellos[0].boot.len(), 16);
    node.stop().await;
    let node = Node::start(&network, config).await;
    let known = network.seen.lock().spec.clone().unwrap().measured;
    assert_eq!(
        known,
        Some(measured),
        "it is known again, and not measured again"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_leaves_nothing_behind_and_says_what_an_agent_would() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let config = config(&network, dir.path());
    let looked = config.clone();
    let survey = tokio::task::spawn_blocking(move || Survey::take(&looked, Calibrate::No));
    let survey = survey.await.unwrap().unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    assert!(survey.spec.measured.is_none() && survey.effort.is_none());
    assert_eq!(survey.temperatures.len(), survey.spec.devices.len());
    let node = Node::start(&network, config).await;
    let mut told = network.seen.lock().spec.clone().unwrap();
    // What the certificate adds, and what changes from one moment to the next.
    told.labels = [].into();
    told.price_usd_micros_core_hour = survey.spec.price_usd_micros_core_hour;
    told.disk = survey.spec.disk;
    assert_eq!(told, survey.spec);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_does_the_work_of_a_challenge_and_not_too_often() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let node = Node::start(&network, config(&network, dir.path())).await;
    let asked = Challenge {
        seed: [3; 32],
        cores: 2,
        steps: 3,
        rounds: 1,
    };
    let frame = |id, rounds| {
        Body::Challenge(v1::Challenge {
            id,
            seed: asked.seed.to_vec().into(),
            cores: asked.cores,
            steps: asked.steps,
            rounds,
        })
    };
    // More than any agent does is not even answered.
    network.tell(frame(1, 1_000_000)).await;
    network.tell(frame(2, asked.rounds)).await;
    network.tell(frame(3, asked.rounds)).await;
    let both = |seen: &mut crate::network::Seen| {
        (seen.answers.len() == 2).then(|| std::mem::take(&mut seen.answers))
    };
    let mut answers = network.until("the answers", both).await;
    answers.sort_by_key(|answer| answer.id);
    let [first, second] = &answers[..] else {
        panic!("two answers")
    };
    assert_eq!((first.id, second.id), (2, 3));
    match first.links.is_empty() {
        true => println!("the machine has other things to do"),
        false => assert!(asked.holds(&first.links, 0, 0) && asked.holds(&first.links, 1, 2)),
    }
    assert!(second.links.is_empty(), "it is too soon for another");
    node.stop().await;
}
