//! What this machine sustains, measured: the profile `measured` of docs/design/scheduler.md.
//!
//! Owns the kernels, how they are timed, and the budget: at most 2 s of processor time in all, at the lowest
//! priority, given up as soon as work comes. Leaves when to do it to the engine.
//!
//! ```text
//! fp32, bf16, int8: one core, then all ─▶ memory: all cores ─▶ disk ─▶ again, twice ─▶ the best of each
//! ```
//! Accelerators come after it, by a process of their own.

pub(crate) mod challenge;
mod crew;
mod disk;
pub(crate) mod gpu;
pub(crate) mod kept;
mod matrix;
mod memory;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farlane_model::{Device, DeviceRate, DeviceType, MatrixRate, Measured, VectorUnit};
use farlane_units::{MilliCpu, Millis};

use matrix::{Integers, Kernel, Matrices};

/// Everything is measured so often, and the best of each counts. Source: neighbours of a virtual machine
/// disturb it for a second or so at a time; in three passes with pauses between them they rarely do each time.
const PASSES: usize = 3;
/// Between two passes.
const PAUSE: Duration = Duration::from_millis(1500);
/// Processor time of one core alone, for each type of number and pass.
const ONE_CORE: Duration = Duration::from_millis(40);
/// Of all cores together, for each type of number and pass.
const ALL_CORES: Duration = Duration::from_millis(90);
/// Of all cores together, for memory, each pass. With clearing pages and the disk's calls these make the 2 s:
/// docs/design/reference-node.md has what it was.
const MEMORY: Duration = Duration::from_millis(80);
/// Most cores measured together. Source: TaskSpec's bound on cores; above it a round is shorter than a call.
const MOST_CORES: u32 = 1024;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Work came.
    Stopped,
    /// Something else uses the processor; what was seen is not what the machine can do.
    Busy,
}

/// Measures this machine with the cores that it offers, beside `folder`. Blocks for about five seconds; the
/// calling thread and those that it starts have the lowest priority from then on.
///
/// *Errors*: see [`Broken`]; nothing stays behind.
pub(crate) fn measure(
    cpus: MilliCpu,
    memory: u64,
    folder: &Path,
    now: Millis,
    stop: &AtomicBool,
) -> Result<Measured, Broken> {
    lowest_priority();
    let cores = cpus.0.div_ceil(1000).clamp(1, MOST_CORES);
    let bench = Bench {
        cores,
        memory,
        folder,
        stop,
    };
    let mut best = Rates::default();
    for number in 0..PASSES {
        if number > 0 {
            bench.pause()?;
        }
        best = best.or_better(bench.pass()?);
    }
    best.measured(cores, now).ok_or(Broken::Busy)
}

/// Measures the accelerators, in a child of `program`: rates by id, of those that can be measured.
///
/// *Errors*: it was stopped.
pub(crate) fn devices(
    program: Option<&Path>,
    devices: &[Device],
    stop: &AtomicBool,
) -> Result<Vec<(String, DeviceRate)>, Broken> {
    let can = |device: &Device| device.device_type() == DeviceType::Gpu;
    match program {
        Some(program) if devices.iter().any(can) => gpu::measure(program, stop),
        _ => Ok(Vec::new()),
    }
}

/// One core and all cores, in millions of operations a second; `None` where every round was disturbed.
#[derive(Debug, Clone, Copy, Default)]
struct Pair(Option<VectorUnit>, Option<u64>, Option<u64>);

impl Pair {
    fn or_better(self, other: Self) -> Self {
        Self(
            self.0.max(other.0),
            self.1.max(other.1),
            self.2.max(other.2),
        )
    }

    fn rate(self) -> Option<MatrixRate> {
        Some(MatrixRate {
            unit: self.0?,
            one_core: self.1?,
            all_cores: self.2?,
        })
    }
}

/// What one pass saw.
#[derive(Debug, Default)]
struct Rates {
    fp32: Pair,
    bf16: Pair,
    int8: Pair,
    memory: Option<u64>,
    disk: (Option<u64>, Option<u64>),
}

impl Rates {
    fn or_better(self, other: Self) -> Self {
        Self {
            fp32: self.fp32.or_better(other.fp32),
            bf16: self.bf16.or_better(other.bf16),
            int8: self.int8.or_better(other.int8),
            memory: self.memory.max(other.memory),
            disk: (self.disk.0.max(other.disk.0), self.disk.1.max(other.disk.1)),
        }
    }

    /// All of it; `None` where something was disturbed in every pass.
    fn measured(self, cores: u32, at: Millis) -> Option<Measured> {
        let fp32 = self.fp32.rate()?;
        // Some units multiply bfloat16 slower than it is widened and multiplied as 32-bit floats (measured on
        // the reference node): then that is what a library does.
        let bf16 = match self.bf16 {
            Pair(None, ..) => fp32,
            own => own.rate().map(|own| {
                if own.all_cores < fp32.all_cores {
                    fp32
                } else {
                    own
                }
            })?,
        };
        Some(Measured {
            at,
            cores,
            fp32,
            bf16,
            int8: self.int8.rate()?,
            memory_mib_s: self.memory?,
            disk_write_mib_s: self.disk.0,
            disk_read_mib_s: self.disk.1,
            network_mib_s: None,
        })
    }
}

