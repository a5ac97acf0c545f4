//! How fast a transfer goes, once it is under way.
//!
//! Owns which part of a transfer counts: its second half. The first fills windows and buffers, and says more of how
//! far the peer is than of how much goes through.

use farlane_units::{ByteCount, Micros};

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
