//! The network and the sweep that a newcomer sees: `cargo xtask demo [--keep]`.

use std::process::ExitCode;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this door does not open yet")
}
