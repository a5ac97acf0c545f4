//! Time: the wall's, and a steady one that counts suspend.
//!
//! Owns reading both. Leaves cluster time to `farlane-consensus`, and timers to tokio.

use std::sync::atomic::{AtomicU64, Ordering};

use farlane_units::{Micros, Millis};
use nix::time::{ClockId, clock_gettime};

/// The clock that goes on while the machine sleeps, so that a lease ends in a closed laptop too.
/// Source: clock_gettime(2); on macOS CLOCK_MONOTONIC counts sleep, on Linux only CLOCK_BOOTTIME.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STEADY: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEADY: ClockId = ClockId::CLOCK_MONOTONIC;

/// Where a process reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time since the Unix epoch. May jump either way.
    fn wall(&self) -> Millis;

    /// Time since some fixed moment of this boot. Never goes back, and counts suspend.
    fn steady(&self) -> Micros;

    /// [`Clock::steady`] in milliseconds.
    fn steady_millis(&self) -> Millis {
        Millis(self.steady().get() / 1_000)
    }
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Millis {
        Millis(micros(ClockId::CLOCK_REALTIME) / 1_000)
    }

    fn steady(&self) -> Micros {
        Micros(micros(STEADY))
    }
}

/// Microseconds on one of the machine's clocks; zero for a moment before its origin.
fn micros(id: ClockId) -> u64 {
    // Both clocks exist wherever this builds (Linux >= 2.6.39, macOS >= 10.12), so a failure is a
    // kernel that refuses the call; time standing still is then seen as an expired lease, not lost work.
    let Ok(time) = clock_gettime(id) else {
        return 0;
    };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanos / 1_000)
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct SimulatedClock {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl SimulatedClock {
    /// Stands at this wall time; its steady time is zero.
    pub const fn new(wall: Millis) -> Self {
        Self {
            wall: AtomicU64::new(wall.get()),
            steady: AtomicU64::new(0),
        }
    }

    /// Both clocks move on.
    pub fn advance(&self, by: Millis) {
        self.wall.fetch_add(by.get(), Ordering::SeqCst);
        self.steady
            .fetch_add(by.get().saturating_mul(1_000), Ordering::SeqCst);
    }

    /// The wall clock is set, as a person or NTP does; the steady one does not notice.
    pub fn set_wall(&self, wall: Millis) {
        self.wall.store(wall.get(), Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Millis {
        Millis(self.wall.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Micros {
        Micros(self.steady.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clocks_move_forward() {
        let clock = SystemClock;
        let (wall, steady) = (clock.wall(), clock.steady());
        std::thread::sleep(std::time::Duration::from_millis(5));
        // After 2020, so the unit is right; and at least the sleep has passed.
        assert!(wall > Millis(1_577_836_800_000));
        assert!(clock.steady().get() - steady.get() >= 5_000);
    }

    #[test]
    fn a_simulated_clock_moves_only_when_told() {
        let clock = SimulatedClock::new(Millis(1_000));
        clock.advance(Millis(20));
        assert_eq!(
            (clock.wall(), clock.steady()),
            (Millis(1_020), Micros(20_000))
        );
        clock.set_wall(Millis(500));
        assert_eq!(
            (clock.wall(), clock.steady_millis()),
            (Millis(500), Millis(20))
        );
    }
}
