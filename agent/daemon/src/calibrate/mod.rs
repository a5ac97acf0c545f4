//! What this machine sustains, measured: the profile `measured` of docs/design/scheduler.md.
//!
//! Owns the kernels, how they are timed, and the budget: at most 2 s of processor time in all, at the lowest
//! priority, given up as soon as work comes. Leaves when to do it to the engine.
//!
//! ```text
//! fp32, bf16, int8: one core, then all ─▶ memory: all cores ─▶ disk ─▶ a vector of integers
//! ```

mod crew;
mod disk;
pub(crate) mod kept;
mod matrix;
mod memory;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use farlane_model::{MatrixRate, Measured};
use farlane_units::{MilliCpu, Millis};

use matrix::{Integers, Kernel, Matrices};

/// Processor time of one core alone, for each type of number.
const ONE_CORE: Duration = Duration::from_millis(100);
/// Of all cores together, for each type of number.
const ALL_CORES: Duration = Duration::from_millis(240);
/// Of all cores together, for memory. With clearing pages and the disk's calls: 1.8 s in all on the reference node.
const MEMORY: Duration = Duration::from_millis(300);
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

/// Measures this machine with the cores that it offers, beside `folder`. Blocks for about two seconds; the
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
    let bench = Bench { cores, stop };
    let fp32 = bench.rate(matrix::fp32(), f32::from, f32::from)?;
    let bf16 = match matrix::bf16() {
        Some(kernel) => bench.rate(kernel, bf16, bf16)?,
        None => fp32,
    };
    let int8 = match matrix::int8() {
        Integers::Bytes(kernel) => bench.rate(kernel, |n| n, |n| n as i8 - 3)?,
        Integers::Widened(kernel) => bench.rate(kernel, i16::from, |n| i16::from(n) - 3)?,
    };
    let memory_mib_s = memory::measure(cores as usize, memory, MEMORY, stop)?;
    let (disk_write_mib_s, disk_read_mib_s) = disk::measure(folder, stop);
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Broken::Stopped);
    }
    Ok(Measured {
        at: now,
        cores,
        fp32,
        bf16,
        int8,
        memory_mib_s,
        disk_write_mib_s,
        disk_read_mib_s,
        network_mib_s: None,
    })
}

struct Bench<'a> {
    cores: u32,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    fn rate<A, B, C>(
        &self,
        kernel: Kernel<A, B, C>,
        a: fn(u8) -> A,
        b: fn(u8) -> B,
    ) -> Result<MatrixRate, Broken>
    where
        A: Copy,
        B: Copy,
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
            })?;
            Ok((rate / 1e6) as u64)
        };
        let one_core = of(1, ONE_CORE)?;
        let all_cores = match self.cores {
            1 => one_core,
            cores => of(cores as usize, ALL_CORES)?,
        };
        Ok(MatrixRate {
            unit: kernel.unit,
            one_core,
            all_cores,
        })
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
