//! Running another program: captured to a log, timed, bounded, ended with its children.
//!
//! A program and what it starts stay in xtask's process group, so that Ctrl-C in a terminal
//! reaches all of them; one that runs past its limit is ended with its descendants, found in
//! `/proc` by their parents.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running program is looked at: often beside the seconds that a stage takes.
const LOOK: Duration = Duration::from_millis(20);
/// How long an ended program may tidy up before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// A sign of life for whoever watches a log without a terminal.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// The most that is read back of a log: far more than any failure's excerpt.
const MAX_LOG: u64 = 16 << 20;

/// A program to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    name: String,
    limit: Duration,
}

/// How a captured program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit.
    pub status: ExitStatus,
    /// Whether it ran past its limit and was ended.
    pub timed_out: bool,
    /// Where both its streams went.
    pub log: PathBuf,
}

impl Program {
    /// A program in the repository's root, bounded by ten minutes.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let path = Path::new(program.as_ref());
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(crate::place::root());
        Self {
            command,
            name,
            limit: Duration::from_secs(600),
        }
    }
    /// Cargo, on the one target folder, quiet about incremental state that nobody reuses.
    pub fn cargo() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut this = Self::new(cargo)
            .env("CARGO_TARGET_DIR", crate::place::target())
            .env("CARGO_TERM_COLOR", "never")
            .limit(Duration::from_secs(3600));
        // What `cargo run` sets for xtask alone must not look like a change to build scripts.
        for (key, _) in std::env::vars_os() {
            let text = key.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                this.command.env_remove(&key);
            }
        }
        this
    }
    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }
    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }
    /// Takes a variable away.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }
    /// Runs it in another folder.
    #[must_use]
    pub fn folder(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }
    /// Gives it another limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it with both streams in a log file.
    ///
    /// *Errors*: it cannot be started, or the log not be made.
    pub fn captured(mut self, log: &Path) -> Result<Ended> {
        let out = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let err = out.try_clone()?;
        self.command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        let (status, timed_out) = wait(&mut child, self.limit, Some(log))?;
        Ok(Ended {
            status,
            timed_out,
            log: log.to_owned(),
        })
    }

    /// Runs it on xtask's own streams.
    ///
    /// *Errors*: it cannot be started, runs past its limit, or fails.
    pub fn shown(mut self) -> Result<()> {
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        match wait(&mut child, self.limit, None)? {
            (_, true) => bail!("{} ran past {} s", self.name, self.limit.as_secs()),
            (status, _) if !status.success() => bail!("{} failed ({status})", self.name),
            _ => Ok(()),
        }
    }

    /// Runs it and answers its standard output.
    ///
    /// *Errors*: it cannot be started, or fails; with its standard error.
    pub fn output(mut self) -> Result<String> {
        let out = self.command.stdin(Stdio::null()).output();
        let out = out.with_context(|| format!("starting {}", self.name))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("{} failed ({}): {}", self.name, out.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Starts it in the background with both streams in a log file; it ends with xtask, also
    /// when xtask is killed, where util-linux's `setpriv` can arrange that.
    ///
    /// *Errors*: it cannot be started, or the log not be made.
    pub fn started(self, log: &Path) -> Result<Running> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("making {}", log.display()))?;
        let mut command = match bind_to_parent() {
            true => {
                let mut bound = Command::new("setpriv");
                bound
                    .args(["--pdeathsig", "TERM", "--"])
                    .arg(self.command.get_program());
                bound.args(self.command.get_args());
                for (key, value) in self.command.get_envs() {
                    match value {
                        Some(value) => bound.env(key, value),
                        None => bound.env_remove(key),
                    };
                }
                if let Some(dir) = self.command.get_current_dir() {
                    bound.current_dir(dir);
                }
                bound
            }
            false => self.command,
        };
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        Ok(Running {
            child,
            name: self.name,
            log: log.to_owned(),
        })
    }
}

