//! `farlane agent probe`.

use std::path::PathBuf;

use farlane_daemon::{Calibrate, Survey, SurveyError};
use serde_json::json;

use super::agent::Offer;
use super::nodes::tier;
use crate::problem::{Exit, Problem};
use crate::show::{self, Form};
use crate::{agent_process, capacity, folders};

/// Show what an agent would offer here: machine, interpreters, sandbox, accelerators, and their capacity.
///
/// Joins nothing. UCU by the data sheet (nominal) are for planning; those by calibration (measured) are what
/// tasks' run times are estimated by. An agent measures by itself while it is idle; without --calibrate its last
/// result is shown.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:  farlane agent probe\n          farlane agent probe --calibrate --json"
)]
pub struct Args {
    /// Measure now: about five seconds, at most two of processor time. The agent's own result stays as it is.
    #[arg(long)]
    calibrate: bool,
    /// The agent's state folder, whose last result and whose disk are meant.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    offer: Offer,
    #[command(flatten)]
    form: Form,
}

pub fn run(args: &Args) -> Result<(), Problem> {
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| agent_process::default_state(&folders::data(), "agent", &[]));
    let calibrate = match args.calibrate {
        true => Calibrate::Now,
        false => Calibrate::No,
    };
    let survey = Survey::take(&args.offer.config(state, None), calibrate);
    let survey = survey.map_err(|error| match &error {
        SurveyError::Busy => Problem::new(Exit::Failed, &error)
            .next("try again when it is quiet; `top` shows what runs"),
        SurveyError::Start(_) => Problem::failed(error),
    })?;
    match args.form.json {
        true => as_json(&survey),
        false => print(&survey),
    }
}

fn as_json(survey: &Survey) -> Result<(), Problem> {
    let spec = &survey.spec;
    show::json(&json!({
        "name": spec.name,
        "cpu_model": spec.cpu_model,
        "cpu_millis": spec.cpus.0,
        "clock_mhz": spec.clock_mhz,
        "memory_bytes": spec.memory.0,
        "disk_bytes": spec.disk.0,
        "os": spec.os,
        "arch": spec.arch,
        "pythons": spec.interpreters.iter().map(|i| i.full.clone()).collect::<Vec<_>>(),
        "pythons_skipped": survey.skipped.iter()
            .map(|(path, why)| json!({"path": path.display().to_string(), "why": why}))
            .collect::<Vec<_>>(),
        "tier": tier(spec.tier),
        "enforced": spec.enforced,
        "sandbox_advice": survey.advice,
        "nominal": capacity::nominal_json(spec),
        "temperatures_celsius": survey.temperatures,
        "devices_refused": survey.refused,
        "measured": capacity::measured_json(spec),
        "effort": survey.effort.map(|took| json!({"cpu_ms": took.cpu.0, "wall_ms": took.wall.0})),
    }))
}

fn print(survey: &Survey) -> Result<(), Problem> {
    let spec = &survey.spec;
    let ghz = f64::from(spec.clock_mhz) / 1000.0;
    let (name, model) = (show::name(&spec.name), show::name(&spec.cpu_model));
    show::line(&format!(
        "machine       {name}: {model} at {ghz:.2} GHz, {} {}",
        spec.os, spec.arch
    ))?;
    show::line(&format!(
        "offers        {} cores, {} of memory, {} of scratch",
        f64::from(spec.cpus.0) / 1000.0,
        spec.memory,
        spec.disk
    ))?;
    let pythons = spec.interpreters.iter().map(|i| i.full.as_str());
    let pythons = pythons.collect::<Vec<_>>().join(", ");
    show::line(&format!("interpreters  Python {pythons}"))?;
    for (path, why) in &survey.skipped {
        show::line(&format!("              not {}: {why}", path.display()))?;
    }
    let enforced = spec.enforced.join(", ");
    show::line(&format!("sandbox       {}: {enforced}", tier(spec.tier)))?;
    if let Some(advice) = &survey.advice {
        show::line(&format!("              for a stronger one: {advice}"))?;
    }
    for why in &survey.refused {
        show::line(&format!("accelerators  not {why}"))?;
    }
    show::line("\nBy the data sheet (profile nominal)")?;
    capacity::nominal_table(spec, &survey.temperatures).print("")?;
    let Some(measured) = &spec.measured else {
        return show::line(
            "\nNot measured yet: an agent does so when it is idle, `farlane agent probe --calibrate` now",
        );
    };
    let when = match survey.effort {
        Some(took) => format!(
            "now, in {} with {} of processor time",
            show::span(took.wall.0),
            show::span(took.cpu.0)
        ),
        None => show::relative(measured.at.0, show::now_ms()),
    };
    show::line(&format!("\nBy calibration (profile measured), {when}"))?;
    capacity::measured_table(measured).print("")?;
    capacity::devices_table(spec).map_or(Ok(()), |table| table.print(""))
}
