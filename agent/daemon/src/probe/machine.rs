//! Cores, clock, memory, disk, names: read once from the kernel.

use std::path::Path;

use farlane_units::{ByteCount, MilliCpu};

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) cpu_model: String,
    pub(crate) cpus: MilliCpu,
    pub(crate) clock_mhz: u32,
    pub(crate) memory: ByteCount,
    /// Free beside the state folder.
    pub(crate) disk_free: ByteCount,
}

/// Reads it; what the kernel does not tell is zero or empty.
pub(crate) fn read(state_dir: &Path) -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let disk_free = nix::sys::statvfs::statvfs(state_dir).map_or(0, |disk| {
        disk.blocks_available().saturating_mul(disk.fragment_size())
    });
    Machine {
        hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "unnamed".into(), |name| name.trim().to_owned()),
        cpu_model: field(&cpuinfo, "model name")
            .unwrap_or("unknown")
            .chars()
            .take(128)
            .collect(),
        cpus: MilliCpu(u32::try_from(cores * 1000).unwrap_or(u32::MAX)),
        clock_mhz: clock(&cpuinfo),
        memory: memory(),
        disk_free: ByteCount(disk_free),
    }
}

/// The highest of what the governor allows and what the kernel shows now.
fn clock(cpuinfo: &str) -> u32 {
    let most =
        number("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").map(|khz| khz / 1000);
    let now = field(cpuinfo, "cpu MHz").and_then(|mhz| mhz.split('.').next()?.parse().ok());
    u32::try_from(most.max(now).unwrap_or(0)).unwrap_or(0)
}

/// Of the machine, or of the container where that is less.
fn memory() -> ByteCount {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = field(&meminfo, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024);
    let bounds = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let least = bounds
        .into_iter()
        .filter_map(number)
        .filter(|bound| *bound > 0)
        .min();
    ByteCount(least.map_or(total, |bound| bound.min(total)))
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = read(Path::new("/tmp"));
        assert!(machine.cpus.get() >= 1000 && machine.memory > ByteCount::mib(64));
        assert!(!machine.hostname.is_empty() && machine.disk_free.get() > 0);
    }
}
