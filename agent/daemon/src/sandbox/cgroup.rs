//! Control groups, where this process may make them: memory and processes of a whole sandbox, and of each
//! worker beside it.
//!
//! ```text
//! where this process is ─┬─ farlane-PID-N        the N-th template
//!                        └─ farlane-PID-wM       the M-th worker; bounded by the task that it runs
//! ```
//! Side by side, since version 2 gives no group both processes and bounded groups below it. Version 1 and
//! 2; where neither is delegated, rlimits are all there is, and the node's spec says so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

use crate::user::User;

/// Name of the group that the agent moves into where version 2 wants its processes in a leaf.
const LEAF: &str = "farlane-agent";

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// One folder for each controller.
    One {
        memory: PathBuf,
        pids: PathBuf,
        cpuacct: PathBuf,
    },
    /// One folder for all.
    Two { base: PathBuf },
}

/// The files of one group, by what they say.
#[derive(Debug, Clone)]
struct Files {
    limit: PathBuf,
    /// Memory and swap together in version 1, swap alone in version 2.
    swap: PathBuf,
    used: PathBuf,
    peak: PathBuf,
    cpu: PathBuf,
    events: PathBuf,
}

/// One group. Dropping it removes it, once it is empty.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    dirs: Vec<PathBuf>,
    files: Files,
    /// The bound of its memory; `u64::MAX` before any.
    bound: u64,
    /// Where a process writes itself in.
    pub(crate) entries: Vec<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroups {
    /// Finds out by making a group, entering it and removing it.
    pub(crate) fn probe() -> Option<Self> {
        let found = Self::find()?;
        let name = format!(
            "farlane-{}-probe{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let group = found.make(&name, 64 << 20, 16).ok()?;
        let mut command = Command::new("/bin/true");
        super::enter(&mut command, &group).ok()?;
        command.status().ok()?;
        found.sweep();
        Some(found)
    }

    fn find() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let root = Path::new("/sys/fs/cgroup");
        Self::one(&own, root).or_else(|| Self::two(&own, root))
    }

    /// Where this process may make groups and `command` will not be able to, since it drops to `user`: makes
    /// one that is `user`'s to make others in, and lets the command enter it.
    ///
    /// *Errors*: the system's; the command then runs without groups of its own.
    pub(crate) fn hand_on(command: &mut Command, user: User) -> std::io::Result<()> {
        let Some(found) = Self::find() else {
            return Ok(());
        };
        let mut entries = Vec::new();
        for parent in found.parents() {
            let dir = parent.join(format!("farlane-user-{}", user.uid));
            std::fs::create_dir_all(&dir)?;
            chown(&dir, user)?;
            let procs = dir.join("cgroup.procs");
            chown(&procs, user)?;
            // Source: cgroup-v2.rst, "Model of Delegation"; version 1 has no such file.
            let _ = chown(&dir.join("cgroup.subtree_control"), user);
            entries.push(File::options().write(true).open(procs)?);
        }
        super::enter_all(command, entries);
        Ok(())
    }

    /// The folders in which groups are made, one for each hierarchy.
    fn parents(&self) -> Vec<&PathBuf> {
        match self {
            Self::One {
                memory,
                pids,
                cpuacct,
            } => vec![memory, pids, cpuacct],
            Self::Two { base } => vec![base],
        }
    }

    /// Removes groups of agents that are gone.
    fn sweep(&self) {
        for entry in self
            .parents()
            .into_iter()
            .filter_map(|dir| dir.read_dir().ok())
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| name.strip_prefix("farlane-"));
            let pid = parts.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Refused while processes are in it.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }

    fn one(own: &str, root: &Path) -> Option<Self> {
        let of = |controller: &str| {
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers
                    .split(',')
                    .any(|c| c == controller)
                    .then(|| parts.next())?
            })?;
            let root = root.join(controller);
            // Inside a container the path may be the host's: then the mount's root is ours.
            let inner = root.join(path.trim_start_matches('/'));
            Some(if inner.is_dir() { inner } else { root })
        };
        Some(Self::One {
            memory: of("memory")?,
            pids: of("pids")?,
            cpuacct: of("cpuacct")?,
        })
    }

    fn two(own: &str, root: &Path) -> Option<Self> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let base = root.join(path.trim_start_matches('/'));
        // Where this process has moved already.
        let base = match base.ends_with(LEAF) {
            true => base.parent()?.to_owned(),
            false => base,
        };
        let controllers = std::fs::read_to_string(base.join("cgroup.controllers")).ok()?;
        if !["memory", "pids"]
            .iter()
            .all(|c| controllers.split_whitespace().any(|has| has == *c))
        {
            return None;
        }
        // A group with processes of its own cannot give controllers to others: this process moves
        // into a leaf first. Source: cgroup-v2.rst, "No Internal Process Constraint".
        let leaf = base.join(LEAF);
        std::fs::create_dir_all(&leaf).ok()?;
        std::fs::write(leaf.join("cgroup.procs"), "0").ok()?;
        std::fs::write(base.join("cgroup.subtree_control"), "+memory +pids").ok()?;
        Some(Self::Two { base })
    }

    /// A group with these bounds.
    ///
    /// *Errors*: it may not be made.
    pub(crate) fn make(&self, name: &str, memory: u64, pids: u64) -> std::io::Result<Group> {
        let (version, dirs, files) = match self {
            Self::One {
                memory,
                pids,
                cpuacct,
            } => {
                let (m, p, c) = (memory.join(name), pids.join(name), cpuacct.join(name));
                let files = Files {
                    limit: m.join("memory.limit_in_bytes"),
                    swap: m.join("memory.memsw.limit_in_bytes"),
                    used: m.join("memory.usage_in_bytes"),
                    peak: m.join("memory.max_usage_in_bytes"),
                    cpu: c.join("cpuacct.usage"),
                    events: m.join("memory.oom_control"),
                };
                (Version::One, vec![m, p, c], files)
            }
            Self::Two { base } => {
                let dir = base.join(name);
                let files = Files {
                    limit: dir.join("memory.max"),
                    swap: dir.join("memory.swap.max"),
                    used: dir.join("memory.current"),
                    peak: dir.join("memory.peak"),
                    cpu: dir.join("cpu.stat"),
                    events: dir.join("memory.events"),
                };
                (Version::Two, vec![dir], files)
            }
        };
        let pids_dir = dirs.get(1).unwrap_or(&dirs[0]).clone();
        let mut group = Group {
            version,
            dirs,
            files,
            bound: u64::MAX,
            entries: Vec::new(),
        };
        for dir in &group.dirs {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(pids_dir.join("pids.max"), pids.to_string())?;
        if version == Version::Two {
            // What runs out of memory ends whole, so that no task goes on without one of its processes.
            let _ = std::fs::write(group.dirs[0].join("memory.oom.group"), "1");
        }
        group.set(memory)?;
        for dir in &group.dirs {
            let entry = File::options().write(true).open(dir.join("cgroup.procs"))?;
            group.entries.push(entry);
        }
        Ok(group)
    }
}

