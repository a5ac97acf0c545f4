//! Contact with a quorum, shared by all who wait for it.
//!
//! Owns that a round begins only after everybody whom it answers had asked: who asks while one is
//! under way waits for the next. Leaves the round itself to openraft.
//!
//! ```text
//! ask ─┐
//! ask ─┴▶ round 1 ─▶ both answered
//!            ask, ask, ask ─▶ round 2 ─▶ all three answered
//! ```

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

struct Asked<T> {
    waiting: Vec<oneshot::Sender<T>>,
    /// A task goes from round to round until nobody waits.
    busy: bool,
}

/// Who waits for the next round.
pub(crate) struct Contact<T>(Mutex<Asked<T>>);

impl<T: Clone + Send + 'static> Contact<T> {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(Mutex::new(Asked {
            waiting: Vec::new(),
            busy: false,
        }))
    }

    /// What a round found that began after this call; `None` when the runtime ends before.
    pub async fn ask<F, R>(self: &Arc<Self>, round: F) -> Option<T>
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let idle = {
            let mut asked = self.0.lock();
            asked.waiting.push(reply);
            !std::mem::replace(&mut asked.busy, true)
        };
        if idle {
            tokio::spawn(self.clone().serve(round));
        }
        answer.await.ok()
    }

    async fn serve<F, R>(self: Arc<Self>, round: F)
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = T> + Send + 'static,
    {
        loop {
            let waiting = {
                let mut asked = self.0.lock();
                asked.busy = !asked.waiting.is_empty();
                if !asked.busy {
                    return;
                }
                std::mem::take(&mut asked.waiting)
            };
            let found = round().await;
            for reply in waiting {
                // Who has gone away does not want to know.
                let _ = reply.send(found.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_round_shares_the_next_one() {
        let contact = Arc::new(Contact::new());
        let rounds = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let ask = || {
            let (contact, rounds, gate) = (contact.clone(), rounds.clone(), gate.clone());
            let round = move || {
                let (rounds, gate) = (rounds.clone(), gate.clone());
                async move {
                    let number = rounds.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.acquire().await.unwrap().forget();
                    number
                }
            };
            tokio::spawn(async move { contact.ask(round).await })
        };
        let first = ask();
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..100).map(|_| ask()).collect();
        while contact.0.lock().waiting.len() < 100 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Some(1));
        gate.add_permits(1);
        for one in later {
            assert_eq!(one.await.unwrap(), Some(2), "not the round before it asked");
        }
        gate.add_permits(1);
        assert_eq!(ask().await.unwrap(), Some(3));
    }
}
