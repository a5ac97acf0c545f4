//! What a worker's process has used, as the kernel tells it, where no control group counts.

use std::os::fd::{AsRawFd, OwnedFd};

/// A process, held by a descriptor that never comes to mean another.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// From a pidfd.
    pub(crate) fn new(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    /// Its number here, whatever it is in its own namespace; `None` once it was reaped, or where the
    /// descriptor means no process.
    fn number(&self) -> Option<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        line.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// Processor time of it and of those of its children that it has waited for, in microseconds.
    pub(crate) fn cpu_micros(&self) -> Option<u64> {
        /// Ticks a second. Source: proc(5); USER_HZ is 100 on every architecture that Rust knows.
        const TICKS: u64 = 100;
        let stat = std::fs::read(format!("/proc/{}/stat", self.number()?)).ok()?;
        let ticks = ticks(&stat)?;
        // Still the same one: the number was not another's by then.
        self.number()?;
        Some(ticks * (1_000_000 / TICKS))
    }

    /// Most bytes that it ever held.
    pub(crate) fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.number()?)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}

/// Own time and that of children waited for, user's and system's. Source: proc(5), fields 14 to 17.
fn ticks(stat: &[u8]) -> Option<u64> {
    // The name may hold anything but ends with the last parenthesis.
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_ends + 1..)?).ok()?;
    let mut times = rest.split_whitespace().skip(11).take(4);
    times.try_fold(0u64, |sum, time| sum.checked_add(time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = b"7 (a) b (c) S 1 7 7 0 -1 64 9 9 9 9 100 20 3 4 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(127));
        assert_eq!(ticks(b"7 (a S 1"), None);
        assert_eq!(ticks(b""), None);
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_process_is_measured_and_one_that_is_gone_is_not() {
        use std::os::fd::FromRawFd;
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // SAFETY: the call takes no pointers; its result is checked before it is owned.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is new and owned by nobody else.
        let process = Process::new(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        assert_eq!(process.number(), Some(child.id()));
        assert!(process.cpu_micros().is_some() && process.peak().unwrap() > 0);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!((process.cpu_micros(), process.peak()), (None, None));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Process::new(file.into()).cpu_micros(), None);
    }
}
