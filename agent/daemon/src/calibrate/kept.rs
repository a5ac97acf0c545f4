//! The last result, kept in the agent's state folder.

use farlane_model::{Digest, Measured, NodeSpec};
use farlane_seal::private_file;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use crate::folder::Folder;

/// In the state folder.
const FILE: &str = "measured.json";
/// After this the machine is measured again. Source: docs/design/scheduler.md, "Measuring".
const FRESH: Millis = Millis(7 * 24 * 3_600_000);
/// Counts up when what is measured, or how, changes: older results are measured again.
const METHOD: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: Digest,
    measured: Measured,
}

/// What a result is of: the machine, what it offers, and the method.
pub(crate) fn machine(spec: &NodeSpec) -> Digest {
    let parts = (METHOD, &spec.cpu_model, spec.cpus, spec.memory, &spec.arch);
    Digest::of(format!("{parts:?}").as_bytes())
}

/// Whether a result of that age still holds. One from the future is of a clock that was set since.
pub(crate) fn is_fresh(at: Millis, now: Millis) -> bool {
    at <= now && now.saturating_sub(at) <= FRESH
}

/// The result of this machine, if there is a fresh one. What cannot be read is measured again.
pub(crate) fn read(folder: &Folder, machine: Digest, now: Millis) -> Option<Measured> {
    let path = folder.path(FILE);
    if !path.exists() {
        return None;
    }
    let bytes = private_file::read(&path)
        .inspect_err(|error| tracing::warn!(%error, "what was measured cannot be read back"))
        .ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    let holds = kept.machine == machine && is_fresh(kept.measured.at, now);
    holds.then_some(kept.measured)
}

/// Keeps a result. Where it cannot be kept, the next start measures again.
pub(crate) fn keep(folder: &Folder, machine: Digest, measured: Measured) {
    let kept = serde_json::to_vec(&Kept { machine, measured });
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
        assert_eq!(read(&folder, here, Millis(1)), None);
        keep(&folder, here, measured);
        let last = Millis(1_000_000_000 + FRESH.0);
        assert_eq!(read(&folder, here, last), Some(measured));
        assert_eq!(read(&folder, elsewhere, last), None);
        assert_eq!(read(&folder, here, Millis(last.0 + 1)), None);
        assert_eq!(read(&folder, here, Millis(999_999_999)), None);
        for nonsense in [&b"{"[..], b"", b"{\"machine\":1}", &[0xff; 64]] {
            std::fs::write(dir.path().join(FILE), nonsense).unwrap();
            assert_eq!(read(&folder, here, last), None);
        }
    }
}
