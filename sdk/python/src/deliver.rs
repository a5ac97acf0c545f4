//! Results back into Python: one hold of the interpreter's lock for each batch.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farlane::{Codec, Delivered, Outcome};
use farlane_model::{Exit, ExitKind, LostCause, TermKind};
use farlane_units::{ByteCount, UsdPicos};
use parking_lot::{Condvar, Mutex, RwLock};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};

use crate::errors::class_name;

/// Futures that wait, by the token of their call.
#[derive(Default)]
pub struct Futures {
    table: Mutex<Table>,
    idle: Condvar,
}

#[derive(Default)]
struct Table {
    next: u64,
    waiting: HashMap<u64, Py<PyAny>>,
}

impl Futures {
    /// Keeps a future; its token.
    pub fn keep(&self, future: Py<PyAny>) -> u64 {
        let mut table = self.table.lock();
        table.next += 1;
        let token = table.next;
        table.waiting.insert(token, future);
        token
    }

    /// Gives a future back whose call was not taken.
    pub fn forget(&self, token: u64) {
        let gone = self.table.lock().waiting.remove(&token);
        drop(gone);
    }

    /// Every future that waits.
    pub fn waiting(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.table
            .lock()
            .waiting
            .values()
            .map(|future| future.clone_ref(py))
            .collect()
    }

    pub fn len(&self) -> usize {
        self.table.lock().waiting.len()
    }

    /// Waits until none waits; `false` where that was not in time. Without the interpreter's lock.
    pub fn wait_idle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut table = self.table.lock();
        while !table.waiting.is_empty() {
            if self.idle.wait_until(&mut table, until).timed_out() {
                break;
            }
        }
        table.waiting.is_empty()
    }
}

/// Where and when a task ran, and what it cost.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Receipt(farlane::Receipt);

#[pymethods]
impl Receipt {
    #[getter]
    fn attempt(&self) -> u32 {
        self.0.attempt
    }
    #[getter]
    fn node(&self) -> Option<String> {
        self.0.node.map(|node| node.to_string())
    }
    #[getter]
    fn node_name(&self) -> &str {
        &self.0.node_name
    }
    #[getter]
    fn region(&self) -> &str {
        &self.0.region
    }
    /// Seconds since the epoch, cluster time.
    #[getter]
    fn started(&self) -> f64 {
        self.0.started.get() as f64 / 1e3
    }
    /// Seconds since the epoch, cluster time.
    #[getter]
    fn ended(&self) -> f64 {
        self.0.ended.get() as f64 / 1e3
    }
    #[getter]
    fn cost_usd_micros(&self) -> i64 {
        self.0.cost.get()
    }
    /// How long the last attempt ran.
    #[getter]
    fn seconds(&self) -> f64 {
        self.0.run_time().get() as f64 / 1e3
    }
    /// US dollars of all attempts.
    #[getter]
    fn cost(&self) -> f64 {
        self.0.cost.get() as f64 / 1e6
    }
    /// Bytes between the servers' region and the machine's, for the last attempt.
    #[getter]
    fn moved(&self) -> u64 {
        self.0.moved.get()
    }
    /// US dollars that these cost; they are in the cost.
    #[getter]
    fn egress(&self) -> f64 {
        dollars(self.0.egress)
    }
    /// Grams of CO2e of all attempts; none where nobody knew.
    #[getter]
    fn grams(&self) -> Option<f64> {
        self.0.emitted.map(|ng| ng.get() as f64 / 1e9)
    }
    /// What the placement was to minimise: a policy's name, or a project's own prices.
    #[getter]
    fn policy(&self) -> Option<String> {
        self.0.quote().map(|quote| quote.prices.words())
    }
    /// What the placement was expected to cost: (term, US dollars, what it is made of).
    #[getter]
    fn terms(&self) -> Vec<(&'static str, f64, String)> {
        let Some(quote) = self.0.quote() else {
            return Vec::new();
        };
        let term = |(kind, cost): &(TermKind, UsdPicos)| {
            (kind.name(), dollars(*cost), quote.detail(*kind, *cost))
        };
        quote.terms.iter().map(term).collect()
    }
    /// The next best place: (node, region, US dollars that it would have cost).
    #[getter]
    fn runner_up(&self) -> Option<(String, String, f64)> {
        let other = self.0.quote()?.runner_up?;
        Some((other.node_name, other.region, dollars(other.cost)))
    }
    /// The whole receipt.
    fn __str__(&self) -> String {
        let Self(receipt) = self;
        let mut text = format!(
            "attempt {} ran {:.3} s on {} in {}: {}",
            receipt.attempt,
            self.seconds(),
            receipt.node_name,
            receipt.region,
            receipt.cost
        );
        if receipt.moved > ByteCount::ZERO {
            let (egress, moved) = (receipt.egress, receipt.moved);
            text.push_str(&format!(" ({egress} of it for {moved} between regions)"));
        }
        match receipt.emitted {
            Some(known) => text.push_str(&format!(", {known} of CO2e")),
            None => text.push_str(", CO2e not known"),
        }
        let Some(quote) = receipt.quote() else {
            return text;
        };
        text.push_str(&format!(
            "\nplaced by policy {}, at an expected {}:",
            quote.prices.words(),
            quote.total()
        ));
        for (kind, cost) in &quote.terms {
            let (name, detail) = (kind.name(), quote.detail(*kind, *cost));
            text.push_str(&format!("\n  {name:11} {cost:>18}  {detail}"));
        }
        if let Some(other) = &quote.runner_up {
            let (name, region, cost) = (&other.node_name, &other.region, other.cost);
            text.push_str(&format!("\nelse on {name} in {region} at {cost}"));
        }
        text
    }
    fn __repr__(&self) -> String {
        let Self(receipt) = self;
        format!(
            "<Receipt attempt {} on {} in {}, {:.3} s, ${:.6}>",
            receipt.attempt,
            receipt.node_name,
            receipt.region,
            self.ended() - self.started(),
            receipt.cost.get() as f64 / 1e6,
        )
    }
}

