//! Attempts that were asked to make way: told so, and ended once their grace is over.
//!
//! ```text
//! asked ─┬ not begun ──▶ Lost(Preempted) at once
//!        └ runs ─ told through its worker's socket ─┬ ends by itself: counts as any end
//!                                                   └ grace over: killed ─▶ Lost(Preempted)
//! ```
//! The word is a message that the worker does not receive while its task runs: `checkpoint_requested()` looks for it.

use farlane_model::{AttemptRef, Exit, ExitKind, LostCause, MAX_GRACE};

use super::Engine;
use super::attempt::{Stage, Token};
use crate::clock::ClusterClock;
use crate::worker::message::checkpoint_head;
use crate::worker::socket::Sent;

/// What is known of an attempt that makes way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yielding {
    token: Token,
    /// On the steady clock, in milliseconds.
    until: u64,
    told: bool,
}

fn preempted() -> Exit {
    Exit::plain(ExitKind::Lost(LostCause::Preempted))
}

impl Engine {
    /// The control plane wants this attempt to make way by then, in cluster time; 0 where it does not.
    pub(super) fn make_way(&mut self, at: &AttemptRef, yields_ms: u64) {
        let Some(token) = self.by_ref.get(at).copied() else {
            return;
        };
        if yields_ms == 0 || self.is_yielding(token) {
            return;
        }
        let grace = yields_ms.saturating_sub(self.clock.now().0);
        let until = ClusterClock::steady() + grace.min(MAX_GRACE.0);
        let stage = self.attempts.get(&token).map(|attempt| &attempt.stage);
        match stage {
            None | Some(Stage::Finishing) => {}
            Some(Stage::Sent(..)) => {
                let told = false;
                self.yielding.push(Yielding { token, until, told });
                self.tell_yielding();
            }
            Some(_) => self.end(token, preempted(), None),
        }
    }

    pub(super) fn is_yielding(&self, token: Token) -> bool {
        self.yielding.iter().any(|one| one.token == token)
    }

    /// Tells those that do not know yet, and ends those whose grace is over.
    pub(super) fn end_yielding(&mut self) {
        if self.yielding.is_empty() {
            return;
        }
        self.tell_yielding();
        let steady = ClusterClock::steady();
        let over: Vec<Token> = self
            .yielding
            .iter()
            .filter(|y| y.until <= steady)
            .map(|y| y.token)
            .collect();
        self.yielding.retain(|y| y.until > steady);
        for token in over {
            if let Some(Stage::Sent(worker, _)) = self.attempts.get(&token).map(|a| &a.stage) {
                self.kill_for(*worker, token, Some(preempted()));
            }
        }
    }

    fn tell_yielding(&mut self) {
        let mut told = std::mem::take(&mut self.yielding);
        told.retain_mut(|one| {
            let stage = self.attempts.get(&one.token).map(|attempt| &attempt.stage);
            let Some(Stage::Sent(number, _)) = stage else {
                return false;
            };
            let number = *number;
            if one.told {
                return true;
            }
            let Some(worker) = self.pools.workers.get_mut(&number) else {
                return true;
            };
            if worker.writer.is_some() {
                // Its own message is still being written.
                return true;
            }
            let (pool, mut back) = (worker.pool, worker.take_back());
            if back.contains(&one.token) {
                back.retain(|token| *token != one.token);
                self.put_back(pool, back);
                self.end(one.token, preempted(), None);
                return false;
            }
            let sent = worker.link.socket.send(&checkpoint_head(), &[]);
            one.told = matches!(sent, Sent::Whole);
            self.put_back(pool, back);
            true
        });
        self.yielding = told;
    }
}
