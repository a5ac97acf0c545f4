//! A task's output as a Python iterator.

use std::time::Duration;

use farlane::{LogPiece, Output};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::errors::raise;
use crate::native::runtime;

/// How long a wait goes on before signals are looked at.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Yields lists of `("stdout" | "stderr", bytes)`, `("progress", fraction, text)` and
/// `("dropped", bytes)`.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct LogReader(Mutex<farlane::Logs>);

impl LogReader {
    pub fn new(logs: farlane::Logs) -> Self {
        Self(Mutex::new(logs))
    }
}

#[pymethods]
impl LogReader {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        loop {
            let step = py.detach(|| {
                let mut logs = self.0.lock();
                runtime().block_on(async { tokio::time::timeout(LOOK_UP, logs.next()).await })
            });
            match step {
                Err(_elapsed) => py.check_signals()?,
                Ok(Ok(Some(pieces))) => return as_list(py, pieces).map(Some),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(raise(py, &error)),
            }
        }
    }
}

fn as_list(py: Python<'_>, pieces: Vec<LogPiece>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for piece in pieces {
        match piece {
            LogPiece::Text { output, bytes } => {
                let name = match output {
                    Output::Stdout => "stdout",
                    Output::Stderr => "stderr",
                };
                list.append((name, PyBytes::new(py, &bytes)))?;
            }
            LogPiece::Progress { fraction, text } => list.append(("progress", fraction, text))?,
            LogPiece::Dropped { bytes } => list.append(("dropped", bytes))?,
        }
    }
    Ok(list)
}
