//! What this machine says of the heat of its processors.
//!
//! Owns which sensors are asked and which answers are believed. Leaves what follows from them to `crate::heat`.
//!
//! ```text
//! /sys/class/hwmon/hwmon*        name · temp*_input, temp*_crit             ─┐
//! /sys/class/thermal/thermal_zone* type · temp, passive trip points          ├▶ degrees left to the nearest limit
//! /sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_total_time_ms    ─▶ time throttled so far, by core
//! ```
//! *Source*: Linux, Documentation/hwmon/sysfs-interface, Documentation/driver-api/thermal/sysfs-api and
//! Documentation/admin-guide/thermal/intel_thermal_throttle. A machine that has none of it says nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Chips of hwmon that sit on a processor. *Source*: Linux, drivers/hwmon: Intel's, AMD's, and those of ARM boards.
const CHIPS: [&str; 5] = [
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "soc_thermal",
];
/// What the type of a thermal zone holds where it is a processor's, or the whole machine's.
const ZONES: [&str; 4] = ["cpu", "soc", "x86_pkg", "acpitz"];
/// Files of one folder that are looked at. Source: a socket of 128 cores has 129 sensors of five files each.
const MOST: usize = 1024;
/// Thousandths of a degree that are believed. Source: below zero and above what silicon survives a sensor is not
/// wired, or a limit not set.
const BELIEVED: std::ops::RangeInclusive<i64> = 1..=150_000;

/// One look at all sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// From the hottest sensor to its limit, thousandths of a degree; less than zero beyond it. `None` where no sensor
    /// has a limit.
    pub(crate) left: Option<i64>,
    /// How long each core was throttled since the machine started, milliseconds; of itself and its package the longer.
    pub(crate) throttled: BTreeMap<u32, u64>,
}

/// Reads what there is under `sys`, which is `/sys` but in tests.
pub(crate) fn look(sys: &Path) -> Look {
    let chips = folders(&sys.join("class/hwmon"), "hwmon");
    let zones = folders(&sys.join("class/thermal"), "thermal_zone");
    let chips = chips.iter().filter_map(|(_, chip)| of_chip(chip));
    let zones = zones.iter().filter_map(|(_, zone)| of_zone(zone));
    let cores = folders(&sys.join("devices/system/cpu"), "cpu");
    let throttled = cores.iter().filter_map(|(core, folder)| {
        let of = |what: &str| {
            let name = format!("thermal_throttle/{what}_throttle_total_time_ms");
            u64::try_from(number(&folder.join(name))?).ok()
        };
        Some((*core, of("core").max(of("package"))?))
    });
    Look {
        left: chips.chain(zones).min(),
        throttled: throttled.collect(),
    }
}

/// Folders of this name and a number.
fn folders(within: &Path, name: &str) -> Vec<(u32, PathBuf)> {
    let entries = within.read_dir().into_iter().flatten().flatten().take(MOST);
    let named = entries.filter_map(|entry| {
        let of = entry
            .file_name()
            .to_str()?
            .strip_prefix(name)?
            .parse()
            .ok()?;
        Some((of, entry.path()))
    });
    named.collect()
}

/// The least that is left on one chip. What hwmon calls critical is where a processor slows itself down; `max` is where
/// fans should run, and no limit.
fn of_chip(chip: &Path) -> Option<i64> {
    if !CHIPS.contains(&text(&chip.join("name"))?.as_str()) {
        return None;
    }
    let files = chip.read_dir().ok()?.flatten().take(MOST);
    let left = files.filter_map(|file| {
        let name = file.file_name();
        let sensor = name.to_str()?.strip_suffix("_crit")?.to_owned();
        let limit = believed(&file.path())?;
        Some(limit - believed(&chip.join(format!("{sensor}_input")))?)
    });
    left.min()
}

/// What is left in one zone until the kernel slows its processors down: its lowest passive trip point.
fn of_zone(zone: &Path) -> Option<i64> {
    let kind = text(&zone.join("type"))?.to_lowercase();
    if !ZONES.iter().any(|of| kind.contains(of)) {
        return None;
    }
    let temperature = believed(&zone.join("temp"))?;
    let files = zone.read_dir().ok()?.flatten().take(MOST);
    let limits = files.filter_map(|file| {
        let name = file.file_name();
        let trip = name.to_str()?.strip_suffix("_type")?.to_owned();
        let passive = text(&file.path()).is_some_and(|kind| kind == "passive");
        let limit = believed(&zone.join(format!("{trip}_temp")))?;
        passive.then_some(limit)
    });
    Some(limits.min()? - temperature)
}

