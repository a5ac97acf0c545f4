//! Bounds of every figure in a line.

use farlane_model::{Glob, MAX_DEVICES, MAX_GANG, is_region};

use crate::{
    Attempt, Demand, Fault, Kind, Line, MAX_CHARGE, MAX_MS, MAX_TRIES, Node, Project, Region,
};

/// Longest name, bytes. Source: what the model takes of labels' keys, and twice what an export makes.
const MAX_NAME: usize = 64;
/// Most entries of a list of dated figures: a figure an hour, for the longest span.
const MAX_DATED: usize = 1001;
/// Most of any other list. Source: farlane-model, of labels, patterns and rules.
const MAX_LIST: usize = 64;
/// Dearest core-hour, micro-dollars. Source: farlane-ledger, `MAX_PRICE`: a million dollars.
const MAX_PRICE: i64 = 1_000_000_000_000;

/// Holds every figure of a line against its bounds, but for what depends on the lines above it.
///
/// *Errors*: the first that is out of them; what is no number always is.
pub fn check(line: &Line) -> Result<(), Fault> {
    match line {
        Line::Project(of) => project(of),
        Line::Region(of) => region(of),
        Line::Node(of) => node(of),
        Line::Kind(of) => kind(of),
        Line::Trace(_) | Line::Task(_) | Line::Gang(_) | Line::End(_) => Ok(()),
    }
}

pub(crate) fn within(fine: bool, field: &'static str, bound: &'static str) -> Result<(), Fault> {
    match fine {
        true => Ok(()),
        false => Err(Fault::OutOfBounds { field, bound }),
    }
}

/// Never true of what is no number.
fn between(x: f64, least: f64, most: f64) -> bool {
    x >= least && x <= most
}

fn name(text: &str, field: &'static str) -> Result<(), Fault> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    within(
        !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(fine),
        field,
        "letters, digits, '-', '_', '.', ':' and '/', 1 to 64",
    )
}

/// Moments rise, the first is the beginning.
fn dated<T>(list: &[(u64, T)], field: &'static str) -> Result<(), Fault> {
    let first = list.first().is_none_or(|(at, _)| *at == 0);
    let rises = list.windows(2).all(|two| two[0].0 < two[1].0);
    let ends = list.last().is_none_or(|(at, _)| *at <= MAX_MS);
    within(
        first && rises && ends && list.len() <= MAX_DATED,
        field,
        "pairs of moment and figure, the first at 0, each later than the one before, at most 1001",
    )
}

fn project(of: &Project) -> Result<(), Fault> {
    name(&of.name, "name")?;
    within(
        (1..=1_000_000).contains(&of.weight),
        "weight",
        "between 1 and 1000000",
    )
}

fn region(of: &Region) -> Result<(), Fault> {
    within(
        is_region(&of.name),
        "name",
        "a region's: small letters, digits and '-', 1 to 64",
    )?;
    dated(&of.g_kwh, "g_kwh")?;
    within(
        of.g_kwh.iter().all(|(_, grams)| *grams <= 5000),
        "g_kwh",
        "at most 5000 g/kWh",
    )
}

fn node(of: &Node) -> Result<(), Fault> {
    name(&of.name, "name")?;
    if !of.provider.is_empty() {
        name(&of.provider, "provider")?;
    }
    within(
        between(of.cores, 0.001, 1024.0),
        "cores",
        "between 0.001 and 1024",
    )?;
    let size = |mib: u64| (1..=1 << 30).contains(&mib);
    within(size(of.memory_mib), "memory_mib", "between 1 and 2^30")?;
    within(size(of.disk_mib), "disk_mib", "between 1 and 2^30")?;
    let gpu = |gpu: &crate::Gpu| {
        let len = gpu.model.len();
        (1..=256).contains(&len) && (1..=1 << 30).contains(&gpu.memory_mib)
    };
    within(
        of.gpus.len() <= MAX_DEVICES && of.gpus.iter().all(gpu),
        "gpus",
        "at most 64, each with a model and a memory_mib between 1 and 2^30",
    )?;
    within(
        of.core_ucu.is_none_or(|ucu| between(ucu, 0.001, 1e6)),
        "core_ucu",
        "between 0.001 and a million",
    )?;
    dated(&of.core_hour_usd_micros, "core_hour_usd_micros")?;
    let price = |(_, micros): &(u64, i64)| (0..=MAX_PRICE).contains(micros);
    within(
        of.core_hour_usd_micros.iter().all(price),
        "core_hour_usd_micros",
        "between 0 and a million dollars",
    )?;
    for (watts, field) in [(of.core_watts, "core_watts"), (of.gpu_watts, "gpu_watts")] {
        within(between(watts, 0.0, 1e6), field, "between 0 and a million")?;
    }
    within(
        between(of.round_trip_ms, 0.0, 10_000.0),
        "round_trip_ms",
        "between 0 and 10000",
    )?;
    within(of.backlog <= 1_000_000, "backlog", "at most a million")?;
    within(
        of.pythons.len() <= MAX_LIST
            && of
                .pythons
                .iter()
                .all(|v| crate::asked::version(v).is_some()),
        "pythons",
        "at most 64 versions like 3.11",
    )?;
    within(of.tier <= 3, "tier", "0 to 3")?;
    labels(&of.labels)?;
    let until = of.until_ms.unwrap_or(MAX_MS);
    within(
        of.from_ms < until && until <= MAX_MS,
        "until_ms",
        "later than from_ms, and at most ten thousand hours",
    )
}

