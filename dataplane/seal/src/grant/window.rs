//! Which counters of a context were seen: the newest, and a bitmap of those before it.

/// Counters remembered behind the newest. Source: 512 grants a batch and two batches in flight
/// need few; a reordering relay may need more.
const WIDTH: u64 = 2048;
const WORDS: usize = (WIDTH / 64) as usize;

/// A replay window over counters from 1.
#[derive(Debug, Clone)]
pub(super) struct Window {
    newest: u64,
    seen: [u64; WORDS],
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            newest: 0,
            seen: [0; WORDS],
        }
    }

    const fn slot(counter: u64) -> (usize, u64) {
        let at = counter % WIDTH;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Whether `counter` may still be taken.
    pub(super) fn is_fresh(&self, counter: u64) -> bool {
        if counter == 0 {
            return false;
        }
        if counter > self.newest {
            return true;
        }
        let (word, bit) = Self::slot(counter);
        self.newest - counter < WIDTH && self.seen[word] & bit == 0
    }

    /// Marks a fresh `counter`, once its message has verified.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter > self.newest {
            if counter - self.newest >= WIDTH {
                self.seen = [0; WORDS];
            } else {
                for passed in self.newest + 1..counter {
                    let (word, bit) = Self::slot(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.newest = counter;
        }
        let (word, bit) = Self::slot(counter);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_taken_once() {
        let mut window = Window::new();
        assert!(!window.is_fresh(0));
        for counter in [1, 2, 5, 4, 3, 10_000, 9_999, 7_953] {
            assert!(window.is_fresh(counter), "{counter}");
            window.mark(counter);
            assert!(!window.is_fresh(counter), "{counter}");
        }
        assert!(!window.is_fresh(7_952) && !window.is_fresh(3));
        assert!(window.is_fresh(7_954));
        window.mark(u64::MAX);
        assert!(!window.is_fresh(u64::MAX) && window.is_fresh(u64::MAX - 1));
    }

    #[test]
    fn agrees_with_a_plain_set() {
        let (mut window, mut all) = (Window::new(), std::collections::BTreeSet::new());
        let mut x = 12345u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let newest = all.last().copied().unwrap_or(0u64);
            let counter = (newest + 40).saturating_sub((x >> 33) % 3000).max(1);
            let fresh = !all.contains(&counter) && (counter > newest || newest - counter < WIDTH);
            assert_eq!(window.is_fresh(counter), fresh, "{counter} after {newest}");
            if fresh {
                window.mark(counter);
                all.insert(counter);
            }
        }
    }
}
