//! Reads how many tests a runner says passed.

/// How many passed and how many failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Tests or checks that passed.
    pub passed: u64,
    /// Tests or checks that failed, could not run, or were told to be left out.
    pub failed: u64,
}

impl Count {
    /// One check that passed.
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
    };
    /// One check that failed.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
    };

    /// The sum.
    pub fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }
}

/// Who wrote a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// `cargo test`: a `test result:` line for each binary. An ignored test counts as failed.
    Cargo,
    /// `pytest`: one last line. A skipped test counts as failed, and so does an error.
    Pytest,
    /// Anything that only has an exit status.
    Status,
}

/// The count in a log, held against the exit status: a runner that fails without naming a test
/// (a compile error, a crash) counts as one failure, one that ran nothing too.
pub fn count(runner: Runner, log: &str, succeeded: bool) -> Count {
    let said = match runner {
        Runner::Status => match succeeded {
            true => Count::PASSED,
            false => Count::FAILED,
        },
        Runner::Cargo => log
            .lines()
            .filter(|l| l.starts_with("test result:"))
            .map(cargo_line)
            .sum(),
        Runner::Pytest => log.lines().rev().find_map(pytest_line).unwrap_or_default(),
    };
    match said {
        Count { failed: 0, .. } if !succeeded => said.and(Count::FAILED),
        Count {
            passed: 0,
            failed: 0,
        } => Count::FAILED,
        _ => said,
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::and)
    }
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`
fn cargo_line(line: &str) -> Count {
    let of = |word: &str| before(line, word);
    Count {
        passed: of("passed"),
        failed: of("failed") + of("ignored"),
    }
}

/// `== 2 failed, 10 passed, 1 skipped, 1 error in 3.21s ==`, with or without the `=`.
fn pytest_line(line: &str) -> Option<Count> {
    let line = line.trim_matches(['=', ' ']);
    let known = [
        "passed", "failed", "error", "errors", "skipped", "xfailed", "xpassed",
    ];
    let timed = line
        .rsplit_once(" in ")
        .is_some_and(|(_, t)| t.contains('s'));
    let counted = known.iter().any(|word| before(line, word) > 0);
    (timed && counted).then(|| {
        let failed = known[1..].iter().map(|word| before(line, word)).sum();
        Count {
            passed: before(line, "passed"),
            failed,
        }
    })
}

/// The number right before a word, else 0.
fn before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line
        .split(|c: char| c.is_whitespace() || ",;.".contains(c))
        .collect();
    let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
    let at = words.windows(2).find(|pair| pair[1] == word);
    at.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO: &str = "\
running 2 tests
test a ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s
";

    #[test]
    fn cargo_lines_are_summed() {
        assert_eq!(
            count(Runner::Cargo, CARGO, false),
            Count {
                passed: 15,
                failed: 3
            }
        );
    }

    #[test]
    fn a_compile_error_is_a_failure() {
        assert_eq!(
            count(Runner::Cargo, "error: could not compile", false),
            Count::FAILED
        );
    }

    #[test]
    fn pytest_lines_with_and_without_frames() {
        let framed = "x.py F\n==== 1 failed, 10 passed, 2 skipped, 1 error in 3.21s ====\n";
        assert_eq!(
            count(Runner::Pytest, framed, false),
            Count {
                passed: 10,
                failed: 4
            }
        );
        assert_eq!(
            count(Runner::Pytest, "7 passed in 0.5s\n", true),
            Count {
                passed: 7,
                failed: 0
            }
        );
        let long = "== 7 passed in 75.50s (0:01:15) ==";
        assert_eq!(
            count(Runner::Pytest, long, true),
            Count {
                passed: 7,
                failed: 0
            }
        );
    }

    #[test]
    fn a_runner_that_ran_nothing_has_not_passed() {
        assert_eq!(
            count(Runner::Pytest, "no tests ran in 0.01s", true),
            Count::FAILED
        );
        assert_eq!(count(Runner::Cargo, "", true), Count::FAILED);
    }

    #[test]
    fn a_bad_exit_is_never_hidden_by_good_lines() {
        assert_eq!(
            count(Runner::Pytest, "7 passed in 0.5s", false),
            Count {
                passed: 7,
                failed: 1
            }
        );
    }
}
