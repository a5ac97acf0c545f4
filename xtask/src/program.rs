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
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
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
    /// Cargo, on the one target folder, bounded by an hour: a first build on a slow machine.
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

    /// Starts it in the background with both streams in a log file.
    ///
    /// *Errors*: it cannot be started, or the log not be made.
    pub fn started(self, log: &Path, life: Life) -> Result<Running> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("making {}", log.display()))?;
        let mut command = match life.wrapper().filter(|w| works(w)) {
            Some(wrapper) => wrapped(wrapper, &self.command),
            None => self.command,
        };
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        Ok(Running {
            child: Some(child),
            name: self.name,
            log: log.to_owned(),
        })
    }
}

/// How long a program in the background lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It ends with xtask, also when xtask is killed.
    WithXtask,
    /// It can be kept, and then does not see the terminal's Ctrl-C.
    Own,
}

impl Life {
    /// What arranges it, from util-linux; where that is missing, xtask ends the program as long
    /// as it is not killed itself.
    const fn wrapper(self) -> Option<&'static [&'static str]> {
        match self {
            Self::WithXtask => Some(&["setpriv", "--pdeathsig", "TERM", "--"]),
            Self::Own => Some(&["setsid"]),
        }
    }
}

fn works(wrapper: &[&str]) -> bool {
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg("true")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

/// The command behind a wrapper that becomes it: same process, same variables, same folder.
fn wrapped(wrapper: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    if let Some(dir) = inner.get_current_dir() {
        command.current_dir(dir);
    }
    command
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
    child: Option<Child>,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Leaves it running; its process.
    pub fn keep(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }
    /// Refuses when it has ended.
    ///
    /// *Errors*: it ended; with the last lines it said.
    pub fn still_runs(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        match child.try_wait()? {
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
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            end(child);
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
    // A number may have been given to somebody else meanwhile; its start tells.
    let same = |(pid, start): &(u32, u64)| Stat::of(*pid).is_some_and(|s| s.start == *start);
    let left: Vec<u32> = family
        .into_iter()
        .filter(same)
        .map(|(pid, _)| pid)
        .collect();
    signal("KILL", &left);
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// Sends a signal to processes.
pub fn signal(name: &str, pids: &[u32]) {
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

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: u32,
    start: u64,
}

impl Stat {
    /// Of this process, where there is a `/proc` and it is in it. Source: proc_pid_stat(5).
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state parent …": the name may hold anything, so count from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Every process under this one, with its start.
fn descendants(root: u32) -> BTreeSet<(u32, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Stat)> = pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect();
    let mut known = BTreeSet::from([root]);
    let mut found = BTreeSet::new();
    loop {
        let fresh =
            |(pid, stat): &&(u32, Stat)| known.contains(&stat.parent) && !known.contains(pid);
        let more: Vec<(u32, Stat)> = all.iter().filter(fresh).copied().collect();
        if more.is_empty() {
            return found;
        }
        known.extend(more.iter().map(|(pid, _)| *pid));
        found.extend(more.iter().map(|(pid, stat)| (*pid, stat.start)));
    }
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
        // It was killed; how soon it is gone is the kernel's.
        let runs = || {
            let line = fs::read_to_string(format!("/proc/{started}/cmdline"));
            line.is_ok_and(|line| line.contains("77"))
        };
        let begun = std::time::Instant::now();
        while runs() {
            let late = begun.elapsed() > Duration::from_secs(20);
            assert!(!late, "the child of the ended program still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_background_program_ends_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        for life in [Life::WithXtask, Life::Own] {
            let sleep = Program::new("sleep").args(["79"]);
            let mut running = sleep.started(&log, life).unwrap();
            running.still_runs().unwrap();
            let pid = running.child.as_ref().unwrap().id();
            drop(running);
            assert!(!Path::new(&format!("/proc/{pid}")).exists());
        }
    }
}
