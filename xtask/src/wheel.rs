//! Builds the binary and the Python module, and packs both into one wheel.
//!
//! A wheel is a zip with a list of its files, and cargo makes everything that goes in: packing it
//! here rather than with maturin lets one cargo call build both, on the same features as every
//! other build, where maturin's own call would compile half the tree again. `sdk/python/pyproject.toml`
//! stays good for maturin and names what the wheel says of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use crate::place;
use crate::preflight::{self, Purpose};
use crate::program::Program;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to compile; `dist` optimises across crates, for links of minutes.
    #[arg(long, default_value = "release")]
    profile: Profile,
    /// Pack what was built last.
    #[arg(long)]
    no_build: bool,
}

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Quick to build, slow to run; what the tests use.
    Dev,
    /// Quick to run; what the demonstration and who builds for himself use.
    Release,
    /// Optimised across crates: what is given to others, and measured.
    Dist,
}

impl Profile {
    /// Cargo's folder for it.
    pub fn folder(self) -> PathBuf {
        place::target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Dist => "dist",
        })
    }
    /// The cargo call that makes everything. Tests' features are part of a dev build, so that
    /// `cargo test --workspace` finds all of it made.
    pub fn build(self) -> Program {
        Program::cargo()
            .args(["build", "--locked"])
            .args(match self {
                Self::Dev => &["--workspace", "--all-targets"][..],
                Self::Release => &["--workspace", "--release"][..],
                // Each program that is linked costs minutes.
                Self::Dist => &["--profile=dist", "-p=farlane-cli", "-p=farlane-python"][..],
            })
    }
}

/// What of pyproject.toml goes into a wheel.
#[derive(Debug, Deserialize)]
struct Pyproject {
    project: Project,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Project {
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    requires_python: String,
    license: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// Builds and packs; the wheel's path is the only line on standard output.
///
/// *Errors*: it does not build, or cannot be packed.
pub fn run(args: &Args) -> Result<ExitCode> {
    preflight::ensure(Purpose::Build)?;
    if !args.no_build {
        args.profile.build().shown()?;
    }
    println!("{}", pack(args.profile)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Packs what the last build made into one wheel, and answers its path.
///
/// *Errors*: the binary or the module was not built, or Python cannot pack it.
pub fn pack(profile: Profile) -> Result<PathBuf> {
    let python = preflight::python().context("no suitable Python")?;
    let source = place::root().join("sdk/python");
    let text =
        fs::read_to_string(source.join("pyproject.toml")).context("sdk/python/pyproject.toml")?;
    let project = toml::from_str::<Pyproject>(&text)
        .context("sdk/python/pyproject.toml")?
        .project;
    let out = place::target().join("wheel").join(profile_name(profile));
    let scratch = out.join("parts");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("emptying {}", out.display()))?;
    }
    place::make(&scratch)?;
    let module = strip(&profile.folder().join(library()), &scratch)?;
    let binary = strip(&profile.folder().join("farlane"), &scratch)?;
    let order = serde_json::json!({
        "name": project.name,
        "version": project.version,
        "summary": project.description,
        "requires_python": project.requires_python,
        "license": project.license,
        "dependencies": project.dependencies,
        "package": source.join("farlane"),
        "module": module,
        "binary": binary,
        "licences": [place::root().join("LICENSE-APACHE"), place::root().join("LICENSE-MIT")],
        "out": out,
    });
    let said = Program::new(python)
        .args([
            place::root().join("xtask/pack_wheel.py").into_os_string(),
            order.to_string().into(),
        ])
        .limit(Duration::from_secs(120))
        .output()
        .context("packing the wheel")?;
    fs::remove_dir_all(&scratch)?;
    Ok(PathBuf::from(said.trim()))
}

fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Dev => "dev",
        Profile::Release => "release",
        Profile::Dist => "dist",
    }
}

fn library() -> &'static str {
    match cfg!(target_os = "macos") {
        true => "lib_farlane.dylib",
        false => "lib_farlane.so",
    }
}

/// A copy without debug information, which is nine tenths of a dev build. Backtraces keep the
/// names of functions; panics keep their lines.
fn strip(built: &Path, scratch: &Path) -> Result<PathBuf> {
    let copy = scratch.join(built.file_name().unwrap_or_default());
    let stripped = Program::new("strip")
        .args([
            "-S".as_ref(),
            "-o".as_ref(),
            copy.as_os_str(),
            built.as_os_str(),
        ])
        .output();
    if stripped.is_err() {
        fs::copy(built, &copy).with_context(|| format!("{} was not built", built.display()))?;
    }
    Ok(copy)
}
