//! Which accelerators this machine has.
//!
//! Owns the list and its bound. Leaves graphics processors to `gpu`, others to `tpu`.

use std::path::Path;

use farlane_model::{Device, MAX_DEVICES};

use super::gpu::{self, Drivers, Installed};
use super::tpu;

/// One that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) device: Device,
    /// Degrees Celsius, where its driver says.
    pub(crate) temperature: Option<u32>,
}

/// What was looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// At most [`MAX_DEVICES`], in their drivers' order.
    pub(crate) found: Vec<Found>,
    /// What does not count, and why, each a line for people.
    pub(crate) refused: Vec<String>,
}

impl Devices {
    pub(crate) fn refuse(&mut self, line: String) {
        // As many as can be found, and two drivers.
        if self.refused.len() < MAX_DEVICES + 2 {
            self.refused.push(line);
        }
    }

    fn add(&mut self, other: Self) {
        for found in other.found {
            match self.found.len() < MAX_DEVICES {
                true => self.found.push(found),
                false => self.refuse(format!(
                    "{} ({}): an agent offers at most {MAX_DEVICES} accelerators",
                    found.device.model, found.device.id
                )),
            }
        }
        other.refused.into_iter().for_each(|line| self.refuse(line));
    }
}

/// Looks at this machine.
pub(crate) fn find() -> Devices {
    from(&Installed::default(), Path::new("/"), |name| {
        std::env::var(name).ok()
    })
}

fn from(
    drivers: &impl Drivers,
    root: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Devices {
    let mut devices = Devices::default();
    devices.add(gpu::find(drivers));
    devices.add(tpu::find(root, environment));
    devices
}

/// Text that a driver or the kernel wrote, as people may see it: no control characters, and at most so many
/// letters.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let kept = text.trim().chars().filter(|c| !c.is_control());
    kept.take(most).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use farlane_model::DeviceKind;

    use super::super::gpu::{Reading, Unread};
    use super::*;

    struct Many;

    impl Drivers for Many {
        fn nvml(&self) -> Result<Vec<Reading>, Unread> {
            let one = Reading {
                id: "GPU-1".into(),
                model: "NVIDIA T4".into(),
                memory: 16 << 30,
                cores: Some(2560),
                ..Reading::default()
            };
            Ok(vec![one; 100])
        }
        fn cuda(&self) -> Result<Vec<Reading>, Unread> {
            Err(Unread::Missing)
        }
    }

    #[test]
    fn more_than_a_node_may_offer_are_cut_and_named() {
        let empty = tempfile::tempdir().unwrap();
        let devices = from(&Many, empty.path(), |_| None);
        assert_eq!(devices.found.len(), MAX_DEVICES);
        assert_eq!(devices.refused.len(), 100 - MAX_DEVICES);
        assert!(devices.refused[0].contains("at most 64 accelerators"));
        let kind = devices.found[0].device.kind;
        assert_eq!(kind, DeviceKind::Gpu { cuda_cores: 2560 });
    }

    #[test]
    fn this_machine_is_looked_at_without_harm() {
        let devices = find();
        assert!(devices.found.len() <= MAX_DEVICES);
    }

    #[test]
    fn drivers_texts_are_cleaned() {
        assert_eq!(clean(" a\u{1b}[2J\nb ", 64), "a[2Jb");
        assert_eq!(clean(&"é".repeat(100), 64).chars().count(), 64);
    }
}
