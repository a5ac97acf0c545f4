//! `farlane sim`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use farlane_model::{PolicyName, PolicyPrices, UnknownPolicy};
use farlane_sim::{BadReplay, Figures, RecordedFigures, Scenario, Simulation, WhatIf};
use farlane_trace::Trace;
use serde_json::json;

use crate::problem::{Exit, Problem, reading};
use crate::show::{self, Form, Table};

/// Projects that a refusal names. Chosen: a line.
const NAMED: usize = 8;
/// Most bytes of a scenario.
const MAX_FILE: u64 = 1 << 20;

/// Run the real scheduler against a made-up network, or against what a real one did, and show what it came to.
///
/// A scenario names regions, nodes, how often they fall silent, and each project's work: how much arrives, how long it
/// runs, what it takes, its weight and policy. The same seed gives the same history. A trace (`farlane trace export`) is
/// replayed: the same nodes and work at the same moments, placed by today's planner, beside what was recorded.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane sim examples/sim/three-policies.toml\n          farlane sim busy.toml --plot busy.svg --json\n          \
                        farlane sim --trace yesterday.jsonl --policy cheap"
)]
pub struct Args {
    /// The scenario, TOML.
    #[arg(required_unless_present = "trace", conflicts_with = "trace")]
    file: Option<PathBuf>,
    /// Replay this trace instead; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// With another policy than the recorded ones, in every project or in one: `cheap`, `p-12ab=cheap`.
    #[arg(long, value_name = "[PROJECT=]POLICY", requires = "trace", value_parser = policy)]
    policy: Vec<(Option<String>, PolicyPrices)>,
    /// With another weight of a project than the recorded one: `p-12ab=2000`.
    #[arg(long, value_name = "PROJECT=N", requires = "trace", value_parser = weight)]
    weight: Vec<(String, u32)>,
    /// Also draw utilisation and queue over time into this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

fn policy(text: &str) -> Result<(Option<String>, PolicyPrices), String> {
    let (project, name) = match text.rsplit_once('=') {
        Some((project, name)) => (Some(project.to_owned()), name),
        None => (None, text),
    };
    let name: PolicyName = name.parse().map_err(|why: UnknownPolicy| why.to_string())?;
    Ok((project, name.prices()))
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let read = text.rsplit_once('=');
    let read = read.and_then(|(project, weight)| Some((project.to_owned(), weight.parse().ok()?)));
    read.filter(|(_, weight)| (1..=1_000_000).contains(weight))
        .ok_or_else(|| "write PROJECT=N, like p-12ab=2000, with N from 1 to 1000000".to_owned())
}

pub fn run(args: Args) -> Result<(), Problem> {
    let (simulation, recorded) = match (&args.trace, &args.file) {
        (Some(trace), _) => {
            let what_if = WhatIf {
                policies: args.policy,
                weights: args.weight,
            };
            let (simulation, recorded) = replay(trace, &what_if)?;
            (simulation, Some(recorded))
        }
        (None, Some(file)) => (made_up(file)?, None),
        (None, None) => return Err(Problem::new(Exit::Usage, "there is nothing to simulate")),
    };
    let figures = simulate(simulation);
    if let Some(plot) = &args.plot {
        std::fs::write(plot, figures.to_svg()).map_err(reading(plot))?;
    }
    match (args.form.json, &recorded) {
        (true, None) => show::json(&figures),
        (true, Some(recorded)) => show::json(&json!({
            "recorded": recorded,
            "replayed": figures,
        })),
        (false, None) => print(&figures),
        (false, Some(recorded)) => {
            print(&figures)?;
            beside(recorded, &figures)
        }
    }
}

fn made_up(file: &Path) -> Result<Simulation, Problem> {
    Simulation::new(read(file)?).map_err(|error| {
        Problem::new(Exit::Usage, format!("{}: {error}", file.display()))
            .next("docs/guide/simulating.md lists what a scenario holds")
    })
}

/// A trace at its beginning, and what was recorded of it.
fn replay(path: &Path, what_if: &WhatIf) -> Result<(Simulation, RecordedFigures), Problem> {
    let bad = |what: String| Problem::new(Exit::Usage, format!("{}: {what}", path.display()));
    let lines: Box<dyn BufRead> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let file = std::fs::File::open(path).map_err(reading(path))?;
            Box::new(std::io::BufReader::new(file))
        }
    };
    let trace = Trace::read(lines).map_err(|error| {
        bad(error.to_string()).next("docs/guide/simulating.md lists what a trace holds")
    })?;
    let simulation = Simulation::replay(&trace, what_if).map_err(|error| {
        let names = trace.projects.iter().map(|p| p.name.as_str());
        let next = match &error {
            BadReplay::UnknownProject { .. } => {
                let some: Vec<&str> = names.take(NAMED).collect();
                format!("its projects are {}", some.join(", "))
            }
            BadReplay::Empty { .. } => {
                "take a longer time: `farlane trace export --since`".to_owned()
            }
            BadReplay::Kind { .. } => {
                "docs/guide/simulating.md lists what a trace holds".to_owned()
            }
        };
        bad(error.to_string()).next(next)
    })?;
    Ok((simulation, RecordedFigures::of(&trace)))
}

