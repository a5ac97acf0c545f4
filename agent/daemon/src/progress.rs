//! Transfers that stand still are given up, so that they hold no permit and no memory for ever.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Status;

/// Longest that a transfer stands still unless configured. Source: a server that syncs 2 GiB to a slow disk
/// (100 MB/s) says nothing for 20 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Marks of what has moved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moved(Arc<AtomicU64>);

impl Moved {
    /// Something moved.
    pub(crate) fn on(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs a transfer for as long as something moves within each `patience`.
///
/// *Errors*: its own, or that nothing moved; try again then.
pub(crate) async fn moving<T>(
    patience: Duration,
    moved: &Moved,
    transfer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::pin!(transfer);
    let mut before = moved.0.load(Ordering::Relaxed);
    loop {
        match tokio::time::timeout(patience, &mut transfer).await {
            Ok(done) => return done,
            Err(_) => {
                let now = moved.0.load(Ordering::Relaxed);
                if now == before {
                    let ms = patience.as_millis();
                    return Err(Status::deadline_exceeded(format!(
                        "nothing moved for {ms} ms"
                    )));
                }
                before = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_moves_may_take_long_and_what_stands_still_is_given_up() {
        let patience = Duration::from_millis(200);
        let moved = Moved::default();
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(patience / 10).await;
                moved.on();
            }
            Ok(7)
        };
        assert!(moving(patience, &moved, slow).await.is_ok_and(|n| n == 7));
        let stuck = async {
            moved.on();
            std::future::pending::<Result<(), Status>>().await
        };
        let refused = moving(patience, &moved, stuck).await;
        assert!(refused.is_err_and(|status| status.code() == tonic::Code::DeadlineExceeded));
    }
}
