//! Which stages `test` and `check` have.
//!
//! Quick ones come first. Everything is compiled in one call on one set of features, so that no
//! stage builds what another has built; the Python environment is made meanwhile.

use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::count::Runner;
use crate::preflight::{self, Purpose};
use crate::program::Program;
use crate::stage::{Board, Verdict};
use crate::venv::Venv;
use crate::wheel::{self, Profile};
use crate::{floors, generate, licences, place, tidy};

/// Every stage of `test`, in order.
const STAGES: [&str; 12] = [
    "format",
    "floors",
    "licences",
    "tidy",
    "build",
    "clippy",
    "rust",
    "generated",
    "wheel",
    "mypy",
    "python",
    "e2e",
];
/// Those that need the wheel inside an environment.
const THROUGH_PYTHON: [&str; 3] = ["mypy", "python", "e2e"];
/// What the tests' environment holds beside the wheel.
const TOOLS: [&str; 5] = ["pytest", "pytest-timeout", "mypy", "numpy", "psutil"];
/// Of all Rust tests together; the slowest take a minute in a dev build.
const RUST_LIMIT: Duration = Duration::from_secs(1200);
/// Of all Python tests of one kind together.
const PYTHON_LIMIT: Duration = Duration::from_secs(1200);

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Only these stages, by their names in the table.
    #[arg(long, value_delimiter = ',', value_name = "STAGE,…")]
    only: Vec<String>,
    /// Only Python and end-to-end tests that match, as pytest's -k.
    #[arg(short, value_name = "EXPRESSION")]
    k: Option<String>,
}

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Leave clippy out, and with it the wait for a compiler.
    #[arg(long)]
    quick: bool,
}

/// Runs every stage; the last line is the sum.
///
/// *Errors*: the machine lacks something, or there is no stage of that name.
pub fn test(args: &TestArgs) -> Result<ExitCode> {
    if let Some(unknown) = args.only.iter().find(|o| !STAGES.contains(&o.as_str())) {
        bail!(
            "there is no stage {unknown}; there are {}",
            STAGES.join(", ")
        );
    }
    preflight::ensure(Purpose::Test)?;
    let only = with_needs(&args.only);
    let mut board = Board::new(place::logs("test")?, &only);
    let needs_python = THROUGH_PYTHON.iter().any(|s| board.wants(s));
    let tools = needs_python.then(|| std::thread::spawn(|| Venv::ensure("test", &TOOLS)));
    still(&mut board);
    board.program("build", Runner::Status, Profile::Dev.build());
    clippy(&mut board);
    let rust = Program::cargo().args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    board.program("rust", Runner::Cargo, rust.limit(RUST_LIMIT));
    board.step("generated", generate::check);
    python(&mut board, tools, args.k.as_deref());
    Ok(board.finish())
}

/// The stages asked for, and those whose outcome they use.
fn with_needs(only: &[String]) -> Vec<String> {
    let mut out = only.to_vec();
    let asks = |out: &[String], stages: &[&str]| out.iter().any(|o| stages.contains(&o.as_str()));
    if asks(&out, &THROUGH_PYTHON) {
        out.push("wheel".to_owned());
    }
    if asks(&out, &["wheel", "generated"]) {
        out.push("build".to_owned());
    }
    out
}

/// Runs the quick stages.
///
/// *Errors*: the machine lacks something.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    preflight::ensure(Purpose::Build)?;
    let mut board = Board::new(place::logs("check")?, &[]);
    still(&mut board);
    if !args.quick {
        clippy(&mut board);
    }
    Ok(board.finish())
}

/// The stages that compile nothing.
fn still(board: &mut Board) {
    board.program(
        "format",
        Runner::Status,
        Program::cargo().args(["fmt", "--all", "--check", "--", "-l", "--color=never"]),
    );
    board.step("floors", floors::check);
    board.step("licences", licences::check);
    board.step("tidy", tidy::check);
}

fn clippy(board: &mut Board) {
    let lints = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ];
    board.program("clippy", Runner::Status, Program::cargo().args(lints));
}

/// The wheel, and everything that is tested through it.
fn python(board: &mut Board, tools: Option<JoinHandle<Result<Venv>>>, k: Option<&str>) {
    let mut made = None;
    board.step("wheel", || {
        let wheel = wheel::pack(Profile::Dev)?;
        if let Some(tools) = tools {
            let joined = tools
                .join()
                .unwrap_or_else(|_| Err(anyhow!("its thread panicked")));
            let venv = joined.context("making the tests' Python environment")?;
            venv.install(&wheel)?;
            made = Some(venv);
        }
        Ok(Verdict::passed(wheel.display().to_string()))
    });
    let Some(venv) = made else {
        // What cannot run has not passed.
        for stage in THROUGH_PYTHON {
            board.step(stage, || bail!("not run: there is no wheel to test"));
        }
        return;
    };
    let cache = place::cache().join("mypy");
    let mypy = venv.run("mypy").folder(&place::cache());
    let config = place::root().join("sdk/python/pyproject.toml");
    let mypy = mypy
        .args(["--strict", "--package", "farlane", "--config-file"])
        .args([config]);
    let mypy = mypy.args(["--cache-dir"]).args([cache]);
    board.program("mypy", Runner::Status, mypy);
    let folders = ["sdk/python/tests", "agent/daemon/python/tests"];
    let folders = folders
        .into_iter()
        .map(|f| place::root().join(f))
        .filter(|f| f.is_dir());
    board.program("python", Runner::Pytest, pytest(&venv, k).args(folders));
    board.program(
        "e2e",
        Runner::Pytest,
        pytest(&venv, k).args([place::root().join("tests/e2e")]),
    );
}

/// A run that imports the installed wheel, never the package's sources beside its tests.
fn pytest(venv: &Venv, k: Option<&str>) -> Program {
    let fixed = [
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "--color=no",
        "-p",
        "no:cacheprovider",
    ];
    let more = ["--timeout=120", "--durations=10"];
    let run = venv.run("python").args(fixed).args(more);
    let run = match k {
        Some(k) => run.args(["-k", k]),
        None => run,
    };
    // Python looks into the folder it starts in first: one without Python.
    run.folder(&place::cache())
        .env("FARLANE_TEST_INSTALLED", "1")
        .env("FARLANE_BIN", venv.program("farlane"))
        .limit(PYTHON_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_brings_what_it_needs() {
        assert!(with_needs(&[]).is_empty(), "all of them");
        let names = |only: &str| with_needs(&[only.to_owned()]);
        assert_eq!(names("e2e"), ["e2e", "wheel", "build"]);
        assert_eq!(names("tidy"), ["tidy"]);
        assert!(THROUGH_PYTHON.iter().all(|s| STAGES.contains(s)));
    }
}
