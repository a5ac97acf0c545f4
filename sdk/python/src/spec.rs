//! Handles on what calls share, and options as the Python half passes them.

use farlane::Template;
use farlane_model::{
    ForwardSecrecy, Glob, NodeRequest, PythonVersion, Resources, Retry, Tier, Timing,
};
use farlane_units::{ByteCount, MilliCpu, Millis};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::bad_option;

/// A pickled function on its way to the network.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Code(pub farlane::Code);

/// A lock on its way to the network.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Environment(pub farlane::Environment);

/// A large buffer on its way to the network.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Argument(pub farlane::Argument);

/// What many calls share.
#[pyclass(frozen, module = "farlane._farlane")]
pub struct Spec(pub farlane::Spec);

/// A size like "16GiB" in bytes.
#[pyfunction]
pub fn parse_size(text: &str) -> PyResult<u64> {
    let size: ByteCount = text
        .parse()
        .map_err(|e: farlane_units::BadSize| PyValueError::new_err(e.to_string()))?;
    Ok(size.get())
}

/// One option; the Python half fills every one in.
fn get<'py, T>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    let missing = || PyValueError::new_err(format!("option {name} is missing"));
    let value = options.get_item(name)?.ok_or_else(missing)?;
    value.extract::<T>().map_err(Into::into)
}

/// Reads the options that `farlane._options` has checked and normalised.
pub fn template(options: &Bound<'_, PyDict>) -> PyResult<Template> {
    let bad = |e: farlane_model::BadGlob| bad_option(options.py(), format!("regions: {e}"));
    let regions: Vec<String> = get(options, "regions")?;
    let regions = regions
        .into_iter()
        .map(Glob::new)
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    let (major, minor): (u8, u8) = get(options, "python")?;
    let tier = match get::<u8>(options, "tier")? {
        0 => Tier::Process,
        1 => Tier::Namespaces,
        2 => Tier::UserKernel,
        _ => Tier::MicroVm,
    };
    let millis = |name: &str| -> PyResult<Option<Millis>> {
        Ok(get::<Option<u64>>(options, name)?.map(Millis))
    };
    Ok(Template {
        function: get(options, "function")?,
        resources: Resources {
            cpus: MilliCpu(get(options, "milli_cpus")?),
            memory: ByteCount(get(options, "memory")?),
            scratch: ByteCount(get(options, "scratch")?),
        },
        node: NodeRequest {
            regions,
            labels: get(options, "labels")?,
            python: PythonVersion { major, minor },
            tier,
        },
        retry: Retry {
            lost: get(options, "max_retries")?,
            raised: get(options, "retry_exceptions")?,
            at_most_once: get(options, "at_most_once")?,
        },
        timing: Timing {
            timeout: millis("timeout_ms")?,
            deadline: millis("deadline_ms")?,
            queue_timeout: millis("queue_timeout_ms")?,
            result_ttl: millis("result_ttl_ms")?,
        },
        priority: get(options, "priority")?,
        forward_secrecy: match get::<bool>(options, "forward_secret")? {
            true => ForwardSecrecy::Required,
            false => ForwardSecrecy::Preferred,
        },
        log_limit: ByteCount(get(options, "log_limit")?),
    })
}
