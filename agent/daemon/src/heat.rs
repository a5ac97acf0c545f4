//! How much slower this machine is expected to be for its heat.
//!
//! ```text
//! every 10 s, beside the loop: sensors of the processors, NVML ─▶ slow-down now ─▶ smoothed ─▶ its step ─▶ heartbeats
//! ```
//! Owns what degrees and throttled time come to. Leaves reading them to `probe`, and what a hot machine costs to the
//! planner. What it says changes a step at a time and seldom, so that a fleet's classes stay.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farlane_runtime::{Clock, SystemClock};
use farlane_units::{Micros, Ppm};
use farlane_wire::hello::HEAT_STEP_PPM;

use crate::probe::heat::{Look, look};
use crate::probe::nvml::{GpuHeat, Thermometer};

/// Between two looks. Source: choice; heat sinks warm within a minute, and a look at 128 cores takes a millisecond.
const EVERY: Duration = Duration::from_secs(10);
/// Thousandths of a degree below its limit at which a processor begins to count. Source: choice; less than what more work
/// adds to a package that is nearly there, and further than those run that are cooled well.
const NEAR: i64 = 10_000;
/// What one at its limit is expected to be slower by. Source: choice; there it gives up its highest clocks, which are
/// about a fifth of its rate, before it throttles.
const AT_LIMIT: u32 = 250_000;
/// Share of a new look in what is told. Source: choice; half of a change is told within half a minute.
const GAIN: u32 = 4;
/// All of it.
const WHOLE: u64 = 1_000_000;

/// What heartbeats say of it.
#[derive(Debug, Default)]
pub(crate) struct Heat {
    cores: AtomicU32,
    gpus: AtomicU32,
}

impl Heat {
    /// How much slower its cores are expected to be; zero where nothing is known.
    pub(crate) fn cores(&self) -> Ppm {
        Ppm(self.cores.load(Ordering::Relaxed))
    }

    /// And its accelerators.
    pub(crate) fn gpus(&self) -> Ppm {
        Ppm(self.gpus.load(Ordering::Relaxed))
    }

