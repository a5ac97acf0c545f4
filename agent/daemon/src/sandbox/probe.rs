//! What the sandbox can enforce here, found out by running it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farlane_model::Tier;

use super::Sandbox;
use crate::user::User;

/// Answered from inside, shut in as workers are: what a task must not be able to do, tried.
const QUESTION: &str = "
import os, socket, sys
alone = os.getpid() == 1
sys.path.append(sys.argv[1] + '/lib')
import farlane_room
farlane_room.hide()
farlane_room.shut_in(bytes.fromhex(sys.argv[2]), int(sys.argv[3]))
def cannot(what):
    try:
        what()
    except (OSError, AttributeError):
        return True
    return False
def reach():
    s = socket.socket(); s.settimeout(0.2); s.connect(('198.51.100.1', 9))
def mount():
    farlane_room.call('mount', b'tmpfs', b'/tmp', b'tmpfs', 0, None)
print('alone', alone)
print('network', cannot(reach))
print('files', cannot(lambda: open('/usr/farlane-probe', 'w')))
print('mount', cannot(mount) and cannot(lambda: farlane_room.call('unshare', 0x20000)))
print('scratch', os.statvfs('/tmp')[1:3] == os.statvfs('/dev/shm')[1:3] == os.statvfs('/scratch')[1:3])
";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enforced {
    pub(crate) tier: Tier,
    /// For people, in the node's spec.
    pub(crate) names: Vec<String>,
    /// What would allow more; for the log.
    pub(crate) advice: Option<String>,
}

/// Where bubblewrap is.
pub(crate) fn bubblewrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")])
        .map(|dir| dir.join("bwrap"))
        .find(|file| file.is_file())
}

/// Runs the sandbox once, with `plan` set to tier 1.
pub(crate) fn probe(plan: &Sandbox) -> Enforced {
    let weak = |advice: String| Enforced {
        advice: Some(advice),
        ..unconfined(plan.cgroups.is_some())
    };
    if plan.bwrap.is_none() {
        return weak(format!("install bubblewrap: `{}`", bubblewrap_line()));
    }
    let private = match plan.private() {
        Ok(Some(private)) => private,
        Ok(None) => return unconfined(plan.cgroups.is_some()),
        Err(error) => return weak(error.to_string()),
    };
    let (root, size) = (plan.inside().root, private.size.to_string());
    let arguments = [
        "-I",
        "-S",
        "-B",
        "-c",
        QUESTION,
        &root,
        &private.filter,
        &size,
    ];
    let arguments = arguments.map(Into::into);
    let mut command = match plan.command(&arguments, &[]) {
        Ok(command) => command,
        Err(error) => return weak(error.to_string()),
    };
    let (answer, complaint) = run(&mut command);
    let held = |name: &str| answer.lines().any(|line| line == format!("{name} True"));
    if ["alone", "network", "files", "mount", "scratch"]
        .iter()
        .all(|name| held(name))
    {
        let names = [
            "namespaces",
            "seccomp",
            "rlimits",
            "no-network",
            "scratch-size",
            "own-tmp",
        ];
        let mut names: Vec<String> = names.map(String::from).into();
        names.extend(bounds(plan.cgroups.is_some()));
        return Enforced {
            tier: Tier::Namespaces,
            names,
            advice: None,
        };
    }
    weak(allow_line(&complaint, plan.user))
}

/// What holds without namespaces.
pub(crate) fn unconfined(has_cgroups: bool) -> Enforced {
    let mut names = vec!["seccomp".to_owned(), "rlimits".into()];
    names.extend(bounds(has_cgroups));
    if super::landlock::is_enforced() {
        names.push("landlock".into());
    }
    Enforced {
        tier: Tier::Process,
        names,
        advice: None,
    }
}

/// What holds a task to its `memory`: a control group all of it, else rlimits each process by itself.
fn bounds(has_cgroups: bool) -> Vec<String> {
    match has_cgroups {
        true => vec!["cgroup-memory".into(), "cgroup-pids".into()],
        false => vec!["memory-a-process".into()],
    }
}

fn run(command: &mut Command) -> (String, String) {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return (String::new(), error.to_string()),
    };
    let (mut out, mut complaint) = (String::new(), String::new());
    if let Some(pipe) = child.stdout.take() {
        let _ = pipe.take(4096).read_to_string(&mut out);
    }
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(4096).read_to_string(&mut complaint);
    }
    let _ = child.wait();
    (out, complaint)
}

/// The command that installs bubblewrap here.
pub fn bubblewrap_line() -> &'static str {
    let known = [
        ("/usr/bin/apt-get", "sudo apt-get install -y bubblewrap"),
        ("/usr/bin/dnf", "sudo dnf install -y bubblewrap"),
        ("/usr/bin/zypper", "sudo zypper install -y bubblewrap"),
        ("/usr/bin/pacman", "sudo pacman -S --noconfirm bubblewrap"),
        ("/sbin/apk", "sudo apk add bubblewrap"),
    ];
    let found = known.iter().find(|(tool, _)| Path::new(tool).exists());
    found.map_or(
        "see https://github.com/containers/bubblewrap",
        |(_, line)| line,
    )
}

/// The exact command that would allow namespaces, by which switch is off.
pub fn namespaces_line() -> &'static str {
    line_by(Path::new("/proc/sys"))
}

fn line_by(settings: &Path) -> &'static str {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(settings.join(name)).is_ok_and(|text| text.trim() == value)
    };
    if is("kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=15000"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "in a container: run it with `--security-opt seccomp=unconfined --security-opt \
         apparmor=unconfined --security-opt systempaths=unconfined`"
    }
}

fn allow_line(complaint: &str, user: Option<User>) -> String {
    let whose = user.map_or_else(String::new, |u| format!(" (run as uid {})", u.uid));
    let fix = namespaces_line();
    let said: String = complaint.trim().chars().take(200).collect();
    format!("bubblewrap{whose} answered {said:?}; this would allow it: {fix}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_switch_that_is_off_is_the_one_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kernel")).unwrap();
        let set = |name: &str, value: &str| std::fs::write(dir.path().join(name), value).unwrap();
        assert!(line_by(dir.path()).contains("in a container"));
        set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let line = line_by(dir.path());
        assert!(line.ends_with("apparmor_restrict_unprivileged_userns=0"));
        set("kernel/unprivileged_userns_clone", "0\n");
        let line = line_by(dir.path());
        assert!(line.ends_with("unprivileged_userns_clone=1") && !line.contains("apparmor"));
    }
}