fn simulate(mut simulation: Simulation) -> Figures {
    let (_, all) = simulation.progress();
    let mut shown = u64::MAX;
    let terminal = std::io::stderr().is_terminal();
    while simulation.step() {
        let percent = simulation.progress().0 * 100 / all.max(1);
        if terminal && percent != shown {
            shown = percent;
            eprint!("\rsimulating {percent:3} %");
            let _ = std::io::stderr().flush();
        }
    }
    if terminal {
        eprintln!();
    }
    simulation.figures()
}

fn read(path: &Path) -> Result<Scenario, Problem> {
    let size = std::fs::metadata(path).map_err(reading(path))?.len();
    let bad = |what: String| Problem::new(Exit::Usage, format!("{}: {what}", path.display()));
    if size > MAX_FILE {
        return Err(bad("a scenario has at most 1 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(reading(path))?;
    toml::from_str(&text).map_err(|error| {
        bad(error.to_string()).next("docs/guide/simulating.md lists what a scenario holds")
    })
}

/// The table of projects, under the word for what it tells of them.
fn projects<'a>(what: &str, rows: impl Iterator<Item = Row<'a>>) -> Result<(), Problem> {
    let seconds = |ms: u32| format!("{:.3}", f64::from(ms) / 1000.0);
    let head = [
        what,
        "TASKS",
        "WAIT P50 S",
        "WAIT P99 S",
        "CORE-HOURS",
        "USD",
        "G CO2E",
    ];
    let mut table = Table::new(&head);
    for row in rows {
        table.row([
            show::name(row.name),
            row.tasks.to_string(),
            seconds(row.wait_ms[0]),
            seconds(row.wait_ms[1]),
            format!("{:.2}", row.core_hours),
            format!("{:.4}", row.usd),
            format!("{:.1}", row.grams_co2e),
        ]);
    }
    table.print("no project")
}

/// One project of it.
struct Row<'a> {
    name: &'a str,
    tasks: usize,
    /// p50 and p99.
    wait_ms: [u32; 2],
    core_hours: f64,
    usd: f64,
    grams_co2e: f64,
}

fn print(figures: &Figures) -> Result<(), Problem> {
    let rows = figures.projects.iter().map(|project| Row {
        name: &project.name,
        tasks: project.started,
        wait_ms: [project.wait_ms_p50, project.wait_ms_p99],
        core_hours: project.core_hours,
        usd: project.usd,
        grams_co2e: project.grams_co2e,
    });
    projects("PROJECT", rows)?;
    show::line(&format!(
        "{} tasks in {:.2} h on {} nodes: {:.1} % of the cores used, ${:.4}, {:.1} g CO2e, {} attempts lost",
        figures.ended,
        figures.makespan_hours,
        figures.nodes,
        figures.utilisation * 100.0,
        figures.usd,
        figures.grams_co2e,
        figures.lost,
    ))?;
    match figures.share_error {
        Some(error) => show::line(&format!(
            "largest error of a project's share over any ten seconds: {:.1} % ({} such)",
            error * 100.0,
            figures.share_windows
        )),
        None => Ok(()),
    }
}

/// What was recorded, against what the replay came to.
fn beside(recorded: &RecordedFigures, figures: &Figures) -> Result<(), Problem> {
    let rows = recorded.projects.iter().map(|project| Row {
        name: &project.name,
        tasks: project.tasks,
        wait_ms: [project.wait_ms_p50, project.wait_ms_p99],
        core_hours: project.core_hours,
        usd: project.usd,
        grams_co2e: project.grams_co2e,
    });
    show::line("")?;
    projects("RECORDED", rows)?;
    show::line(&format!(
        "{} tasks in {:.2} h: {:.1} % of the cores used, ${:.4}, {:.1} g CO2e, {} attempts lost",
        recorded.ended,
        recorded.makespan_hours,
        recorded.utilisation * 100.0,
        recorded.usd,
        recorded.grams_co2e,
        recorded.lost,
    ))?;
    let share = |now: f64, then: f64| match then > 0.0 {
        true => format!("{:+.1} %", (now / then - 1.0) * 100.0),
        false => "-".to_owned(),
    };
    show::line(&format!(
        "replayed against recorded: makespan {}, dollars {}, grams {}",
        share(figures.makespan_hours, recorded.makespan_hours),
        share(figures.usd, recorded.usd),
        share(figures.grams_co2e, recorded.grams_co2e),
    ))?;
    for (count, what) in [
        (recorded.left_out, "tasks ended and are not in the trace"),
        (
            recorded.unknown_co2e as u64,
            "recorded attempts emitted what nobody knew: they count as nothing",
        ),
        (
            figures.submitted.saturating_sub(figures.ended),
            "tasks found no node in the replay",
        ),
        (figures.not_taken, "tasks were refused in the replay"),
    ] {
        if count > 0 {
            show::line(&format!("{count} {what}"))?;
        }
    }
    Ok(())
}
