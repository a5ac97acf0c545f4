//! What a machine must have: all that is missing at once, with the line that installs it.

use std::process::ExitCode;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this door does not open yet")
}