fn dollars(picos: UsdPicos) -> f64 {
    picos.get() as f64 / 1e12
}

// What `Future._land` in farlane/_future.py tells apart.
const RETURNED_SAFE: u8 = 0;
const RETURNED_PICKLE: u8 = 1;
const RAISED_FOREIGN: u8 = 2;
const RAISED_TRUSTED: u8 = 3;
const ENV_FAILED: u8 = 4;
const ENDED: u8 = 5;
const FAILED: u8 = 6;

/// Whether the interpreter is about to end. A thread that waits for an ending interpreter's lock is
/// taken down by it, and with it the process; so results are delivered only while this can be read as
/// `false`, and [`silence`] waits for those on their way.
static ENDING: RwLock<bool> = RwLock::new(false);
/// Most results delivered in one hold, so that `silence` waits for little. Source: 3 µs each.
const SLICE: usize = 4096;
/// How long `silence` waits for a callback of the user's that does not return.
const PATIENCE: Duration = Duration::from_secs(2);

/// No result is delivered after this.
#[pyfunction]
pub fn silence(py: Python<'_>) {
    py.detach(|| {
        if let Some(mut ending) = ENDING.try_write_for(PATIENCE) {
            *ending = true;
        }
    });
}

/// Makes the sink that hands batches to `deliver`, a Python callable that takes a list of
/// `(future, kind, body, receipt)`.
pub fn sink(futures: Arc<Futures>, deliver: Py<PyAny>) -> farlane::Sink {
    Box::new(move |mut batch| {
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(SLICE));
            let slice = std::mem::replace(&mut batch, rest);
            let ending = ENDING.read();
            if *ending {
                return;
            }
            // `None` once the interpreter is ending: nobody is left to hear of it.
            let _ = Python::try_attach(|py| {
                STAYING.with(Staying::begin);
                if let Err(error) = hand_over(py, &futures, &deliver, slice) {
                    error.write_unraisable(py, None);
                }
                if futures.table.lock().waiting.is_empty() {
                    futures.idle.notify_all();
                }
            });
        }
    })
}

thread_local! {
    static STAYING: Staying = const { Staying(Cell::new(false)) };
}

/// Keeps the interpreter's record of this thread between deliveries: making it anew and taking it away
/// takes 20 us of each, in which the caller's thread has to stop, too.
struct Staying(Cell<bool>);

impl Staying {
    /// To be called while attached.
    #[allow(unsafe_code)]
    fn begin(&self) {
        if !self.0.replace(true) {
            // SAFETY: this thread is attached. The count of one more keeps its record, and not the lock, when
            // it detaches; `drop` takes it back.
            unsafe { pyo3::ffi::PyGILState_Ensure() };
        }
    }
}

