//! One client as Python holds it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use farlane::discover::{self, Hints, ProcessEnvironment};
use farlane::{Call, Client, ConnectOptions, Error, Phase};
use farlane_model::{PythonVersion, TaskId};
use farlane_units::ByteCount;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Runtime;

use crate::admin;
use crate::deliver::{Futures, sink};
use crate::errors::{bad_option, raise};
use crate::logs::LogReader;
use crate::spec::{Argument, Code, Environment, Spec, template};

/// How long a wait goes on before signals are looked at: a Ctrl-C feels immediate below 100 ms.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Argument formats. Source: docs/design/payload.md.
const PLAIN: u8 = 1;
const BUFFERS: u8 = 2;

/// The process's one runtime: a single thread drives the network of all clients. A fork has a
/// parent's runtime without its thread, so it makes its own; the parent's is never dropped there.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);
    let here = std::process::id();
    let mut held = RUNTIME.lock();
    if let Some((process, runtime)) = *held
        && process == here
    {
        return runtime;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("farlane-io")
        .enable_all()
        .build()
        .expect("a thread for the network can be started");
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *held = Some((here, runtime));
    runtime
}

/// Waits for a future without the interpreter's lock, looking up for signals.
pub fn wait<T, F>(py: Python<'_>, future: F) -> PyResult<T>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    let (tell, told) = std::sync::mpsc::channel();
    let task = runtime().spawn(async move {
        // Nobody waits any more after a Ctrl-C.
        let _ = tell.send(future.await);
    });
    let told = Mutex::new(told);
    loop {
        use std::sync::mpsc::RecvTimeoutError as End;
        match py.detach(|| told.lock().recv_timeout(LOOK_UP)) {
            Ok(end) => return end.map_err(|error| raise(py, &error)),
            Err(End::Timeout) => {
                if let Err(signal) = py.check_signals() {
                    task.abort();
                    return Err(signal);
                }
            }
            Err(End::Disconnected) => return Err(PyRuntimeError::new_err("the wait was cut off")),
        }
    }
}

/// A session with a network.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Native {
    pub(crate) client: Client,
    futures: Arc<Futures>,
}

#[pymethods]
impl Native {
    #[new]
    #[pyo3(signature = (deliver, identity_file, url, key, connect_timeout, window))]
    fn new(
        py: Python<'_>,
        deliver: Py<PyAny>,
        identity_file: Option<PathBuf>,
        url: Option<String>,
        key: Option<String>,
        connect_timeout: f64,
        window: u64,
    ) -> PyResult<Self> {
        let hints = Hints {
            identity_file,
            url,
            key,
        };
        let identity =
            discover::discover(&hints, &ProcessEnvironment).map_err(|e| raise(py, &e))?;
        let connect_timeout = Duration::try_from_secs_f64(connect_timeout)
            .map_err(|_| PyValueError::new_err("connect_timeout is not a number of seconds"))?;
        let version = py.version_info();
        let options = ConnectOptions {
            connect_timeout,
            window: ByteCount(window),
            software: format!(
                "farlane/{} python/{}.{}",
                env!("CARGO_PKG_VERSION"),
                version.major,
                version.minor
            ),
            ..ConnectOptions::default()
        };
        let futures = Arc::new(Futures::default());
        let sink = sink(futures.clone(), deliver);
        let client = wait(py, Client::connect(identity, options, sink))?;
        Ok(Self { client, futures })
    }

    /// The session's id.
    #[getter]
    fn session(&self) -> String {
        self.client.session().to_string()
    }

    /// The addresses of the network.
    #[getter]
    fn urls(&self) -> Vec<String> {
        self.client.network().identity().urls.clone()
    }

    /// The id of a call by its sequence number.
    fn task_id(&self, seq: u64) -> String {
        self.client.task(seq).to_string()
    }

    fn code(&self, py: Python<'_>, pickled: &[u8]) -> Code {
        Code(py.detach(|| self.client.code(pickled)))
    }

    fn environment(&self, py: Python<'_>, lock: &str, python: (u8, u8)) -> Environment {
        let python = PythonVersion {
            major: python.0,
            minor: python.1,
        };
        Environment(py.detach(|| self.client.environment(lock, python)))
    }

    fn argument(&self, py: Python<'_>, plain: &[u8]) -> PyResult<Argument> {
        while !py.detach(|| self.client.wait_upload_room(LOOK_UP)) {
            py.check_signals()?;
        }
        Ok(Argument(py.detach(|| self.client.argument(plain))))
    }