struct Bench<'a> {
    cores: u32,
    memory: u64,
    folder: &'a Path,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    fn pass(&self) -> Result<Rates, Broken> {
        let fp32 = self.pair(matrix::fp32(), f32::from, f32::from)?;
        let bf16 = match matrix::bf16() {
            Some(kernel) => self.pair(kernel, bf16, bf16)?,
            None => Pair::default(),
        };
        let int8 = match matrix::int8() {
            Integers::Bytes(kernel) => self.pair(kernel, |n| n, |n| n as i8 - 3)?,
            Integers::Widened(kernel) => self.pair(kernel, i16::from, |n| i16::from(n) - 3)?,
        };
        let cores = self.cores as usize;
        let memory = seen(memory::measure(cores, self.memory, MEMORY, self.stop))?;
        let disk = disk::measure(self.folder, self.stop);
        if self.stop.load(Ordering::Relaxed) {
            return Err(Broken::Stopped);
        }
        Ok(Rates {
            fp32,
            bf16,
            int8,
            memory,
            disk,
        })
    }

    fn pair<A, B, C>(
        &self,
        kernel: Kernel<A, B, C>,
        a: fn(u8) -> A,
        b: fn(u8) -> B,
    ) -> Result<Pair, Broken>
    where
        A: Copy + Default,
        B: Copy + Default,
        C: Copy + Default,
    {
        let of = |members: usize, cpu: Duration| {
            let rate = crew::best(members, cpu, self.stop, || {
                let mut matrices = Matrices::new(kernel, a, b);
                let operations = matrices.operations();
                Box::new(move || {
                    matrices.multiply();
                    operations
                })
            });
            seen(rate.map(|rate| (rate / 1e6) as u64))
        };
        let one = of(1, ONE_CORE)?;
        let all = match self.cores {
            1 => one,
            cores => of(cores as usize, ALL_CORES)?,
        };
        Ok(Pair(Some(kernel.unit), one, all))
    }

    fn pause(&self) -> Result<(), Broken> {
        let step = PAUSE / 30;
        for _ in 0..30 {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Broken::Stopped);
            }
            std::thread::sleep(step);
        }
        Ok(())
    }
}

/// A disturbed measurement is none; a stop ends all of them.
fn seen(result: Result<u64, Broken>) -> Result<Option<u64>, Broken> {
    match result {
        Ok(rate) => Ok(Some(rate)),
        Err(Broken::Busy) => Ok(None),
        Err(Broken::Stopped) => Err(Broken::Stopped),
    }
}

/// A small whole number as bfloat16: the upper half of a float's bits.
fn bf16(n: u8) -> u16 {
    (f32::from(n).to_bits() >> 16) as u16
}

/// Whatever else wants a processor gets it first. On Linux it is the calling thread's, and that of those it starts.
#[allow(unsafe_code)]
fn lowest_priority() {
    // SAFETY: no pointers; a refusal leaves the priority as it is, which costs quiet and no result.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Twice, as whoever fills in SPEC.md does on a quiet machine. Here other tests run, so that only a
    /// gross difference fails.
    #[test]
    fn two_runs_agree() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let never = AtomicBool::new(false);
        let once = || {
            let path = dir.path();
            let measured = || measure(MilliCpu(2000), 8 << 30, path, Millis(1), &never);
            std::thread::scope(|scope| scope.spawn(measured).join().unwrap())
        };
        let (Ok(first), Ok(second)) = (once(), once()) else {
            println!("the machine has other things to do");
            return;
        };
        let rates = |m: &Measured| {
            [
                ("fp32 one core", m.fp32.one_core),
                ("fp32 all cores", m.fp32.all_cores),
                ("bf16 one core", m.bf16.one_core),
                ("bf16 all cores", m.bf16.all_cores),
                ("int8 one core", m.int8.one_core),
                ("int8 all cores", m.int8.all_cores),
                ("memory", m.memory_mib_s),
                ("disk, written", m.disk_write_mib_s.unwrap_or(0)),
                ("disk, read", m.disk_read_mib_s.unwrap_or(0)),
            ]
        };
        for ((what, one), (_, two)) in rates(&first).into_iter().zip(rates(&second)) {
            let apart = one.abs_diff(two) as f64 / one.max(two).max(1) as f64;
            println!("{what}: {one} and {two}, {:.1} % apart", apart * 100.0);
            assert!(one > 0 && two > 0, "{what}");
            assert!(what.starts_with("disk") || apart < 0.9, "{what}");
        }
    }

    #[test]
    fn work_that_comes_stops_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(true);
        let began = std::time::Instant::now();
        let path = dir.path();
        let run = || measure(MilliCpu(2000), 8 << 30, path, Millis(1), &stop);
        let result = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
        assert_eq!(result, Err(Broken::Stopped));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_small_number_is_the_same_as_bfloat16() {
        for n in 0..7 {
            assert_eq!(f32::from_bits(u32::from(bf16(n)) << 16), f32::from(n));
        }
    }
}
