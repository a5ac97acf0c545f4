//! The work of a challenge: chains of products by the widest unit, one on each core.
//!
//! Owns packing and the threads. Leaves what the chain is to `farlane-audit`, whose plain product every kernel must
//! agree with to the bit, and when to work to the engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use farlane_audit::{Challenge, Lanes, Link, SIDE, fill};

use super::crew::{LEAST_SHARE, thread_cpu};
use super::matrix::{Aligned, Fp32, fp32};
use super::{Broken, lowest_priority};

/// Does it. The calling thread and those that it starts have the lowest priority from then on.
///
/// *Shape*: the links of each core in order, cores in order.
///
/// *Errors*: see [`Broken`].
pub(crate) fn answer(challenge: &Challenge, stop: &AtomicBool) -> Result<Vec<u8>, Broken> {
    lowest_priority();
    let factor = challenge.factor();
    let chains = std::thread::scope(|scope| {
        let run = |core| {
            scope.spawn({
                let factor = &factor;
                move || Chain::new(fp32(), factor).run(challenge, core, stop)
            })
        };
        let threads: Vec<_> = (0..challenge.cores).map(run).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|end| end.unwrap_or(Err(Broken::Stopped)))
            .collect::<Vec<_>>()
    });
    let mut answer = Vec::with_capacity(challenge.answer_bytes());
    for links in chains {
        answer.extend(links?);
    }
    Ok(answer)
}

/// One core's.
struct Chain {
    kernel: Fp32,
    /// The factor in panels of columns.
    b: Aligned<f32>,
    /// Column after column, as the link fills it.
    columns: Vec<f32>,
    /// The same in panels of rows.
    a: Aligned<f32>,
    tile: Vec<f32>,
    product: Vec<f32>,
}

impl Chain {
    fn new(kernel: Fp32, factor: &[f32]) -> Self {
        let mut b = Aligned::new(std::iter::repeat_n(0.0, SIDE * SIDE));
        pack(factor, kernel.columns, b.numbers_mut());
        Self {
            kernel,
            b,
            columns: vec![0.0; SIDE * SIDE],
            a: Aligned::new(std::iter::repeat_n(0.0, SIDE * SIDE)),
            tile: vec![0.0; kernel.rows * kernel.columns],
            product: vec![0.0; SIDE * SIDE],
        }
    }

    fn run(
        mut self,
        challenge: &Challenge,
        core: u32,
        stop: &AtomicBool,
    ) -> Result<Vec<u8>, Broken> {
        let (began, cpu) = (Instant::now(), thread_cpu());
        let mut link = challenge.start(core);
        let mut links = Vec::new();
        for _ in 0..challenge.steps {
            for _ in 0..challenge.rounds {
                if stop.load(Ordering::Relaxed) {
                    return Err(Broken::Stopped);
                }
                link = self.round(&link);
            }
            links.extend_from_slice(&link);
        }
        let share = (thread_cpu() - cpu) / began.elapsed().as_secs_f64();
        match share >= LEAST_SHARE {
            true => Ok(links),
            false => Err(Broken::Busy),
        }
    }

    fn round(&mut self, link: &Link) -> Link {
        let (rows, columns) = (self.kernel.rows, self.kernel.columns);
        fill(link, &mut self.columns);
        pack(&self.columns, rows, self.a.numbers_mut());
        for (right, b) in self.b.numbers().chunks_exact(columns * SIDE).enumerate() {
            for (down, a) in self.a.numbers().chunks_exact(rows * SIDE).enumerate() {
                self.kernel.run(a, b, &mut self.tile);
                let at = down * rows * SIDE + right * columns;
                let to = self.product[at..].chunks_mut(SIDE);
                for (from, to) in self.tile.chunks_exact(columns).zip(to) {
                    to[..columns].copy_from_slice(from);
                }
            }
        }
        let mut lanes = Lanes::default();
        for row in self.product.chunks_exact(SIDE) {
            lanes.fold(row);
        }
        lanes.link()
    }
}

/// Lines of [`SIDE`] numbers into panels of `width`, each with its part of every line in order.
fn pack(lines: &[f32], width: usize, out: &mut [f32]) {
    for (number, panel) in out.chunks_exact_mut(width * SIDE).enumerate() {
        let parts = lines
            .chunks_exact(SIDE)
            .map(|line| &line[number * width..][..width]);
        for (to, from) in panel.chunks_exact_mut(width).zip(parts) {
            to.copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::matrix::all_fp32;
    use super::*;

    fn challenge() -> Challenge {
        Challenge {
            seed: [5; 32],
            cores: 2,
            steps: 2,
            rounds: 1,
        }
    }

    #[test]
    fn every_kernel_says_what_the_plain_product_does() {
        let challenge = challenge();
        let never = AtomicBool::new(false);
        for kernel in all_fp32() {
            assert!(SIDE.is_multiple_of(kernel.rows) && SIDE.is_multiple_of(kernel.columns));
            let chain =
                |core| Chain::new(kernel, &challenge.factor()).run(&challenge, core, &never);
            let (Ok(first), Ok(second)) = (chain(0), chain(1)) else {
                println!("the machine has other things to do");
                continue;
            };
            let answer = [first, second].concat();
            for (core, step) in [(0, 0), (0, 1), (1, 1)] {
                let unit = kernel.unit.name();
                assert!(
                    challenge.holds(&answer, core, step),
                    "{unit}: {core} {step}"
                );
            }
        }
    }

    #[test]
    fn work_that_comes_stops_it() {
        let long = Challenge {
            rounds: 512,
            steps: 64,
            ..challenge()
        };
        let began = Instant::now();
        let stop = AtomicBool::new(true);
        let end = std::thread::scope(|scope| scope.spawn(|| answer(&long, &stop)).join().unwrap());
        assert_eq!(end, Err(Broken::Stopped));
        assert!(began.elapsed().as_secs() < 5);
    }
}
