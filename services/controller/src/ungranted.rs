//! Attempts that wait for their grant.
//!
//! Owns the time by which a granter must have answered. Leaves the grants themselves, which only pass
//! through, to the streams, and the return of what was not granted to the timers.

use std::collections::{HashSet, VecDeque};

use farlane_model::AttemptRef;
use farlane_units::Micros;

/// A placement not granted within this, and the round trips, returns without costing a retry.
/// Source: choice; a granter that is there answers within milliseconds.
pub const GRANT_WAIT: Micros = Micros(2_000_000);

/// Attempts not yet granted, in the order of their deadlines.
#[derive(Debug, Default)]
pub struct Ungranted {
    waiting: HashSet<AttemptRef>,
    /// Deadlines never fall: each batch waits equally long.
    batches: VecDeque<(Micros, Vec<AttemptRef>)>,
}

impl Ungranted {
    /// These were asked for now.
    pub fn ask(&mut self, attempts: Vec<AttemptRef>, now: Micros) {
        if attempts.is_empty() {
            return;
        }
        self.waiting.extend(attempts.iter().copied());
        self.batches
            .push_back((now.saturating_add(GRANT_WAIT), attempts));
    }

    /// These were granted, or no longer count.
    pub fn settle<'a>(&mut self, attempts: impl IntoIterator<Item = &'a AttemptRef>) {
        for attempt in attempts {
            self.waiting.remove(attempt);
        }
        while self.waiting.is_empty() && self.batches.pop_front().is_some() {}
    }

    /// Takes out those of `attempts` that wait.
    pub fn take(&mut self, mut attempts: Vec<AttemptRef>) -> Vec<AttemptRef> {
        attempts.retain(|attempt| self.waiting.contains(attempt));
        self.settle(&attempts);
        attempts
    }

    /// Takes out those whose time is over.
    pub fn take_overdue(&mut self, now: Micros) -> Vec<AttemptRef> {
        let mut overdue = Vec::new();
        while self.batches.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, attempts)) = self.batches.pop_front() else {
                break;
            };
            overdue.extend(attempts.into_iter().filter(|a| self.waiting.remove(a)));
        }
        overdue
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.batches.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::SessionId;

    #[test]
    fn only_what_was_not_granted_in_time_is_overdue() {
        let session = SessionId::new(1, [0; 5]);
        let at = |seq| AttemptRef {
            task: session.task(seq),
            attempt: 1,
            epoch: 1,
        };
        let mut ungranted = Ungranted::default();
        ungranted.ask(vec![at(1), at(2)], Micros(0));
        ungranted.ask(vec![at(3)], Micros(500_000));
        ungranted.settle(&[at(1)]);
        assert!(ungranted.take_overdue(Micros(1_999_999)).is_empty());
        assert_eq!(ungranted.take_overdue(Micros(2_000_000)), [at(2)]);
        assert_eq!(ungranted.take(vec![at(1), at(3)]), [at(3)]);
        assert!(ungranted.batches.is_empty());
        assert!(ungranted.take_overdue(Micros(9_000_000)).is_empty());
    }
}
