//! Figures, beside the bars and beside other systems: `cargo xtask bench spine`, `bench queue`, `bench scheduler`.
//!
//! Owns the order of measuring: rounds, in each of which every system starts afresh, one after
//! another, so that a machine that is slow for a while is slow for all. Leaves the measuring to
//! the runner (tests/bench/one.py, or that of another folder), the table to [`table`].

mod figures;
mod placement;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::place;
use crate::preflight::{self, Purpose};
use crate::program::{Program, last_lines};
use crate::venv::Venv;
use crate::wheel::{self, Profile};

/// One system, one round: Ray takes 90 s on two cores.
const ROUND_LIMIT: Duration = Duration::from_secs(300);
/// Twice a million submissions at a quarter of the rate that is promised, and the waits around them.
const QUEUE_LIMIT: Duration = Duration::from_secs(1800);

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The path of a call: no-ops, round trips, arrays, memory, recovery.
    Spine(Spine),
    /// A million queued tasks: what they cost the server, also while a snapshot of them is sent.
    Queue(Queue),
    /// The scheduler on one core: placements, one decision, large rounds, gangs, memory.
    Scheduler(Scheduler),
    /// What placing costs over the least that it could cost, for this planner and for others' rules.
    Placement,
}

#[derive(Debug, clap::Args)]
struct Scheduler {
    /// How often everything is measured; the median of each figure is shown.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

#[derive(Debug, clap::Args)]
struct Spine {
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Systems to measure beside Farlane, in order.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pool",
        value_name = "NAME,…"
    )]
    peers: Vec<String>,
    /// A folder with a runner (one.py) and modules for more systems (peer_NAME.py); each system
    /// beside `pool` runs in its own environment under --venvs.
    #[arg(long, value_name = "DIR")]
    peers_dir: Option<PathBuf>,
    /// Where the other systems' Python environments are.
    #[arg(long, env = "PEERS_VENVS", value_name = "DIR")]
    venvs: Option<PathBuf>,
    /// Only these measures: memory, throughput, submit_loop, roundtrip, echo, failure.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME,…"
    )]
    only: String,
    /// No-ops in the throughput measure.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    n: u32,
    /// Where to write every figure as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measure the wheel that was built last.
    #[arg(long)]
    no_build: bool,
    /// How to compile; figures of anything but `dist` are not those of users.
    #[arg(long, default_value = "dist", hide = true)]
    profile: Profile,
}

#[derive(Debug, clap::Args)]
struct Queue {
    /// How many.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u32,
    /// Measure the wheel that was built last.
    #[arg(long)]
    no_build: bool,
    /// How to compile; figures of anything but `dist` are not those of users.
    #[arg(long, default_value = "dist", hide = true)]
    profile: Profile,
}

/// Measures.
///
/// *Errors*: it does not build, or no figure could be had.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Spine(spine) => self::spine(spine),
        What::Queue(queue) => self::queue(queue),
        What::Scheduler(args) => scheduler(args),
        What::Placement => placement::run(),
    }
}

/// The environment with the wheel, as a user would have it.
fn environment(build: bool, profile: Profile) -> Result<Venv> {
    preflight::ensure(Purpose::Run)?;
    let venv = Venv::ensure("bench", &["numpy", "psutil"])?;
    if build {
        profile.build().shown()?;
    }
    venv.install(&wheel::pack(profile)?)?;
    Ok(venv)
}