    /// Looks again and again, for as long as the agent's runtime is there.
    pub(crate) async fn watch(self: Arc<Self>, has_gpus: bool) {
        let opening = tokio::task::spawn_blocking(move || has_gpus.then(Thermometer::open)?);
        let mut thermometer = opening.await.ok().flatten();
        let mut watched = Watched::default();
        loop {
            let looking = tokio::task::spawn_blocking(move || {
                let gpus = thermometer.as_ref().map(Thermometer::read);
                let seen = look(&PathBuf::from("/sys"));
                (seen, gpus.unwrap_or_default(), thermometer)
            });
            let Ok((seen, gpus, back)) = looking.await else {
                return;
            };
            thermometer = back;
            watched.see(seen, &gpus, SystemClock.steady());
            self.cores.store(watched.cores.step, Ordering::Relaxed);
            self.gpus.store(watched.gpus.step, Ordering::Relaxed);
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// One figure that follows what is seen, and is told in steps.
#[derive(Debug, Default)]
struct Smoothed {
    exact: u32,
    step: u32,
}

impl Smoothed {
    fn see(&mut self, now: u32) {
        self.exact = self.exact - self.exact / GAIN + now / GAIN;
        // Another step only where it is clearly that: between two of them a figure would tell each in turn.
        if self.exact.abs_diff(self.step) > HEAT_STEP_PPM / 8 * 5 {
            let nearest = (self.exact + HEAT_STEP_PPM / 2) / HEAT_STEP_PPM;
            self.step = nearest * HEAT_STEP_PPM;
        }
    }
}

/// What was seen, and what came of it.
#[derive(Debug, Default)]
struct Watched {
    last: Option<(Look, Micros)>,
    cores: Smoothed,
    gpus: Smoothed,
}

impl Watched {
    fn see(&mut self, look: Look, gpus: &[GpuHeat], now: Micros) {
        let throttled = self.last.as_ref().map_or(0, |(before, then)| {
            let time = now.saturating_sub(*then).0 / 1000;
            slower(share(before, &look, time))
        });
        self.cores.see(throttled.max(look.left.map_or(0, near)));
        // Nobody here knows which of them the next task gets.
        let hottest = gpus.iter().map(|gpu| match (gpu.slowed, gpu.left()) {
            (true, _) => slower(WHOLE),
            (false, left) => left.map_or(0, |degrees| near(i64::from(degrees) * 1000)),
        });
        self.gpus.see(hottest.max().unwrap_or(0));
        self.last = Some((look, now));
    }
}

/// Of the time of all cores, how much they were throttled between two looks, in millionths.
fn share(before: &Look, after: &Look, time_ms: u64) -> u64 {
    let cores = after.throttled.iter().filter_map(|(core, now)| {
        let then = before.throttled.get(core)?;
        // A long one is counted whole when it ends.
        Some(now.saturating_sub(*then).min(time_ms))
    });
    let (count, sum) = cores.fold((0, 0), |(count, sum), one| (count + 1, sum + one));
    (sum * WHOLE).checked_div(count * time_ms).unwrap_or(0)
}

/// What work is slower by, in millionths, where processors are throttled for such a share of the time: they do half
/// meanwhile. *Source*: choice; Intel's Thermal Monitor 1 stops the clock about half of the time, others halve it.
fn slower(share: u64) -> u32 {
    let lost = share.min(WHOLE) / 2;
    u32::try_from(lost * WHOLE / (WHOLE - lost)).unwrap_or(u32::MAX)
}

/// What work is expected to be slower by, in millionths, so many thousandths of a degree below the limit.
fn near(left: i64) -> u32 {
    let within = (NEAR - left).clamp(0, NEAR);
    u32::try_from(i64::from(AT_LIMIT) * within / NEAR).unwrap_or(AT_LIMIT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::probe::heat::tests::{XEON, tree};

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    fn gpu(temperature: u32, slowdown: u32) -> GpuHeat {
        GpuHeat {
            temperature: Some(temperature),
            slowdown: Some(slowdown),
            ..GpuHeat::default()
        }
    }

    #[test]
    fn degrees_and_throttled_time_come_to_a_slow_down() {
        assert_eq!((near(30_000), near(10_000), near(0)), (0, 0, 250_000));
        assert_eq!((near(5_000), near(-4_000)), (125_000, 250_000));
        assert_eq!(
            (slower(0), slower(WHOLE), slower(9 * WHOLE)),
            (0, 1_000_000, 1_000_000)
        );
        // Throttled half of the time: three quarters are done.
        assert_eq!(slower(WHOLE / 2), 333_333);
    }

    #[test]
    fn a_machine_that_throttles_is_told_in_steps_and_so_is_its_cooling() {
        let root = tree(XEON);
        let mut watched = Watched::default();
        let seen = look(root.path());
        watched.see(seen.clone(), &[], at(0));
        // 7 °C below the limit is slower by 7.5 %, smoothed: not a step yet.
        assert_eq!(watched.cores.step, 0);
        let mut told = Vec::new();
        for round in 1..=30u64 {
            let mut seen = seen.clone();
            // Both cores are throttled for 5 of 10 seconds.
            seen.throttled
                .values_mut()
                .for_each(|ms| *ms += round * 5000);
            watched.see(seen, &[], at(10 * round));
            told.push(watched.cores.step);
        }
        told.dedup();
        assert_eq!(told, [125_000, 250_000, 375_000]);
        for round in 31..=60 {
            watched.see(
                Look {
                    left: Some(40_000),
                    ..Look::default()
                },
                &[],
                at(10 * round),
            );
        }
        assert_eq!(watched.cores.step, 0);
    }

    #[test]
    fn the_hottest_accelerator_counts_and_one_that_says_that_it_is_slowed_counts_most() {
        let mut watched = Watched::default();
        for round in 0..30 {
            watched.see(
                Look::default(),
                &[gpu(45, 90), gpu(90, 90), GpuHeat::default()],
                at(10 * round),
            );
        }
        assert_eq!((watched.cores.step, watched.gpus.step), (0, 250_000));
        let slowed = GpuHeat {
            slowed: true,
            ..gpu(60, 90)
        };
        for round in 30..60 {
            watched.see(Look::default(), &[slowed], at(10 * round));
        }
        assert_eq!(watched.gpus.step, 1_000_000);
    }

    #[test]
    fn who_says_nothing_is_told_nothing_of() {
        let mut watched = Watched::default();
        (0..9).for_each(|round| watched.see(Look::default(), &[], at(10 * round)));
        assert_eq!((watched.cores.step, watched.gpus.step), (0, 0));
        // Cores that come and go, and counters that begin anew, are no time.
        let of = |ms| Look {
            left: None,
            throttled: [(0, ms)].into(),
        };
        assert_eq!(share(&Look::default(), &of(500), 10_000), 0);
        assert_eq!(share(&of(500), &of(3), 10_000), 0);
        assert_eq!(share(&of(0), &of(3), 0), 0);
        assert_eq!(share(&of(0), &of(90_000), 10_000), WHOLE);
    }
}
