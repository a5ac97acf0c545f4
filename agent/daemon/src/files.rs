//! The worker's files, as they lie on disk for sandboxes to see.

use std::path::{Path, PathBuf};

use crate::StartError;
use crate::user::User;

const FILES: &[(&str, &[u8])] = &[
    (
        "lib/farlane_worker.py",
        include_bytes!("../python/farlane_worker.py"),
    ),
    (
        "lib/farlane_template.py",
        include_bytes!("../python/farlane_template.py"),
    ),
    (
        "lib/farlane_room.py",
        include_bytes!("../python/farlane_room.py"),
    ),
    (
        "lib/farlane_error.py",
        include_bytes!("../python/farlane_error.py"),
    ),
    (
        "lib/farlane_value.py",
        include_bytes!("../python/farlane_value.py"),
    ),
    (
        "shim/farlane.py",
        include_bytes!("../python/farlane_shim.py"),
    ),
    (
        "cloudpickle.whl",
        include_bytes!("../../../third_party/cloudpickle-3.1.2-py3-none-any.whl"),
    ),
];

/// Folders that workers must be able to read.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// With the worker's files.
    pub(crate) root: PathBuf,
    pub(crate) environments: PathBuf,
    pub(crate) scratch: PathBuf,
}

/// Writes the files where `user` (or this process's own user) can read them.
///
/// *Errors*: the system's.
pub(crate) fn install(
    state_dir: &Path,
    node: &str,
    user: Option<User>,
) -> Result<Shared, StartError> {
    let base = match user {
        Some(_) if !is_open_to_others(state_dir) => {
            Path::new("/var/lib/farlane/nodes").join(&node[..node.len().min(16)])
        }
        _ => state_dir.join("shared"),
    };
    let shared = Shared {
        root: base.join("worker"),
        environments: base.join("environments"),
        scratch: base.join("scratch"),
    };
    make_dir(&base)?;
    for dir in [&shared.root, &shared.environments, &shared.scratch] {
        make_dir(dir)?;
    }
    empty(&shared.scratch)?;
    if let Some(user) = user {
        std::os::unix::fs::chown(&shared.scratch, Some(user.uid), Some(user.gid))
            .map_err(StartError::io("handing over the scratch folder"))?;
    }
    for (name, bytes) in FILES {
        write(&shared.root.join(name), bytes)?;
    }
    let (uid, gid) = match user {
        Some(user) => (user.uid, user.gid),
        None => (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        ),
    };
    let passwd = format!("farlane:x:{uid}:{gid}::/scratch:/bin/sh\n");
    write(&shared.root.join("etc/passwd"), passwd.as_bytes())?;
    write(
        &shared.root.join("etc/group"),
        format!("farlane:x:{gid}:\n").as_bytes(),
    )?;
    Ok(shared)
}

/// Removes what sandboxes of an earlier process left behind: a killed one tidies up nothing. Links are
/// removed, never followed.
fn empty(dir: &Path) -> Result<(), StartError> {
    let what = || StartError::io(format!("emptying {}", dir.display()));
    for entry in dir.read_dir().map_err(what())? {
        let entry = entry.map_err(what())?;
        let removed = match entry.file_type().map_err(what())?.is_dir() {
            true => std::fs::remove_dir_all(entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %entry.path().display(), "left by an earlier task, cannot be removed");
        }
    }
    Ok(())
}

/// Whether every folder up to the root lets others pass.
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().all(|dir| {
        dir.metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    })
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt;
    let what = || StartError::io(format!("making {}", dir.display()));
    std::fs::create_dir_all(dir).map_err(what())?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(what())
}

/// Replaces a file whole, so that a running template never reads half of one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt;
    let what = || StartError::io(format!("writing {}", path.display()));
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes).map_err(what())?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o644)).map_err(what())?;
    std::fs::rename(&temporary, path).map_err(what())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scratch_is_empty_at_the_start_and_links_in_it_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), b"mine").unwrap();
        let shared = install(dir.path(), "node", None).unwrap();
        let left = shared.scratch.join("w17");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("secret"), b"of a task").unwrap();
        for link in [shared.scratch.join("link"), left.join("link")] {
            std::os::unix::fs::symlink(&kept, link).unwrap();
        }
        install(dir.path(), "node", None).unwrap();
        assert_eq!(shared.scratch.read_dir().unwrap().count(), 0);
        assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"mine");
    }
}
