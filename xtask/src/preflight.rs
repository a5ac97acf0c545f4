//! What a machine must have: all that is missing at once, with the line that installs it.
//!
//! Owns the list and the installing of system packages, which happens without asking when xtask
//! runs as root on Debian or Ubuntu. Leaves Python packages to [`crate::venv`], crates to cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::program::Program;

/// Oldest Python that Farlane runs on, and the newest that the pinned packages have wheels for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=14;
/// A mirror may be slow; PostgreSQL is the largest package, 60 MB with what it needs.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only list; install nothing.
    #[arg(long)]
    dry: bool,
}

/// What the machine is about to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building.
    Build,
    /// Building, and running tasks.
    Run,
    /// Building, running tasks, and the tests that need a database.
    Test,
}

/// One thing a machine must have.
struct Need {
    name: &'static str,
    why: &'static str,
    from: Purpose,
    /// Debian's packages that bring it; none where a person installs it otherwise.
    packages: &'static [&'static str],
    /// How else to get it.
    hint: &'static str,
    found: fn() -> Option<String>,
}

const NEEDS: &[Need] = &[
    Need {
        name: "Rust 1.95",
        why: "builds everything",
        from: Purpose::Build,
        packages: &[],
        hint: "https://rustup.rs installs rustup, which reads rust-toolchain.toml",
        found: || says("rustc", &["--version"]).filter(|v| at_least(v, (1, 95))),
    },
    Need {
        name: "rustfmt and clippy",
        why: "hold the style",
        from: Purpose::Test,
        packages: &[],
        hint: "rustup component add rustfmt clippy",
        found: || says("cargo", &["fmt", "--version"]).and(says("cargo", &["clippy", "--version"])),
    },
    Need {
        name: "a C compiler",
        why: "links, and compiles the C inside some crates",
        from: Purpose::Build,
        packages: &["gcc", "libc6-dev"],
        hint: "install gcc or clang",
        found: || says("cc", &["--version"]),
    },
    Need {
        name: "git",
        why: "lists the files that the checks read",
        from: Purpose::Build,
        packages: &["git"],
        hint: "install git",
        found: || says("git", &["--version"]),
    },
    Need {
        name: "Python 3.10 to 3.14 with venv",
        why: "runs the Python package and its tests",
        from: Purpose::Build,
        packages: &["python3", "python3-venv"],
        hint: "install Python 3.10 or newer",
        found: || python().map(|p| p.display().to_string()),
    },
    Need {
        name: "bubblewrap",
        why: "the sandbox around tasks",
        from: Purpose::Run,
        packages: &["bubblewrap"],
        hint: "without it agents run their own tenant's tasks unsandboxed",
        found: bubblewrap,
    },
    Need {
        name: "openssl",
        why: "makes the certificate of the tests' tap behind TLS",
        from: Purpose::Test,
        packages: &["openssl"],
        hint: "install OpenSSL's command line program",
        found: || says("openssl", &["version"]),
    },
    Need {
        name: "PostgreSQL",
        why: "the ledger's tests start one of their own",
        from: Purpose::Test,
        packages: &["postgresql"],
        hint: "install PostgreSQL's server programs",
        found: || postgres().map(|p| p.display().to_string()),
    },
];

/// Lists, and installs unless told not to.
///
/// *Errors*: something is missing and cannot be installed here.
pub fn run(args: &Args) -> Result<ExitCode> {
    for need in NEEDS {
        let found = (need.found)();
        let mark = if found.is_some() { "✓" } else { "✗" };
        let text = found.unwrap_or_else(|| format!("missing: {}", need.why));
        println!("  {mark} {:<30} {text}", need.name);
    }
    match args.dry {
        true if missing(Purpose::Test).is_empty() => Ok(ExitCode::SUCCESS),
        true => Ok(ExitCode::FAILURE),
        false => ensure(Purpose::Test).map(|()| ExitCode::SUCCESS),
    }
}

