//! The agent as a child process: under a system user where this process is root's.
//!
//! Owns the child's start, its sign of readiness and its end with its parent. Leaves what an agent
//! does to farlane-daemon, and its flags to `farlane agent`.
//!
//! ```text
//! parent ── stdin held open (lifeline) ──▶ farlane agent --supervised
//!        ◀─ stdout: "ready <node>" once ─
//! parent dies ─▶ stdin ends ─▶ the agent stops, its workers with it
//! ```

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use farlane_daemon::{User, drop_privileges};
use farlane_model::Digest;
use farlane_seal::private_file;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin};

use crate::problem::{Exit, Problem, doing};
use crate::{folders, show, uv};

/// Name of the join file inside the state folder, for as long as it is needed.
const JOIN_FILE: &str = "join.txt";
/// What an agent's child prints before its node's identity.
pub const READY: &str = "ready ";
/// How long an agent may take to stop: twice its own patience with a worker that does not end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Where a system service keeps its state. Source: Filesystem Hierarchy Standard 3.0, /var/lib.
const SYSTEM_STATE: &str = "/var/lib/farlane";

/// Root-owned notes of which `up` folder an agent's state in [`SYSTEM_STATE`] is of: the folder's path and,
/// after a zero byte, since when it is missing (milliseconds of the wall's clock).
const OWNERS: &str = "owners";

/// How long an `up` folder is missing before its agent's state goes. Chosen: a disk that is not mounted, or a
/// folder under another name, is back within a month.
const MISSED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// What to start.
#[derive(Debug, Clone)]
pub struct AgentProcess {
    /// State folder of the agent.
    pub state: PathBuf,
    /// Text of a join file, where it has not joined yet.
    pub join: Option<String>,
    /// Further flags of `farlane agent`.
    pub flags: Vec<String>,
}

/// Where an agent keeps its state unless told: below `data`, or where the system user can reach it. A
/// folder that is made anew has another `owner`, and with it an agent that has not joined yet.
pub fn default_state(data: &Path, name: &str, owner: &[u8]) -> PathBuf {
    match User::is_root() {
        true => {
            let print =
                Digest::of(&[data.as_os_str().as_encoded_bytes(), owner].concat()).to_string();
            Path::new(SYSTEM_STATE).join(format!("{name}-{}", &print[..8]))
        }
        false => data.join(name),
    }
}

/// Notes whose the agent's state is, and removes the states of `up` folders that have been gone, or made
/// anew in the same place, for 30 days. Does nothing where the state lies in the `up` folder itself. What
/// cannot be removed is said; nothing depends on it.
pub fn forget_orphans(data: &Path, state: &Path) {
    if state.starts_with(SYSTEM_STATE)
        && let Err(problem) =
            forget_orphans_in(Path::new(SYSTEM_STATE), data, state, show::now_ms())
    {
        problem.print();
    }
}

/// What is noted of one agent's state.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    owner: PathBuf,
    missed_ms: Option<u64>,
}

impl Note {
    fn read(bytes: &[u8]) -> Self {
        let mut parts = bytes.splitn(2, |b| *b == 0);
        let owner = parts.next().unwrap_or_default().to_vec();
        let missed = parts.next().and_then(|m| std::str::from_utf8(m).ok());
        Self {
            owner: PathBuf::from(OsString::from_vec(owner)),
            missed_ms: missed.and_then(|m| m.parse().ok()),
        }
    }
    fn write(&self, path: &Path) -> Result<(), Problem> {
        let mut bytes = self.owner.as_os_str().as_encoded_bytes().to_vec();
        if let Some(missed) = self.missed_ms {
            bytes.extend(format!("\0{missed}").into_bytes());
        }
        private_file::write(path, &bytes).map_err(Problem::failed)
    }
    /// Whether its owner is gone as far as can be seen from the `up` in `data`; `None` where nothing can be
    /// seen: the place in which the folder lay may be a disk that is not mounted.
    fn is_missed(&self, data: &Path) -> Option<bool> {
        // Another agent's state is this folder's now.
        if self.owner == data {
            return Some(true);
        }
        let seen = self.owner.parent().is_some_and(|p| p.read_dir().is_ok());
        let exists = self.owner.try_exists().ok()?;
        (seen || exists).then_some(!exists)
    }
}

