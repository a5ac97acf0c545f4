//! A list of timed steps, their table and their failures.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::count::{self, Count, Runner};
use crate::program::{Program, last_lines};

/// The most lines of one failure that are shown; the log has them all.
const MAX_SHOWN: usize = 160;

/// What a step says when it ends.
#[derive(Debug)]
pub struct Verdict {
    /// Its tests, or itself as one check.
    pub count: Count,
    /// A few words beside a pass, or everything about a failure.
    pub said: String,
}

impl Verdict {
    /// A check that passed.
    pub fn passed(said: impl Into<String>) -> Self {
        Self {
            count: Count::PASSED,
            said: said.into(),
        }
    }
    /// A check that found these faults.
    pub fn faults(faults: &[String], fine: impl Into<String>) -> Self {
        match faults {
            [] => Self::passed(fine),
            _ => Self {
                count: Count::FAILED,
                said: faults.join("\n"),
            },
        }
    }
}

#[derive(Debug)]
struct Done {
    name: String,
    took: Duration,
    verdict: Verdict,
    log: Option<PathBuf>,
}

/// The steps so far.
#[derive(Debug)]
pub struct Board {
    logs: PathBuf,
    only: Vec<String>,
    begun: Instant,
    done: Vec<Done>,
}

impl Board {
    /// An empty board; `only` names the steps to take, all when empty.
    pub fn new(logs: PathBuf, only: &[String]) -> Self {
        Self {
            logs,
            only: only.to_vec(),
            begun: Instant::now(),
            done: Vec::new(),
        }
    }
    /// Whether this step is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == name)
    }

    /// Takes a step that is a piece of xtask.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Verdict>) -> bool {
        self.take(name, None, step)
    }

    /// Takes a step that is a program.
    pub fn program(&mut self, name: &str, runner: Runner, program: Program) -> bool {
        let log = self.logs.join(format!("{name}.log"));
        self.take(name, Some(log.clone()), || {
            let ended = program.captured(&log)?;
            let text = ended.text();
            let fine = ended.status.success() && !ended.timed_out;
            let count = count::count(runner, &text, fine);
            let mut said = match count.failed {
                0 => String::new(),
                _ => excerpt(runner, &text),
            };
            if ended.timed_out {
                said.push_str("\n(it ran past its limit and was ended)");
            }
            Ok(Verdict { count, said })
        })
    }

    fn take(
        &mut self,
        name: &str,
        log: Option<PathBuf>,
        step: impl FnOnce() -> Result<Verdict>,
    ) -> bool {
        if !self.wants(name) {
            return true;
        }
        println!("  … {name}");
        let begun = Instant::now();
        let verdict = step().unwrap_or_else(|error| Verdict {
            count: Count::FAILED,
            said: format!("{error:#}"),
        });
        let fine = verdict.count.failed == 0;
        let done = Done {
            name: name.to_owned(),
            took: begun.elapsed(),
            verdict,
            log,
        };
        println!("{}", row(&done));
        self.done.push(done);
        fine
    }

    /// Prints the table, then every failure, then the sum as the last line.
    pub fn finish(self) -> ExitCode {
        let sum: Count = self.done.iter().map(|d| d.verdict.count).sum();
        println!(
            "\n    {:<16} {:>9} {:>8} {:>8}",
            "step", "time", "passed", "failed"
        );
        for done in &self.done {
            println!("{}", row(done));
        }
        println!("    {:<16} {:>9}", "in all", seconds(self.begun.elapsed()));
        for done in self.done.iter().filter(|d| d.verdict.count.failed > 0) {
            println!("\n── {} failed ──\n{}", done.name, clip(&done.verdict.said));
            if let Some(log) = &done.log {
                println!("(all of it: {})", log.display());
            }
        }
        if self.done.is_empty() {
            println!("no step has that name");
            return ExitCode::FAILURE;
        }
        println!("\n{} passed, {} failed", sum.passed, sum.failed);
        match sum.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

fn row(done: &Done) -> String {
    let Count { passed, failed } = done.verdict.count;
    let mark = if failed == 0 { "✓" } else { "✗" };
    let said = match failed {
        0 => done.verdict.said.lines().next().unwrap_or_default(),
        _ => "",
    };
    let line = format!(
        "  {mark} {:<16} {:>9} {passed:>8} {failed:>8}  {said}",
        done.name,
        seconds(done.took)
    );
    line.trim_end().to_owned()
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        s => format!("{} m {:02} s", s / 60, s % 60),
    }
}

fn clip(text: &str) -> String {
    let count = text.lines().count();
    match count > MAX_SHOWN {
        true => format!(
            "(the last {MAX_SHOWN} of {count} lines)\n{}",
            last_lines(text, MAX_SHOWN)
        ),
        false => text.to_owned(),
    }
}

/// The part of a failed runner's log that a person wants.
fn excerpt(runner: Runner, log: &str) -> String {
    match runner {
        Runner::Cargo if log.contains("test result: FAILED") => {
            let mut out = Vec::new();
            let mut inside = false;
            for line in log.lines() {
                inside = match line {
                    "failures:" => true,
                    _ if line.starts_with("test result:") => false,
                    _ => inside,
                };
                let ignored = line.starts_with("test ") && line.contains(" ... ignored");
                if inside || ignored || line.starts_with("error: ") {
                    out.push(line);
                }
            }
            out.join("\n")
        }
        Runner::Pytest => {
            let from = log.find("= FAILURES =").or_else(|| log.find("= ERRORS ="));
            log[from.unwrap_or(0)..].to_owned()
        }
        _ => last_lines(log, MAX_SHOWN / 2),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_excerpt_is_the_failures_alone() {
        let log = "running 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nwhy\n\n\
                   failures:\n    a\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\nnoise\n";
        let shown = excerpt(Runner::Cargo, log);
        assert!(shown.contains("why") && !shown.contains("noise") && !shown.contains("running"));
    }

    #[test]
    fn a_board_takes_only_what_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = Board::new(dir.path().to_owned(), &["b".to_owned()]);
        board.step("a", || panic!("not asked for"));
        assert!(!board.step("b", || anyhow::bail!("no")));
        assert_eq!(board.done.len(), 1);
        assert_eq!(board.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn a_program_counts_as_its_runner_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = Board::new(dir.path().to_owned(), &[]);
        assert!(board.program(
            "fine",
            Runner::Pytest,
            Program::new("echo").args(["3 passed in 0.1s"])
        ));
        assert!(!board.program("bad", Runner::Status, Program::new("false")));
        let counts: Vec<Count> = board.done.iter().map(|d| d.verdict.count).collect();
        assert_eq!(
            counts,
            [
                Count {
                    passed: 3,
                    failed: 0
                },
                Count::FAILED
            ]
        );
    }
}
