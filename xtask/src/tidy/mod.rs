//! The style that is worth a test: what no compiler and no clippy says.
//!
//! Owns which files are read and which rules hold for which kind. Rules about text of any kind are
//! in [`text`], those about Rust in [`rust`].

mod rust;
mod text;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::place;
use crate::program::Program;
use crate::stage::Verdict;

/// Kinds of files that are read.
const KINDS: [&str; 10] = [
    "rs", "py", "pyi", "toml", "md", "sql", "proto", "sh", "ts", "tsx",
];
/// Made by tools or by others, and not ours to shape.
const NOT_OURS: [&str; 3] = ["Cargo.lock", "third_party/", "LICENSE-"];

/// One file of the repository.
#[derive(Debug, Clone, Copy)]
struct File<'a> {
    /// From the root, with `/`.
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn kind(&self) -> &str {
        Path::new(self.name)
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default()
    }
    fn fault(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.name)
    }
    fn fault_at(&self, index: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.name, index + 1)
    }
}

/// Prints every broken rule.
///
/// *Errors*: git does not list the files, or one cannot be read.
pub fn run() -> Result<ExitCode> {
    let verdict = check()?;
    println!("{}", verdict.said);
    Ok(if verdict.count.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same as a step.
///
/// *Errors*: git does not list the files, or one cannot be read.
pub fn check() -> Result<Verdict> {
    let listed = Program::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()?;
    let root = place::root();
    let ours =
        |name: &&str| !NOT_OURS.iter().any(|n| name.starts_with(n)) && root.join(name).is_file();
    let mut faults = Vec::new();
    let mut read = 0;
    for name in listed.lines().filter(ours) {
        faults.extend(text::name(name));
        let kind = Path::new(name)
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        if !KINDS.contains(&kind) {
            continue;
        }
        let text =
            fs::read_to_string(root.join(name)).with_context(|| format!("reading {name}"))?;
        faults.extend(all(File { name, text: &text }, &root));
        read += 1;
    }
    Ok(Verdict::faults(&faults, format!("{read} files")))
}

fn all(file: File<'_>, root: &Path) -> Vec<String> {
    let mut faults = text::form(file);
    faults.extend(text::words(file));
    match file.kind() {
        "rs" => {
            faults.extend(text::length(file));
            faults.extend(rust::all(file));
        }
        "py" | "pyi" | "ts" | "tsx" => faults.extend(text::length(file)),
        "md" => faults.extend(text::links(file, root)),
        "sql" => faults.extend(text::columns(file)),
        _ => {}
    }
    faults
}
