//! NVIDIA's graphics processors, as their drivers tell of them.
//!
//! Owns what is believed of it. Leaves calling the libraries to `nvml` and `cuda`, behind [`Drivers`], so that
//! this is tested on what they said elsewhere.
//!
//! ```text
//! NVML: name, memory, power, temperature, id, and from release 510 on the cores
//!  └─ where it does not know the cores, or is not there: CUDA's driver, multiprocessors × cores of each
//! ```
//! CUDA's driver is only asked where it must be: starting it takes memory on every device, and a while.

use farlane_model::{Device, DeviceKind};
use farlane_units::ByteCount;

use super::device::{Devices, Found, clean};
use super::{cuda, nvml};

/// Cores of one multiprocessor, by compute capability. *Source*: NVIDIA's CUDA samples 13.0,
/// Common/helper_cuda.h, `_ConvertSMVer2Cores`; the same as 32-bit additions a clock in the CUDA C++ Programming
/// Guide 13, "Throughput of Native Arithmetic Instructions".
const CORES: [(u32, u32, u32); 24] = [
    (3, 0, 192),
    (3, 2, 192),
    (3, 5, 192),
    (3, 7, 192),
    (5, 0, 128),
    (5, 2, 128),
    (5, 3, 128),
    (6, 0, 64),
    (6, 1, 128),
    (6, 2, 128),
    (7, 0, 64),
    (7, 2, 64),
    (7, 5, 64),
    (8, 0, 64),
    (8, 6, 128),
    (8, 7, 128),
    (8, 9, 128),
    (9, 0, 128),
    (10, 0, 128),
    (10, 1, 128),
    (10, 3, 128),
    (11, 0, 128),
    (12, 0, 128),
    (12, 1, 128),
];
/// Most cores believed. Source: an RTX PRO 6000 has 24,064; forty times that.
const MOST_CORES: u32 = 1_000_000;
/// Most memory believed. Source: a B300 has 288 GB; fifty times that.
const MOST_MEMORY: u64 = 16 << 40;
/// Most watts believed. Source: a B300 is held to 1,400 W; seven times that. More is taken for not known.
const MOST_WATTS: u32 = 10_000;

/// What one library says of one device. What it does not say is `None`, or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) memory: u64,
    pub(crate) cores: Option<u32>,
    pub(crate) multiprocessors: Option<u32>,
    /// Compute capability.
    pub(crate) capability: Option<(u32, u32)>,
    pub(crate) power_milliwatts: Option<u32>,
    pub(crate) temperature: Option<u32>,
}

/// Why a library says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is not installed.
    Missing,
    /// It is, and this is what is wrong.
    Broken(String),
}

/// The libraries that tell of graphics processors.
pub(crate) trait Drivers {
    /// What NVML lists.
    fn nvml(&self) -> Result<Vec<Reading>, Unread>;
    /// What CUDA's driver lists.
    fn cuda(&self) -> Result<Vec<Reading>, Unread>;
}

/// Those that are installed here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installed {
    nvml: &'static str,
    cuda: &'static str,
}

impl Default for Installed {
    /// By the names that NVIDIA's driver installs them under.
    fn default() -> Self {
        Self {
            nvml: nvml::LIBRARY,
            cuda: "libcuda.so.1",
        }
    }
}

impl Drivers for Installed {
    fn nvml(&self) -> Result<Vec<Reading>, Unread> {
        nvml::read(self.nvml.as_ref())
    }
    fn cuda(&self) -> Result<Vec<Reading>, Unread> {
        cuda::read(self.cuda.as_ref())
    }
}

/// Opens a library by its name or path.
#[allow(unsafe_code)]
pub(crate) fn open(name: &std::ffi::OsStr) -> Result<libloading::Library, Unread> {
    // SAFETY: a driver's library, by the name that its vendor gives it; whoever can put another in its place
    // can replace this program too.
    let library = unsafe { libloading::Library::new(name) };
    library.map_err(|error| match error.to_string() {
        text if text.contains("No such file") => Unread::Missing,
        text => Unread::Broken(clean(&text, 200)),
    })
}

/// What this machine's drivers tell, as far as it can be believed.
pub(crate) fn find(drivers: &impl Drivers) -> Devices {
    let mut devices = Devices::default();
    let mut told = |library: &str, answer: Result<Vec<Reading>, Unread>| match answer {
        Ok(readings) => readings,
        Err(Unread::Missing) => Vec::new(),
        Err(Unread::Broken(why)) => {
            devices.refuse(format!("{library} cannot be used: {why}"));
            Vec::new()
        }
    };
    let mut readings = told("NVML", drivers.nvml());
    if readings.is_empty() {
        readings = told("CUDA's driver", drivers.cuda());
    } else if readings.iter().any(|one| one.cores.is_none()) {
        let others = told("CUDA's driver", drivers.cuda());
        readings.iter_mut().for_each(|one| complete(one, &others));
    }
    for reading in readings {
        let name = clean(&reading.model, 64);
        match believed(reading) {
            Ok(found) => devices.found.push(found),
            Err(why) => devices.refuse(format!("{name}: {why}")),
        }
    }
    devices
}

/// Adds what the other library knows of the same device.
fn complete(reading: &mut Reading, others: &[Reading]) {
    let Some(other) = others.iter().find(|other| other.id == reading.id) else {
        return;
    };
    reading.multiprocessors = reading.multiprocessors.or(other.multiprocessors);
    reading.capability = reading.capability.or(other.capability);
}

fn believed(reading: Reading) -> Result<Found, String> {
    let cores = match (reading.cores, reading.multiprocessors, reading.capability) {
        (Some(cores), ..) => cores,
        (None, Some(count), Some(capability)) => {
            let (major, minor) = capability;
            let each = CORES.iter().find(|row| (row.0, row.1) == capability);
            let (.., each) = each.ok_or_else(|| {
                format!("the cores of compute capability {major}.{minor} are not known")
            })?;
            count.saturating_mul(*each)
        }
        _ => return Err("its drivers do not say how many cores it has".into()),
    };
    if !(1..=MOST_CORES).contains(&cores) {
        return Err(format!("{cores} cores are not believed"));
    }
    if !(1..=MOST_MEMORY).contains(&reading.memory) {
        return Err(format!(
            "{} bytes of memory are not believed",
            reading.memory
        ));
    }
    let watts = reading.power_milliwatts.unwrap_or(0).div_ceil(1000);
    Ok(Found {
        device: Device {
            kind: DeviceKind::Gpu { cuda_cores: cores },
            model: clean(&reading.model, 64),
            memory: ByteCount(reading.memory),
            tdp_watts: if watts <= MOST_WATTS { watts } else { 0 },
            id: clean(&reading.id, 64),
            measured: None,
        },
        temperature: reading.temperature.filter(|degrees| *degrees < 200),
    })
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
pub(crate) mod tests;