/// Makes sure that the machine has what the purpose needs.
///
/// *Errors*: something is missing and cannot be installed here; all of it is named, with the line
/// that installs it.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let lacking = missing(purpose);
    if lacking.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = lacking.iter().flat_map(|n| n.packages).copied().collect();
    if !packages.is_empty() && is_root() && says("apt-get", &["--version"]).is_some() {
        println!("installing {}", packages.join(", "));
        install(&packages)?;
    }
    let lacking = missing(purpose);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut text = "this machine lacks:".to_owned();
    for need in &lacking {
        text.push_str(&format!("\n  {} ({})", need.name, need.why));
        if need.packages.is_empty() {
            text.push_str(&format!(": {}", need.hint));
        }
    }
    let packages: Vec<&str> = lacking.iter().flat_map(|n| n.packages).copied().collect();
    if !packages.is_empty() {
        let line = format!("sudo apt-get install -y {}", packages.join(" "));
        text.push_str(&format!("\non Debian or Ubuntu:\n  {line}\nelsewhere:"));
        for need in lacking.iter().filter(|n| !n.packages.is_empty()) {
            text.push_str(&format!("\n  {}: {}", need.name, need.hint));
        }
    }
    bail!(text)
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    let wanted = |need: &&Need| match need.from {
        Purpose::Build => true,
        Purpose::Run => purpose != Purpose::Build,
        Purpose::Test => purpose == Purpose::Test,
    };
    NEEDS
        .iter()
        .filter(wanted)
        .filter(|need| (need.found)().is_none())
        .collect()
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = || {
        Program::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .limit(INSTALL_LIMIT)
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
    };
    let wanted = || {
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages)
    };
    // A fresh image has no package lists; a stale one has lists that name files long gone.
    wanted().output().map(drop).or_else(|_| {
        apt().args(["update"]).output()?;
        wanted().output().map(drop)
    })
}

/// The newest suitable Python. Where xtask is root, one that an ordinary user can read comes
/// first: agents then run as such a user.
pub fn python() -> Option<PathBuf> {
    let names = PYTHONS.rev().map(|minor| format!("python3.{minor}"));
    let names: Vec<String> = names.chain(["python3".to_owned()]).collect();
    let found: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| in_path(name))
        .filter(|p| is_suitable(p))
        .collect();
    let open =
        |path: &&PathBuf| !is_root() || path.canonicalize().is_ok_and(|p| !p.starts_with("/root"));
    found.iter().find(open).or(found.first()).cloned()
}

fn is_suitable(python: &Path) -> bool {
    let script =
        "import sys, venv, ensurepip; print(sys.version_info[0] * 100 + sys.version_info[1])";
    let python = python.to_string_lossy();
    let version = says(&python, &["-c", script]).and_then(|v| v.parse::<u32>().ok());
    version.is_some_and(|v| v >= 300 && PYTHONS.contains(&(v - 300)))
}

/// Works, and not only exists: some kernels refuse its namespaces, which is the agent's to say.
fn bubblewrap() -> Option<String> {
    says("bwrap", &["--version"])
}

/// PostgreSQL's programs: Debian's folders, then the `PATH`.
fn postgres() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let debian = debian
        .map(|e| e.path().join("bin/initdb"))
        .filter(|p| p.exists());
    debian
        .max()
        .or_else(|| in_path("initdb").into_iter().next())
}

fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .filter(|p| p.is_file())
        .collect()
}

/// The first line that a program says, if it runs and succeeds.
fn says(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let out = command
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    out.status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

/// Whether `rustc 1.95.0 (…)` is at least this.
fn at_least(line: &str, least: (u32, u32)) -> bool {
    let version = line.split_whitespace().nth(1).unwrap_or_default();
    let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= least
}

/// Whether this process may install packages.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("rustc 1.95.0 (abc 2026-01-01)", (1, 95)));
        assert!(at_least("rustc 1.100.0-nightly", (1, 95)));
        assert!(!at_least("rustc 1.9.0", (1, 95)));
        assert!(!at_least("", (1, 95)));
    }

    #[test]
    fn every_need_says_how_it_is_met() {
        for need in NEEDS {
            assert!(
                !need.why.is_empty() && !need.hint.is_empty(),
                "{}",
                need.name
            );
        }
    }
}
