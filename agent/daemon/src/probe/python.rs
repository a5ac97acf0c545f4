//! Which interpreters a task can run on.
//!
//! Each candidate is run once, as the user that workers will run as, and says who it is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farlane_model::{Interpreter, PythonVersion};

use crate::user::User;

/// Oldest version that the worker's code runs on.
const OLDEST: PythonVersion = PythonVersion {
    major: 3,
    minor: 10,
};
/// Longest an interpreter may take to say its version. Source: a cold start from a slow disk takes
/// about 1 s (measured on a Raspberry Pi 3 class machine).
const PATIENCE: Duration = Duration::from_secs(10);
/// Most candidates tried.
const MOST: usize = 64;

const QUESTION: &str = "import sys, importlib.util as u; v = sys.version_info; \
kind = sys.implementation.name if u.find_spec('_ctypes') else 'without-ctypes'; \
print(v[0], v[1], sys.version.split()[0], kind); \
print(getattr(sys, '_base_executable', None) or sys.executable); print(sys.base_prefix); print(sys.base_exec_prefix)";

/// An interpreter that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    pub(crate) interpreter: Interpreter,
    /// Folders that must be visible for it to run.
    pub(crate) prefixes: Vec<PathBuf>,
}

/// What the search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// One a minor version, newest first.
    pub(crate) pythons: Vec<Python>,
    /// Candidates that cannot serve, and why.
    pub(crate) skipped: Vec<(PathBuf, String)>,
}

impl Found {
    /// Why those that were found cannot serve, in one line.
    pub(crate) fn reasons(&self) -> String {
        let all: Vec<_> = self
            .skipped
            .iter()
            .map(|(p, why)| format!("{}: {why}", p.display()))
            .collect();
        if all.is_empty() {
            "none was found at all".into()
        } else {
            all.join("; ")
        }
    }
}

/// Looks for interpreters and asks each, `user`'s eyes permitting.
pub(crate) fn find(extra: &[PathBuf], user: Option<User>) -> Found {
    let mut found = Found::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut best: BTreeMap<PythonVersion, Python> = BTreeMap::new();
    for candidate in candidates(extra) {
        let real = candidate
            .canonicalize()
            .unwrap_or_else(|_| candidate.clone());
        if !seen.insert(real) || seen.len() > MOST {
            continue;
        }
        match ask(&candidate, user) {
            Ok(python) => {
                // Those named first win: told explicitly, then the system's, then others.
                best.entry(python.interpreter.version).or_insert(python);
            }
            Err(why) => found.skipped.push((candidate, why)),
        }
    }
    found.pythons = best.into_values().rev().collect();
    found
}

fn candidates(extra: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = extra.to_vec();
    let mut dirs = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")];
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path).filter(|p| !p.ends_with("shims")));
    }
    for dir in dirs {
        all.extend(listed(&dir, is_python_name));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut trees = vec![
        PathBuf::from("/opt/python"),
        PathBuf::from("/var/lib/farlane/python"),
    ];
    trees.extend(std::env::var_os("PYENV_ROOT").map(|root| PathBuf::from(root).join("versions")));
    if let Some(home) = home {
        trees.push(home.join(".pyenv/versions"));
        trees.push(home.join(".local/share/uv/python"));
    }
    for tree in trees {
        for version in listed(&tree, |_| true) {
            all.push(version.join("bin/python3"));
        }
    }
    all.retain(|path| path.exists());
    all
}

fn listed(dir: &Path, wanted: impl Fn(&OsStr) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else {
        return Vec::new();
    };
    let mut all: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| wanted(&entry.file_name()))
        .map(|entry| entry.path())
        .take(1024)
        .collect();
    all.sort();
    all
}

fn is_python_name(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|n| n.strip_prefix("python3")) else {
        return false;
    };
    rest.is_empty()
        || rest
            .strip_prefix('.')
            .is_some_and(|r| r.bytes().all(|c| c.is_ascii_digit()))
}

fn ask(path: &Path, user: Option<User>) -> Result<Python, String> {
    let mut command = Command::new(path);
    command
        .args(["-I", "-S", "-c", QUESTION])
        .env_clear()
        .current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let answer = run_briefly(command)?;
    let mut lines = answer.lines();
    let words: Vec<&str> = lines.next().unwrap_or("").split(' ').collect();
    let [major, minor, full, "cpython"] = words[..] else {
        return Err("not CPython with ctypes".into());
    };
    let version = PythonVersion {
        major: major.parse().map_err(|_| "no version")?,
        minor: minor.parse().map_err(|_| "no version")?,
    };
    if version < OLDEST {
        return Err(format!("Python {version} is older than {OLDEST}"));
    }
    let executable = PathBuf::from(lines.next().unwrap_or(""));
    // A virtual environment's interpreter is a link to its base, which is what a sandbox shows.
    let executable = executable.canonicalize().unwrap_or(executable);
    let named: Vec<PathBuf> = lines.map(PathBuf::from).collect();
    let real = named.iter().filter_map(|prefix| prefix.canonicalize().ok());
    let mut prefixes: Vec<PathBuf> = named.iter().cloned().chain(real).collect();
    prefixes.sort();
    prefixes.dedup();
    let full = full.chars().take(32).collect();
    Ok(Python {
        path: executable,
        interpreter: Interpreter { version, full },
        prefixes,
    })
}

/// Output of a command that ends well within [`PATIENCE`].
fn run_briefly(mut command: Command) -> Result<String, String> {
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => "the agent's user may not run it".to_owned(),
        _ => e.to_string(),
    })?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it does not answer".into());
            }
        }
    };
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = out.take(8192).read_to_string(&mut text);
    }
    if status.success() {
        Ok(text)
    } else {
        Err(format!("it fails with {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_interpreter_is_found_and_says_its_prefix() {
        let found = find(&[], None);
        assert!(!found.pythons.is_empty(), "{}", found.reasons());
        for python in &found.pythons {
            assert!(python.interpreter.version >= OLDEST && python.path.is_absolute());
            assert!(python.prefixes.iter().all(|prefix| prefix.is_dir()));
        }
        assert!(
            found
                .pythons
                .windows(2)
                .all(|two| { two[0].interpreter.version > two[1].interpreter.version })
        );
    }

    #[test]
    fn what_is_no_interpreter_is_skipped_and_named() {
        let found = find(
            &[PathBuf::from("/bin/true"), PathBuf::from("/etc/hostname")],
            None,
        );
        let skipped: Vec<_> = found.skipped.iter().map(|(path, _)| path.clone()).collect();
        assert!(skipped.contains(&PathBuf::from("/bin/true")));
        assert!(skipped.contains(&PathBuf::from("/etc/hostname")));
    }
}
