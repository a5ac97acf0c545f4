//! CUDA's driver library, loaded where it is installed.
//!
//! *Source*: CUDA driver API reference 13: "Initialization", "Device Management". Only functions that every
//! release since 9.2 has.

use std::ffi::{OsStr, c_char, c_int, c_uint};
use std::fmt::Write;

use farlane_model::MAX_DEVICES;
use libloading::Library;

use super::gpu::{Reading, Unread, open};

/// CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_MAJOR and _MINOR.
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
/// CUDA_ERROR_NO_DEVICE.
const NO_DEVICE: c_int = 100;
/// Bytes of a name, its end included. Source: as NVML's.
const TEXT: usize = 96;

/// What the library at `name` lists.
///
/// *Errors*: it is not there, is no such library, or does not start.
pub(super) fn read(name: &OsStr) -> Result<Vec<Reading>, Unread> {
    let cuda = Cuda {
        library: open(name)?,
    };
    let readings = cuda.devices();
    // Once started it has threads of its own, which must not lose the code that they run.
    std::mem::forget(cuda);
    readings
}

struct Cuda {
    library: Library,
}

#[allow(unsafe_code)]
impl Cuda {
    /// A function of the library; `F` is its type.
    fn function<F: Copy>(&self, name: &str) -> Result<F, Unread> {
        // SAFETY: the types below are those of the reference.
        let found = unsafe { self.library.get::<F>(name.as_bytes()) };
        let found = found.map_err(|_| Unread::Broken(format!("it has no {name}")))?;
        Ok(*found)
    }

    fn devices(&self) -> Result<Vec<Reading>, Unread> {
        let begin: unsafe extern "C" fn(c_uint) -> c_int = self.function("cuInit")?;
        let count: unsafe extern "C" fn(*mut c_int) -> c_int = self.function("cuDeviceGetCount")?;
        let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = self.function("cuDeviceGet")?;
        // SAFETY: takes flags, which must be 0.
        match unsafe { begin(0) } {
            0 => {}
            NO_DEVICE => return Ok(Vec::new()),
            error => return Err(Unread::Broken(format!("cuInit answers {error}"))),
        }
        let mut devices = 0;
        // SAFETY: writes one number.
        match unsafe { count(&mut devices) } {
            0 => {}
            error => return Err(Unread::Broken(format!("cuDeviceGetCount answers {error}"))),
        }
        let mut readings = Vec::new();
        // One more than a node may offer, so that there is one to name.
        for index in 0..devices.min(MAX_DEVICES as c_int + 1) {
            let mut device = 0;
            // SAFETY: writes one number.
            if unsafe { get(&mut device, index) } == 0 {
                readings.push(self.device(device));
            }
        }
        Ok(readings)
    }

    fn device(&self, device: c_int) -> Reading {
        let capability = self
            .attribute(MAJOR, device)
            .zip(self.attribute(MINOR, device));
        Reading {
            id: self.id(device).unwrap_or_default(),
            model: self.name(device).unwrap_or_default(),
            memory: self.memory(device).unwrap_or(0),
            multiprocessors: self.attribute(MULTIPROCESSORS, device),
            capability,
            ..Reading::default()
        }
    }

    fn attribute(&self, which: c_int, device: c_int) -> Option<u32> {
        let ask: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
            self.function("cuDeviceGetAttribute").ok()?;
        let mut value = 0;
        // SAFETY: writes one number.
        let answer = unsafe { ask(&mut value, which, device) };
        u32::try_from(value).ok().filter(|_| answer == 0)
    }

    fn name(&self, device: c_int) -> Option<String> {
        let ask: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
            self.function("cuDeviceGetName").ok()?;
        let mut text = [0u8; TEXT];
        // SAFETY: writes at most as many bytes as it is told.
        if unsafe { ask(text.as_mut_ptr().cast(), TEXT as c_int, device) } != 0 {
            return None;
        }
        let end = text.iter().position(|b| *b == 0).unwrap_or(TEXT);
        Some(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn memory(&self, device: c_int) -> Option<u64> {
        let ask: unsafe extern "C" fn(*mut usize, c_int) -> c_int =
            self.function("cuDeviceTotalMem_v2").ok()?;
        let mut bytes = 0;
        // SAFETY: writes one number.
        (unsafe { ask(&mut bytes, device) } == 0).then_some(bytes as u64)
    }

    fn id(&self, device: c_int) -> Option<String> {
        let ask: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int =
            self.function("cuDeviceGetUuid").ok()?;
        let mut id = [0; 16];
        // SAFETY: writes 16 bytes.
        (unsafe { ask(&mut id, device) } == 0).then(|| gpu_id(&id))
    }
}

/// A device's UUID, as NVML writes it.
pub(crate) fn gpu_id(id: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (index, byte) in id.iter().enumerate() {
        let dash = match index {
            0 | 4 | 6 | 8 | 10 => "-",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}
