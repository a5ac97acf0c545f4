//! How fast all cores together stream through memory.
//!
//! *Source*: STREAM's triad (McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance
//! Computers", 1995), which also says how large: four times the last cache, up to
//! a bound.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Broken, crew};

/// Numbers of each array in one call of the work. Source: 3 × 256 KiB, so that a stop is heard within 0.1 ms.
const BLOCK: usize = 32 * 1024;
/// Where the kernel does not tell: larger than most.
const CACHE: u64 = 32 << 20;
/// Most memory used. Source: the kernel takes 0.17 s of processor time to clear it, three times (2026-11-22);
/// four times any cache that one socket shares among few cores.
const MOST: u64 = 256 << 20;

/// MiB/s, with three words moved for each number.
///
/// *Errors*: stopped, or busy.
pub(super) fn measure(
    members: usize,
    free: u64,
    cpu: Duration,
    stop: &AtomicBool,
) -> Result<u64, Broken> {
    let cache = last_cache(Path::new("/sys/devices/system/cpu/cpu0/cache")).unwrap_or(CACHE);
    let all = cache.saturating_mul(4).min(MOST).min(free / 8);
    let numbers = all / 24 / members as u64;
    // Whole blocks, and at least four, so that no cache keeps one until it comes again.
    let blocks = usize::try_from(numbers / BLOCK as u64).unwrap_or(4).max(4);
    let rate = crew::best(members, cpu, stop, || {
        let mut triad = Triad::new(blocks);
        Box::new(move || triad.step())
    })?;
    Ok((rate / f64::from(1 << 20)) as u64)
}

struct Triad {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    at: usize,
}

impl Triad {
    fn new(blocks: usize) -> Self {
        // Asked for as zeros, so that the kernel clears the pages, and each is written to once to be there.
        let array = || {
            let mut array = vec![0.0; blocks * BLOCK];
            array.iter_mut().step_by(512).for_each(|x| *x = 1.0);
            array
        };
        Self {
            a: array(),
            b: array(),
            c: array(),
            at: 0,
        }
    }

    /// One block; bytes moved.
    fn step(&mut self) -> u64 {
        let here = self.at..self.at + BLOCK;
        let (a, b, c) = (
            &mut self.a[here.clone()],
            &self.b[here.clone()],
            &self.c[here],
        );
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = *b + 3.0 * *c;
        }
        std::hint::black_box(a);
        self.at = (self.at + BLOCK) % self.a.len();
        BLOCK as u64 * 24
    }
}

/// Bytes of the largest cache that the kernel tells of.
fn last_cache(folder: &Path) -> Option<u64> {
    let entries = folder.read_dir().ok()?.flatten().take(16);
    let size = |path: &Path| {
        let text = std::fs::read_to_string(path.join("size")).ok()?;
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let scale = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale)
    };
    entries.filter_map(|entry| size(&entry.path())).max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_largest_cache_is_read_and_nonsense_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_cache(dir.path()), None);
        let sizes = [
            "48K",
            "2048K",
            "105M",
            "99999999999999999999M",
            "x",
            "5",
            "",
        ];
        for (index, size) in sizes.into_iter().enumerate() {
            let cache = dir.path().join(format!("index{index}"));
            std::fs::create_dir(&cache).unwrap();
            std::fs::write(cache.join("size"), format!("{size}\n")).unwrap();
        }
        assert_eq!(last_cache(dir.path()), Some(105 << 20));
    }

    #[test]
    fn a_triad_walks_through_all_of_its_arrays() {
        let mut triad = Triad::new(2);
        assert_eq!([triad.step(), triad.step()], [786_432; 2]);
        assert_eq!(triad.at, 0);
        assert_eq!((triad.a[0], triad.a[512], triad.a[513]), (4.0, 4.0, 0.0));
    }
}
