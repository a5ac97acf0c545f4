//! When this machine and its way to the servers are measured: while it has nothing to do, and what is known is old.
//!
//! Owns the moment, the stop, and what becomes of the result. Leaves measuring to `crate::calibrate` and `crate::way`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farlane_model::{Digest, Measured};
use farlane_runtime::{Clock, SystemClock};
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body;

use super::attempt::Beside;
use super::{Done, Engine};
use crate::calibrate::kept::{self, Known};
use crate::calibrate::{self, Broken};
use crate::clock::ClusterClock;
use crate::folder::Folder;

/// Until the next try on a machine that is busy with something else. Source: a build or a backup is over
/// within ten minutes or so; a try costs a fraction of a second.
const AGAIN_MS: u64 = 600_000;

/// Where results are kept, and how long the node must have been idle.
#[derive(Debug)]
pub(crate) struct Calibration {
    pub(crate) folder: Folder,
    pub(crate) machine: Digest,
    pub(crate) idle_ms: u64,
    /// This program, a child of which measures accelerators; without it they are not.
    pub(crate) program: Option<PathBuf>,
}

/// The state of it.
#[derive(Debug)]
pub(super) struct Calibrator {
    calibration: Calibration,
    /// When work was last seen, on the steady clock.
    worked_at: u64,
    /// Not before this, on the steady clock.
    not_before: u64,
    /// While it runs.
    stop: Option<Arc<AtomicBool>>,
    /// A probe of the way, which ends when this goes.
    probe: Option<Beside>,
}

impl Calibrator {
    pub(super) fn new(calibration: Calibration) -> Self {
        Self {
            calibration,
            worked_at: ClusterClock::steady(),
            not_before: 0,
            stop: None,
            probe: None,
        }
    }

    /// Whether this machine is measured, or answers a challenge, now.
    pub(super) fn is_running(&self) -> bool {
        self.stop.is_some()
    }

    /// A challenge is answered: it gives way like measuring.
    pub(super) fn stop_with(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// It is over.
    pub(super) fn stopped(&mut self) {
        self.stop = None;
    }

    /// Measuring gives way.
    pub(super) fn work_came(&mut self) {
        self.worked_at = ClusterClock::steady();
        self.probe = None;
        if let Some(stop) = &self.stop {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Calibrator {
    fn drop(&mut self) {
        self.work_came();
    }
}

impl Engine {
    /// Begins to measure where it is time to.
    pub(super) fn calibrate_when_idle(&mut self) {
        let now = ClusterClock::steady();
        if self.is_busy() {
            self.calibrator.worked_at = now;
        }
        let calibrator = &mut self.calibrator;
        let idle = now.saturating_sub(calibrator.worked_at) >= calibrator.calibration.idle_ms;
        let known = self.spec.measured.map(|measured| measured.at);
        let fresh = known.is_some_and(|at| kept::is_fresh(at, SystemClock.wall()));
        let waits = calibrator.stop.is_some() || now < calibrator.not_before;
        if !idle || fresh || waits || self.out.is_none() {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (folder, machine) = (
            calibrator.calibration.folder.clone(),
            calibrator.calibration.machine,
        );
        let (cpus, memory) = (self.spec.cpus, self.spec.memory.0);
        let (done, stopped) = (self.done.clone(), stop.clone());
        let way = self.way.clone();
        let program = calibrator.calibration.program.clone();
        let devices = self.spec.devices.clone();
        // A thread of its own: it takes the lowest priority, and keeps it.
        let thread = std::thread::Builder::new().name("farlane-measure".into());
        let begun = thread.spawn(move || {
            let measure = || {
                let (path, wall) = (folder.path(""), SystemClock.wall());
                let measured = calibrate::measure(cpus, memory, &path, wall, &stopped)?;
                let devices = calibrate::devices(program.as_deref(), &devices, &stopped)?;
                let measured = Measured {
                    network_mib_s: way.down().map(|rate| rate.0 >> 20),
                    ..measured
                };
                Ok(Known { measured, devices })
            };
            let known = measure();
            if let Ok(known) = &known {
                kept::keep(&folder, machine, known);
            }
            let _ = done.blocking_send(Done::Calibrated(known));
        });
        match begun {
            Ok(_) => calibrator.stop = Some(stop),
            Err(error) => {
                tracing::warn!(%error, "this machine cannot be measured now");
                calibrator.not_before = now + AGAIN_MS;
            }
        }
    }

    /// Probes how much goes through, where nothing was timed for long and the machine itself is not being measured.
    pub(super) fn probe_when_idle(&mut self) {
        let calibrator = &mut self.calibrator;
        let idle = ClusterClock::steady().saturating_sub(calibrator.worked_at);
        if idle < calibrator.calibration.idle_ms
            || calibrator.stop.is_some()
            || !self.way.is_stale()
        {
            return;
        }
        let Some(channel) = self.channel.borrow().clone() else {
            return;
        };
        let way = self.way.clone();
        calibrator.probe = Some(Beside::spawn(async move {
            if let Err(status) = way.probe(channel).await {
                tracing::debug!(%status, "how much goes through could not be probed");
            }
        }));
    }

    /// Tells the control plane what came of it.
    pub(super) fn calibrated(&mut self, result: Result<Known, Broken>) {
        self.calibrator.stop = None;
        match result {
            Ok(known) => {
                tracing::info!(
                    fp32 = %known.measured.ucu(farlane_model::WorkKind::Fp32),
                    unit = known.measured.fp32.unit.name(),
                    accelerators = known.devices.len(),
                    "this machine was measured"
                );
                known.put_on(&mut self.spec);
                let spec_bytes = self.spec.to_canonical().into();
                self.tell(Body::Update(v1::NodeUpdate { spec_bytes }));
            }
            // It is idle again some time.
            Err(Broken::Stopped) => {}
            Err(Broken::Busy) => {
                tracing::info!("this machine is not measured now: something else uses it");
                self.calibrator.not_before = ClusterClock::steady() + AGAIN_MS;
            }
        }
    }
}
