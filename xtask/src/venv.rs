//! Python environments: the tools', the tests', the demo's, the bench's.
//!
//! Each lies under [`place::venvs`] and is made again when its Python, its packages or their pins
//! change, which a stamp inside it tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::place;
use crate::preflight;
use crate::program::Program;

/// numpy and mypy are 30 MB; ten times a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// A Python environment.
#[derive(Debug, Clone)]
pub struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// The environment of this name with these packages, made where it is not there yet.
    ///
    /// *Errors*: no suitable Python, or the packages cannot be installed.
    pub fn ensure(name: &str, packages: &[&str]) -> Result<Self> {
        let python = preflight::python().context("no suitable Python")?;
        let this = Self {
            dir: place::venvs().join(name),
        };
        let pins = fs::read_to_string(pins()).context("reading xtask/requirements.txt")?;
        let stamp = format!("{}\n{}\n{pins}", python.display(), packages.join(" "));
        let file = this.dir.join("farlane-stamp");
        if fs::read_to_string(&file).is_ok_and(|old| old == stamp) && this.python().exists() {
            return Ok(this);
        }
        if this.dir.exists() {
            fs::remove_dir_all(&this.dir)
                .with_context(|| format!("emptying {}", this.dir.display()))?;
        }
        Program::new(&python)
            .args(["-m", "venv"])
            .args([&this.dir])
            .output()
            .context("making a Python environment")?;
        if !packages.is_empty() {
            this.pip(packages).context("installing Python packages")?;
        }
        fs::write(&file, stamp)?;
        Ok(this)
    }

    /// Puts a wheel in, in place of an older build of it.
    ///
    /// *Errors*: pip fails.
    pub fn install(&self, wheel: &Path) -> Result<()> {
        let wheel = wheel.to_string_lossy();
        self.pip(&["--force-reinstall", "--no-deps", &wheel])?;
        // What it depends on: nothing to do, and no network, where that is there already.
        self.pip(&[&wheel])
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.program("python")
    }
    /// A program that a package brought.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }
    /// A run of one of its programs, with the environment first in the `PATH` and nothing from
    /// the caller's Python.
    pub fn run(&self, name: &str) -> Program {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.dir.join("bin")).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(paths).unwrap_or(path.clone());
        Program::new(self.program(name))
            .env("PATH", path)
            .env("VIRTUAL_ENV", &self.dir)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .without("PYTHONPATH")
            .without("PYTHONHOME")
    }

    fn pip(&self, args: &[&str]) -> Result<()> {
        let fixed = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ];
        self.run("python")
            .limit(INSTALL_LIMIT)
            .args(fixed)
            .args(["--constraint"])
            .args([pins()])
            .args(args)
            .output()
            .map(drop)
    }
}

fn pins() -> PathBuf {
    place::root().join("xtask/requirements.txt")
}
