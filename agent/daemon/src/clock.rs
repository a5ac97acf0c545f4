//! Cluster time, as this node sees it, and the steady clock that leases count on.

use farlane_runtime::{Clock, SystemClock};
use farlane_units::Millis;
use nix::time::{ClockId, clock_gettime};

/// Latest cluster time that is believed. Source: the year 10,889; an eighth of what `i64` holds in
/// microseconds, so that nobody's sum overflows.
const LATEST_MS: u64 = 1 << 48;

/// Cluster time = steady time + offset; steady time counts suspend and never jumps.
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
        let now = Self::steady();
        let half = now.saturating_sub(sent) / 2;
        // What a server says may be anything: kept far from where sums with it would overflow.
        let cluster_ms = cluster_ms.min(LATEST_MS) + half.min(LATEST_MS);
        self.offset = Some(cluster_ms as i64 - now as i64);
    }

    /// Cluster time; before a server has told it, this machine's wall clock.
    pub(crate) fn now(&self) -> Millis {
        match self.offset {
            Some(offset) => Millis((Self::steady() as i64 + offset).max(0) as u64),
            None => SystemClock.wall(),
        }
    }

    /// Cluster time of a moment on CLOCK_MONOTONIC (what workers read); later than now means now.
    pub(crate) fn at_monotonic(&self, nanos: u64) -> Millis {
        let ago = monotonic_nanos().saturating_sub(nanos) / 1_000_000;
        Millis(self.now().0.saturating_sub(ago))
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

    #[test]
    fn no_servers_time_breaks_the_clock() {
        for said in [0, 1, u64::MAX, u64::MAX / 2] {
            for sent in [0, ClusterClock::steady(), u64::MAX] {
                let mut clock = ClusterClock::default();
                clock.learn(said, sent);
                assert!(clock.now().0 <= 3 * LATEST_MS);
                assert!(clock.at_monotonic(0) <= clock.now());
            }
        }
    }
}