fn labels(of: &[(String, String)]) -> Result<(), Fault> {
    within(of.len() <= MAX_LIST, "labels", "at most 64")?;
    for (key, value) in of {
        name(key, "a label's key")?;
        name(value, "a label's value")?;
    }
    within(
        of.windows(2).all(|two| two[0].0 < two[1].0),
        "labels",
        "sorted by key, each key once",
    )
}

/// The names and figures; what no task can ask is found when it becomes a spec.
fn kind(of: &Kind) -> Result<(), Fault> {
    name(&of.name, "name")?;
    if !of.function.is_empty() {
        name(&of.function, "function")?;
    }
    within(
        between(of.cores, 0.001, 1024.0),
        "cores",
        "between 0.001 and 1024",
    )?;
    within(of.memory_mib <= 1 << 30, "memory_mib", "at most 2^30")?;
    within(of.scratch_mib <= 1 << 30, "scratch_mib", "at most 2^30")?;
    within(
        between(of.gpus, 0.0, 64.0) && (of.gpus < 1.0 || of.gpus % 1.0 == 0.0),
        "gpus",
        "a part of one, or a whole number up to 64",
    )?;
    within(
        of.gpu_memory_mib.is_none_or(|mib| mib <= 1 << 30),
        "gpu_memory_mib",
        "at most 2^30",
    )?;
    for (globs, field) in [(&of.regions, "regions"), (&of.residency, "residency")] {
        within(
            globs.len() <= MAX_LIST && globs.iter().all(|g| Glob::new(g.as_str()).is_ok()),
            field,
            "at most 64 region patterns",
        )?;
    }
    within(of.providers.len() <= MAX_LIST, "providers", "at most 64")?;
    for provider in &of.providers {
        name(provider, "providers")?;
    }
    within(of.labels.len() <= MAX_LIST, "labels", "at most 64 rules")?;
    for rule in &of.labels {
        name(&rule.key, "a label's key")?;
        if let Demand::In(values) | Demand::NotIn(values) = &rule.is {
            for value in values {
                name(value, "a label's value")?;
            }
        }
    }
    let ceiling = of.max_core_hour_usd_micros.unwrap_or(0);
    within(
        (0..=MAX_PRICE).contains(&ceiling),
        "max_core_hour_usd_micros",
        "between 0 and a million dollars",
    )?;
    let python = of.python.as_deref();
    within(
        python.is_none_or(|v| crate::asked::version(v).is_some()),
        "python",
        "a version like 3.11",
    )?;
    within(of.tier <= 3, "tier", "0 to 3")?;
    within(
        (1..=MAX_GANG).contains(&of.gang),
        "gang",
        "between 1 and 256",
    )?;
    of.spec(farlane_model::ProjectId::from_bytes([0; 16]))
        .map(drop)
}

pub(crate) fn attempts(of: &[Attempt], submitted: u64) -> Result<(), Fault> {
    within(
        (1..=MAX_TRIES).contains(&of.len()),
        "attempts",
        "1 to 1000: a task that never ran is not in a trace",
    )?;
    for attempt in of {
        let (from, to) = (attempt.started_ms, attempt.ended_ms);
        if from < submitted || to < from {
            return Err(Fault::Backwards { from, to });
        }
        within(to <= MAX_MS, "ended_ms", "at most ten thousand hours")?;
        within(
            attempt.usd_nanos <= MAX_CHARGE,
            "usd_nanos",
            "at most a million dollars",
        )?;
        within(
            attempt.co2e_ng.is_none_or(|ng| ng <= MAX_CHARGE),
            "co2e_ng",
            "at most a tonne",
        )?;
    }
    Ok(())
}
