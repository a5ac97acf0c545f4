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
use crate::{folders, uv};

/// Name of the join file inside the state folder, for as long as it is needed.
const JOIN_FILE: &str = "join.txt";
/// What an agent's child prints before its node's identity.
pub const READY: &str = "ready ";
/// How long an agent may take to stop: twice its own patience with a worker that does not end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Where a system service keeps its state. Source: Filesystem Hierarchy Standard 3.0, /var/lib.
const SYSTEM_STATE: &str = "/var/lib/farlane";

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
