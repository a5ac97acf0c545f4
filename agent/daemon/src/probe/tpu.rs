//! Google's tensor processors, as the kernel and the environment tell of them, and other accelerators that
//! have no nominal figure.
//!
//! *Source* of the ways to find them: JAX, jax/_src/hardware_utils.py, and Google's tpu-info,
//! tpu_info/device.py: PCI ids under /sys/bus/pci/devices; `TPU_ACCELERATOR_TYPE` as TPU virtual machines set it.

use std::io::Read;
use std::path::{Path, PathBuf};

use farlane_model::{Device, DeviceKind, DeviceType, MAX_DEVICES};
use farlane_units::ByteCount;

use super::device::{Devices, Found, clean};

/// Google's PCI vendor id; its network cards have it too.
const GOOGLE: &str = "0x1ae0";
/// Most entries looked at in a folder of the kernel's. Source: a server has some hundred PCI functions.
const MOST_ENTRIES: usize = 4096;

/// One generation of chips.
struct Generation {
    name: &'static str,
    /// What `TPU_ACCELERATOR_TYPE` calls it, before the dash.
    accelerator: &'static str,
    /// PCI device, and subsystem device where two share the first.
    pci: (&'static str, &'static str),
    /// Peak of a chip at bf16.
    gflops: u32,
    /// Of a chip.
    memory_gib: u64,
}

/// *Source*: PCI ids and memory: tpu_info/device.py (as above). Rates: "Peak compute per chip (bf16)" in
/// https://docs.cloud.google.com/tpu/docs/v2, v3, v4, v5e, v5p, v6e and tpu7x, read 2026-11-22. Google publishes
/// no TDP.
const GENERATIONS: [Generation; 7] = [
    generation("v2", "v2", ("0x0027", "0x004e"), 46_000, 16),
    generation("v3", "v3", ("0x0027", "0x004f"), 123_000, 32),
    generation("v4", "v4", ("0x005e", ""), 275_000, 32),
    generation("v5e", "v5litepod", ("0x0063", ""), 197_000, 16),
    generation("v5p", "v5p", ("0x0062", ""), 459_000, 95),
    generation("v6e", "v6e", ("0x006f", ""), 918_000, 32),
    generation("7x", "tpu7x", ("0x0076", ""), 2_307_000, 192),
];

const fn generation(
    name: &'static str,
    accelerator: &'static str,
    pci: (&'static str, &'static str),
    gflops: u32,
    memory_gib: u64,
) -> Generation {
    Generation {
        name,
        accelerator,
        pci,
        gflops,
        memory_gib,
    }
}

impl Generation {
    fn device(&self, id: &str) -> Found {
        Found {
            device: Device {
                kind: DeviceKind::Tpu {
                    gflops: self.gflops,
                },
                model: format!("TPU {}", self.name),
                memory: ByteCount::gib(self.memory_gib),
                tdp_watts: 0,
                id: clean(id, 16),
                measured: None,
            },
            temperature: None,
        }
    }
}

/// Looks below `root`.
pub(super) fn find(root: &Path, environment: impl Fn(&str) -> Option<String>) -> Devices {
    let mut devices = Devices::default();
    for path in entries(&root.join("sys/bus/pci/devices")) {
        if let Some(generation) = by_pci(&path) {
            devices.found.push(generation.device(&name(&path)));
        }
    }
    let mut others = 0;
    for path in entries(&root.join("sys/class/accel")) {
        let device = path.join("device");
        if by_pci(&device).is_none() {
            others += 1;
            devices.refuse(refusal(&path, &device));
        }
    }
    let said = environment("TPU_ACCELERATOR_TYPE");
    if let (true, 0, Some(said)) = (devices.found.is_empty(), others, said) {
        let nodes = entries(&root.join("dev")).into_iter();
        let nodes = nodes.filter(|path| is_accel(&name(path)));
        by_environment(&said, nodes.collect(), &mut devices);
    }
    devices
}

/// In containers that see the devices and not what the kernel says of them.
fn by_environment(said: &str, nodes: Vec<PathBuf>, devices: &mut Devices) {
    let before = said.split('-').next().unwrap_or_default();
    let known = GENERATIONS.iter().find(|one| one.accelerator == before);
    match known {
        Some(generation) => devices
            .found
            .extend(nodes.iter().map(|path| generation.device(&name(path)))),
        None if nodes.is_empty() => {}
        None => {
            let known: Vec<_> = GENERATIONS.iter().map(|one| one.accelerator).collect();
            devices.refuse(format!(
                "TPU_ACCELERATOR_TYPE is {:?}, whose data sheet is not known here; known are {}",
                clean(said, 64),
                known.join(", ")
            ));
        }
    }
}

/// A device that the kernel calls an accelerator, of a type without a formula: by its driver's name.
fn refusal(path: &Path, device: &Path) -> String {
    let driver = device.join("driver").read_link();
    let driver = driver.map_or_else(|_| "unknown".to_owned(), |link| name(&link));
    let entry = clean(&name(path), 32);
    match clean(&driver, 64).parse::<DeviceType>() {
        Err(unknown) => format!("{entry}: {unknown}"),
        // A driver that is called like a type is not yet a chip whose data sheet is known.
        Ok(known) => format!(
            "{entry}: a {} whose data sheet is not known here",
            known.name()
        ),
    }
}

