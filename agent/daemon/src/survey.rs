//! A machine looked at as an agent would, without joining: `farlane agent probe`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use farlane_model::NodeSpec;
use farlane_runtime::{Clock, SystemClock};
use farlane_units::Millis;

use crate::calibrate::kept::{self, Known};
use crate::calibrate::{self, Broken};
use crate::folder::Folder;
use crate::{AgentConfig, StartError, agent};

/// What an agent with this config would say of this machine.
#[derive(Debug)]
pub struct Survey {
    /// As it would be sent; `measured` is the agent's last result where there is one, or the new one.
    pub spec: NodeSpec,
    /// Of each of `spec.devices`: degrees Celsius, where its driver says.
    pub temperatures: Vec<Option<u32>>,
    /// Accelerators that do not count, and drivers that cannot be used, with the reason.
    pub refused: Vec<String>,
    /// Interpreters that cannot serve, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// What would allow a stronger sandbox.
    pub advice: Option<String>,
    /// What measuring took; `None` where it was not asked for.
    pub effort: Option<Effort>,
}

/// What measuring took.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Of the processor.
    pub cpu: Millis,
    /// Of the clock on the wall.
    pub wall: Millis,
}

/// Why a machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// As for an agent's start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something else runs.
    #[error("this machine cannot be measured now: something else uses its processor")]
    Busy,
}

/// Whether to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calibrate {
    /// Now, for about two seconds.
    Now,
    /// Show what the agent measured last.
    No,
}

impl Survey {
    /// Looks. What it needs on the disk lies in a folder of its own beside the agent's state, and is removed; the
    /// agent's own result is read and never written.
    ///
    /// *Errors*: see [`SurveyError`].
    pub fn take(config: &AgentConfig, calibrate: Calibrate) -> Result<Self, SurveyError> {
        let beside = nearest(&config.state_dir);
        let room = tempfile::Builder::new()
            .prefix(".farlane-probe-")
            .tempdir_in(&beside)
            .or_else(|_| tempfile::tempdir())
            .map_err(StartError::io("a folder for the probe"))?;
        let folder = Folder::open(room.path())?;
        let probed = agent::probe(config, &folder)?;
        // For a sandbox's user who may not look into the room it lies elsewhere.
        if let Some(shared) = probed.shared.root.parent() {
            let _ = std::fs::remove_dir_all(shared);
        }
        let mut spec = probed.spec;
        let mut effort = None;
        let known = match calibrate {
            Calibrate::No => last(&config.state_dir, &spec),
            Calibrate::Now => {
                let program = config.program.as_deref();
                let (known, took) = measure(&spec, program, room.path())?;
                effort = Some(took);
                Some(known)
            }
        };
        if let Some(known) = known {
            known.put_on(&mut spec);
        }
        Ok(Self {
            spec,
            temperatures: probed.temperatures,
            refused: probed.refused,
            skipped: probed.found.skipped,
            advice: probed.advice,
            effort,
        })
    }
}

/// The agent's own last result, where this user may read it.
fn last(state: &Path, spec: &NodeSpec) -> Option<Known> {
    if !state.is_dir() {
        return None;
    }
    let folder = Folder::at(state)?;
    kept::read(&folder, kept::machine(spec), SystemClock.wall())
}

fn measure(
    spec: &NodeSpec,
    program: Option<&Path>,
    folder: &Path,
) -> Result<(Known, Effort), SurveyError> {
    let never = AtomicBool::new(false);
    let (began, cpu) = (SystemClock.steady(), process_cpu());
    // In a thread of its own, since it takes the lowest priority and keeps it.
    let known = std::thread::scope(|scope| {
        let run = || {
            let (cpus, memory) = (spec.cpus, spec.memory.0);
            let measured = calibrate::measure(cpus, memory, folder, SystemClock.wall(), &never)?;
            let devices = calibrate::devices(program, &spec.devices, &never)?;
            Ok(Known { measured, devices })
        };
        scope.spawn(run).join().unwrap_or(Err(Broken::Stopped))
    });
    let known = known.map_err(|_| SurveyError::Busy)?;
    let effort = Effort {
        cpu: Millis(process_cpu().0.saturating_sub(cpu.0)),
        wall: Millis(SystemClock.steady().0.saturating_sub(began.0) / 1000),
    };
    Ok((known, effort))
}

/// What this process has used of its processors.
fn process_cpu() -> Millis {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Millis::ZERO, |time| {
        Millis(time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000)
    })
}

/// The folder itself, or the nearest above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|folder| folder.is_dir());
    there.map_or_else(std::env::temp_dir, Path::to_owned)
}
