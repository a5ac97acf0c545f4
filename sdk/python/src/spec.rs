//! Handles on what calls share, and options as the Python half passes them.

use farlane::{Data, Template};
use farlane_model::{
    Affinity, Amount, Company, Declared, Demand, Direction, ForwardSecrecy, Gang, GangRegions,
    Glob, GpuRequest, LabelRule, NodeId, NodeRequest, PolicyName, PythonVersion, Resources, Retry,
    Scope, Strength, Tier, Timing, UnknownPolicy, VersionRange, WorkKind,
};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis, UsdMicros};
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

/// Every item of a list, read; what cannot be is told of the option.
fn each<'py, T, R, E: std::fmt::Display>(
    options: &Bound<'py, PyDict>,
    name: &str,
    read: impl Fn(T) -> Result<R, E>,
) -> PyResult<Vec<R>>
where
    Vec<T>: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    let bad = |error: E| bad_option(options.py(), format!("{name}: {error}"));
    let items: Vec<T> = get(options, name)?;
    items
        .into_iter()
        .map(|item| read(item).map_err(bad))
        .collect()
}

/// A rule as the Python half says it: key, kind and values.
fn label((key, kind, mut values): (String, String, Vec<String>)) -> Result<LabelRule, String> {
    let demand = match (kind.as_str(), values.pop()) {
        ("present", None) => Demand::Exists,
        ("absent", None) => Demand::Absent,
        ("version", Some(range)) => {
            Demand::Version(VersionRange::new(&range).map_err(|e| e.to_string())?)
        }
        ("in" | "not in", Some(last)) => {
            values.push(last);
            match kind.as_str() {
                "in" => Demand::In(values),
                _ => Demand::NotIn(values),
            }
        }
        _ => return Err(format!("{key:?} has no rule")),
    };
    Ok(LabelRule { key, demand })
}

fn company(options: &Bound<'_, PyDict>) -> PyResult<Company> {
    let scope = |text: &str| match text {
        "region" => Scope::Region,
        _ => Scope::Node,
    };
    let wishes: Vec<(String, bool, String, bool)> = get(options, "affinities")?;
    let wish = |(tag, near, far, required): (String, bool, String, bool)| Affinity {
        tag,
        direction: if near {
            Direction::Near
        } else {
            Direction::Apart
        },
        scope: scope(&far),
        strength: if required {
            Strength::Required
        } else {
            Strength::Preferred
        },
    };
    Ok(Company {
        tag: get(options, "tag")?,
        spread: get::<Option<String>>(options, "spread")?
            .as_deref()
            .map(scope),
        affinities: wishes.into_iter().map(wish).collect(),
    })
}

/// A policy; the nearest is named where there is none of that name.
fn policy(options: &Bound<'_, PyDict>, name: &str) -> PyResult<PolicyName> {
    let bad = |error: UnknownPolicy| bad_option(options.py(), error.to_string());
    name.parse().map_err(bad)
}

/// What the author says that a call computes, if anything.
fn declared(options: &Bound<'_, PyDict>) -> PyResult<Option<Declared>> {
    let (flops, bytes): (u64, u64) = (get(options, "flops")?, get(options, "bytes")?);
    let precision: String = get(options, "precision")?;
    let kind = WorkKind::from_name(&precision);
    let kind = kind.ok_or_else(|| PyValueError::new_err(format!("no precision {precision:?}")))?;
    let some = Declared { flops, kind, bytes };
    Ok((flops > 0 || bytes > 0).then_some(some))
}

fn gang(options: &Bound<'_, PyDict>) -> PyResult<Option<Gang>> {
    let size: u16 = get(options, "gang")?;
    let regions = match get::<bool>(options, "gang_anywhere")? {
        true => GangRegions::Any,
        false => GangRegions::One,
    };
    Ok((size > 0).then_some(Gang { size, regions }))
}

/// Where the data of a future lies, as its receipt says.
fn data(
    (node, node_name, region): (String, String, String),
) -> Result<Data, <NodeId as std::str::FromStr>::Err> {
    Ok(Data {
        node: node.parse()?,
        node_name,
        region,
    })
}

/// Reads the options that `farlane._options` has checked and normalised.
pub fn template(options: &Bound<'_, PyDict>) -> PyResult<Template> {
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
            gpus: MilliGpu(get(options, "milli_gpus")?),
        },
        gpu: GpuRequest {
            models: get(options, "gpu_models")?,
            memory: get::<Option<u64>>(options, "gpu_memory")?.map(ByteCount),
        },
        amounts: each(options, "resources", |(name, amount): (String, u32)| {
            Amount::new(name, amount)
        })?,
        node: NodeRequest {
            regions: each(options, "regions", |text: String| Glob::new(text))?,
            residency: each(options, "residency", |text: String| Glob::new(text))?,
            providers: each(options, "providers", |text: String| text.parse())?,
            labels: each(options, "labels", label)?,
            keep_on: each(options, "keep_on", |text: String| text.parse())?,
            python: PythonVersion { major, minor },
            tier,
            max_price: get::<Option<i64>>(options, "max_price_micros")?.map(UsdMicros),
            max_carbon: get(options, "max_carbon")?,
        },
        data: each(options, "data", data)?,
        company: company(options)?,
        gang: gang(options)?,
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
            grace: millis("grace_ms")?,
        },
        policy: match get::<Option<String>>(options, "policy")? {
            Some(name) => Some(policy(options, &name)?),
            None => None,
        },
        work: declared(options)?,
        priority: get(options, "priority")?,
        forward_secrecy: match get::<bool>(options, "forward_secret")? {
            true => ForwardSecrecy::Required,
            false => ForwardSecrecy::Preferred,
        },
        log_limit: ByteCount(get(options, "log_limit")?),
    })
}
