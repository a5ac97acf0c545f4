//! Checked-in files that are made from code: rewritten by `gen`, held by `test`.

use std::process::ExitCode;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this door does not open yet")
}
