//! NVIDIA's management library, loaded where it is installed.
//!
//! *Source*: NVML API reference guide, release 580: "Initialization and Cleanup", "Device Queries". Only
//! functions that every release since 340 has, but for the number of cores and the margin of heat.

use std::ffi::{OsStr, c_char, c_int, c_uint, c_void};

use farlane_model::MAX_DEVICES;
use libloading::Library;

use super::gpu::{Reading, Unread, open};

/// By the name that NVIDIA's driver installs it under.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";
/// NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE.
const TEXT: usize = 96;
/// NVML_TEMPERATURE_GPU.
const ON_THE_DIE: c_uint = 0;
/// NVML_TEMPERATURE_THRESHOLD_SLOWDOWN.
const SLOWDOWN: c_uint = 1;
/// nvmlClocksThrottleReasonSwThermalSlowdown and nvmlClocksThrottleReasonHwThermalSlowdown.
const BY_HEAT: u64 = 0x20 | 0x40;
/// nvmlMarginTemperature_v1: the first version of a struct of eight bytes.
const MARGIN_V1: c_uint = 8 | 1 << 24;

type Handle = *mut c_void;
type Number = unsafe extern "C" fn(Handle, *mut c_uint) -> c_int;
type Text = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_int;

/// nvmlMemory_t.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// nvmlMarginTemperature_t.
#[repr(C)]
struct Margin {
    version: c_uint,
    degrees: c_int,
}

/// How hot one device is. What its driver does not say is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GpuHeat {
    /// Degrees.
    pub(crate) temperature: Option<u32>,
    /// At which it slows itself down; drivers of newer devices say the margin instead.
    pub(crate) slowdown: Option<u32>,
    /// Degrees left until then.
    pub(crate) margin: Option<i32>,
    /// It is slowed down for its heat now.
    pub(crate) slowed: bool,
}

impl GpuHeat {
    /// Degrees until it slows itself down; less than zero beyond it.
    pub(crate) fn left(&self) -> Option<i32> {
        let of =
            |degrees: Option<u32>| i32::try_from(degrees.filter(|d| (1..200).contains(d))?).ok();
        match (of(self.slowdown), of(self.temperature)) {
            (Some(limit), Some(now)) => Some(limit - now),
            _ => self.margin.filter(|left| (-200..200).contains(left)),
        }
    }
}

/// The library, kept open to ask for temperatures again and again.
pub(crate) struct Thermometer(Nvml);

impl Thermometer {
    /// `None` where the library is not there, or does not start.
    pub(crate) fn open() -> Option<Self> {
        let nvml = Nvml {
            library: open(LIBRARY.as_ref()).ok()?,
        };
        nvml.begin().ok()?;
        Some(Self(nvml))
    }

    /// How hot each device is now.
    pub(crate) fn read(&self) -> Vec<GpuHeat> {
        let handles = self.0.handles().unwrap_or_default();
        handles.into_iter().map(|one| self.0.heat(one)).collect()
    }
}

impl Drop for Thermometer {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What the library at `name` lists.
///
/// *Errors*: it is not there, is no such library, or does not start.
pub(super) fn read(name: &OsStr) -> Result<Vec<Reading>, Unread> {
    let nvml = Nvml {
        library: open(name)?,
    };
    nvml.begin()?;
    let readings = nvml.devices();
    nvml.end();
    readings
}

struct Nvml {
    library: Library,
}

#[allow(unsafe_code)]
impl Nvml {
    /// A function of the library; `F` is its type.
    fn function<F: Copy>(&self, name: &str) -> Result<F, Unread> {
        // SAFETY: the types below are those of the reference guide.
        let found = unsafe { self.library.get::<F>(name.as_bytes()) };
        let found = found.map_err(|_| Unread::Broken(format!("it has no {name}")))?;
        Ok(*found)
    }

    fn begin(&self) -> Result<(), Unread> {
        let begin: unsafe extern "C" fn() -> c_int = self.function("nvmlInit_v2")?;
        // SAFETY: takes nothing.
        fine(unsafe { begin() }, "nvmlInit_v2")
    }

    fn end(&self) {
        if let Ok(end) = self.function::<unsafe extern "C" fn() -> c_int>("nvmlShutdown") {
            // SAFETY: takes nothing, and follows a begin.
            let _ = unsafe { end() };
        }
    }

    fn devices(&self) -> Result<Vec<Reading>, Unread> {
        let handles = self.handles()?;
        Ok(handles.into_iter().map(|one| self.device(one)).collect())
    }