impl Drop for Staying {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let ending = ENDING.read();
        if !self.0.get() || *ending {
            return;
        }
        let _ = Python::try_attach(|_| {
            // SAFETY: attached, and `begin` counted one more; it was attached then, so the lock stays.
            unsafe {
                pyo3::ffi::PyGILState_Release(pyo3::ffi::PyGILState_STATE::PyGILState_LOCKED)
            };
        });
    }
}

fn hand_over(
    py: Python<'_>,
    futures: &Futures,
    deliver: &Py<PyAny>,
    batch: Vec<Delivered>,
) -> PyResult<()> {
    let known: Vec<_> = {
        let mut table = futures.table.lock();
        batch
            .into_iter()
            .filter_map(|d| Some((table.waiting.remove(&d.token)?, d)))
            .collect()
    };
    let list = PyList::empty(py);
    for (future, delivered) in known {
        let (kind, body) = body(py, delivered.outcome)?;
        list.append((future, kind, body, Receipt(delivered.receipt)))?;
    }
    deliver.call1(py, (list,))?;
    Ok(())
}

/// What the Python half decodes, when somebody asks for the value.
fn body(py: Python<'_>, outcome: Outcome) -> PyResult<(u8, Py<PyAny>)> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).into_any().unbind();
    Ok(match outcome {
        Outcome::Returned {
            codec: Codec::Pickle,
            body,
            buffers,
        } if buffers.is_empty() => (RETURNED_PICKLE, bytes(&body)),
        Outcome::Returned {
            codec: Codec::Pickle,
            body,
            buffers,
        } => {
            let buffers = PyList::new(py, buffers.iter().map(|one| buffer(py, one)))?;
            let pair = (PyBytes::new(py, &body), buffers).into_pyobject(py)?;
            (RETURNED_PICKLE, pair.into_any().unbind())
        }
        Outcome::Returned {
            codec: Codec::Safe,
            body,
            ..
        } => (RETURNED_SAFE, bytes(&body)),
        Outcome::Raised {
            trusted: true,
            body,
        } => (RAISED_TRUSTED, bytes(&body)),
        Outcome::Raised {
            trusted: false,
            body,
        } => (RAISED_FOREIGN, bytes(&body)),
        Outcome::EnvFailed { exit, log } => {
            let pair = (exit.message, PyBytes::new(py, &log)).into_pyobject(py)?;
            (ENV_FAILED, pair.into_any().unbind())
        }
        Outcome::Ended(exit) => (ENDED, ended(py, exit)?),
        Outcome::Failed(error) => {
            let pair = (class_name(&error), error.to_string()).into_pyobject(py)?;
            (FAILED, pair.into_any().unbind())
        }
    })
}

/// An object that `pickle.loads` makes an array around: writable where the array was.
fn buffer<'py>(py: Python<'py>, buffer: &farlane::Buffer) -> Bound<'py, PyAny> {
    match buffer.read_only {
        true => PyBytes::new(py, &buffer.bytes).into_any(),
        false => PyByteArray::new(py, &buffer.bytes).into_any(),
    }
}

/// `(kind, cause, detail, message)`.
fn ended(py: Python<'_>, exit: Exit) -> PyResult<Py<PyAny>> {
    let (kind, cause, detail) = match exit.kind {
        ExitKind::Returned => ("returned", "", 0),
        ExitKind::Raised => ("raised", "", 0),
        ExitKind::TimedOut => ("timed_out", "", 0),
        ExitKind::Cancelled => ("cancelled", "", 0),
        ExitKind::EnvFailed => ("env_failed", "", 0),
        ExitKind::Refused => ("refused", "", 0),
        ExitKind::Expired => ("expired", "", 0),
        ExitKind::Infeasible => ("infeasible", "", 0),
        ExitKind::Lost(cause) => {
            let (cause, detail) = match cause {
                LostCause::Signal(n) => ("signal", n),
                LostCause::ExitCode(n) => ("exit", n),
                LostCause::OutOfMemory => ("out_of_memory", 0),
                LostCause::ScratchFull => ("scratch_full", 0),
                LostCause::LeaseExpired => ("lease_expired", 0),
                LostCause::NodeRestarted => ("node_restarted", 0),
                LostCause::NodeRemoved => ("node_removed", 0),
                LostCause::Sandbox => ("sandbox", 0),
                LostCause::GangBroken => ("gang_broken", 0),
                LostCause::Preempted => ("preempted", 0),
            };
            ("lost", cause, detail)
        }
    };
    let tuple = (kind, cause, detail, exit.message).into_pyobject(py)?;
    Ok(tuple.into_any().unbind())
}