fn forget_orphans_in(system: &Path, data: &Path, state: &Path, now_ms: u64) -> Result<(), Problem> {
    let owners = system.join(OWNERS);
    std::fs::create_dir_all(system).map_err(doing(system.display()))?;
    folders::make_private(&owners)?;
    let own = state.file_name().unwrap_or_default();
    let mine = Note {
        owner: data.to_owned(),
        missed_ms: None,
    };
    mine.write(&owners.join(own))?;
    for entry in owners.read_dir()?.flatten() {
        // A note being written has a name that begins with a dot.
        let name = entry.file_name();
        if name == own || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Another `up` may be at the same work.
        let Ok(bytes) = std::fs::read(entry.path()) else {
            continue;
        };
        let note = Note::read(&bytes);
        let orphan = system.join(&name);
        let is_missed = note.is_missed(data);
        if is_missed != Some(false) && matches!(orphan.try_exists(), Ok(false)) {
            // Nothing is left that it could be about.
            let _ = std::fs::remove_file(entry.path());
            continue;
        }
        let Some(is_missed) = is_missed else {
            continue;
        };
        let missed_ms = is_missed.then(|| note.missed_ms.unwrap_or(now_ms).min(now_ms));
        if missed_ms != note.missed_ms {
            Note { missed_ms, ..note }.write(&entry.path())?;
        }
        let age = missed_ms.map(|missed| Duration::from_millis(now_ms - missed));
        if age.is_none_or(|age| age < MISSED_FOR) || is_in_use(&orphan) {
            continue;
        }
        match std::fs::remove_dir_all(&orphan) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(doing(orphan.display())(error));
            }
            // Left behind, it is looked at again.
            _ => drop(std::fs::remove_file(entry.path())),
        }
    }
    Ok(())
}

/// Whether a process has this folder as its own: an agent outlives its `up` folder's name.
fn is_in_use(state: &Path) -> bool {
    let Ok(processes) = Path::new("/proc").read_dir() else {
        return true;
    };
    let mut folders = processes
        .flatten()
        .filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    folders.any(|folder| folder.starts_with(state))
}

