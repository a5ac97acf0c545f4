//! How fast a transfer goes, once it is under way.
//!
//! Owns which part of a transfer counts, and what many come to. Of one it is the second half. The first fills windows and buffers, and says more of how
//! far the peer is than of how much goes through.

use farlane_units::{ByteCount, ByteRate, Micros};

/// Least that must be timed. Source: a second half of 256 KiB fills no buffer of a socket; what is shorter says
/// nothing of the way.
pub const LEAST_TIMED: ByteCount = ByteCount::kib(256);

/// Times a transfer of so many bytes, told of each piece as it comes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    total: u64,
    moved: u64,
    /// What had come, and when, at half of it.
    half: Option<(u64, Micros)>,
    last: Micros,
}

impl Pace {
    /// Of a transfer that has not begun.
    pub const fn new(total: ByteCount) -> Self {
        Self {
            total: total.0,
            moved: 0,
            half: None,
            last: Micros::ZERO,
        }
    }

    /// A piece came, at this steady time.
    pub fn came(&mut self, bytes: usize, now: Micros) {
        self.moved = self.moved.saturating_add(bytes as u64);
        self.last = now;
        if self.half.is_none() && self.moved >= self.total / 2 {
            self.half = Some((self.moved, now));
        }
    }

    /// What came after the half of it, and within how long; `None` where that is too little, or it has not come yet.
    pub fn timed(&self) -> Option<(ByteCount, Micros)> {
        let (before, since) = self.half.filter(|_| self.moved >= self.total)?;
        let bytes = self.moved - before;
        let time = self.last.saturating_sub(since);
        (bytes >= LEAST_TIMED.0 && time > Micros::ZERO).then_some((ByteCount(bytes), time))
    }
}

/// Bytes of a transfer that count as much as all before it. Source: choice; 1 MiB begins slowly and says a fifth, 64 MiB
/// nearly all.
const WEIGHT: u64 = ByteCount::mib(4).0;

/// A bandwidth that follows what is moved: each transfer counts by its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Throughput(Option<u64>);

impl Throughput {
    /// So many bytes were moved within `time`.
    pub fn see(&mut self, bytes: ByteCount, time: Micros) {
        let Some(rate) = ByteRate::of(bytes, time) else {
            return;
        };
        let Some(known) = self.0 else {
            self.0 = Some(rate.0);
            return;
        };
        let share = |of: u64, weight: u64| {
            u128::from(of) * u128::from(weight) / u128::from(bytes.0.saturating_add(WEIGHT))
        };
        let mixed = share(rate.0, bytes.0) + share(known, WEIGHT);
        self.0 = Some(u64::try_from(mixed).unwrap_or(u64::MAX));
    }

    /// As it is now; `None` before anything was moved.
    pub fn rate(&self) -> Option<ByteRate> {
        self.0.map(ByteRate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_counts_and_short_ones_say_nothing() {
        let mut pace = Pace::new(ByteCount::mib(2));
        for piece in 0..8u64 {
            // The first pieces wait for windows.
            let now = if piece < 4 {
                piece * 100_000
            } else {
                300_000 + (piece - 3) * 1000
            };
            assert_eq!(pace.timed(), None);
            pace.came(256 * 1024, Micros(now));
        }
        assert_eq!(pace.timed(), Some((ByteCount::mib(1), Micros(4000))));
        let mut short = Pace::new(ByteCount::kib(400));
        short.came(200 * 1024, Micros(1));
        short.came(200 * 1024, Micros(2));
        assert_eq!(short.timed(), None);
        let mut at_once = Pace::new(ByteCount::mib(9));
        at_once.came(9 << 20, Micros(1));
        assert_eq!(at_once.timed(), None);
    }
}
