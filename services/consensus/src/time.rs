//! Cluster time: what the leader stamps on entries.
//!
//! Owns the law that it never goes back and is slewed towards wall time by at most 1 % within a
//! term; the first stamp of a term may step forward. Leaves the last guard to `apply`, which
//! holds every stamp to no less than the one before.

use std::sync::Arc;

use farlane_runtime::Clock;
use farlane_units::Millis;
use parking_lot::Mutex;

/// One part in this many is the most that cluster time is slewed. Source: docs/design/log-store.md, "Cluster time".
const SLEW: u64 = 100;
/// A step forward of more than this at the start of a term is worth a warning: two leaders' clocks
/// that NTP holds stay well within it.
const WORTH_A_WARNING: Millis = Millis(1_000);

struct Term {
    term: u64,
    /// Cluster time at `steady`, in microseconds.
    now: u64,
    steady: u64,
}

/// The leader's stamp.
pub(crate) struct ClusterTime {
    clock: Arc<dyn Clock>,
    term: Mutex<Option<Term>>,
}

impl ClusterTime {
    /// No term has been led yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            term: Mutex::new(None),
        }
    }

    /// The time to stamp now, leading `term`; `applied` is the last stamp seen.
    pub fn stamp(&self, term: u64, applied: Millis) -> Millis {
        let wall = self.clock.wall().get().saturating_mul(1_000);
        let steady = self.clock.steady().get();
        let applied_micros = applied.get().saturating_mul(1_000);
        let mut held = self.term.lock();
        let now = match held.as_ref() {
            Some(last) if last.term == term => {
                let passed = steady.saturating_sub(last.steady);
                if passed < 1_000 && applied_micros <= last.now {
                    // Below the stamp's resolution; moving on now would lose the slew's fractions.
                    return Millis(last.now / 1_000);
                }
                let straight = last.now.saturating_add(passed);
                let most = passed / SLEW;
                let slewed = if wall > straight {
                    straight.saturating_add(most.min(wall - straight))
                } else {
                    straight - most.min(straight - wall)
                };
                slewed.max(last.now)
            }
            last => {
                let floor = last.as_ref().map_or(0, |last| last.now).max(applied_micros);
                let step = Millis(wall.saturating_sub(floor) / 1_000);
                if applied > Millis::ZERO && step > WORTH_A_WARNING {
                    tracing::info!(
                        term,
                        step_ms = step.get(),
                        "cluster time steps forward with the new term"
                    );
                }
                wall.max(floor)
            }
        }
        .max(applied_micros);
        *held = Some(Term { term, now, steady });
        Millis(now / 1_000)
    }

    /// An estimate for a server that does not lead: the wall's, never before what was applied.
    pub fn estimate(&self, applied: Millis) -> Millis {
        self.clock.wall().max(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_runtime::SimulatedClock;

    fn start(wall: u64) -> (Arc<SimulatedClock>, ClusterTime) {
        let clock = Arc::new(SimulatedClock::new(Millis(wall)));
        (clock.clone(), ClusterTime::new(clock))
    }

    #[test]
    fn a_wall_set_back_slows_time_by_one_percent() {
        let (clock, time) = start(1_000_000);
        assert_eq!(time.stamp(1, Millis(0)), Millis(1_000_000));
        clock.set_wall(Millis(10_000));
        clock.advance(Millis(10_000));
        assert_eq!(time.stamp(1, Millis(0)), Millis(1_009_900));
    }

    #[test]
    fn a_wall_set_forward_hurries_time_by_one_percent_until_the_next_term() {
        let (clock, time) = start(1_000_000);
        time.stamp(1, Millis(0));
        clock.set_wall(Millis(9_000_000));
        clock.advance(Millis(10_000));
        assert_eq!(time.stamp(1, Millis(0)), Millis(1_010_100));
        assert_eq!(time.stamp(2, Millis(0)), Millis(9_010_000));
    }

    #[test]
    fn many_small_steps_slew_as_one_large_one() {
        let (clock, time) = start(1_000_000);
        time.stamp(1, Millis(0));
        clock.set_wall(Millis(0));
        for _ in 0..10_000 {
            clock.advance(Millis(1));
            time.stamp(1, Millis(0));
        }
        assert_eq!(time.stamp(1, Millis(0)), Millis(1_009_900));
    }

    #[test]
    fn time_is_never_before_what_was_applied() {
        let (_, time) = start(1_000);
        assert_eq!(time.stamp(1, Millis(5_000)), Millis(5_000));
        assert_eq!(time.stamp(1, Millis(7_000)), Millis(7_000));
        assert_eq!(time.stamp(2, Millis(0)), Millis(7_000));
        assert_eq!(time.estimate(Millis(5_000)), Millis(5_000));
    }
}