fn believed(file: &Path) -> Option<i64> {
    number(file).filter(|degrees| BELIEVED.contains(degrees))
}

fn number(file: &Path) -> Option<i64> {
    text(file)?.parse().ok()
}

fn text(file: &Path) -> Option<String> {
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A tree of files, from lines of a path and what it holds.
    pub(crate) fn tree(lines: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let (path, holds) = line.split_once(' ').unwrap();
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{holds}\n")).unwrap();
        }
        root
    }

    /// A server with one Xeon: its package at 91 °C of 98, an SSD that is nobody's processor, two cores throttled.
    pub(crate) const XEON: &str = "\
class/hwmon/hwmon0/name nvme
class/hwmon/hwmon0/temp1_input 84000
class/hwmon/hwmon0/temp1_crit 84850
class/hwmon/hwmon1/name coretemp
class/hwmon/hwmon1/temp1_label Package id 0
class/hwmon/hwmon1/temp1_input 91000
class/hwmon/hwmon1/temp1_max 88000
class/hwmon/hwmon1/temp1_crit 98000
class/hwmon/hwmon1/temp1_crit_alarm 0
class/hwmon/hwmon1/temp2_input 74000
class/hwmon/hwmon1/temp2_crit 98000
class/thermal/thermal_zone0/type x86_pkg_temp
class/thermal/thermal_zone0/temp 91000
class/thermal/thermal_zone0/trip_point_0_type passive
class/thermal/thermal_zone0/trip_point_0_temp -274000
class/thermal/cooling_device0/type Processor
devices/system/cpu/online 0-1
devices/system/cpu/cpufreq/policy0/scaling_governor performance
devices/system/cpu/cpu0/thermal_throttle/core_throttle_count 12
devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms 40
devices/system/cpu/cpu0/thermal_throttle/package_throttle_total_time_ms 1500
devices/system/cpu/cpu1/thermal_throttle/core_throttle_total_time_ms 0
devices/system/cpu/cpu1/thermal_throttle/package_throttle_total_time_ms 1500
";

    /// A board with an ARM processor: trip points are all that it has.
    const BOARD: &str = "\
class/thermal/thermal_zone0/type cpu-thermal
class/thermal/thermal_zone0/temp 61000
class/thermal/thermal_zone0/trip_point_0_type active
class/thermal/thermal_zone0/trip_point_0_temp 55000
class/thermal/thermal_zone0/trip_point_1_type passive
class/thermal/thermal_zone0/trip_point_1_temp 75000
class/thermal/thermal_zone0/trip_point_2_type passive
class/thermal/thermal_zone0/trip_point_2_temp 70000
class/thermal/thermal_zone0/trip_point_3_type critical
class/thermal/thermal_zone0/trip_point_3_temp 95000
class/thermal/thermal_zone1/type gpu-thermal
class/thermal/thermal_zone1/temp 94000
class/thermal/thermal_zone1/trip_point_0_type passive
class/thermal/thermal_zone1/trip_point_0_temp 95000
";

    /// A laptop with an AMD processor, which names no limit, and a zone whose sensor is not wired.
    const LAPTOP: &str = "\
class/hwmon/hwmon3/name k10temp
class/hwmon/hwmon3/temp1_label Tctl
class/hwmon/hwmon3/temp1_input 81250
class/hwmon/hwmon3/temp1_max 70000
class/thermal/thermal_zone0/type acpitz
class/thermal/thermal_zone0/temp -5000
class/thermal/thermal_zone0/trip_point_0_type passive
class/thermal/thermal_zone0/trip_point_0_temp 90000
devices/system/cpu/cpu0/topology/core_id 0
";

    #[test]
    fn a_package_counts_by_its_critical_degree_and_disks_do_not() {
        let root = tree(XEON);
        let look = look(root.path());
        assert_eq!(look.left, Some(7000));
        assert_eq!(look.throttled, BTreeMap::from([(0, 1500), (1, 1500)]));
    }

    #[test]
    fn a_zone_counts_by_its_lowest_passive_trip_point() {
        let root = tree(BOARD);
        let look = look(root.path());
        assert_eq!((look.left, look.throttled.len()), (Some(9000), 0));
    }

    #[test]
    fn a_machine_without_limits_or_sensors_says_nothing() {
        let root = tree(LAPTOP);
        assert_eq!(look(root.path()), Look::default());
        assert_eq!(look(&root.path().join("none")), Look::default());
        let odd = tree(
            "class/hwmon/hwmon0/name coretemp\nclass/hwmon/hwmon0/temp1_input hot\n\
             class/hwmon/hwmon0/temp1_crit 9999999\n",
        );
        assert_eq!(look(odd.path()), Look::default());
    }
}
