//! `cargo xtask`: the one door to everything that is done to this repository.
//!
//! Owns the developer's commands: what they need, in which order they run, and how their outcome
//! is told. Leaves the product to the rooms: xtask links none of them, so that it compiles in
//! seconds on a clean clone, and drives the built `farlane` binary and wheel as a user would.
//!
//! | module | owns |
//! |---|---|
//! | [`place`] | where things lie: the repository, the one target folder, the cache folder |
//! | [`program`] | running another program: captured to a log, timed, bounded, ended with its children |
//! | [`preflight`] | what a machine must have, and installing it |
//! | [`venv`] | Python environments: the tools', the tests', the demo's, the bench's |
//! | [`wheel`] | building the binary and the Python module, and packing both into one wheel |
//! | [`floors`] | which room may use which |
//! | [`licences`] | under which licences what Farlane is built from comes |
//! | [`tidy`] | the style that is worth a test |
//! | [`generate`] | checked-in files that are made from code |
//! | [`count`] | reading how many tests a runner says passed |
//! | [`stage`] | a list of timed steps, their table and their failures |
//! | [`suite`] | which stages `test` and `check` have |
//! | [`network`] | a Farlane network of real processes on this machine |
//! | [`demo`] | the network and the sweep that a newcomer sees |
//! | [`bench`] | figures, beside the bars and beside other systems |

mod bench;
mod count;
mod demo;
mod floors;
mod generate;
mod licences;
mod network;
mod place;
mod preflight;
mod program;
mod stage;
mod suite;
mod tidy;
mod venv;
mod wheel;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that is done to this repository.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a network of one server and three agents here, and run a sweep on it.
    Demo(demo::Args),
    /// Every check and every default test.
    Test(suite::TestArgs),
    /// The quick part: format, clippy, floors, tidy, generated files.
    Check(suite::CheckArgs),
    /// List what this machine lacks, and install system packages when that is allowed.
    Preflight(preflight::Args),
    /// Build the wheel that carries the Python module and the `farlane` binary.
    Wheel(wheel::Args),
    /// Measure.
    Bench(bench::Args),
    /// Rewrite the checked-in files that are made from code.
    Gen(generate::Args),
    /// Hold the source against the house's rules.
    Tidy,
    /// Hold every dependency between rooms against xtask/floors.toml.
    Floors,
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => suite::test(&args),
        Command::Check(args) => suite::check(&args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Wheel(args) => wheel::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Gen(args) => generate::run(&args),
        Command::Tidy => tidy::run(),
        Command::Floors => floors::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
