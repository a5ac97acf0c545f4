//! What placing costs over the least that it could cost: `cargo xtask bench placement`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::place;
use crate::program::{Program, last_lines};

/// A hundred and twenty histories and twenty bounds: some 500 s on one core of 2025.
const LIMIT: Duration = Duration::from_secs(1800);

/// Measures.
///
/// *Errors*: it does not build, or said no figure.
pub fn run() -> Result<ExitCode> {
    let program = super::example("placement")?;
    let log = place::logs("bench-placement")?.join("placement.log");
    let text = Program::new(&program).limit(LIMIT).captured(&log)?.text();
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let cases: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    if cases.is_empty() {
        bail!("it said:\n{}", last_lines(&text, 20));
    }
    print!("{}", table(&cases));
    Ok(ExitCode::SUCCESS)
}

/// Most that a history may cost over its bound. Source: SPEC.md, "The scheduler".
const OVER_BOUND: f64 = 1.10;

/// Cost over the bound, by scenario and policy: of a schedule by one who knows all, of this network's planner, and by
/// others' rules.
fn table(cases: &[Value]) -> String {
    let choosers = [
        "farlane",
        "random",
        "round-robin",
        "least-loaded",
        "bin-pack",
        "weighted sum",
    ];
    let mut out = format!(
        "{:<16} {:<9} {:>10} {:>12}",
        "scenario", "policy", "bound $", "knows all"
    );
    choosers.iter().for_each(|name| {
        let _ = write!(out, " {name:>12}");
    });
    out.push('\n');
    let mut met = 0;
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let bound = case["bound_usd"].as_f64().unwrap_or(f64::NAN);
        let (scenario, policy) = (text("scenario"), text("policy"));
        let _ = write!(out, "{scenario:<16} {policy:<9} {bound:>10.2}");
        let percent = |over: &Value| (over.as_f64().unwrap_or(f64::NAN) - 1.0) * 100.0;
        let _ = write!(out, " {:>10.1} %", percent(&case["foreseen_over_bound"]));
        for name in choosers {
            let over = case["over_bound"][name].as_f64().unwrap_or(f64::NAN);
            let _ = write!(out, " {:>10.1} %", (over - 1.0) * 100.0);
            met += usize::from(name == "farlane" && over <= OVER_BOUND);
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{met} of {} within 10 % of the bound", cases.len());
    out
}