fn spine(args: &Spine) -> Result<ExitCode> {
    let venv = environment(!args.no_build, args.profile)?;
    let logs = place::logs("bench")?;
    let mut names = vec!["pool".to_owned(), "farlane".to_owned()];
    names.extend(
        args.peers
            .iter()
            .filter(|p| *p != "pool" && *p != "farlane")
            .cloned(),
    );
    names.retain(|n| n != "pool" || args.peers.contains(n));
    let mut rounds: Vec<Value> = Vec::new();
    for number in 1..=args.rounds.max(1) {
        let mut round = json!({});
        for name in &names {
            eprintln!("round {number}: {name}");
            let log = logs.join(format!("{number}-{name}.log"));
            let result = one(args, &venv, name, &log);
            round[name] =
                result.unwrap_or_else(|e| json!({"peer": name, "error": format!("{e:#}")}));
            if let Some(out) = &args.out {
                let all: Vec<&Value> = rounds.iter().chain([&round]).collect();
                let text =
                    serde_json::to_string_pretty(&json!({"machine": machine(), "rounds": all}))?;
                fs::write(out, text).with_context(|| format!("writing {}", out.display()))?;
            }
        }
        rounds.push(round);
    }
    println!("{}", machine());
    print!("{}", table::spine(&rounds, &names));
    let broken = rounds.iter().any(|r| r["farlane"].get("error").is_some());
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One system, once, in a process of its own.
fn one(args: &Spine, venv: &Venv, name: &str, log: &Path) -> Result<Value> {
    let ours = place::root().join("tests/bench");
    // The runner is started in its own folder: a path from here would lead elsewhere there.
    let given = args.peers_dir.as_ref().map(fs::canonicalize).transpose();
    let runner = given
        .context("--peers-dir")?
        .unwrap_or_else(|| ours.clone());
    let own = name == "farlane" || name == "pool";
    let python = if own {
        venv.run("python")
    } else {
        other_python(args, name)?
    };
    let mut program = python
        // This folder's module of Farlane is found after the runner's own folder.
        .env("PYTHONPATH", &ours)
        .folder(&runner)
        .limit(ROUND_LIMIT)
        .args([runner.join("one.py").as_os_str(), name.as_ref()]);
    if !args.only.is_empty() {
        program = program.args(["--only", &args.only]);
    }
    if args.n > 0 {
        program = program.args(["--n", &args.n.to_string()]);
    }
    let (load, before) = (load(), steal());
    let ended = program.captured(log)?;
    let text = ended.text();
    let line = text.lines().rev().find(|l| l.starts_with('{'));
    let Some(line) = line else {
        let late = if ended.timed_out {
            "it ran past its limit; "
        } else {
            ""
        };
        bail!("{late}it said:\n{}", last_lines(&text, 10));
    };
    let mut result: Value = serde_json::from_str(line).context("reading its figures")?;
    let after = steal();
    result["load_before"] = json!(load);
    result["steal"] = json!((after.0 - before.0) / (after.1 - before.1).max(1.0));
    if name == "farlane" {
        let probe = venv
            .run("python")
            .args([ours.join("probe.py"), std::env::temp_dir()]);
        let said: Value = serde_json::from_str(&probe.output()?)?;
        result["fdatasync"] = said["fdatasync"].clone();
        result["import"] = said["import"].clone();
    }
    Ok(result)
}

fn other_python(args: &Spine, name: &str) -> Result<Program> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let default = Path::new(&home).join(".cache/peers");
    let venvs = std::path::absolute(args.venvs.as_ref().unwrap_or(&default))?;
    let system = name.split('_').next().unwrap_or(name);
    let python = venvs.join(system).join("bin/python");
    match (args.peers_dir.is_some(), python.exists()) {
        (false, _) => bail!("--peers-dir names the folder with peer_{system}.py"),
        (true, false) => bail!(
            "{} is not there; --venvs names its folder",
            python.display()
        ),
        (true, true) => Ok(Program::new(python).without("PYTHONHOME")),
    }
}

fn queue(args: &Queue) -> Result<ExitCode> {
    let venv = environment(!args.no_build, args.profile)?;
    let log = place::logs("bench-queue")?.join("queue.log");
    let script = place::root().join("tests/bench/queue_depth.py");
    let program = venv
        .run("python")
        .args([script])
        .args(["--tasks", &args.tasks.to_string()]);
    let text = program.limit(QUEUE_LIMIT).captured(&log)?.text();
    let Some(line) = text.lines().rev().find(|l| l.starts_with('{')) else {
        bail!("it said:\n{}", last_lines(&text, 20));
    };
    let result: Value = serde_json::from_str(line)?;
    print!("{}", table::queue(&result));
    Ok(ExitCode::SUCCESS)
}

/// Builds one of the simulator's examples.
fn example(name: &str) -> Result<PathBuf> {
    let build = Program::cargo().args(["build", "--locked", "--release"]);
    let example = format!("--example={name}");
    build.args(["--package=farlane-sim", &example]).shown()?;
    Ok(place::target().join("release/examples").join(name))
}

fn scheduler(args: &Scheduler) -> Result<ExitCode> {
    let program = example("scheduler")?;
    let log = place::logs("bench-scheduler")?.join("scheduler.log");
    let mut rounds = Vec::new();
    for round in 1..=args.rounds.max(1) {
        eprintln!("round {round}");
        let text = Program::new(&program)
            .limit(ROUND_LIMIT)
            .captured(&log)?
            .text();
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let Some(line) = line else {
            bail!("it said:\n{}", last_lines(&text, 20));
        };
        rounds.push(serde_json::from_str(line)?);
    }
    println!("{}", machine());
    print!("{}", table::scheduler(&rounds));
    Ok(ExitCode::SUCCESS)
}

/// What the figures were had on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!(
        "{cores} cores, {model}, Linux {}, {}",
        kernel.trim(),
        std::env::consts::ARCH
    )
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(0.0)
}

/// Jiffies that the hypervisor took, and all of them: how disturbed a run was. Source: proc(5).
fn steal() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let all: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|f| f.parse().ok())
        .collect();
    (all.get(7).copied().unwrap_or(0.0), all.iter().sum())
}
