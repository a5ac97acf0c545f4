//! Randomness as an argument.
//!
//! Owns where random bytes come from. Key material is drawn by `farlane-seal` itself; this is for
//! identities, jitter and nonces of no secrecy.

use parking_lot::Mutex;

/// A source of random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below `bound`, or zero where `bound` is. The bias is below 2⁻³² for bounds of 32 bits.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// *Panics*: the operating system has no randomness to give, in which case nothing here is safe.
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives randomness");
    }
}

/// One seed, one sequence.
///
/// *Source*: SplitMix64, Steele, Lea and Flood, OOPSLA 2014. Not for secrets.
#[derive(Debug)]
pub struct SimulatedEntropy(Mutex<u64>);

impl SimulatedEntropy {
    /// Starts the sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SimulatedEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock();
        for chunk in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_sequence() {
        // The reference sequence of seed 1234567; source: rosettacode.org, SplitMix64.
        let entropy = SimulatedEntropy::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| entropy.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn draws_stay_below_their_bound() {
        let entropy = SystemEntropy;
        assert_eq!(entropy.below(0), 0);
        let drawn: Vec<u64> = (0..200).map(|_| entropy.below(10)).collect();
        assert!(drawn.iter().all(|n| *n < 10));
        assert!((0..10).filter(|n| drawn.contains(n)).count() > 5);
    }
}