    fn handles(&self) -> Result<Vec<Handle>, Unread> {
        let count: unsafe extern "C" fn(*mut c_uint) -> c_int =
            self.function("nvmlDeviceGetCount_v2")?;
        let handle: unsafe extern "C" fn(c_uint, *mut Handle) -> c_int =
            self.function("nvmlDeviceGetHandleByIndex_v2")?;
        let mut devices = 0;
        // SAFETY: writes one number.
        fine(unsafe { count(&mut devices) }, "nvmlDeviceGetCount_v2")?;
        let mut handles = Vec::new();
        // One more than a node may offer, so that there is one to name.
        for index in 0..devices.min(MAX_DEVICES as c_uint + 1) {
            let mut device: Handle = std::ptr::null_mut();
            // SAFETY: writes one handle.
            if unsafe { handle(index, &mut device) } == 0 && !device.is_null() {
                handles.push(device);
            }
        }
        Ok(handles)
    }

    fn heat(&self, device: Handle) -> GpuHeat {
        GpuHeat {
            temperature: self.temperature("nvmlDeviceGetTemperature", ON_THE_DIE, device),
            slowdown: self.temperature("nvmlDeviceGetTemperatureThreshold", SLOWDOWN, device),
            margin: self.margin(device),
            slowed: self.reasons(device).is_some_and(|why| why & BY_HEAT != 0),
        }
    }

    fn device(&self, device: Handle) -> Reading {
        Reading {
            id: self.text("nvmlDeviceGetUUID", device),
            model: self.text("nvmlDeviceGetName", device),
            memory: self.memory(device).unwrap_or(0),
            cores: self.number("nvmlDeviceGetNumGpuCores", device),
            multiprocessors: None,
            capability: self.capability(device),
            power_milliwatts: self.number("nvmlDeviceGetEnforcedPowerLimit", device),
            temperature: self.temperature("nvmlDeviceGetTemperature", ON_THE_DIE, device),
        }
    }

    fn number(&self, name: &str, device: Handle) -> Option<u32> {
        let ask: Number = self.function(name).ok()?;
        let mut number = 0;
        // SAFETY: a handle of this library; writes one number.
        (unsafe { ask(device, &mut number) } == 0).then_some(number)
    }

    fn text(&self, name: &str, device: Handle) -> String {
        let mut text: [u8; TEXT] = [0; TEXT];
        let Ok(ask) = self.function::<Text>(name) else {
            return String::new();
        };
        // SAFETY: a handle of this library; writes at most as many bytes as it is told.
        match unsafe { ask(device, text.as_mut_ptr().cast(), TEXT as c_uint) } {
            0 => {
                let end = text.iter().position(|b| *b == 0).unwrap_or(TEXT);
                String::from_utf8_lossy(&text[..end]).into_owned()
            }
            _ => String::new(),
        }
    }

    fn memory(&self, device: Handle) -> Option<u64> {
        let ask: unsafe extern "C" fn(Handle, *mut Memory) -> c_int =
            self.function("nvmlDeviceGetMemoryInfo").ok()?;
        let mut memory = Memory::default();
        // SAFETY: a handle of this library; writes one nvmlMemory_t.
        (unsafe { ask(device, &mut memory) } == 0).then_some(memory.total)
    }

    fn capability(&self, device: Handle) -> Option<(u32, u32)> {
        let ask: unsafe extern "C" fn(Handle, *mut c_int, *mut c_int) -> c_int =
            self.function("nvmlDeviceGetCudaComputeCapability").ok()?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: a handle of this library; writes two numbers.
        if unsafe { ask(device, &mut major, &mut minor) } != 0 {
            return None;
        }
        Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
    }

    /// A temperature, or a threshold, of one kind.
    fn temperature(&self, name: &str, kind: c_uint, device: Handle) -> Option<u32> {
        let ask: unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_int =
            self.function(name).ok()?;
        let mut degrees = 0;
        // SAFETY: a handle of this library; writes one number.
        (unsafe { ask(device, kind, &mut degrees) } == 0).then_some(degrees)
    }

    fn margin(&self, device: Handle) -> Option<i32> {
        let ask: unsafe extern "C" fn(Handle, *mut Margin) -> c_int =
            self.function("nvmlDeviceGetMarginTemperature").ok()?;
        let mut margin = Margin {
            version: MARGIN_V1,
            degrees: 0,
        };
        // SAFETY: a handle of this library; writes one nvmlMarginTemperature_t of the version that it is told.
        (unsafe { ask(device, &mut margin) } == 0).then_some(margin.degrees)
    }

    /// Why its clocks are lower than asked for, as bits.
    fn reasons(&self, device: Handle) -> Option<u64> {
        let ask: unsafe extern "C" fn(Handle, *mut u64) -> c_int = self
            .function("nvmlDeviceGetCurrentClocksThrottleReasons")
            .ok()?;
        let mut reasons = 0;
        // SAFETY: a handle of this library; writes one number of 64 bits.
        (unsafe { ask(device, &mut reasons) } == 0).then_some(reasons)
    }
}

fn fine(answer: c_int, name: &str) -> Result<(), Unread> {
    match answer {
        0 => Ok(()),
        // NVML_ERROR_DRIVER_NOT_LOADED: the library is in an image, the device not in the machine.
        9 => Err(Unread::Broken("NVIDIA's driver is not loaded".into())),
        error => Err(Unread::Broken(format!("{name} answers {error}"))),
    }
}
