//! Checked-in files that are made from code: rewritten by `gen`, held by `test`.
//!
//! | file | made from |
//! |---|---|
//! | docs/guide/cli.md | what the built `farlane` says of its commands |
//! | docs/errors/README.md | the first line of every error's page |

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::place;
use crate::program::Program;
use crate::stage::Verdict;
use crate::wheel::Profile;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail when a file is stale.
    #[arg(long)]
    check: bool,
}

/// Rewrites them.
///
/// *Errors*: the binary does not build, or a file cannot be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    Profile::Dev.build().shown()?;
    if args.check {
        let verdict = check()?;
        println!("{}", verdict.said);
        return Ok(if verdict.count.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    for (path, text) in wanted()? {
        if let Some(folder) = path.parent() {
            place::make(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Names every file that `gen` would change; the binary must be built.
///
/// *Errors*: the binary does not run, or a page cannot be read.
pub fn check() -> Result<Verdict> {
    let wanted = wanted()?;
    let stale =
        |(path, text): &&(PathBuf, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    let faults: Vec<String> = wanted
        .iter()
        .filter(stale)
        .map(|(path, _)| format!("{} is stale; `cargo xtask gen` rewrites it", path.display()))
        .collect();
    Ok(Verdict::faults(
        &faults,
        format!("{} files up to date", wanted.len()),
    ))
}

fn wanted() -> Result<Vec<(PathBuf, String)>> {
    let docs = place::root().join("docs");
    Ok(vec![
        (docs.join("guide/cli.md"), commands()?),
        (docs.join("errors/README.md"), errors(&docs)?),
    ])
}

/// The commands' reference, which the binary itself writes.
fn commands() -> Result<String> {
    Program::new(Profile::Dev.folder().join("farlane"))
        .args(["reference"])
        .output()
}

fn errors(docs: &std::path::Path) -> Result<String> {
    let mut pages: Vec<PathBuf> = fs::read_dir(docs.join("errors"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e == "md") && !p.ends_with("README.md"))
        .collect();
    pages.sort();
    let mut out = "# Errors\n\n\
                   Every code that a server answers with, and what a person does about it.\n\n"
        .to_owned();
    for page in pages {
        let text = fs::read_to_string(&page)?;
        let code = page.file_stem().unwrap_or_default().to_string_lossy();
        let first = text
            .lines()
            .find(|l| !l.is_empty() && !l.starts_with('#'))
            .unwrap_or_default();
        out.push_str(&format!("- [`{code}`]({code}.md): {first}\n"));
    }
    Ok(out)
}
