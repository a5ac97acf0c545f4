//! `farlane sim`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use farlane_sim::{Figures, Scenario, Simulation};

use crate::problem::{Exit, Problem, reading};
use crate::show::{self, Form, Table};

/// Most bytes of a scenario.
const MAX_FILE: u64 = 1 << 20;

/// Run the real scheduler against a made-up network, and show what it came to.
///
/// The file names regions, nodes, how often they fall silent, and each project's work: how much arrives, how long it
/// runs, what it takes, its weight and policy. The same seed gives the same history.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane sim examples/sim/three-policies.toml\n          farlane sim busy.toml --plot busy.svg --json"
)]
pub struct Args {
    /// The scenario, TOML.
    file: PathBuf,
    /// Also draw utilisation and queue over time into this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let scenario = read(&args.file)?;
    let bad = |what: String| {
        Problem::new(Exit::Usage, format!("{}: {what}", args.file.display()))
            .next("docs/guide/simulating.md lists what a scenario holds")
    };
    let mut simulation = Simulation::new(scenario).map_err(|error| bad(error.to_string()))?;
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
    let figures = simulation.figures();
    if let Some(plot) = &args.plot {
        std::fs::write(plot, figures.to_svg()).map_err(reading(plot))?;
    }
    match args.form.json {
        true => show::json(&figures),
        false => print(&figures),
    }
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

fn print(figures: &Figures) -> Result<(), Problem> {
    let seconds = |ms: u32| format!("{:.3}", f64::from(ms) / 1000.0);
    let mut table = Table::new(&[
        "PROJECT",
        "TASKS",
        "WAIT P50 S",
        "WAIT P99 S",
        "CORE-HOURS",
        "USD",
        "G CO2E",
    ]);
    for project in &figures.projects {
        table.row([
            show::name(&project.name),
            project.started.to_string(),
            seconds(project.wait_ms_p50),
            seconds(project.wait_ms_p99),
            format!("{:.2}", project.core_hours),
            format!("{:.4}", project.usd),
            format!("{:.1}", project.grams_co2e),
        ]);
    }
    table.print("no project")?;
    show::line(&format!(
        "{} tasks in {:.2} h on {} nodes: {:.1} % of the cores used, ${:.4}, {:.1} g CO2e, {} attempts lost",
        figures.ended,
        figures.makespan_hours,
        figures.scenario.nodes,
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
