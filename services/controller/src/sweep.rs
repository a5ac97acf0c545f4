//! Blobs that nothing names any more.
//!
//! Owns finding and deleting them: idle for longer than any retention, and named by no spec, no live
//! task and no kept result. Leaves where they lie to the `BlobStore`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{BlobRef, Digest, Sealed, TaskSpec};
use farlane_state::{FinishedTask, Rows, Table, TaskEnvelopeRow};

use crate::Controller;

/// Source: a session, and with it what it uploaded, is forgotten after 48 h (farlane-state,
/// `SESSION_IDLE`); a day more for clocks and uploads on their way.
const IDLE: Duration = Duration::from_secs(72 * 3600);
/// Blobs looked at in one sweep.
const LIMIT: usize = 65_536;
/// Rows read at a time, so that others get in between.
const PAGE: usize = 1024;

impl Controller {
    /// Deletes idle blobs that nothing names.
    pub(crate) async fn sweep_blobs(self: Arc<Self>) {
        match self.blobs.idle(IDLE, LIMIT).await {
            Ok(idle) if idle.is_empty() => {}
            Ok(idle) => {
                let mut unnamed: HashSet<Digest> = idle.iter().map(|(_, digest)| *digest).collect();
                self.keep_named(&mut unnamed).await;
                let mut deleted = 0;
                for (owner, digest) in idle {
                    if !unnamed.contains(&digest) {
                        continue;
                    }
                    match self.blobs.forget(owner, digest, IDLE).await {
                        Ok(gone) => deleted += usize::from(gone),
                        Err(error) => {
                            tracing::warn!(%digest, %error, "an idle blob could not be deleted");
                        }
                    }
                }
                tracing::debug!(deleted, "idle blobs were swept");
            }
            Err(error) => tracing::warn!(%error, "idle blobs could not be listed"),
        }
    }

    /// Takes out whatever a row names.
    async fn keep_named(&self, idle: &mut HashSet<Digest>) {
        for table in [Table::Specs, Table::Tasks, Table::Finished] {
            let mut from = Vec::new();
            loop {
                let page = self.consensus.rows().scan(table, &from, &[0xff; 64], PAGE);
                let whole = page.len() < PAGE;
                if let Some((last, _)) = page.last() {
                    from = [last.as_ref(), &[0]].concat();
                }
                for (_, value) in page {
                    named(table, value, |blob| {
                        idle.remove(&blob.digest);
                    });
                }
                if whole {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Calls `keep` with every blob that a row names.
fn named(table: Table, value: Bytes, mut keep: impl FnMut(&BlobRef)) {
    let mut sealed = |sealed: &Sealed| {
        if let Sealed::Blob(blob) = sealed {
            keep(blob);
        }
    };
    match table {
        Table::Specs => {
            if let Ok(spec) = TaskSpec::from_canonical(&value) {
                keep(&spec.code);
                spec.environment.iter().for_each(|e| keep(&e.lock));
            }
        }
        Table::Tasks => {
            if let Some(row) = TaskEnvelopeRow::from_bytes(value) {
                sealed(&row.payload);
                row.refs.iter().for_each(keep);
            }
        }
        _ => {
            if let Some(result) = FinishedTask::from_bytes(value).and_then(|f| f.sealed) {
                sealed(&result);
            }
        }
    }
}
