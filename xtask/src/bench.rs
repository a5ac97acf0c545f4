//! Figures, beside the bars and beside other systems: `cargo xtask bench spine`.

use std::process::ExitCode;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this door does not open yet")
}