impl Ended {
    /// What it said; the end of it where it said very much.
    pub fn text(&self) -> String {
        read_end(&self.log, MAX_LOG)
    }
}

/// A program in the background; ended, with its descendants, when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
    /// Refuses when it has ended.
    ///
    /// *Errors*: it ended; with the last lines it said.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let said = last_lines(&read_end(&self.log, MAX_LOG), 20);
                bail!("{} ended ({status}). It said:\n{said}", self.name)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            end(&mut self.child);
        }
    }
}

/// The last lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn wait(child: &mut Child, limit: Duration, log: Option<&Path>) -> Result<(ExitStatus, bool)> {
    let begun = Instant::now();
    let mut next = HEARTBEAT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if begun.elapsed() > limit {
            end(child);
            return Ok((child.wait()?, true));
        }
        if let Some(log) = log.filter(|_| begun.elapsed() > next) {
            let line = last_lines(&read_end(log, 4096), 1);
            println!(
                "    {:>4} s: {}",
                next.as_secs(),
                line.chars().take(100).collect::<String>()
            );
            next += HEARTBEAT;
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a child and all its descendants: asks, waits, kills.
fn end(child: &mut Child) {
    let mut family = descendants(child.id());
    signal("TERM", &[child.id()]);
    let begun = Instant::now();
    while begun.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(LOOK);
    }
    family.extend(descendants(child.id()));
    let left: Vec<u32> = family.into_iter().filter(|pid| is_ours(*pid)).collect();
    signal("KILL", &left);
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // The shell's builtin: a minimal machine has no `kill` program.
    let script = format!("kill -s {name} \"$@\" 2>/dev/null");
    let pids = pids.iter().map(ToString::to_string);
    let _ = Command::new("sh")
        .args(["-c", &script, "sh"])
        .args(pids)
        .status();
}

/// Every process under this one, where there is a `/proc`.
fn descendants(root: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        // "pid (name) state ppid …": the name may hold anything, so read from its end.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if let Some(parent) = after.split_whitespace().nth(1).and_then(|p| p.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&root);
    found
}

/// Whether a process that was a descendant still is one of its session, and not a reused number.
fn is_ours(pid: u32) -> bool {
    let session = |path: &str| {
        let stat = fs::read_to_string(path).ok()?;
        let after = stat.rsplit_once(')')?.1.to_owned();
        after.split_whitespace().nth(3).map(ToOwned::to_owned)
    };
    let theirs = session(&format!("/proc/{pid}/stat"));
    theirs.is_some() && theirs == session("/proc/self/stat")
}

fn bind_to_parent() -> bool {
    Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn read_end(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut out = Vec::new();
        file.take(bytes).read_to_end(&mut out)?;
        Ok(out)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_holds_both_streams_and_the_exit_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let ended = Program::new("sh")
            .args(["-c", "echo a; echo b >&2; exit 3"])
            .captured(&log);
        let ended = ended.unwrap();
        assert_eq!((ended.status.code(), ended.timed_out), (Some(3), false));
        assert_eq!(ended.text(), "a\nb\n");
    }

    #[test]
    fn past_its_limit_a_program_ends_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "sleep 77 & echo $!; trap '' TERM; exec sleep 78";
        let ended = Program::new("sh")
            .args(["-c", script])
            .limit(Duration::from_millis(300))
            .captured(&log)
            .unwrap();
        assert!(ended.timed_out);
        let started: u32 = ended.text().trim().parse().unwrap();
        let line = fs::read_to_string(format!("/proc/{started}/cmdline")).unwrap_or_default();
        assert!(
            !line.contains("77"),
            "the child of the ended program still runs"
        );
    }

    #[test]
    fn a_background_program_ends_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Program::new("sleep")
            .args(["79"])
            .started(&dir.path().join("log"))
            .unwrap();
        running.still_runs().unwrap();
        let pid = running.id();
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
