//! How a template process is shut in.
//!
//! Owns bubblewrap's arguments, the system-call filter, and what a process of tier 0 gets instead.
//! Leaves what runs inside to `worker`, and whether any of it works here to [`probe`].
//!
//! ```text
//! tier 1   agent ─ bwrap (own user, mount, pid, net, ipc, uts namespaces) ─ template ─ worker
//!          template: may mount within its namespaces, runs nothing of a tenant's
//!          worker: a mount namespace of its own, no capabilities, a narrower filter
//! tier 0   agent ─ template (no new privileges, no sockets, no tracing) ─ worker: own tenant only
//! ```

mod cgroup;
mod gpu;
mod landlock;
mod probe;
mod seccomp;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farlane_model::Tier;
use farlane_units::ByteCount;
use serde::Serialize;

pub(crate) use cgroup::{Cgroups, Group};
pub(crate) use gpu::{Gpus, NoGpu};
pub(crate) use probe::{Enforced, bubblewrap, probe, unconfined};
pub use probe::{bubblewrap_line, namespaces_line};

use crate::probe::python::Python;
use crate::user::User;

/// Where the worker's files appear inside.
const ROOT_INSIDE: &str = "/farlane";
/// Where an environment appears inside.
const ENVIRONMENT_INSIDE: &str = "/environment";
/// The only folder that a task may write to, but for /tmp and /dev/shm.
const SCRATCH_INSIDE: &str = "/scratch";

/// Least bytes of a worker's file systems. Source: their own folders take a few pages.
const LEAST_SCRATCH: u64 = 1 << 20;

/// What one template process gets to see and use.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) tier: Tier,
    /// Where bubblewrap is; needed for tier 1.
    pub(crate) bwrap: Option<PathBuf>,
    /// Folder with the worker's files, readable by `user`.
    pub(crate) root: PathBuf,
    pub(crate) python: Python,
    pub(crate) environment: Option<PathBuf>,
    /// Bound of all that one worker may write, where it has file systems of its own.
    pub(crate) scratch: ByteCount,
    /// Scratch on disk, for tier 0 only.
    pub(crate) scratch_outside: PathBuf,
    /// Threads that numeric libraries are told to use.
    pub(crate) threads: u32,
    /// Whom the process runs as where the agent is root.
    pub(crate) user: Option<User>,
    /// Where control groups can be made.
    pub(crate) cgroups: Option<Cgroups>,
    /// The GPUs that its tasks hold.
    pub(crate) gpus: Gpus,
}

