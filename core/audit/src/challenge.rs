//! A chain of matrix products that cannot be shortened, and how a part of it is checked.
//!
//! ```text
//! seed, core ─▶ link₀ ─▶ step: 16 to 512 rounds ─▶ link₁ ─▶ … ─▶ link₆₄     the answer: link₁ to link₆₄ of every core
//!               round: A = fill(link) · C = Aᵀ B · fold every number of C ─▶ link
//! ```
//! Each round's matrix comes from all of the product before, so nothing can be done ahead, left out, or done on
//! several cores at once. Numbers are whole and small: every sum is exact in 32-bit floats, in any order and on
//! every unit. Who checks does one step of one core anew: who left out a share of the steps is found out with that
//! chance, each time.

use farlane_model::{Digest, Measured};

/// Rows and columns of each matrix. Source: a multiple of every kernel's tile (12 × 32, 6 × 16, 4 × 8); with two
/// matrices of 144 KiB in the second cache, as in calibration.
pub const SIDE: usize = 192;
/// Operations of one round: a product and a sum for each term.
pub const ROUND_OPS: u64 = 2 * (SIDE as u64).pow(3);
/// Of what one step hands to the next. Source: 2⁶⁴ tries to find two that meet, within seconds.
pub const LINK_BYTES: usize = 16;
/// Steps of one core. Source: an answer is then 1 KiB a core, and a check a 64th of one core's work.
const STEPS: u32 = 64;
/// Cores asked at most. Source: 256 KiB of answer.
const MOST_CORES: u32 = 256;
/// Of one step. Source: below, fewer than 10 ms in all on the slowest core; above, a check of half a second.
const ROUNDS: std::ops::RangeInclusive<u64> = 1..=512;
/// What each core does at its claimed rate, thousandths of a second. Source: choice; a node of four cores gives
/// half of the 2 s of a calibration, and it is long beside a round trip.
const ASKED_MS: u64 = 250;
/// An honest answer comes sooner. *Units*: milliseconds. Source: at a quarter of the claimed rate, and a second for
/// a thread to start and a far node to answer.
pub const LONGEST: u64 = 4 * ASKED_MS + 1_000;

/// What a step hands to the next.
pub type Link = [u8; LINK_BYTES];

/// What one node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Drawn for this one.
    pub seed: [u8; 32],
    /// Threads, each with a chain of its own.
    pub cores: u32,
    /// Links of each chain in the answer.
    pub steps: u32,
    /// Products of each step.
    pub rounds: u32,
}

impl Challenge {
    /// One that takes a node a quarter of a second at the rate that it claims.
    pub fn of(measured: &Measured, seed: [u8; 32]) -> Self {
        let cores = measured.cores.clamp(1, MOST_CORES);
        // Millions of operations a second are thousands in a millisecond.
        let each = measured.fp32.all_cores / u64::from(measured.cores.max(1));
        let rounds = each.saturating_mul(1000 * ASKED_MS) / ROUND_OPS / u64::from(STEPS);
        Self {
            seed,
            cores,
            steps: STEPS,
            rounds: rounds.clamp(*ROUNDS.start(), *ROUNDS.end()) as u32,
        }
    }

    /// One as it came over the wire; `None` where it asks more than [`Challenge::of`] ever does.
    pub fn bounded(self) -> Option<Self> {
        let fits = (1..=MOST_CORES).contains(&self.cores)
            && (1..=STEPS).contains(&self.steps)
            && ROUNDS.contains(&u64::from(self.rounds));
        fits.then_some(self)
    }

    /// Of all cores together.
    pub fn operations(&self) -> u64 {
        ROUND_OPS * u64::from(self.cores) * u64::from(self.steps) * u64::from(self.rounds)
    }

    /// Bytes of a whole answer.
    pub fn answer_bytes(&self) -> usize {
        self.cores as usize * self.steps as usize * LINK_BYTES
    }

    /// What every round multiplies by: row after row.
    pub fn factor(&self) -> Vec<f32> {
        let mut out = vec![0.0; SIDE * SIDE];
        fill(&self.derived(u32::MAX), &mut out);
        out
    }

    /// Where a core's chain begins.
    pub fn start(&self, core: u32) -> Link {
        self.derived(core)
    }

    fn derived(&self, number: u32) -> Link {
        let mut bytes = self.seed.to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        shortened(&bytes)
    }

    /// The whole answer, core after core by the plain product: what kernels are held against in tests.
    pub fn plain(&self) -> Vec<u8> {
        let (factor, mut a) = (self.factor(), vec![0.0; SIDE * SIDE]);
        let mut out = Vec::with_capacity(self.answer_bytes());
        for core in 0..self.cores {
            let mut link = self.start(core);
            for _ in 0..self.steps {
                for _ in 0..self.rounds {
                    fill(&link, &mut a);
                    link = product(&a, &factor);
                }
                out.extend_from_slice(&link);
            }
        }
        out
    }

    /// Whether one step of one core's chain was done as asked. The answer has the cores in order, each with its
    /// links in order.
    ///
    /// *Cost*: `rounds` products, about 1 ms each.
    pub fn holds(&self, answer: &[u8], core: u32, step: u32) -> bool {
        if answer.len() != self.answer_bytes() || core >= self.cores || step >= self.steps {
            return false;
        }
        let at = |step: u32| {
            let link = (core as usize * self.steps as usize + step as usize) * LINK_BYTES;
            &answer[link..link + LINK_BYTES]
        };
        let mut link = self.start(core);
        if let Some(before) = step.checked_sub(1) {
            link.copy_from_slice(at(before));
        }
        let (factor, mut a) = (self.factor(), vec![0.0; SIDE * SIDE]);
        for _ in 0..self.rounds {
            fill(&link, &mut a);
            link = product(&a, &factor);
        }
        link == at(step)
    }
}