fn by_pci(device: &Path) -> Option<&'static Generation> {
    let is = |file: &str, wanted: &str| short(&device.join(file)).as_deref() == Some(wanted);
    if !is("vendor", GOOGLE) {
        return None;
    }
    GENERATIONS.iter().find(|one| {
        let (function, subsystem) = one.pci;
        is("device", function) && (subsystem.is_empty() || is("subsystem_device", subsystem))
    })
}

fn is_accel(name: &str) -> bool {
    let number = name.strip_prefix("accel");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let entries = entries.flatten().take(MOST_ENTRIES);
    let mut all: Vec<_> = entries.map(|entry| entry.path()).collect();
    all.sort();
    // One more than a node may offer, so that there is one to name, where these are devices.
    if folder.ends_with("accel") {
        all.truncate(MAX_DEVICES + 1);
    }
    all
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A file of a few letters.
fn short(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(64).read_to_string(&mut text).ok()?;
    Some(text.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree as the kernel shows it.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn pci(&self, address: &str, vendor: &str, device: &str, subsystem: &str) -> PathBuf {
            let at = self.0.path().join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&at).unwrap();
            let files = [
                ("vendor", vendor),
                ("device", device),
                ("subsystem_device", subsystem),
            ];
            for (file, text) in files {
                fs::write(at.join(file), format!("{text}\n")).unwrap();
            }
            at
        }
        fn accel(&self, number: u32, device: &Path) {
            let at = self.0.path().join(format!("sys/class/accel/accel{number}"));
            fs::create_dir_all(&at).unwrap();
            symlink(device, at.join("device")).unwrap();
        }
        fn node(&self, name: &str) {
            fs::create_dir_all(self.0.path().join("dev")).unwrap();
            fs::write(self.0.path().join("dev").join(name), "").unwrap();
        }
        fn find(&self, accelerator: Option<&str>) -> Devices {
            find(self.0.path(), |name| {
                assert_eq!(name, "TPU_ACCELERATOR_TYPE");
                accelerator.map(str::to_owned)
            })
        }
    }

    fn models(devices: &Devices) -> Vec<&str> {
        let found = devices.found.iter();
        found.map(|one| one.device.model.as_str()).collect()
    }

    #[test]
    fn chips_are_known_by_their_pci_ids() {
        let tree = Tree::new();
        assert_eq!(tree.find(None), Devices::default());
        let first = tree.pci("0000:00:04.0", "0x1ae0", "0x005e", "0x0000");
        tree.pci("0000:00:05.0", "0x1AE0", "0x0063", "");
        tree.pci("0000:00:06.0", "0x1ae0", "0x0027", "0x004e");
        tree.pci("0000:00:07.0", "0x1ae0", "0x0027", "0x004f");
        // Google's network card, another vendor's device, and one of a generation to come.
        tree.pci("0000:00:08.0", "0x1ae0", "0x0042", "0x0058");
        tree.pci("0000:00:09.0", "0x10de", "0x005e", "");
        tree.pci("0000:00:0a.0", "0x1ae0", "0x0027", "0x9999");
        tree.accel(0, &first);
        let devices = tree.find(Some("v4-8"));
        assert_eq!(models(&devices), ["TPU v4", "TPU v5e", "TPU v2", "TPU v3"]);
        assert!(devices.refused.is_empty(), "{devices:?}");
        let v4 = &devices.found[0].device;
        assert_eq!(
            (v4.id.as_str(), v4.memory),
            ("0000:00:04.0", ByteCount::gib(32))
        );
        assert_eq!(v4.nominal().to_string(), "330.000 UCU (nominal)");
    }

    #[test]
    fn in_a_container_the_environment_says_which() {
        let tree = Tree::new();
        for name in ["accel0", "accel1", "accel", "accelx", "null"] {
            tree.node(name);
        }
        assert_eq!(tree.find(None), Devices::default());
        let devices = tree.find(Some("v5litepod-8"));
        assert_eq!(models(&devices), ["TPU v5e"; 2]);
        assert_eq!(devices.found[1].device.id, "accel1");
        for said in ["v99-8", "", "\u{1b}[2J"] {
            let devices = tree.find(Some(said));
            assert!(devices.found.is_empty());
            assert!(devices.refused[0].contains("known are v2, v3, v4, v5litepod"));
        }
        assert_eq!(Tree::new().find(Some("v4-8")), Devices::default());
    }

    #[test]
    fn other_accelerators_are_refused_by_name() {
        let tree = Tree::new();
        let gaudi = tree.pci("0000:19:00.0", "0x1da3", "0x1020", "");
        symlink("/sys/bus/pci/drivers/habanalabs", gaudi.join("driver")).unwrap();
        let nameless = tree.pci("0000:1a:00.0", "0x1da3", "0x1020", "");
        tree.accel(0, &gaudi);
        tree.accel(1, &nameless);
        let devices = tree.find(Some("v4-8"));
        assert!(devices.found.is_empty());
        assert_eq!(
            devices.refused,
            ["habanalabs", "unknown"].into_iter().enumerate().map(|(i, name)| format!(
                "accel{i}: no nominal UCU is known for a device of type {name:?}; the known types are cpu, gpu, tpu"
            )).collect::<Vec<_>>()
        );
    }
}
