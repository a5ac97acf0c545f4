//! CUDA's driver library, as far as measuring needs it.
//!
//! *Source*: CUDA driver API reference 13: "Primary Context Management", "Module Management", "Memory Management",
//! "Execution Control", "Event Management". Only functions that every release since 9.2 has.

use std::ffi::{CString, OsStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use farlane_model::{DeviceRate, MAX_DEVICES};
use libloading::Library;

use super::kernel::{BF16, BLOCK, BLOCKS, FP32, INT8, Kernel, MOST_ROUNDS};
use crate::probe::{Unread, gpu_id, open};

/// CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_MAJOR and _MINOR.
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
/// Most multiprocessors believed. Source: a B200 has 148; seven times that.
const MOST_MULTIPROCESSORS: c_int = 1024;
/// A round of measuring takes about so long. Source: a thousand times what a launch and two events take, and a
/// hundredth of what a desktop's watchdog allows.
const ROUND_MS: f32 = 20.0;
/// Rounds, of which the best counts. Source: as with cores; together with finding how much a round is, about a
/// second a device.
const ROUNDS: u32 = 8;
/// Copied within a device's memory. Source: more than the caches of any device hold, five times a B200's.
const COPIED: usize = 512 << 20;

type Status = c_int;
/// What the driver's functions give and take by address.
type Handle = *mut c_void;
/// An address in a device's memory.
type Address = u64;

/// The functions, by their types.
#[derive(Clone, Copy)]
struct Functions {
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    uuid: unsafe extern "C" fn(*mut [u8; 16], c_int) -> Status,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
    retain: unsafe extern "C" fn(*mut Handle, c_int) -> Status,
    release: unsafe extern "C" fn(c_int) -> Status,
    current: unsafe extern "C" fn(Handle) -> Status,
    load: unsafe extern "C" fn(*mut Handle, *const c_char) -> Status,
    function: unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> Status,
    alloc: unsafe extern "C" fn(*mut Address, usize) -> Status,
    free: unsafe extern "C" fn(Address) -> Status,
    read: unsafe extern "C" fn(*mut u32, Address, usize) -> Status,
    copy: unsafe extern "C" fn(Address, Address, usize, Handle) -> Status,
    launch: unsafe extern "C" fn(
        Handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Handle,
        *mut Handle,
        *mut Handle,
    ) -> Status,
    event: unsafe extern "C" fn(*mut Handle, c_uint) -> Status,
    record: unsafe extern "C" fn(Handle, Handle) -> Status,
    wait: unsafe extern "C" fn(Handle) -> Status,
    elapsed: unsafe extern "C" fn(*mut f32, Handle, Handle) -> Status,
}

/// The library, started.
pub(super) struct Driver {
    call: Functions,
}

/// One device that it lists.
pub(super) struct Device {
    /// As NVML writes it.
    pub id: String,
    number: c_int,
    multiprocessors: u32,
    capability: (u32, u32),
}

/// Turns the driver's answer into an error that names the function.
fn done(what: &str, status: Status) -> Result<(), String> {
    match status {
        0 => Ok(()),
        error => Err(format!("{what} answers {error}")),
    }
}

/// A function of the library; `F` is its type.
#[allow(unsafe_code)]
fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: the types in `Functions` are those of the reference.
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    Ok(*found.map_err(|_| format!("CUDA's driver has no {name}"))?)
}

#[allow(unsafe_code)]
impl Driver {
    /// Loads and starts it.
    ///
    /// *Errors*: it is not there, lacks a function, or does not start.
    pub fn start(library: &OsStr) -> Result<Self, String> {
        let library = open(library).map_err(|why| match why {
            Unread::Missing => "CUDA's driver is not installed".to_owned(),
            Unread::Broken(why) => why,
        })?;
        let start: unsafe extern "C" fn(c_uint) -> Status = function(&library, "cuInit")?;
        let call = Functions {
            count: function(&library, "cuDeviceGetCount")?,
            get: function(&library, "cuDeviceGet")?,
            uuid: function(&library, "cuDeviceGetUuid")?,
            attribute: function(&library, "cuDeviceGetAttribute")?,
            retain: function(&library, "cuDevicePrimaryCtxRetain")?,
            release: function(&library, "cuDevicePrimaryCtxRelease_v2")
                .or_else(|_| function(&library, "cuDevicePrimaryCtxRelease"))?,
            current: function(&library, "cuCtxSetCurrent")?,
            load: function(&library, "cuModuleLoadData")?,
            function: function(&library, "cuModuleGetFunction")?,
            alloc: function(&library, "cuMemAlloc_v2")?,
            free: function(&library, "cuMemFree_v2")?,
            read: function(&library, "cuMemcpyDtoH_v2")?,
            copy: function(&library, "cuMemcpyDtoDAsync_v2")?,
            launch: function(&library, "cuLaunchKernel")?,
            event: function(&library, "cuEventCreate")?,
            record: function(&library, "cuEventRecord")?,
            wait: function(&library, "cuEventSynchronize")?,
            elapsed: function(&library, "cuEventElapsedTime")?,
        };
        // SAFETY: takes flags, which must be 0.
        done("cuInit", unsafe { start(0) })?;
        // Once started it has threads of its own, which must not lose the code that they run.
        std::mem::forget(library);
        Ok(Self { call })
    }

