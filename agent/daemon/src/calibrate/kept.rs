//! The last result, kept in the agent's state folder.

use farlane_model::{DeviceRate, Digest, Measured, NodeSpec};
use farlane_seal::private_file;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use crate::folder::Folder;

/// In the state folder.
const FILE: &str = "measured.json";
/// After this the machine is measured again. Source: docs/design/scheduler.md, "Measuring".
const FRESH: Millis = Millis(7 * 24 * 3_600_000);
/// Counts up when what is measured, or how, changes: older results are measured again.
const METHOD: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: Digest,
    known: Known,
}

/// What calibration found of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Of its cores, memory, disk and network.
    pub(crate) measured: Measured,
    /// Of those of its accelerators that could be measured, by id.
    pub(crate) devices: Vec<(String, DeviceRate)>,
}

impl Known {
    /// Puts it where it is sent and shown.
    pub(crate) fn put_on(&self, spec: &mut NodeSpec) {
        spec.measured = Some(self.measured);
        for device in &mut spec.devices {
            let known = self.devices.iter().find(|(id, _)| *id == device.id);
            device.measured = known.map(|(_, rate)| *rate);
        }
    }
}

/// What a result is of: the machine, what it offers, and the method.
pub(crate) fn machine(spec: &NodeSpec) -> Digest {
    let devices: Vec<&str> = spec
        .devices
        .iter()
        .map(|device| device.id.as_str())
        .collect();
    let machine = (&spec.cpu_model, spec.cpus, spec.memory, &spec.arch);
    let parts = (METHOD, machine, devices);
    Digest::of(format!("{parts:?}").as_bytes())
}

/// Whether a result of that age still holds. One from the future is of a clock that was set since.
pub(crate) fn is_fresh(at: Millis, now: Millis) -> bool {
    at <= now && now.saturating_sub(at) <= FRESH
}

/// The result of this machine, if there is a fresh one. What cannot be read is measured again.
pub(crate) fn read(folder: &Folder, machine: Digest, now: Millis) -> Option<Known> {
    let path = folder.path(FILE);
    if !path.exists() {
        return None;
    }
    let bytes = private_file::read(&path)
        .inspect_err(|error| tracing::warn!(%error, "what was measured cannot be read back"))
        .ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    let holds = kept.machine == machine && is_fresh(kept.known.measured.at, now);
    holds.then_some(kept.known)
}

/// Keeps a result. Where it cannot be kept, the next start measures again.
pub(crate) fn keep(folder: &Folder, machine: Digest, known: &Known) {
    let known = known.clone();
    let kept = serde_json::to_vec(&Kept { machine, known });
    if let Ok(bytes) = kept
        && let Err(error) = folder.keep(FILE, &bytes)
    {
        tracing::warn!(%error, "what was measured cannot be kept");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use farlane_model::{MatrixRate, VectorUnit};

    use super::*;

    #[test]
    fn a_result_is_read_back_until_it_is_old_or_the_machine_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (here, elsewhere) = (Digest::of(b"here"), Digest::of(b"elsewhere"));
        let rate = MatrixRate {
            unit: VectorUnit::Avx2,
            one_core: 5,
            all_cores: 9,
        };
        let measured = Measured {
            at: Millis(1_000_000_000),
            cores: 2,
            fp32: rate,
            bf16: rate,
            int8: rate,
            memory_mib_s: 7,
            disk_write_mib_s: None,
            disk_read_mib_s: Some(3),
            network_mib_s: None,
        };
        let gpu = DeviceRate {
            fp32: 1,
            bf16: 2,
            int8: 3,
            memory_mib_s: 4,
        };
        let known = Known {
            measured,
            devices: vec![("GPU-1".into(), gpu)],
        };
        assert_eq!(read(&folder, here, Millis(1)), None);
        keep(&folder, here, &known);
        let last = Millis(1_000_000_000 + FRESH.0);
        assert_eq!(read(&folder, here, last), Some(known));
        assert_eq!(read(&folder, elsewhere, last), None);
        assert_eq!(read(&folder, here, Millis(last.0 + 1)), None);
        assert_eq!(read(&folder, here, Millis(999_999_999)), None);
        for nonsense in [&b"{"[..], b"", b"{\"machine\":1}", &[0xff; 64]] {
            std::fs::write(dir.path().join(FILE), nonsense).unwrap();
            assert_eq!(read(&folder, here, last), None);
        }
    }
}
