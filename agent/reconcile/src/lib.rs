//! What an agent should do: desired × observed → actions, as a pure step.
//!
//! Owns which attempts are here, and how far each has come. Leaves processes, grants and sealed
//! results to the daemon, which performs the actions and tells what happened.
//!
//! ```text
//!            Hold                 started              ended
//! desired ──────────▶ Waiting ──────────▶ Running ──────────▶ Ended ──▶ Report
//!                        │ not desired       │ not desired      │ acknowledged, or not desired
//!                        ▼                   ▼                  ▼
//!                      Forget               Stop              Forget
//! ```
//! A server that lags pushes what was desired long ago: whatever is older than the newest index seen is
//! ignored, so that it cannot kill live attempts.

use std::collections::BTreeMap;

use farlane_model::AttemptRef;

/// How far an attempt has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Waits for its grant, or for a worker.
    Waiting,
    /// A worker has it.
    Running,
    /// It has ended; its sealed result waits to be acknowledged.
    Ended,
}

/// What reached the agent, from the server or from its own workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All that should be here, as of a log index.
    Desired {
        index: u64,
        attempts: Vec<AttemptRef>,
    },
    /// What was added, as of a log index.
    Assigned {
        index: u64,
        attempts: Vec<AttemptRef>,
    },
    /// The server wants these stopped.
    StopWanted { attempts: Vec<AttemptRef> },
    /// A worker has begun.
    Started { attempt: AttemptRef },
    /// A worker is done, or gone; the sealed outcome is kept.
    Ended { attempt: AttemptRef },
    /// The server has logged the outcome, or says that it no longer counts.
    Acknowledged { attempts: Vec<AttemptRef> },
    /// The lease ran out: other nodes may run all of this now.
    LeaseLost,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep it and wait for its grant.
    Hold(AttemptRef),
    /// Kill its process group, then forget it.
    Stop(AttemptRef),
    /// Send its outcome again.
    Report(AttemptRef),
    /// Drop payload, grant and outcome.
    Forget(AttemptRef),
}

/// What is here now.
#[derive(Debug, Clone, Default)]
pub struct Reconciler {
    seen: u64,
    here: BTreeMap<AttemptRef, Progress>,
}

impl Reconciler {
    /// The newest log index seen, to be presented at every connection.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How far an attempt has come; `None` when it is not here.
    pub fn progress(&self, attempt: &AttemptRef) -> Option<Progress> {
        self.here.get(attempt).copied()
    }

    /// Everything here, ordered by attempt.
    pub fn observed(&self) -> impl Iterator<Item = (&AttemptRef, Progress)> {
        self.here
            .iter()
            .map(|(attempt, progress)| (attempt, *progress))
    }

    /// How many are at this point.
    pub fn count(&self, progress: Progress) -> usize {
        self.here.values().filter(|p| **p == progress).count()
    }

    /// Takes up outcomes that an earlier process of this agent left in its journal.
    pub fn recover(&mut self, ended: impl IntoIterator<Item = AttemptRef>) {
        self.here
            .extend(ended.into_iter().map(|attempt| (attempt, Progress::Ended)));
    }