impl Group {
    /// How many processes were killed for memory so far.
    pub(crate) fn oom_kills(&self) -> u64 {
        keyed(&self.files.events, "oom_kill").unwrap_or(0)
    }

    /// Bounds its memory anew. False where it holds more already, and the old bound stays.
    pub(crate) fn hold_to(&mut self, memory: u64) -> bool {
        if memory == self.bound {
            return true;
        }
        // Version 2 would kill to get below; version 1 refuses by itself what it cannot reclaim.
        let over = self.version == Version::Two
            && memory < self.bound
            && number(&self.files.used).is_some_and(|used| used > memory);
        !over && self.set(memory).is_ok()
    }

    fn set(&mut self, memory: u64) -> std::io::Result<()> {
        let bound = memory.to_string();
        // Where there is swap it counts too; where it is not accounted for these files are not there.
        match self.version {
            Version::One if memory > self.bound => {
                let _ = std::fs::write(&self.files.swap, &bound);
                std::fs::write(&self.files.limit, &bound)?;
            }
            Version::One => {
                std::fs::write(&self.files.limit, &bound)?;
                let _ = std::fs::write(&self.files.swap, &bound);
            }
            Version::Two => {
                let _ = std::fs::write(&self.files.swap, "0");
                std::fs::write(&self.files.limit, &bound)?;
            }
        }
        self.bound = memory;
        Ok(())
    }

    /// Processor time used by everything that ever was in it, in microseconds.
    pub(crate) fn cpu_micros(&self) -> Option<u64> {
        match self.version {
            Version::One => number(&self.files.cpu).map(|nanos| nanos / 1000),
            Version::Two => keyed(&self.files.cpu, "usage_usec"),
        }
    }

    /// Most bytes held since this was last asked; in version 2 since it was made.
    pub(crate) fn peak(&self) -> Option<u64> {
        let peak = number(&self.files.peak)?;
        if self.version == Version::One {
            let _ = std::fs::write(&self.files.peak, "0");
        }
        Some(peak)
    }
}

fn chown(path: &Path, user: User) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of lines of both.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(found, _)| *found == key)?
        .1
        .trim()
        .parse()
        .ok()
}

impl Drop for Group {
    fn drop(&mut self) {
        let dirs = std::mem::take(&mut self.dirs);
        bury(dirs);
    }
}

/// Groups whose processes are still on their way out, and how often each was tried.
static DYING: Mutex<Vec<(PathBuf, u32)>> = Mutex::new(Vec::new());

/// Removes groups now, or, from a thread that lives as long as it has any, when they are empty.
fn bury(dirs: Vec<PathBuf>) {
    /// Source: what was killed is gone within milliseconds; after 5 s the next agent's start sees to it.
    const TRIES: u32 = 50;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
    let is_gone = |dir: &PathBuf| std::fs::remove_dir(dir).is_ok() || !dir.exists();
    let left: Vec<_> = dirs.into_iter().filter(|dir| !is_gone(dir)).collect();
    if left.is_empty() {
        return;
    }
    let mut dying = DYING.lock();
    let nobody_digs = dying.is_empty();
    dying.extend(left.into_iter().map(|dir| (dir, 0)));
    drop(dying);
    if !nobody_digs {
        return;
    }
    let digging = move || {
        loop {
            std::thread::sleep(PAUSE);
            let mut dying = DYING.lock();
            dying.iter_mut().for_each(|(_, tries)| *tries += 1);
            dying.retain(|(dir, tries)| *tries < TRIES && !is_gone(dir));
            if dying.is_empty() {
                return;
            }
        }
    };
    let name = "farlane-cgroup".to_owned();
    let _ = std::thread::Builder::new().name(name).spawn(digging);
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
