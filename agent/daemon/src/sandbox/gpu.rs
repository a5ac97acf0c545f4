//! The GPUs that a template's tasks may use, and nothing of the others.
//!
//! Owns finding the driver's files of a GPU by the id that it goes by. Leaves which GPUs to the control plane's
//! lease, and what they are to the probe.

use std::path::{Path, PathBuf};

/// Where NVIDIA's driver says which file is whose. Source: its README, "The /proc filesystem".
const CARDS: &str = "/proc/driver/nvidia/gpus";
/// Files that every CUDA program opens beside its cards' own; where one is missing the driver does without.
const SHARED: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];

/// GPUs of one template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gpus {
    /// What the driver knows each by, in the order of the node's devices.
    ids: Vec<String>,
    /// Each one's own file.
    files: Vec<PathBuf>,
}

/// A GPU that was leased and cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("the driver has no GPU {id:?} any more; is it in {CARDS}?")]
pub(crate) struct NoGpu {
    id: String,
}

impl Gpus {
    /// Finds the files of these ids.
    ///
    /// *Errors*: the driver does not know one of them.
    pub(crate) fn find(ids: Vec<String>) -> Result<Self, NoGpu> {
        Self::find_in(Path::new(CARDS), ids)
    }

    fn find_in(cards: &Path, ids: Vec<String>) -> Result<Self, NoGpu> {
        let file = |id: &String| {
            minor(cards, id)
                .map(|minor| PathBuf::from(format!("/dev/nvidia{minor}")))
                .ok_or_else(|| NoGpu { id: id.clone() })
        };
        let files = ids.iter().map(file).collect::<Result<_, _>>()?;
        Ok(Self { ids, files })
    }

    /// What a program is told of its GPUs; nothing where it has none, and then none can be opened either.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        match self.ids.is_empty() {
            true => Vec::new(),
            false => vec![("CUDA_VISIBLE_DEVICES", self.ids.join(","))],
        }
    }

    /// Every file that its programs may open, and whether it must be there.
    pub(super) fn files(&self) -> Vec<(PathBuf, bool)> {
        if self.ids.is_empty() {
            return Vec::new();
        }
        let own = self.files.iter().map(|file| (file.clone(), true));
        own.chain(SHARED.map(|file| (file.into(), false))).collect()
    }
}

/// The number of a card's file, by its id.
fn minor(cards: &Path, id: &str) -> Option<u32> {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        Some(line?.split_once(':')?.1.trim().to_owned())
    };
    std::fs::read_dir(cards).ok()?.flatten().find_map(|card| {
        let text = std::fs::read_to_string(card.path().join("information")).ok()?;
        let same = field(&text, "GPU UUID").is_some_and(|uuid| uuid == id);
        same.then(|| field(&text, "Device Minor")?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// In the form of the driver's own file, written by hand: no such card was here.
    fn information(uuid: &str, minor: u32) -> String {
        format!(
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 45\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.bc.00.01\n\
             Bus Type: \t PCIe\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    }

    #[test]
    fn a_card_is_found_by_its_id_and_no_other_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        for (bus, uuid, minor) in [("0000:1b:00.0", "GPU-a", 0), ("0000:43:00.0", "GPU-b", 3)] {
            let card = folder.path().join(bus);
            std::fs::create_dir(&card).unwrap();
            std::fs::write(card.join("information"), information(uuid, minor)).unwrap();
        }
        let gpus = Gpus::find_in(folder.path(), vec!["GPU-b".into()]).unwrap();
        assert_eq!(
            gpus.variables(),
            [("CUDA_VISIBLE_DEVICES", "GPU-b".to_owned())]
        );
        let files = gpus.files();
        assert_eq!(files[0], ("/dev/nvidia3".into(), true));
        assert_eq!(files.len(), 1 + SHARED.len());
        assert!(files[1..].iter().all(|(_, must)| !must));
        let lost = Gpus::find_in(folder.path(), vec!["GPU-c".into()]).unwrap_err();
        assert!(lost.to_string().contains("no GPU \"GPU-c\""));
    }

    #[test]
    fn without_gpus_nothing_is_shown_or_said() {
        let none = Gpus::find(Vec::new()).unwrap();
        assert!(none.variables().is_empty() && none.files().is_empty());
    }
}
