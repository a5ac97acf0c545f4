//! Control groups, where this process may make them: memory and processes of a whole sandbox.
//!
//! Version 1 and 2; where neither is delegated, rlimits are all there is, and the node's spec says so.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Where groups can be made.
#[derive(Debug, Clone)]
pub(crate) enum Cgroups {
    /// One folder for each controller.
    One { memory: PathBuf, pids: PathBuf },
    /// One folder for both.
    Two { base: PathBuf },
}

/// One sandbox's group. Dropping it removes it, once it is empty.
#[derive(Debug)]
pub(crate) struct Group {
    dirs: Vec<PathBuf>,
    events: PathBuf,
    /// Where a process writes itself in.
    pub(crate) entries: Vec<File>,
}

impl Cgroups {
    /// Finds out by making a group and removing it.
    pub(crate) fn probe() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let found = Self::one(&own).or_else(|| Self::two(&own))?;
        let name = format!(
            "farlane-probe-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        found.make(&name, 64 << 20, 16).ok()?;
        found.sweep();
        Some(found)
    }

    /// Removes groups of agents that are gone.
    fn sweep(&self) {
        let parents = match self {
            Self::One { memory, pids } => vec![memory, pids],
            Self::Two { base } => vec![base],
        };
        for entry in parents
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

    fn one(own: &str) -> Option<Self> {
        let of = |controller: &str| {
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers
                    .split(',')
                    .any(|c| c == controller)
                    .then(|| parts.next())?
            })?;
            let root = Path::new("/sys/fs/cgroup").join(controller);
            // Inside a container the path may be the host's: then the mount's root is ours.
            let inner = root.join(path.trim_start_matches('/'));
            Some(if inner.is_dir() { inner } else { root })
        };
        Some(Self::One {
            memory: of("memory")?,
            pids: of("pids")?,
        })
    }

    fn two(own: &str) -> Option<Self> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let base = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        let controllers = std::fs::read_to_string(base.join("cgroup.controllers")).ok()?;
        if !["memory", "pids"]
            .iter()
            .all(|c| controllers.split_whitespace().any(|has| has == *c))
        {
            return None;
        }
        // A group with processes of its own cannot give controllers to others: this process moves
        // into a leaf first. Source: cgroup-v2.rst, "No Internal Process Constraint".
        let leaf = base.join("farlane-agent");
        std::fs::create_dir_all(&leaf).ok()?;
        std::fs::write(leaf.join("cgroup.procs"), "0").ok()?;
        std::fs::write(base.join("cgroup.subtree_control"), "+memory +pids").ok()?;
        Some(Self::Two { base })
    }

    /// A group with these bounds.
    ///
    /// *Errors*: it may not be made.
    pub(crate) fn make(&self, name: &str, memory: u64, pids: u64) -> std::io::Result<Group> {
        let (dirs, events, bounds) = match self {
            Self::One {
                memory: in_memory,
                pids: in_pids,
            } => {
                let (m, p) = (in_memory.join(name), in_pids.join(name));
                let bounds = [
                    (m.join("memory.limit_in_bytes"), memory),
                    (p.join("pids.max"), pids),
                ];
                let events = m.join("memory.oom_control");
                (vec![m, p], events, bounds)
            }
            Self::Two { base } => {
                let dir = base.join(name);
                let bounds = [
                    (dir.join("memory.max"), memory),
                    (dir.join("pids.max"), pids),
                ];
                let events = dir.join("memory.events");
                (vec![dir], events, bounds)
            }
        };
        let mut group = Group {
            dirs,
            events,
            entries: Vec::new(),
        };
        for dir in &group.dirs {
            std::fs::create_dir_all(dir)?;
        }
        for (file, bound) in bounds {
            std::fs::write(file, bound.to_string())?;
        }
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
        let text = std::fs::read_to_string(&self.events).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let dirs: Vec<_> = std::mem::take(&mut self.dirs);
        if dirs.iter().all(|dir| std::fs::remove_dir(dir).is_ok()) {
            return;
        }
        // Its processes are being killed; a folder that will not go is empty and costs nothing.
        let _ = std::thread::Builder::new()
            .name("farlane-cgroup".into())
            .spawn(move || {
                for _ in 0..50 {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    if dirs
                        .iter()
                        .all(|dir| !dir.exists() || std::fs::remove_dir(dir).is_ok())
                    {
                        return;
                    }
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_made_and_removed_where_it_may_be() {
        let Some(cgroups) = Cgroups::probe() else {
            return;
        };
        let name = format!("farlane-test-{}", std::process::id());
        let Ok(group) = cgroups.make(&name, 32 << 20, 8) else {
            panic!("the probe made one")
        };
        let dirs = group.dirs.clone();
        assert!(dirs.iter().all(|dir| dir.is_dir()) && !group.entries.is_empty());
        assert_eq!(group.oom_kills(), 0);
        drop(group);
        assert!(dirs.iter().all(|dir| !dir.exists()));
    }
}
