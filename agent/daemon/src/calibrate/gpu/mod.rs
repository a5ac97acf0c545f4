//! What NVIDIA's accelerators sustain: products in registers, and copies within their memory.
//!
//! Owns the rates and the process that measures them. A driver can fail in ways that take its process along, and
//! keeps memory on every device that it has used: so a child measures, and ends. Leaves calls to `driver`.
//!
//! ```text
//! agent ─ spawns ─▶ farlane agent measure-gpus ─ each GPU: fp32, bf16, int8, memory ─▶ a line of JSON each ─▶ agent
//! ```

mod driver;
mod kernel;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use farlane_model::{DeviceRate, MAX_DEVICES};
use serde::{Deserialize, Serialize};

use super::Broken;
use driver::Driver;

/// By the name that NVIDIA's driver installs it under.
const LIBRARY: &str = "libcuda.so.1";
/// A child that has not ended by then is stuck. Source: a device takes about a second, its driver's start some
/// seconds on machines with eight of them.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes of its answer. Source: a line of at most 512 bytes for each device; less than a pipe holds, so that
/// the child never waits for a reader.
const MOST_BYTES: u64 = 512 * MAX_DEVICES as u64;

/// What was measured of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// As its driver names it.
    id: String,
    rate: Option<DeviceRate>,
    /// Why there is none.
    error: Option<String>,
}

/// Measures every device that CUDA's driver lists, and writes a line of JSON for each: the work of `farlane agent measure-gpus`.
///
/// *Errors*: the driver does not start, or nobody reads.
pub fn measure_gpus(out: &mut impl Write) -> Result<(), String> {
    measure_with(LIBRARY.as_ref(), out)
}

fn measure_with(library: &OsStr, out: &mut impl Write) -> Result<(), String> {
    let driver = Driver::start(library)?;
    for device in driver.devices()? {
        let rate = driver.measure(&device);
        let told = Told {
            id: device.id,
            rate: rate.as_ref().ok().copied(),
            error: rate.err(),
        };
        let line = serde_json::to_string(&told).map_err(|error| error.to_string())?;
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Has a child of this program measure the devices; those that could not be measured are named in the log.
///
/// *Errors*: it was stopped.
pub(crate) fn measure(
    program: &Path,
    stop: &AtomicBool,
) -> Result<Vec<(String, DeviceRate)>, Broken> {
    let mut command = Command::new(program);
    command.args(["agent", "measure-gpus"]);
    run(command, stop)
}

fn run(mut command: Command, stop: &AtomicBool) -> Result<Vec<(String, DeviceRate)>, Broken> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%error, "accelerators cannot be measured");
            return Ok(Vec::new());
        }
    };
    let ended = wait(&mut child, stop);
    if ended.is_none() {
        // Its end is waited for: nothing of it runs beside the work that came.
        let _ = child.kill();
        let _ = child.wait();
        if stop.load(Ordering::Relaxed) {
            return Err(Broken::Stopped);
        }
    }
    if ended != Some(true) {
        tracing::warn!("measuring the accelerators failed or did not end");
    }
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        // Whole lines of a child that failed later count.
        let _ = out.take(MOST_BYTES).read_to_string(&mut text);
    }
    Ok(believed(&text))
}

/// Whether it ended well; `None` where it has not ended.
fn wait(child: &mut Child, stop: &AtomicBool) -> Option<bool> {
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LIMIT {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) => std::thread::sleep(LOOK),
            Err(_) => return None,
        }
    }
    None
}

fn believed(text: &str) -> Vec<(String, DeviceRate)> {
    let told = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Told>(line).ok());
    let mut rates = Vec::new();
    for told in told.take(MAX_DEVICES) {
        match told.rate {
            Some(rate) if rate.is_bounded() => rates.push((told.id, rate)),
            _ => {
                let why = told
                    .error
                    .unwrap_or_else(|| "its rates are not believed".into());
                tracing::warn!(device = told.id, why, "this accelerator was not measured");
            }
        }
    }
    rates
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
