//! Threads that do the same work at once, in short rounds, of which the best counts.
//!
//! ```text
//! all ready ─▶ over? ─▶ all start ─▶ work for a round ─▶ how much, in how long ─┐
//!                ▲                                                              │
//!                └──────────────────────────────────────────────────────────────┘
//! ```
//! The best of many short rounds, since what disturbs a measurement (an interrupt, a hypervisor, a clock that
//! still rises) only ever makes it slower. A round counts for all threads together, so that what they share
//! (clock, caches, memory) is shared in it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use super::Broken;

/// Rounds of one measurement, of which there are three. Source: on the reference node, a tenth of whose time a
/// hypervisor takes, one in four rounds of 10 ms is disturbed; of 15, all in one of 10^9 measurements.
const ROUNDS: usize = 5;
/// Longest round. Source: a turn of the kernel's scheduler is 3 ms and more; work that comes waits at most so long.
const LONGEST: Duration = Duration::from_millis(10);
/// Least share of a round that the processor worked on it; below it something else ran too, and the rate
/// is not the machine's.
pub(super) const LEAST_SHARE: f64 = 0.9;

/// Work of which one call does so much.
pub(super) type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// How much a second `members` threads do together in their best round, each with work of its own, made and
/// done once in its own thread before the first. They use about `cpu` together.
///
/// *Errors*: stopped meanwhile, or the machine has other things to do.
pub(super) fn best<'a>(
    members: usize,
    cpu: Duration,
    stop: &AtomicBool,
    make: impl Fn() -> Work<'a> + Sync,
) -> Result<f64, Broken> {
    let share = cpu.as_secs_f64() / (members * ROUNDS) as f64;
    let rounds = Rounds {
        each: Duration::from_secs_f64(share).min(LONGEST),
        latest: Instant::now() + 2 * cpu / members as u32 + LONGEST,
        stop,
        over: AtomicBool::new(false),
        ready: Barrier::new(members),
        start: Barrier::new(members),
        done: Mutex::new(vec![Round::default(); ROUNDS]),
    };
    std::thread::scope(|scope| {
        for _ in 1..members {
            scope.spawn(|| rounds.take_part(make()));
        }
        rounds.take_part(make());
    });
    if stop.load(Ordering::Relaxed) {
        return Err(Broken::Stopped);
    }
    let done = rounds.done.into_inner();
    let whole = done.into_iter().filter(|round| round.members == members);
    let best = whole.max_by(|a, b| a.rate.total_cmp(&b.rate));
    match best {
        Some(round) if round.share >= LEAST_SHARE => Ok(round.rate),
        _ => Err(Broken::Busy),
    }
}

/// What the threads of one round did.
#[derive(Debug, Clone)]
struct Round {
    members: usize,
    rate: f64,
    /// Of the member that got the least of its processor.
    share: f64,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            members: 0,
            rate: 0.0,
            share: 1.0,
        }
    }
}

struct Rounds<'a> {
    each: Duration,
    latest: Instant,
    stop: &'a AtomicBool,
    over: AtomicBool,
    ready: Barrier,
    start: Barrier,
    done: Mutex<Vec<Round>>,
}

impl Rounds<'_> {
    fn take_part(&self, mut work: Work<'_>) {
        work();
        for number in 0..ROUNDS {
            if self.stop.load(Ordering::Relaxed) || Instant::now() > self.latest {
                self.over.store(true, Ordering::Relaxed);
            }
            self.ready.wait();
            // Nobody writes it between the two barriers: all read the same.
            let over = self.over.load(Ordering::Relaxed);
            self.start.wait();
            if over && number > 0 {
                return;
            }
            let (began, cpu) = (Instant::now(), thread_cpu());
            let mut amount = 0;
            let took = loop {
                amount += work();
                let took = began.elapsed();
                if took >= self.each || self.stop.load(Ordering::Relaxed) {
                    break took.as_secs_f64();
                }
            };
            let share = (thread_cpu() - cpu) / took;
            let mut done = self.done.lock();
            let round = &mut done[number];
            round.members += 1;
            round.rate += amount as f64 / took;
            round.share = round.share.min(share);
        }
    }
}

/// Seconds that this thread has run.
pub(super) fn thread_cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| {
        time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does nothing for long.
    fn spin(micros: u64) -> u64 {
        let until = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        micros
    }

    #[test]
    fn a_second_of_one_thread_is_a_second() {
        let never = AtomicBool::new(false);
        let cpu = Duration::from_millis(40);
        match best(1, cpu, &never, || Box::new(|| spin(100))) {
            Ok(rate) => assert!((900_000.0..1_000_001.0).contains(&rate), "{rate}"),
            // Whoever tests on a machine with other work may see this.
            Err(broken) => assert_eq!(broken, Broken::Busy),
        }
    }

    #[test]
    fn a_stop_ends_it_for_every_thread() {
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        let result = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                best(3, Duration::from_secs(60), &stop, || {
                    Box::new(|| spin(1000))
                })
            });
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
            running.join()
        });
        assert_eq!(result.ok(), Some(Err(Broken::Stopped)));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn work_that_takes_longer_than_a_round_does_not_multiply_it() {
        let never = AtomicBool::new(false);
        let began = Instant::now();
        let _ = best(2, Duration::from_millis(10), &never, || {
            Box::new(|| spin(50_000))
        });
        // Three calls at most: before the first round, in it, and in one more.
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
}