impl AgentProcess {
    /// Starts the child.
    ///
    /// *Errors*: the state folder cannot be made or handed over, or the program not started.
    pub fn spawn(&self) -> Result<AgentChild, Problem> {
        self.make_state()?;
        // By this link the child finds its program even where its user could not walk to it.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("farlane");
        command
            .arg("agent")
            .arg("--supervised")
            .arg("--state")
            .arg(&self.state)
            .args(&self.flags);
        if let Some(join) = &self.join {
            let path = self.state.join(JOIN_FILE);
            private_file::write(&path, join.as_bytes()).map_err(Problem::failed)?;
            command.arg("--join-file").arg(path);
        }
        if User::is_root() {
            if !self.flags.iter().any(|flag| flag == "--uv") {
                match uv::for_every_user(Path::new(SYSTEM_STATE)) {
                    Ok(found) => command.args(found.map(|uv| format!("--uv={}", uv.display()))),
                    // Tasks without an environment run all the same.
                    Err(problem) => {
                        problem.print();
                        &mut command
                    }
                };
            }
            drop_privileges(&mut command, &self.state).map_err(Problem::failed)?;
            command.current_dir(&self.state);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(doing("starting the agent"))?;
        // Held apart: waiting for a child closes the input that it still has.
        let lifeline = child.stdin.take();
        Ok(AgentChild { child, lifeline })
    }
}

impl AgentProcess {
    /// Makes the state folder; where another user will own it, its way there must be open.
    fn make_state(&self) -> Result<(), Problem> {
        if !User::is_root() {
            return folders::make_private(&self.state);
        }
        if self.state.starts_with(SYSTEM_STATE) {
            std::fs::create_dir_all(SYSTEM_STATE).map_err(doing(SYSTEM_STATE))?;
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(SYSTEM_STATE, open).map_err(doing(SYSTEM_STATE))?;
        }
        folders::make_private(&self.state)?;
        match uv::closed_above(&self.state) {
            None => Ok(()),
            Some(above) => Err(Problem::new(
                Exit::Usage,
                format!(
                    "the agent runs as the user farlane, who cannot pass through {}",
                    above.display()
                ),
            )
            .next(format!(
                "choose --state below {SYSTEM_STATE}, or run this as an ordinary user"
            ))),
        }
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct AgentChild {
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl AgentChild {
    /// Waits until it says that it is on the network; which node it is. `None` where it ended first.
    pub async fn ready(&mut self) -> Option<String> {
        let mut lines = BufReader::new(self.child.stdout.take()?).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(node) = line.strip_prefix(READY) {
                return Some(node.to_owned());
            }
        }
        None
    }

    /// Waits until it ends by itself.
    ///
    /// *Errors*: the system's.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop, by closing its standard input, and waits for it.
    pub async fn stop(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    /// A machine's folder for agents' states, and `up`s on it, on days.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }
        /// `up` in the folder `name`, whose agent's state is `state`, on a day.
        fn up(&self, name: &str, state: &str, day: u64) -> (PathBuf, PathBuf) {
            let (data, state) = (self.path(name), self.path("system").join(state));
            std::fs::create_dir_all(&data).unwrap();
            std::fs::create_dir_all(&state).unwrap();
            forget_orphans_in(&self.path("system"), &data, &state, day * DAY).unwrap();
            (data, state)
        }
        fn notes(&self) -> usize {
            let notes = self.path("system").join(OWNERS).read_dir().unwrap();
            notes.count()
        }
    }

    #[test]
    fn states_go_a_month_after_the_folders_that_they_were_of() {
        let machine = Machine(tempfile::tempdir().unwrap());
        let (a, of_a) = machine.up("a", "agent-1", 100);
        let (b, of_b) = machine.up("b", "agent-2", 100);
        std::fs::remove_dir_all(&a).unwrap();
        machine.up("b", "agent-2", 200);
        machine.up("b", "agent-2", 229);
        assert!(of_a.exists(), "missed for 29 days");
        // A process that works in it keeps it.
        let mut busy = Command::new("sleep");
        let mut busy = busy.arg("60").current_dir(&of_a).spawn().unwrap();
        machine.up("b", "agent-2", 230);
        assert!(of_a.exists());
        busy.kill().unwrap();
        busy.wait().unwrap();
        machine.up("b", "agent-2", 230);
        assert!(!of_a.exists() && of_b.exists());
        // Made anew in the same place: its agent has another name. The old one may be on a disk that is
        // mounted there again later.
        let (_, again) = machine.up("b", "agent-3", 230);
        assert!(of_b.exists());
        machine.up("b", "agent-3", 260);
        assert!(!of_b.exists() && again.exists() && b.exists());
        assert_eq!(machine.notes(), 1);
    }

    #[test]
    fn a_folder_that_is_back_or_cannot_be_looked_for_is_not_missed() {
        let machine = Machine(tempfile::tempdir().unwrap());
        let (a, of_a) = machine.up("a", "agent-1", 0);
        let (_, of_disk) = machine.up("mnt/disk/farlane", "agent-2", 0);
        std::fs::rename(&a, machine.path("renamed")).unwrap();
        std::fs::rename(machine.path("mnt/disk"), machine.path("unmounted")).unwrap();
        machine.up("c", "agent-3", 1);
        std::fs::rename(machine.path("renamed"), &a).unwrap();
        machine.up("c", "agent-3", 30);
        std::fs::rename(&a, machine.path("renamed")).unwrap();
        machine.up("c", "agent-3", 31);
        machine.up("c", "agent-3", 60);
        assert!(of_a.exists(), "missed anew for 29 days");
        // A clock that was ahead and is set right begins again.
        machine.up("c", "agent-3", 20);
        machine.up("c", "agent-3", 49);
        assert!(of_a.exists());
        machine.up("c", "agent-3", 50);
        assert!(!of_a.exists());
        machine.up("c", "agent-3", 700);
        assert!(of_disk.exists(), "the disk is not mounted");
        assert_eq!(machine.notes(), 2);
        std::fs::rename(machine.path("unmounted"), machine.path("mnt/disk")).unwrap();
        machine.up("mnt/disk/farlane", "agent-2", 701);
        assert!(of_disk.exists());
        // Nor is anything kept about a state that somebody has removed.
        std::fs::rename(machine.path("mnt/disk"), machine.path("unmounted")).unwrap();
        std::fs::remove_dir_all(of_disk).unwrap();
        machine.up("c", "agent-3", 702);
        assert_eq!(machine.notes(), 1);
    }
}
