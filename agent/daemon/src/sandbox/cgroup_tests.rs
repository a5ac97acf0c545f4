#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn a_group_is_made_and_removed_where_it_may_be() {
    let Some(cgroups) = Cgroups::probe() else {
        return;
    };
    let name = format!("farlane-{}-test", std::process::id());
    let mut group = cgroups.make(&name, 32 << 20, 8).unwrap();
    let dirs = group.dirs.clone();
    assert!(dirs.iter().all(|dir| dir.is_dir()) && !group.entries.is_empty());
    assert_eq!((group.oom_kills(), group.cpu_micros()), (0, Some(0)));
    assert!(group.hold_to(64 << 20) && group.hold_to(16 << 20));
    assert_eq!(number(&group.files.limit), Some(16 << 20));
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
    crate::sandbox::enter(&mut command, &group).unwrap();
    assert!(command.status().unwrap().success());
    assert!(group.cpu_micros().unwrap() > 0 && group.peak().unwrap() > 0);
    drop(group);
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// What the kernel would put into a new group of version 2.
fn furnish(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, text) in [
        ("cgroup.procs", ""),
        ("memory.current", "41943040\n"),
        ("memory.peak", "52428800\n"),
        (
            "memory.events",
            "low 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n",
        ),
        ("cpu.stat", "usage_usec 123456\nuser_usec 100000\n"),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn version_two_is_found_where_it_is_delegated_and_bounds_what_it_should() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("user.slice/agent.service");
    std::fs::create_dir_all(&base).unwrap();
    let own = "0::/user.slice/agent.service\n";
    let controllers = base.join("cgroup.controllers");
    std::fs::write(&controllers, "cpu pids\n").unwrap();
    assert_eq!(
        Cgroups::two(own, root.path()),
        None,
        "memory is not delegated"
    );
    std::fs::write(&controllers, "cpu io memory pids\n").unwrap();
    let cgroups = Cgroups::two(own, root.path()).unwrap();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(base.join("farlane-agent/cgroup.procs")), "0");
    assert_eq!(read(base.join("cgroup.subtree_control")), "+memory +pids");
    // A second look from inside the leaf finds the same place.
    let moved = "0::/user.slice/agent.service/farlane-agent\n";
    assert_eq!(Cgroups::two(moved, root.path()), Some(cgroups.clone()));
    let dir = base.join("farlane-1-w1");
    furnish(&dir);
    let mut group = cgroups.make("farlane-1-w1", 64 << 20, 100).unwrap();
    assert_eq!(group.entries.len(), 1);
    for (name, text) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "100"),
    ] {
        assert_eq!(read(dir.join(name)), text, "{name}");
    }
    assert_eq!((group.oom_kills(), group.peak()), (2, Some(52_428_800)));
    assert_eq!(group.cpu_micros(), Some(123_456));
    // 40 MiB are held: a bound below that would kill what is there.
    assert!(!group.hold_to(32 << 20));
    assert_eq!(read(dir.join("memory.max")), "67108864");
    assert!(group.hold_to(48 << 20) && group.hold_to(128 << 20));
    assert_eq!(read(dir.join("memory.max")), "134217728");
}

#[test]
fn an_unprivileged_agent_gets_groups_from_the_root_that_starts_it() {
    let (Some(Cgroups::One { memory, .. }), true) = (Cgroups::probe(), User::is_root()) else {
        return;
    };
    let user = User {
        uid: 61_999,
        gid: 61_999,
    };
    let script = "p=$0/farlane-user-61999; grep -q :memory:.*/farlane-user-61999 /proc/self/cgroup && \
                  mkdir $p/sub && echo 33554432 > $p/sub/memory.limit_in_bytes && \
                  sh -c 'echo 0 > $0' $p/sub/cgroup.procs && rmdir $p/sub && id -u";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(&memory);
    std::os::unix::process::CommandExt::uid(&mut command, user.uid);
    Cgroups::hand_on(&mut command, user).unwrap();
    let output = command.output().unwrap();
    let name = "farlane-user-61999";
    if let Some(Cgroups::One {
        memory,
        pids,
        cpuacct,
    }) = Cgroups::find()
    {
        bury([memory, pids, cpuacct].map(|dir| dir.join(name)).into());
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "61999\n",
        "{output:?}"
    );
}
