//! How fast the disk under the agent's state is, past the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One transfer. Source: what `dd` and databases write in bulk; above it disks gain nothing.
const PIECE: usize = 1 << 20;
/// Pieces of a round, at whose end what was written is synced.
const PIECES: usize = 8;
/// Rounds: 24 MiB; with three passes 72 MiB in all.
const ROUNDS: usize = 3;
/// Longest that writing or reading may take. Source: a memory card writes 10 MB/s; it is measured on less.
const LONGEST: Duration = Duration::from_secs(1);
/// What transfers past the page cache must be aligned to. Source: open(2), the largest block of usual disks.
const ALIGNMENT: usize = 4096;

/// MiB/s written and read; each `None` where the system refuses it, or it was stopped.
pub(super) fn measure(folder: &Path, stop: &AtomicBool) -> (Option<u64>, Option<u64>) {
    let path = folder.join("calibration.tmp");
    let mut both = (None, None);
    if let Ok(mut file) = open(&path) {
        let mut piece = Piece::new();
        both.0 = rounds(stop, || {
            for _ in 0..PIECES {
                file.write_all(piece.bytes())?;
            }
            file.sync_data()
        });
        // Where the page cache was not passed by, it lets go of what is on the disk.
        if both.0.is_some() && forget(&file).is_ok() && file.seek(SeekFrom::Start(0)).is_ok() {
            both.1 = rounds(stop, || {
                for _ in 0..PIECES {
                    file.read_exact(piece.bytes())?;
                }
                Ok(())
            });
        }
    }
    // Its own file alone; where it cannot go, the next calibration opens it again.
    let _ = std::fs::remove_file(&path);
    both
}

/// MiB/s of the second best round: the best may have met an empty cache of the disk itself.
fn rounds(stop: &AtomicBool, mut round: impl FnMut() -> io::Result<()>) -> Option<u64> {
    let latest = Instant::now() + LONGEST;
    let mut times = Vec::with_capacity(ROUNDS);
    while times.len() < ROUNDS && Instant::now() < latest {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let began = Instant::now();
        match round() {
            Ok(()) => times.push(began.elapsed()),
            // Reading ends where writing did.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(_) => return None,
        }
    }
    times.sort();
    let took = times.get(1).or(times.first())?.as_secs_f64();
    Some(((PIECES * PIECE) as f64 / f64::from(1 << 20) / took) as u64)
}

/// Past the page cache where the file system allows it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600);
    let direct = options
        .clone()
        .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW)
        .open(path);
    direct.or_else(|_| options.custom_flags(libc::O_NOFOLLOW).open(path))
}

#[allow(unsafe_code)]
fn forget(file: &File) -> io::Result<()> {
    // SAFETY: a descriptor that is open; no pointers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// One transfer's bytes at an aligned address.
struct Piece {
    room: Vec<u8>,
    start: usize,
}

impl Piece {
    fn new() -> Self {
        // Not all the same, for disks that compress.
        let mut state = 1u32;
        let room: Vec<u8> = (0..PIECE + ALIGNMENT)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { room, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + PIECE]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_has_rates_and_nothing_stays_behind() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (written, read) = measure(dir.path(), &AtomicBool::new(false));
        println!("written {written:?} MiB/s, read {read:?} MiB/s");
        assert!(written.unwrap() > 0 && read.unwrap() > 0);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn where_nothing_can_be_written_there_is_no_rate() {
        let never = AtomicBool::new(false);
        assert_eq!(measure(Path::new("/nonexistent"), &never), (None, None));
        let dir = tempfile::tempdir().unwrap();
        // A link that somebody left there is not followed.
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("calibration.tmp")).unwrap();
        assert_eq!(measure(dir.path(), &never), (None, None));
        let stopped = AtomicBool::new(true);
        let other = tempfile::tempdir().unwrap();
        assert_eq!(measure(other.path(), &stopped), (None, None));
    }
}
