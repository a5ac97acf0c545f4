//! How long to wait between two tries to connect.

use std::time::Duration;

/// First wait and last. Source: the same as the agents'.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Waits that double until a stream was of use.
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(LAST);
        wait
    }

    /// A stream has ended that was open. That it opened says little: a server that opens streams and breaks
    /// them is not to be tried ten times a second.
    pub fn ended(&mut self, used: bool, stood: Duration) {
        if used || stood >= LAST {
            self.0 = FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_a_stream_was_of_use() {
        let mut backoff = Backoff::default();
        assert_eq!([backoff.wait(), backoff.wait()], [FIRST, FIRST * 2]);
        backoff.ended(false, Duration::from_millis(10));
        assert_eq!(backoff.wait(), FIRST * 4);
        backoff.ended(true, Duration::ZERO);
        assert_eq!(backoff.wait(), FIRST);
        for _ in 0..20 {
            backoff.wait();
        }
        assert_eq!(backoff.wait(), LAST);
        backoff.ended(false, LAST);
        assert_eq!(
            backoff.wait(),
            FIRST,
            "an idle stream that stood is as good"
        );
    }
}
