//! The wish to stop, and waiting until all have.
//!
//! ```text
//! trigger() or SIGINT/SIGTERM ─▶ requested() resolves everywhere ─▶ guards drop ─▶ drained() resolves
//! ```
//!
//! Owns the signal and the count of those still working. Leaves what stopping means to each holder.

use std::future::Future;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Shared by everything that must stop together. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
}

/// Holds [`Shutdown::drained`] back until dropped.
#[derive(Debug)]
pub struct Guard(#[allow(dead_code)] TaskTrackerToken);

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to stop. Again is no harm.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once stopping is asked for.
    pub fn requested(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// One that stops with this one, and can be stopped alone. Its guards are its own.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
        }
    }

    /// Counts the holder among those whom [`Shutdown::drained`] waits for.
    pub fn guard(&self) -> Guard {
        Guard(self.tracker.token())
    }

    /// Runs the future as a task that [`Shutdown::drained`] waits for.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future)
    }

    /// Resolves once stopping was asked for and every guard and spawned task is gone.
    pub async fn drained(&self) {
        self.token.cancelled().await;
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Triggers on SIGINT or SIGTERM, from a task that ends with the trigger.
    ///
    /// *Errors*: the handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = shutdown.token.cancelled() => {}
            }
            shutdown.trigger();
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drained_waits_for_guards_and_tasks() {
        let shutdown = Shutdown::new();
        let guard = shutdown.guard();
        let worker = shutdown.clone();
        shutdown.spawn(async move { worker.requested().await });
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drained().await }
        });
        shutdown.trigger();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.trigger();
        assert!(one.is_requested() && !two.is_requested() && !parent.is_requested());
        parent.trigger();
        two.requested().await;
    }
}
