//! An idle node measures its machine, tells of it once, and knows it after a restart.

use std::time::Duration;

use farlane_daemon::{Calibrate, Survey, SurveyError};
use farlane_model::{VectorUnit, WorkKind};

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
    told.labels.clear();
    told.price_usd_micros_core_hour = survey.spec.price_usd_micros_core_hour;
    told.disk = survey.spec.disk;
    assert_eq!(told, survey.spec);
    node.stop().await;
}
