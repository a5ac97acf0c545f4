//! `farlane reference`: every command's help as one page, for docs/guide/cli.md.

use std::fmt::Write;

use crate::problem::Problem;
use crate::show;

/// Print the reference of all commands, in Markdown.
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "Example:  farlane reference > docs/guide/cli.md"
)]
pub struct Args {}

pub fn run(_: &Args, tree: clap::Command) -> Result<(), Problem> {
    let mut page = String::from(
        "# The command line\n\n\
         Written by `cargo xtask gen` from the program's own help. Every command has `--help`; every question has\n\
         `--json`. Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 not allowed, 4 no connection, 5 not found.\n",
    );
    // Lines as wide as a page: the terminal that this runs in must not matter.
    let mut tree = tree.term_width(96);
    tree.build();
    tree.get_subcommands()
        .for_each(|command| section(command, "farlane", &mut page));
    show::text(&page)
}

fn section(command: &clap::Command, above: &str, page: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let path = format!("{above} {}", command.get_name());
    let help = command
        .clone()
        .bin_name(&path)
        .render_long_help()
        .to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "\n## {path}\n\n```text\n{}\n```\n",
        lines.join("\n").trim()
    );
    command
        .get_subcommands()
        .for_each(|sub| section(sub, &path, page));
}
