//! A stop that was asked for is nothing to report.

use std::sync::{Arc, Mutex};

use farlane_consensus::ProposeError;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::cluster::genesis;
use crate::single::start;

/// Keeps the text of what is worth a warning or more.
#[derive(Clone, Default)]
struct Alarms(Arc<Mutex<Vec<String>>>);

impl Subscriber for Alarms {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One thread, so that every task of the replica logs to this test.
#[tokio::test]
async fn a_wanted_stop_raises_no_alarm_and_lets_nobody_wait() {
    let dir = tempfile::tempdir().unwrap();
    let alarms = Alarms::default();
    let _logging = tracing::subscriber::set_default(alarms.clone());
    let consensus = start(dir.path()).await;
    consensus.propose(vec![genesis()]).await.unwrap();
    alarms.0.lock().unwrap().clear();

    let waiting = tokio::spawn({
        let consensus = consensus.clone();
        async move { consensus.wait_applied(u64::MAX).await }
    });
    let left = consensus.clone();
    consensus.shutdown().await;
    waiting.await.unwrap();
    left.failed().await;
    let refused = left.propose(vec![genesis()]).await;
    assert!(matches!(
        refused,
        Err(ProposeError::Stopped | ProposeError::NotLeader { .. })
    ));
    assert!(matches!(left.confirm().await, Err(ProposeError::Stopped)));
    // Long enough for what looks at the log every second.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(*alarms.0.lock().unwrap(), Vec::<String>::new());
}
