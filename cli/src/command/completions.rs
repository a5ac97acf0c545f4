//! `farlane completions`.

use crate::problem::Problem;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane completions bash > ~/.local/share/bash-completion/completions/farlane"
)]
pub struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args, tree: &mut clap::Command) -> Result<(), Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, tree, "farlane", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(())
}