/// Why no process could be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("{0}")]
    Filter(#[from] seccomp::NoFilter),
    #[error("the rules for files cannot be made: {0}")]
    Rules(#[from] ::landlock::RulesetError),
    #[error("{0}")]
    Gpu(#[from] NoGpu),
    #[error("bubblewrap is not installed")]
    NoBubblewrap,
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
}

/// Where things are, as the process inside sees them.
pub(crate) struct Inside {
    pub(crate) root: String,
    pub(crate) environment: Option<String>,
    pub(crate) scratch: String,
}

/// What a worker shuts itself in with, in namespaces; see python/farlane_room.py.
#[derive(Debug, Serialize)]
pub(crate) struct Private {
    /// The filter of system calls, as hexadecimal digits.
    pub(crate) filter: String,
    /// Bytes of its file systems together.
    pub(crate) size: u64,
}

impl Sandbox {
    /// What its workers shut themselves in with; `None` without namespaces.
    ///
    /// *Errors*: no filter for this machine.
    pub(crate) fn private(&self) -> Result<Option<Private>, SandboxError> {
        if self.tier == Tier::Process {
            return Ok(None);
        }
        let filter = seccomp::filter(seccomp::Sockets::Namespaced, seccomp::Mounts::Denied)?;
        let digits = |byte: &u8| format!("{byte:02x}");
        Ok(Some(Private {
            filter: seccomp::to_bytes(&filter).iter().map(digits).collect(),
            size: self.scratch.get().max(LEAST_SCRATCH),
        }))
    }

    /// Paths as the process inside sees them.
    pub(crate) fn inside(&self) -> Inside {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match self.tier {
            Tier::Process => Inside {
                root: text(&self.root),
                environment: self.environment.as_deref().map(text),
                scratch: text(&self.scratch_outside),
            },
            _ => Inside {
                root: ROOT_INSIDE.into(),
                environment: self.environment.as_ref().map(|_| ENVIRONMENT_INSIDE.into()),
                scratch: SCRATCH_INSIDE.into(),
            },
        }
    }

    /// The command that runs the interpreter on `arguments` inside; `passed` stay open in it.
    ///
    /// *Errors*: no bubblewrap, no filter for this machine, or no descriptor.
    pub(crate) fn command(
        &self,
        arguments: &[OsString],
        passed: &[RawFd],
    ) -> Result<Command, SandboxError> {
        let mut command = match self.tier {
            Tier::Process => self.bare()?,
            _ => self.bubblewrapped()?,
        };
        command.args(arguments).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        keep_open(&mut command, passed.to_vec());
        Ok(command)
    }

    fn environment_variables(&self) -> Vec<(&'static str, String)> {
        let scratch = self.inside().scratch;
        let threads = self.threads.to_string();
        let mut all = vec![
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME", scratch.clone()),
            ("TMPDIR", scratch),
            ("LANG", "C.UTF-8".to_owned()),
        ];
        // Source: the variables that OpenMP, OpenBLAS, MKL and numexpr read at their start.
        for name in [
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMEXPR_NUM_THREADS",
        ] {
            all.push((name, threads.clone()));
        }
        all.extend(self.gpus.variables());
        all
    }

    fn bare(&self) -> Result<Command, SandboxError> {
        let mut command = Command::new(&self.python.path);
        command.env_clear().envs(self.environment_variables());
        let program = seccomp::filter(seccomp::Sockets::Denied, seccomp::Mounts::Denied)?;
        let mut rules = Some(landlock::rules(&self.readable(), &self.writable())?);
        #[allow(unsafe_code)]
        let apply = move || {
            // SAFETY: prctl with these constants takes no pointers and changes this process only.
            unsafe {
                libc::setsid();
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            }
            let refused = || std::io::Error::from_raw_os_error(libc::EPERM);
            if let Some(rules) = rules.take() {
                rules.restrict_self().map_err(|_| refused())?;
            }
            seccompiler::apply_filter(&program).map_err(|_| refused())
        };
        // SAFETY: the closure runs between fork and exec and makes system calls only; filter and rules
        // were made, and their memory allocated, before.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(apply);
        }
        command.current_dir(&self.scratch_outside);
        Ok(command)
    }

    /// What a process of tier 0 may read.
    fn readable(&self) -> Vec<PathBuf> {
        let system = [
            "/usr",
            "/bin",
            "/lib",
            "/lib64",
            "/etc/ld.so.cache",
            "/etc/localtime",
            "/etc/passwd",
            "/etc/alternatives",
            "/proc",
            "/sys/devices/system/cpu",
            "/dev/urandom",
            "/dev/null",
        ];
        let mut all: Vec<PathBuf> = system.into_iter().map(PathBuf::from).collect();
        all.extend(self.python.prefixes.iter().cloned());
        all.push(self.root.clone());
        all.extend(self.environment.clone());
        all.extend(self.gpus.files().into_iter().map(|(file, _)| file));
        all
    }

    /// What a process of tier 0 may write.
    fn writable(&self) -> Vec<PathBuf> {
        let mut all = vec![
            self.scratch_outside.clone(),
            "/dev/null".into(),
            "/dev/shm".into(),
        ];
        all.extend(self.gpus.files().into_iter().map(|(file, _)| file));
        all
    }

    fn bubblewrapped(&self) -> Result<Command, SandboxError> {
        let bwrap = self.bwrap.as_ref().ok_or(SandboxError::NoBubblewrap)?;
        let mut command = Command::new(bwrap);
        command.env_clear();
        for flag in [
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--as-pid-1",
        ] {
            command.arg(flag);
        }
        command.args(["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]);
        command.args(["--hostname", "farlane"]);
        for (name, value) in self.environment_variables() {
            command.args(["--setenv", name, &value]);
        }
        self.mounts(&mut command);
        let filter = seccomp::filter(seccomp::Sockets::Namespaced, seccomp::Mounts::Own)?;
        let filter = seccomp::to_bytes(&filter);
        let file = memory_file(&filter).map_err(|source| SandboxError::Io {
            what: "the filter's memory file",
            source,
        })?;
        command.arg("--seccomp").arg(file.as_raw_fd().to_string());
        keep_file(&mut command, file);
        command.arg("--").arg(&self.python.path);
        Ok(command)
    }

    fn mounts(&self, command: &mut Command) {
        for dir in ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"] {
            let path = Path::new(dir);
            match std::fs::read_link(path) {
                Ok(target) => command.arg("--symlink").arg(target).arg(dir),
                Err(_) if path.is_dir() => command.args(["--ro-bind", dir, dir]),
                Err(_) => continue,
            };
        }
        for file in ["/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"] {
            command.args(["--ro-bind-try", file, file]);
        }
        for file in ["passwd", "group"] {
            let source = self.root.join("etc").join(file);
            command
                .arg("--ro-bind")
                .arg(source)
                .arg(format!("/etc/{file}"));
        }
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        for (file, must) in self.gpus.files() {
            let bind = if must { "--dev-bind" } else { "--dev-bind-try" };
            command.arg(bind).arg(&file).arg(&file);
        }
        // The template's; each worker mounts its own over them.
        let size = LEAST_SCRATCH.to_string();
        for dir in [SCRATCH_INSIDE, "/tmp", "/dev/shm"] {
            command.args(["--size", &size, "--tmpfs", dir]);
        }
        // After the file systems above: an interpreter may lie below one of them.
        for prefix in self
            .python
            .prefixes
            .iter()
            .filter(|p| !p.starts_with("/usr"))
        {
            command.arg("--ro-bind").arg(prefix).arg(prefix);
        }
        command.arg("--ro-bind").arg(&self.root).arg(ROOT_INSIDE);
        if let Some(environment) = &self.environment {
            command
                .arg("--ro-bind")
                .arg(environment)
                .arg(ENVIRONMENT_INSIDE);
        }
        command.args([
            "--remount-ro",
            "/dev",
            "--remount-ro",
            "/",
            "--chdir",
            SCRATCH_INSIDE,
        ]);
    }
}

/// An anonymous file with these bytes, read from its start.
#[allow(unsafe_code)]
fn memory_file(bytes: &[u8]) -> std::io::Result<File> {
    // SAFETY: the name is a C string; the result is checked before it is owned.
    let fd = unsafe { libc::memfd_create(c"farlane-filter".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Lets the child inherit the file, which the command owns until it is dropped.
fn keep_file(command: &mut Command, file: File) {
    let keep = move || inherit(file.as_raw_fd());
    // SAFETY: the closure makes one system call between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(keep);
    }
}

/// Lets the child inherit descriptors, which the caller owns.
fn keep_open(command: &mut Command, fds: Vec<RawFd>) {
    let keep = move || fds.iter().try_for_each(|fd| inherit(*fd));
    // SAFETY: the closure makes only system calls between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(keep);
    }
}

/// Lets the command's process write itself into a control group before it runs.
///
/// *Errors*: no descriptors left.
pub(crate) fn enter(command: &mut Command, group: &Group) -> std::io::Result<()> {
    let entries = group
        .entries
        .iter()
        .map(File::try_clone)
        .collect::<Result<Vec<_>, _>>()?;
    enter_all(command, entries);
    Ok(())
}

/// The same, by the groups' open files.
fn enter_all(command: &mut Command, entries: Vec<File>) {
    let write = move || {
        entries
            .iter()
            .try_for_each(|mut entry| entry.write_all(b"0"))
    };
    // SAFETY: the closure makes only system calls between fork and exec, on files opened before.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(write);
    }
}

#[allow(unsafe_code)]
fn inherit(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: sets one flag of a descriptor of this process.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}
