//! Random bytes, drawn in bulk.
//!
//! Owns a buffer per thread, filled from the operating system, zeroed as it is used and thrown
//! away when the process was forked. A draw of 32 bytes costs a copy, not a system call.

use std::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

/// Bytes fetched at once: 128 salts. Larger ones gain nothing measurable.
const POOL: usize = 4096;

struct Pool {
    bytes: [u8; POOL],
    used: usize,
    process: u32,
}

impl Pool {
    /// *Panics*: the operating system has no randomness; nothing can be sealed then.
    fn refill(&mut self) {
        SystemRandom::new()
            .fill(&mut self.bytes)
            .expect("the operating system gives random bytes");
        self.used = 0;
    }

    fn draw(&mut self, out: &mut [u8]) {
        let process = std::process::id();
        if self.process != process {
            // A fork: the parent holds the same bytes.
            self.process = process;
            self.used = POOL;
        }
        for part in out.chunks_mut(POOL) {
            if POOL - self.used < part.len() {
                self.refill();
            }
            let taken = &mut self.bytes[self.used..self.used + part.len()];
            part.copy_from_slice(taken);
            taken.zeroize();
            self.used += part.len();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

thread_local! {
    static DRAWER: RefCell<Pool> =
        const { RefCell::new(Pool { bytes: [0; POOL], used: POOL, process: 0 }) };
}

/// Fills `out` with random bytes.
///
/// *Panics*: the operating system has no randomness, or the thread is already being torn down.
pub fn fill(out: &mut [u8]) {
    DRAWER.with_borrow_mut(|pool| pool.draw(out));
}

/// `N` random bytes: ids, salts, seeds, secrets.
///
/// *Panics*: as [`fill`].
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// Where randomness comes from; vectors put a script in its place.
pub(crate) trait Randomness {
    fn fill(&mut self, out: &mut [u8]);
}

/// The operating system's, through the thread's buffer.
pub(crate) struct System;

impl Randomness for System {
    fn fill(&mut self, out: &mut [u8]) {
        fill(out);
    }
}

/// Any source, as the random number generator that `hpke` asks for.
pub(crate) struct Generator<'a, R>(pub &'a mut R);

impl<R: Randomness> hpke::rand_core::TryRng for Generator<'_, R> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut out = [0; 4];
        self.0.fill(&mut out);
        Ok(u32::from_le_bytes(out))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut out = [0; 8];
        self.0.fill(&mut out);
        Ok(u64::from_le_bytes(out))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl<R: Randomness> hpke::rand_core::TryCryptoRng for Generator<'_, R> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_leave_nothing_behind() {
        let mut pool = Pool {
            bytes: [0; POOL],
            used: POOL,
            process: 0,
        };
        let (mut a, mut b) = ([0u8; 32], [0u8; 32]);
        pool.draw(&mut a);
        pool.draw(&mut b);
        assert_ne!(a, b);
        assert!(pool.bytes[..64].iter().all(|x| *x == 0));
        assert!(pool.bytes[64..].iter().any(|x| *x != 0));
        let mut long = vec![0u8; 3 * POOL + 5];
        pool.draw(&mut long);
        assert!(
            long.chunks(64)
                .all(|c| c.len() < 8 || c.iter().any(|x| *x != 0))
        );
    }

    #[test]
    fn another_process_throws_the_buffer_away() {
        let mut pool = Pool {
            bytes: [0; POOL],
            used: POOL,
            process: 0,
        };
        pool.draw(&mut [0; 32]);
        let held = pool.bytes;
        pool.process = pool.process.wrapping_add(1); // as a child sees it
        let mut out = [0; 32];
        pool.draw(&mut out);
        assert_ne!(out[..], held[32..64]);
        assert_eq!(pool.used, 32);
    }
}