    #[pyo3(signature = (options, code, environment))]
    fn spec(
        &self,
        py: Python<'_>,
        options: &Bound<'_, PyDict>,
        code: &Code,
        environment: Option<&Environment>,
    ) -> PyResult<Spec> {
        let template = template(options)?;
        let spec = self
            .client
            .spec(template, &code.0, environment.map(|e| &e.0));
        spec.map(Spec).map_err(|e| raise(py, &e))
    }

    /// Queues a call and returns its sequence number; `future` lands when it ends. `blobs` are the
    /// out-of-band buffers of `pickled`, each with whether it is read-only.
    #[pyo3(signature = (spec, pickled, future, blobs=None, idempotency_key=None))]
    fn submit(
        &self,
        py: Python<'_>,
        spec: &Spec,
        pickled: &[u8],
        future: Py<PyAny>,
        blobs: Option<Vec<(bool, Py<Argument>)>>,
        idempotency_key: Option<String>,
    ) -> PyResult<u64> {
        let blobs = blobs.unwrap_or_default();
        let token = self.futures.keep(future);
        let call = Call {
            spec: spec.0.clone(),
            arguments: frame(pickled, &blobs),
            blobs: blobs.iter().map(|(_, blob)| blob.get().0.clone()).collect(),
            idempotency_key,
            token,
        };
        let task = self
            .push(py, call)
            .inspect_err(|_| self.futures.forget(token))?;
        Ok(task.seq())
    }

    /// Queues calls that run at once or not at all, each as `submit` takes it, and returns the first one's
    /// sequence number.
    fn gang(&self, py: Python<'_>, spec: &Spec, members: Vec<Member>) -> PyResult<u64> {
        let mut tokens = Vec::with_capacity(members.len());
        let calls = members
            .into_iter()
            .map(|(pickled, future, blobs, idempotency_key)| {
                let token = self.futures.keep(future);
                tokens.push(token);
                Call {
                    spec: spec.0.clone(),
                    arguments: frame(&pickled, &blobs),
                    blobs: blobs.iter().map(|(_, blob)| blob.get().0.clone()).collect(),
                    idempotency_key,
                    token,
                }
            });
        let calls = calls.collect();
        self.push_gang(py, calls)
            .inspect_err(|_| tokens.iter().for_each(|token| self.futures.forget(*token)))
    }

    /// Asks for calls to be cancelled.
    fn cancel(&self, py: Python<'_>, tasks: Vec<String>, reason: &str) -> PyResult<()> {
        let tasks = tasks
            .iter()
            .map(|task| task_id(py, task))
            .collect::<PyResult<_>>()?;
        self.client.cancel(tasks, reason);
        Ok(())
    }

    /// Makes any task of the project land in `future`; its function's name, where it is known.
    fn attach(&self, py: Python<'_>, task: &str, future: Py<PyAny>) -> PyResult<Option<String>> {
        let task = task_id(py, task)?;
        let token = self.futures.keep(future);
        let client = self.client.clone();
        let spec = wait(py, async move { client.attach(task, token).await })
            .inspect_err(|_| self.futures.forget(token))?;
        Ok(spec.map(|spec| spec.function))
    }

    /// `(phase, attempt, node)` of an awaited task.
    fn state(
        &self,
        py: Python<'_>,
        task: &str,
    ) -> PyResult<Option<(&'static str, u32, Option<String>)>> {
        let state = self.client.standing(task_id(py, task)?);
        Ok(state.map(|state| {
            let phase = match state.phase {
                Phase::Queued => "queued",
                Phase::Placed => "placed",
                Phase::Running => "running",
                Phase::Finished => "finished",
            };
            (
                phase,
                state.attempt,
                state.node.map(|node| node.to_string()),
            )
        }))
    }

    /// The task's output; with `follow`, until it ends.
    fn logs(&self, py: Python<'_>, task: &str, attempt: u32, follow: bool) -> PyResult<LogReader> {
        let (task, client) = (task_id(py, task)?, self.client.clone());
        let logs = wait(py, async move { client.logs(task, attempt, follow).await })?;
        Ok(LogReader::new(logs))
    }