/// The plain product, and its link.
fn product(a: &[f32], b: &[f32]) -> Link {
    let mut lanes = Lanes::default();
    for row in 0..SIDE {
        let mut sums = [0.0f32; SIDE];
        for (a, b) in a.chunks_exact(SIDE).zip(b.chunks_exact(SIDE)) {
            let a = a[row];
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
        lanes.fold(&sums);
    }
    lanes.link()
}

/// What all numbers of a product come to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lanes([u32; 16]);

impl Lanes {
    /// Takes in one row, whose length is a multiple of 16.
    pub fn fold(&mut self, row: &[f32]) {
        for some in row.chunks_exact(16) {
            for (lane, number) in self.0.iter_mut().zip(some) {
                // Rotations and products mod 2³² do not go together with sums of floats: what a row comes to cannot
                // be had without its numbers. The constant is 2³² over the golden ratio (Knuth, volume 3, 6.4).
                let mixed = lane.rotate_left(5) ^ (*number as i32 as u32);
                *lane = mixed.wrapping_mul(0x9E37_79B1);
            }
        }
    }

    /// Of all rows in order.
    pub fn link(&self) -> Link {
        let bytes: Vec<u8> = self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        shortened(&bytes)
    }
}

fn shortened(bytes: &[u8]) -> Link {
    let mut link = [0; LINK_BYTES];
    link.copy_from_slice(&Digest::of(bytes).0[..LINK_BYTES]);
    link
}

/// Whole numbers from −8 to 7, sixteen from each of a row of mixed numbers.
///
/// *Shape*: as many as `out` has, a multiple of 16. For a round's left factor: column after column, so that tiles
/// of rows lie together.
pub fn fill(link: &Link, out: &mut [f32]) {
    let (low, high) = link.split_at(8);
    let half = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (low, high) = (half(low), half(high));
    for (number, some) in (0u64..).zip(out.chunks_exact_mut(16)) {
        // Source: the finaliser of splitmix64 (Steele, Lea, Flood 2014).
        let mut x = (low ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(high);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        for out in some {
            *out = ((x & 15) as i32 - 8) as f32;
            x >>= 4;
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn small() -> Challenge {
        Challenge {
            seed: [7; 32],
            cores: 2,
            steps: 3,
            rounds: 2,
        }
    }

    #[test]
    fn an_honest_answer_holds_at_every_step() {
        let challenge = small();
        let answer = challenge.plain();
        for core in 0..2 {
            for step in 0..3 {
                assert!(challenge.holds(&answer, core, step), "{core} {step}");
            }
        }
        assert!(!challenge.holds(&answer, 2, 0) && !challenge.holds(&answer, 0, 3));
        assert!(!challenge.holds(&answer[1..], 0, 0));
        // This very chain: whoever changes it makes agents and servers of different age disagree.
        let last: String = answer
            .iter()
            .rev()
            .take(4)
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(last, "3ae0ac91");
    }

    #[test]
    fn a_step_that_was_left_out_is_found_where_it_is_looked_for() {
        let challenge = small();
        let mut answer = challenge.plain();
        answer[LINK_BYTES] ^= 1;
        let held: Vec<bool> = (0..3).map(|s| challenge.holds(&answer, 0, s)).collect();
        // The step itself, and the next, which begins with it.
        assert_eq!(held, [true, false, false]);
    }

    #[test]
    fn another_seed_is_another_challenge() {
        let other = Challenge {
            seed: [8; 32],
            ..small()
        };
        assert!(!other.holds(&small().plain(), 0, 0));
        assert_ne!(other.start(0), other.start(1));
    }

    #[test]
    fn numbers_are_small_and_of_every_size() {
        let mut out = vec![0.0; SIDE * SIDE];
        fill(&[3; 16], &mut out);
        let mut seen = [0u32; 16];
        for number in &out {
            seen[(*number + 8.0) as usize] += 1;
        }
        // 36,864 in 16 sizes: each within a fifth of its share.
        assert!(seen.iter().all(|n| (1843..2765).contains(n)), "{seen:?}");
    }

    #[test]
    fn every_sum_is_exact_and_the_chain_goes_on() {
        // The largest product is 192 × 64, within the 2²⁴ that floats count to.
        let ones = vec![-8.0; SIDE * SIDE];
        let mut lanes = Lanes::default();
        for _ in 0..SIDE {
            lanes.fold(&[12_288.0; SIDE]);
        }
        assert_eq!(product(&ones, &ones), lanes.link());
        assert_ne!(lanes.link(), Lanes::default().link());
    }

    #[test]
    fn what_is_asked_takes_a_quarter_of_a_second_and_is_bounded() {
        let measured = |all_cores: u64, cores: u32| Measured::even(cores, all_cores);
        let two = Challenge::of(&measured(270_000, 2), [0; 32]);
        let seconds = two.operations() as f64 / 270e9;
        assert!((0.23..0.26).contains(&seconds), "{seconds}");
        for (rate, cores) in [(0, 0), (u64::MAX, u32::MAX), (1, 4096), (1_000_000_000, 1)] {
            let asked = Challenge::of(&measured(rate, cores), [0; 32]);
            assert_eq!(asked.bounded(), Some(asked));
            assert!(asked.answer_bytes() <= 256 * 1024);
        }
        let too_much = Challenge { rounds: 513, ..two };
        assert_eq!(too_much.bounded(), None);
    }
}