    /// Those that it lists.
    ///
    /// *Errors*: it does not say.
    pub fn devices(&self) -> Result<Vec<Device>, String> {
        let mut count = 0;
        // SAFETY: writes one number.
        done("cuDeviceGetCount", unsafe { (self.call.count)(&mut count) })?;
        (0..count.min(MAX_DEVICES as c_int))
            .map(|index| self.device(index))
            .collect()
    }

    fn device(&self, index: c_int) -> Result<Device, String> {
        let (mut number, mut id) = (0, [0; 16]);
        // SAFETY: writes one number.
        done("cuDeviceGet", unsafe {
            (self.call.get)(&mut number, index)
        })?;
        // SAFETY: writes 16 bytes.
        done("cuDeviceGetUuid", unsafe {
            (self.call.uuid)(&mut id, number)
        })?;
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: writes one number.
            let status = unsafe { (self.call.attribute)(&mut value, which, number) };
            done("cuDeviceGetAttribute", status)?;
            Ok::<_, String>(value)
        };
        let multiprocessors = attribute(MULTIPROCESSORS)?.clamp(1, MOST_MULTIPROCESSORS);
        let part = |which| Ok::<_, String>(u32::try_from(attribute(which)?).unwrap_or(0));
        Ok(Device {
            id: gpu_id(&id),
            number,
            multiprocessors: multiprocessors.unsigned_abs(),
            capability: (part(MAJOR)?, part(MINOR)?),
        })
    }

    /// What a device sustains. Where it has no units for a type of number, that is what it does with 32-bit floats.
    ///
    /// *Errors*: the driver refuses something, or the device answers wrong.
    pub fn measure(&self, device: &Device) -> Result<DeviceRate, String> {
        let mut context = null_mut();
        // SAFETY: writes one handle, which is released below.
        done("cuDevicePrimaryCtxRetain", unsafe {
            (self.call.retain)(&mut context, device.number)
        })?;
        // SAFETY: the context was just retained.
        let current = done("cuCtxSetCurrent", unsafe { (self.call.current)(context) });
        let rate = current.and_then(|()| self.rates(device));
        // SAFETY: retained above; everything in it goes with it.
        unsafe { (self.call.release)(device.number) };
        rate
    }

    fn rates(&self, device: &Device) -> Result<DeviceRate, String> {
        let clock = Clock::new(self)?;
        let fp32 = self.products(device, &FP32, &clock)?;
        let of = |kernel: &Kernel| match device.capability >= kernel.least {
            true => self.products(device, kernel, &clock),
            false => Ok(fp32),
        };
        Ok(DeviceRate {
            fp32,
            bf16: of(&BF16)?.max(fp32),
            int8: of(&INT8)?.max(fp32),
            memory_mib_s: self.copies(&clock)?,
        })
    }

    /// Millions of operations a second.
    fn products(&self, device: &Device, kernel: &Kernel, clock: &Clock) -> Result<u64, String> {
        let work = self.load(kernel)?;
        let blocks = device.multiprocessors * BLOCKS;
        let threads = (blocks * BLOCK) as usize;
        let out = self.alloc(4 * threads)?;
        let mut rounds = 256;
        let mut took = clock.time(|| self.launch(work, blocks, out, rounds, kernel.ones))?;
        while took < ROUND_MS && rounds < MOST_ROUNDS {
            // At most sixteen times as much, since what took nearly no time says little.
            let times = (ROUND_MS / took.max(0.001)).clamp(1.5, 16.0);
            rounds = ((rounds as f32 * times) as u32).min(MOST_ROUNDS);
            took = clock.time(|| self.launch(work, blocks, out, rounds, kernel.ones))?;
        }
        for _ in 0..ROUNDS {
            took = took.min(clock.time(|| self.launch(work, blocks, out, rounds, kernel.ones))?);
        }
        let mut answers = vec![0u32; threads];
        // SAFETY: as many bytes as the buffer has; the copy waits for the launches before it.
        let status = unsafe { (self.call.read)(answers.as_mut_ptr(), out, 4 * threads) };
        done("cuMemcpyDtoH", status)?;
        self.free(out);
        let right = (kernel.answer)(rounds);
        if answers.iter().any(|answer| *answer != right) {
            return Err("it multiplies wrong".into());
        }
        let operations = kernel.operations as f64 * threads as f64 * f64::from(rounds);
        Ok((operations / (f64::from(took) * 1000.0)) as u64)
    }

    /// MiB/s, read and written.
    fn copies(&self, clock: &Clock) -> Result<u64, String> {
        let from = self.alloc(COPIED)?;
        let to = self.alloc(COPIED).inspect_err(|_| self.free(from))?;
        let mut took = f32::INFINITY;
        for _ in 0..ROUNDS {
            // SAFETY: both were allocated with so many bytes.
            let copy = || {
                done("cuMemcpyDtoD", unsafe {
                    (self.call.copy)(to, from, COPIED, null_mut())
                })
            };
            took = took.min(clock.time(copy)?);
        }
        [from, to].into_iter().for_each(|memory| self.free(memory));
        let mib = (2 * (COPIED >> 20)) as f64;
        Ok((mib * 1000.0 / f64::from(took.max(0.001))) as u64)
    }

    /// The kernel, assembled for the current context's device.
    fn load(&self, kernel: &Kernel) -> Result<Handle, String> {
        let text = CString::new((kernel.text)()).map_err(|error| error.to_string())?;
        let (mut module, mut work) = (null_mut(), null_mut());
        // SAFETY: a text with its end; writes one handle.
        done("cuModuleLoadData", unsafe {
            (self.call.load)(&mut module, text.as_ptr())
        })?;
        // SAFETY: a module and a name with its end; writes one handle.
        let status = unsafe { (self.call.function)(&mut work, module, c"work".as_ptr()) };
        done("cuModuleGetFunction", status)?;
        Ok(work)
    }

    fn launch(
        &self,
        work: Handle,
        blocks: u32,
        mut out: Address,
        mut rounds: u32,
        mut ones: u32,
    ) -> Result<(), String> {
        let mut arguments: [Handle; 3] = [
            (&raw mut out).cast(),
            (&raw mut rounds).cast(),
            (&raw mut ones).cast(),
        ];
        // SAFETY: the kernel takes these three, by address, which are read before the call returns; it writes 4
        // bytes for each of its threads into `out`, which has room for them.
        let status = unsafe {
            let arguments = arguments.as_mut_ptr();
            (self.call.launch)(
                work,
                blocks,
                1,
                1,
                BLOCK,
                1,
                1,
                0,
                null_mut(),
                arguments,
                null_mut(),
            )
        };
        done("cuLaunchKernel", status)
    }

    fn alloc(&self, bytes: usize) -> Result<Address, String> {
        let mut memory = 0;
        // SAFETY: writes one address.
        done("cuMemAlloc", unsafe {
            (self.call.alloc)(&mut memory, bytes)
        })?;
        Ok(memory)
    }

    fn free(&self, memory: Address) {
        // SAFETY: allocated by this, and freed once. What is not freed goes with the context.
        unsafe { (self.call.free)(memory) };
    }
}