    /// One step. Total: events about attempts that are not here change nothing.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Desired { index, .. } | Event::Assigned { index, .. } if index < self.seen => {
                Vec::new()
            }
            Event::Desired {
                index,
                mut attempts,
            } => {
                self.seen = index;
                attempts.sort_unstable();
                self.hold_against(&attempts)
            }
            Event::Assigned { index, attempts } => {
                self.seen = index;
                attempts
                    .into_iter()
                    .filter_map(|attempt| self.want(attempt))
                    .collect()
            }
            Event::StopWanted { attempts } => attempts
                .into_iter()
                .filter_map(|attempt| self.drop_unwanted(attempt))
                .collect(),
            Event::Started { attempt } => {
                self.advance(attempt, Progress::Waiting, Progress::Running);
                Vec::new()
            }
            Event::Ended { attempt } => match self.here.get_mut(&attempt) {
                Some(progress) if *progress != Progress::Ended => {
                    *progress = Progress::Ended;
                    vec![Action::Report(attempt)]
                }
                _ => Vec::new(),
            },
            Event::Acknowledged { attempts } => {
                let gone = attempts
                    .into_iter()
                    .filter(|attempt| self.here.remove(attempt).is_some());
                gone.map(Action::Forget).collect()
            }
            Event::LeaseLost => {
                let live: Vec<AttemptRef> = self
                    .here
                    .iter()
                    .filter(|(_, progress)| **progress != Progress::Ended)
                    .map(|(attempt, _)| *attempt)
                    .collect();
                live.into_iter()
                    .filter_map(|attempt| self.drop_unwanted(attempt))
                    .collect()
            }
        }
    }

    fn hold_against(&mut self, desired: &[AttemptRef]) -> Vec<Action> {
        let unwanted: Vec<AttemptRef> = self
            .here
            .keys()
            .filter(|here| desired.binary_search(here).is_err())
            .copied()
            .collect();
        let mut actions: Vec<Action> = unwanted
            .into_iter()
            .filter_map(|attempt| self.drop_unwanted(attempt))
            .collect();
        actions.extend(desired.iter().filter_map(|attempt| self.want(*attempt)));
        actions
    }

    fn want(&mut self, attempt: AttemptRef) -> Option<Action> {
        match self.here.get(&attempt) {
            None => {
                self.here.insert(attempt, Progress::Waiting);
                Some(Action::Hold(attempt))
            }
            Some(Progress::Ended) => Some(Action::Report(attempt)),
            Some(Progress::Waiting | Progress::Running) => None,
        }
    }

    fn drop_unwanted(&mut self, attempt: AttemptRef) -> Option<Action> {
        match self.here.remove(&attempt)? {
            Progress::Running => Some(Action::Stop(attempt)),
            Progress::Waiting | Progress::Ended => Some(Action::Forget(attempt)),
        }
    }

    fn advance(&mut self, attempt: AttemptRef, from: Progress, to: Progress) {
        if let Some(progress) = self.here.get_mut(&attempt)
            && *progress == from
        {
            *progress = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action::*, *};
    use farlane_model::SessionId;

    fn attempt(seq: u64, attempt: u32) -> AttemptRef {
        AttemptRef {
            task: SessionId::new(1, [0; 5]).task(seq),
            attempt,
            epoch: 1,
        }
    }
    fn assigned(index: u64, attempts: &[AttemptRef]) -> Event {
        Event::Assigned {
            index,
            attempts: attempts.to_vec(),
        }
    }
    fn desired(index: u64, attempts: &[AttemptRef]) -> Event {
        Event::Desired {
            index,
            attempts: attempts.to_vec(),
        }
    }

    #[test]
    fn a_call_comes_and_goes() {
        let (mut r, a) = (Reconciler::default(), attempt(1, 1));
        assert_eq!(r.step(assigned(5, &[a])), [Hold(a)]);
        assert_eq!(r.step(Event::Started { attempt: a }), []);
        assert_eq!(r.progress(&a), Some(Progress::Running));
        assert_eq!(r.step(Event::Ended { attempt: a }), [Report(a)]);
        assert_eq!(r.step(Event::Ended { attempt: a }), [], "one outcome");
        assert_eq!(
            r.step(Event::Acknowledged { attempts: vec![a] }),
            [Forget(a)]
        );
        assert_eq!(r.observed().count(), 0);
    }

    #[test]
    fn after_a_reconnect_what_ended_is_reported_again_and_the_rest_goes_on() {
        let mut r = Reconciler::default();
        let (runs, ended, fresh, gone) =
            (attempt(1, 1), attempt(2, 1), attempt(3, 1), attempt(4, 1));
        r.step(assigned(5, &[runs, ended, gone]));
        for attempt in [runs, ended, gone] {
            r.step(Event::Started { attempt });
        }
        r.step(Event::Ended { attempt: ended });
        assert_eq!(
            r.step(desired(9, &[fresh, ended, runs])),
            [Stop(gone), Report(ended), Hold(fresh)]
        );
        assert_eq!(r.progress(&runs), Some(Progress::Running));
    }

    #[test]
    fn a_lagging_server_kills_nothing() {
        let (mut r, a, b) = (Reconciler::default(), attempt(1, 1), attempt(2, 1));
        r.step(assigned(7, &[a]));
        assert_eq!(r.step(desired(6, &[])), []);
        assert_eq!(r.step(assigned(6, &[b])), []);
        assert_eq!((r.seen(), r.progress(&a)), (7, Some(Progress::Waiting)));
    }

    #[test]
    fn a_newer_attempt_replaces_the_older() {
        let (mut r, old, new) = (Reconciler::default(), attempt(1, 1), attempt(1, 2));
        r.step(assigned(1, &[old]));
        r.step(Event::Started { attempt: old });
        assert_eq!(r.step(desired(2, &[new])), [Stop(old), Hold(new)]);
        assert_eq!(
            r.step(Event::Ended { attempt: old }),
            [],
            "what was stopped has no outcome"
        );
    }

    #[test]
    fn a_lost_lease_stops_all_but_keeps_outcomes() {
        let mut r = Reconciler::default();
        let (waits, runs, ended) = (attempt(1, 1), attempt(2, 1), attempt(3, 1));
        r.step(assigned(1, &[waits, runs, ended]));
        r.step(Event::Started { attempt: runs });
        r.step(Event::Started { attempt: ended });
        r.step(Event::Ended { attempt: ended });
        assert_eq!(r.step(Event::LeaseLost), [Forget(waits), Stop(runs)]);
        assert_eq!(
            r.step(desired(2, &[ended])),
            [Report(ended)],
            "its result may still count"
        );
    }

    #[test]
    fn a_restarted_agent_offers_what_its_journal_holds() {
        let (mut r, kept, stale) = (Reconciler::default(), attempt(1, 1), attempt(2, 1));
        r.recover([kept, stale]);
        assert_eq!(r.step(desired(3, &[kept])), [Forget(stale), Report(kept)]);
    }
}
