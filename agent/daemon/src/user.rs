//! Whom things run as, where the agent was started as root.

use std::path::Path;
use std::process::Command;

use crate::StartError;
use crate::sandbox::Cgroups;

/// Name of the system user.
const NAME: &str = "farlane";

/// A user by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
}

impl User {
    /// Whether this process is root's.
    pub fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// The system user `farlane`; made where it is missing and this process may.
    ///
    /// *Errors*: it is missing and cannot be made.
    pub fn system() -> Result<Self, StartError> {
        if let Some(user) = Self::named(NAME) {
            return Ok(user);
        }
        let made = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home"])
            .args([
                "--home-dir",
                "/var/lib/farlane",
                "--shell",
                "/usr/sbin/nologin",
                NAME,
            ])
            .output()
            .map_err(StartError::io("useradd"))?;
        Self::named(NAME).ok_or_else(|| StartError::Io {
            what: "useradd farlane".into(),
            source: std::io::Error::other(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
        })
    }

    /// The system user, else `nobody`: never root.
    pub(crate) fn unprivileged() -> Self {
        Self::system().unwrap_or_else(|_| {
            // 65534: what Linux distributions give `nobody` (and the kernel's overflow id).
            Self::named("nobody").unwrap_or(Self {
                uid: 65_534,
                gid: 65_534,
            })
        })
    }

    fn named(name: &str) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }
}

/// Makes `state_dir` the system user's, recursively, and lets this process's `command` run as that user:
/// what `farlane agent` does with its child when it was started as root.
///
/// *Errors*: the user is missing and cannot be made, or the folder cannot be handed over.
pub fn drop_privileges(command: &mut Command, state_dir: &Path) -> Result<User, StartError> {
    use std::os::unix::process::CommandExt;
    let user = User::system()?;
    std::fs::create_dir_all(state_dir)
        .map_err(StartError::io(format!("making {}", state_dir.display())))?;
    hand_over(state_dir, user)?;
    command.uid(user.uid).gid(user.gid);
    if let Err(error) = Cgroups::hand_on(command, user) {
        tracing::info!(%error, "the agent gets no control groups to bound tasks with");
    }
    command
        .env("HOME", state_dir)
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_CONFIG_HOME");
    Ok(user)
}

fn hand_over(path: &Path, user: User) -> Result<(), StartError> {
    let what = || StartError::io(format!("handing {} to {NAME}", path.display()));
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(what())?;
    if path.symlink_metadata().map_err(what())?.is_dir() {
        for entry in path.read_dir().map_err(what())? {
            hand_over(&entry.map_err(what())?.path(), user)?;
        }
    }
    Ok(())
}