    /// Why a task is where it is.
    fn explain<'py>(&self, py: Python<'py>, task: &str) -> PyResult<Bound<'py, PyDict>> {
        admin::explain(py, self.client.clone(), task_id(py, task)?)
    }

    /// What the network says of a task.
    fn task_view<'py>(&self, py: Python<'py>, task: &str) -> PyResult<Bound<'py, PyDict>> {
        admin::task_view(py, self.client.clone(), task_id(py, task)?)
    }

    /// The nodes: `(name, region, online, running, leased)`.
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<admin::NodeRow>> {
        admin::nodes(py, self.client.network().clone())
    }

    /// Futures that wait.
    fn waiting(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.futures.waiting(py)
    }

    /// How many futures wait.
    fn awaited(&self) -> usize {
        self.futures.len()
    }

    /// Calls queued and not yet durable.
    fn unacknowledged(&self) -> u64 {
        self.client.unacknowledged()
    }

    /// Waits until all calls are durable; `False` where that took longer than `seconds`.
    fn wait_acknowledged(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        patiently(py, seconds, |patience| {
            self.client.wait_acknowledged(patience)
        })
    }

    /// Waits until all calls are durable, as long as anything moves and then `seconds`.
    fn settle(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let patience = Duration::try_from_secs_f64(seconds)
            .map_err(|_| PyValueError::new_err("not a number of seconds"))?;
        let client = self.client.clone();
        wait(py, async move { client.settle(patience).await })
    }

    /// Waits until no future waits; `False` where that took longer than `seconds`.
    fn wait_idle(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        patiently(py, seconds, |patience| self.futures.wait_idle(patience))
    }

    /// Ends the session; what `settle` has found unacknowledged ends with its error.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.client.close());
    }
}

impl Native {
    fn push(&self, py: Python<'_>, call: Call) -> PyResult<TaskId> {
        let refused = |error: Error| raise(py, &error);
        let mut pushed = self
            .client
            .submit_within(call, Duration::ZERO)
            .map_err(refused)?;
        loop {
            let call = match pushed {
                Ok(task) => return Ok(task),
                Err(call) => *call,
            };
            // The window is full: wait for acknowledgements.
            let client = &self.client;
            pushed = py
                .detach(|| client.submit_within(call, LOOK_UP))
                .map_err(refused)?;
            if pushed.is_err() {
                py.check_signals()?;
            }
        }
    }
}

impl Native {
    fn push_gang(&self, py: Python<'_>, mut calls: Vec<Call>) -> PyResult<u64> {
        let mut patience = Duration::ZERO;
        loop {
            let client = &self.client;
            let pushed = py
                .detach(|| client.submit_gang_within(calls, patience))
                .map_err(|error| raise(py, &error))?;
            match pushed {
                Ok(tasks) => return Ok(tasks.first().map_or(0, |task| task.seq())),
                Err(back) => calls = back,
            }
            // The window is full: wait for acknowledgements.
            patience = LOOK_UP;
            py.check_signals()?;
        }
    }
}

/// One call of a gang: its pickle, its future, its buffers, its idempotency key.
type Member = (
    Vec<u8>,
    Py<PyAny>,
    Vec<(bool, Py<Argument>)>,
    Option<String>,
);

/// Waits in steps, looking up for signals between them.
fn patiently(
    py: Python<'_>,
    seconds: f64,
    step: impl Fn(Duration) -> bool + Sync,
) -> PyResult<bool> {
    let mut left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    loop {
        let patience = left.min(LOOK_UP);
        if py.detach(|| step(patience)) {
            return Ok(true);
        }
        py.check_signals()?;
        left = left.saturating_sub(patience);
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// `Payload.arguments` of docs/design/payload.md.
fn frame(pickled: &[u8], blobs: &[(bool, Py<Argument>)]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + pickled.len() + 4 + 5 * blobs.len());
    if blobs.is_empty() {
        out.put_u8(PLAIN);
    } else {
        out.put_u8(BUFFERS);
        out.put_u32_le(blobs.len() as u32);
        for (index, (readonly, _)) in blobs.iter().enumerate() {
            out.put_u8(u8::from(*readonly));
            out.put_u32_le(index as u32);
        }
    }
    out.put_slice(pickled);
    out.freeze()
}

pub fn task_id(py: Python<'_>, text: &str) -> PyResult<TaskId> {
    text.parse().map_err(|e: farlane_model::BadId| {
        let listed = "`farlane tasks` lists ids, and `future.id` is one";
        bad_option(py, format!("{e}; {listed}"))
    })
}
