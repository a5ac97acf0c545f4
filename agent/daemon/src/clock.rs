//! Cluster time, as this node sees it, and the steady clock that leases count on.

use farlane_runtime::{Clock, SystemClock};
use farlane_units::Millis;
use nix::time::{ClockId, clock_gettime};

/// How far behind this machine's clock a server's may be. Source: transport certificates
/// live 24 h, so a machine whose clock is further ahead cannot connect at all. The client's is the same
/// (farlane, `network`).
const MAX_BEHIND_MS: i64 = 24 * 3_600_000;
/// And ahead: nothing can be made good by it, sums must not overflow. Source: a century.
const MAX_AHEAD_MS: i64 = 100 * 365 * 24 * 3_600_000;

/// Cluster time = steady time + offset; steady time counts suspend and never jumps. Leases are counted on
/// the steady clock alone, so that nothing a server says of the time lengthens one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClusterClock {
    /// Milliseconds; `None` until a server has told the time.
    offset: Option<i64>,
}

impl ClusterClock {
    /// Milliseconds on the steady clock.
    pub(crate) fn steady() -> u64 {
        SystemClock.steady_millis().0
    }

    /// Microseconds on the steady clock.
    pub(crate) fn steady_micros() -> u64 {
        SystemClock.steady().0
    }

    /// A server said that it was `cluster_ms`, answering what was sent at `sent` of the steady clock.
    pub(crate) fn learn(&mut self, cluster_ms: u64, sent: u64) {
        self.learn_by(&SystemClock, cluster_ms, sent);
    }

    /// Prekeys, certificates and grants are held against cluster time, so a server must not be able to turn
    /// it back to when one that has expired was good: what it says is bounded by this machine's wall clock.
    fn learn_by(&mut self, clock: &impl Clock, cluster_ms: u64, sent: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let (now, wall) = (signed(clock.steady_millis().0), signed(clock.wall().0));
        let half = now.saturating_sub(signed(sent)).max(0) / 2;
        let said = signed(cluster_ms).saturating_add(half);
        let bounded = said
            .saturating_sub(wall)
            .clamp(-MAX_BEHIND_MS, MAX_AHEAD_MS);
        self.offset = Some(wall.saturating_add(bounded).saturating_sub(now));
    }

    /// Cluster time; before a server has told it, this machine's wall clock.
    pub(crate) fn now(&self) -> Millis {
        self.now_by(&SystemClock)
    }

    fn now_by(&self, clock: &impl Clock) -> Millis {
        match self.offset {
            Some(offset) => Millis(clock.steady_millis().0.saturating_add_signed(offset)),
            None => clock.wall(),
        }
    }

    /// Cluster time of a moment on the steady clock, in microseconds; later than now means now.
    pub(crate) fn at(&self, steady_micros: u64) -> Millis {
        self.at_by(&SystemClock, steady_micros)
    }

    /// One look at the steady clock: between two, others may run, and one of two moments would move.
    fn at_by(&self, clock: &impl Clock, steady_micros: u64) -> Millis {
        let now = clock.steady().0;
        match self.offset {
            Some(offset) => Millis((steady_micros.min(now) / 1000).saturating_add_signed(offset)),
            None => {
                let ago = now.saturating_sub(steady_micros) / 1000;
                Millis(clock.wall().0.saturating_sub(ago))
            }
        }
    }
}

/// Nanoseconds on CLOCK_MONOTONIC.
pub(crate) fn monotonic_nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_runtime::SimulatedClock;

    /// A day in 2027.
    const WALL: u64 = 1_800_000_000_000;

    #[test]
    fn no_servers_time_breaks_the_clock() {
        for said in [0, 1, u64::MAX, u64::MAX / 2] {
            for sent in [0, ClusterClock::steady(), u64::MAX] {
                let mut clock = ClusterClock::default();
                clock.learn(said, sent);
                let wall = SystemClock.wall().0;
                assert!(clock.now().0 <= wall + 2 * MAX_AHEAD_MS as u64);
                assert!(clock.now().0 + 2 * MAX_BEHIND_MS as u64 >= wall);
                assert!(clock.at(0) <= clock.now());
            }
        }
    }

    #[test]
    fn the_servers_time_is_followed_and_half_of_the_round_trip_counts() {
        let (machine, mut clock) = (SimulatedClock::new(Millis(WALL)), ClusterClock::default());
        assert_eq!(clock.now_by(&machine), Millis(WALL));
        machine.advance(Millis(1_000));
        clock.learn_by(&machine, WALL - 60_000, 800);
        assert_eq!(clock.now_by(&machine), Millis(WALL - 60_000 + 100));
        machine.advance(Millis(500));
        // Somebody sets the wall clock: cluster time does not notice.
        machine.set_wall(Millis(5));
        assert_eq!(clock.now_by(&machine), Millis(WALL - 60_000 + 600));
    }

    #[test]
    fn no_server_turns_the_clock_back_to_what_has_expired() {
        let (machine, mut clock) = (SimulatedClock::new(Millis(WALL)), ClusterClock::default());
        let least = WALL - MAX_BEHIND_MS as u64;
        for said in [0, WALL / 2, least - 1] {
            clock.learn_by(&machine, said, 0);
            assert_eq!(clock.now_by(&machine), Millis(least));
        }
        // Nor step by step: each time it is this machine's clock that bounds it.
        for _ in 0..10 {
            let now = clock.now_by(&machine).0;
            clock.learn_by(&machine, now - MAX_BEHIND_MS as u64, 0);
            assert_eq!(clock.now_by(&machine), Millis(least));
        }
        clock.learn_by(&machine, u64::MAX, 0);
        assert_eq!(clock.now_by(&machine), Millis(WALL + MAX_AHEAD_MS as u64));
    }
}