/// Two events between which the device's own clock counts.
struct Clock<'a> {
    driver: &'a Driver,
    begin: Handle,
    end: Handle,
}

#[allow(unsafe_code)]
impl<'a> Clock<'a> {
    fn new(driver: &'a Driver) -> Result<Self, String> {
        let event = || {
            let mut event = null_mut();
            // SAFETY: writes one handle; flags of 0 mean that it counts.
            done("cuEventCreate", unsafe {
                (driver.call.event)(&mut event, 0)
            })?;
            Ok::<_, String>(event)
        };
        Ok(Self {
            driver,
            begin: event()?,
            end: event()?,
        })
    }

    /// Milliseconds on the device, to about half a microsecond.
    fn time(&self, work: impl FnOnce() -> Result<(), String>) -> Result<f32, String> {
        let call = &self.driver.call;
        // SAFETY: events of this context, in its own stream.
        done("cuEventRecord", unsafe {
            (call.record)(self.begin, null_mut())
        })?;
        work()?;
        // SAFETY: as above.
        done("cuEventRecord", unsafe {
            (call.record)(self.end, null_mut())
        })?;
        // SAFETY: as above.
        done("cuEventSynchronize", unsafe { (call.wait)(self.end) })?;
        let mut took = 0.0;
        // SAFETY: writes one number, of two events that were recorded.
        let status = unsafe { (call.elapsed)(&mut took, self.begin, self.end) };
        done("cuEventElapsedTime", status)?;
        match took.is_finite() && took >= 0.0 {
            true => Ok(took),
            false => Err(format!("the device's clock says {took} ms")),
        }
    }
}
