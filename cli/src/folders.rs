//! Where things lie on this machine.
//!
//! ```text
//! $XDG_DATA_HOME/farlane/           of `farlane up`, or its --data
//!   endpoint.json                   identity of this user on the local network (0600)
//!   keys/                           the owner's roots: tenant, provider, vault, device (0600)
//!   memory/TENANT/                  what this user's clients and granters remember together
//!   server/  granter/  agent/       state of each part
//! $XDG_CONFIG_HOME/farlane/profiles/NAME.json   identities that `farlane login` stored
//! ```

use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use farlane::discover::{self, ProcessEnvironment};
use nix::fcntl::{Flock, FlockArg};

use crate::problem::{Exit, Problem, doing};

/// The folder of `farlane up`.
pub fn data() -> PathBuf {
    let endpoint = discover::endpoint_file(&ProcessEnvironment);
    endpoint.parent().map(Path::to_owned).unwrap_or_default()
}

/// The identity of the network that `farlane up` runs in `data`.
pub fn endpoint(data: &Path) -> PathBuf {
    data.join("endpoint.json")
}

/// The folder with the owner's keys: `named`, else the one in which the identity in use lies where
/// there are keys too (`farlane up --data DIR` has both in DIR), else this user's own.
pub fn of_owner(named: Option<&Path>, identity: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let from_environment = std::env::var_os("FARLANE_IDENTITY_FILE").map(PathBuf::from);
    let identity = identity.map(Path::to_owned).or(from_environment);
    let beside = identity.as_deref().and_then(Path::parent);
    match beside.filter(|folder| keys(folder).join("tenant.key").exists()) {
        Some(folder) => folder.to_owned(),
        None => data(),
    }
}

/// Keeps a folder to one process; held until dropped. `None` where another has it.
///
/// *Errors*: the lock's file cannot be opened.
pub fn lock(folder: &Path, name: &str) -> Result<Option<Flock<File>>, Problem> {
    let path = folder.join(name);
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = open.map_err(doing(path.display()))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

/// Keeps a granter's folder to one granter: two would each grant what may be granted once.
///
/// *Errors*: another granter has it.
pub fn lock_granter(folder: &Path) -> Result<Flock<File>, Problem> {
    lock(folder, "granter.lock")?.ok_or_else(|| {
        Problem::failed(format!(
            "another granter already runs in {}",
            folder.display()
        ))
        .next("use that one, stop it, or choose another folder with --state")
    })
}

/// The owner's keys.
pub fn keys(data: &Path) -> PathBuf {
    data.join("keys")
}

/// The profile of that name.
pub fn profile(name: &str) -> PathBuf {
    discover::profiles_dir(&ProcessEnvironment).join(format!("{name}.json"))
}

/// Makes a folder that only its owner can enter. An empty one that is there already is closed to others, with
/// a word; one with something in it may be meant for others, and is left as it is.
///
/// *Errors*: it cannot be made or closed; others can enter it, and it is not empty.
pub fn make_private(path: &Path) -> Result<(), Problem> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(doing(format!("making {}", path.display())))?;
    let failed = || doing(path.display());
    let mode = std::fs::metadata(path).map_err(failed())?.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = path.read_dir().map_err(failed())?.next().is_none();
    let close = format!("chmod 700 {}", path.display());
    let refused = || {
        let what = format!("others can enter {} (mode {mode:03o})", path.display());
        Problem::new(Exit::Usage, what).next(format!(
            "`{close}` closes it; or name a folder of Farlane's own, below it say"
        ))
    };
    if !is_empty {
        return Err(refused());
    }
    let closed = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    closed.map_err(|_| refused())?;
    eprintln!(
        "farlane: others could enter {}; did {close}",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_owners_keys_lie_beside_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let identity = endpoint(dir.path());
        let named = Path::new("/srv/named");
        assert_eq!(of_owner(Some(named), Some(&identity)), named);
        assert_ne!(of_owner(None, Some(&identity)), dir.path());
        make_private(&keys(dir.path())).unwrap();
        std::fs::write(keys(dir.path()).join("tenant.key"), "").unwrap();
        assert_eq!(of_owner(None, Some(&identity)), dir.path());
    }

    #[test]
    fn others_enter_no_folder_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let open = || std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let mode = || std::fs::metadata(&folder).unwrap().mode() & 0o777;
        make_private(&folder).unwrap();
        assert_eq!(mode(), 0o700);
        open();
        make_private(&folder).unwrap();
        assert_eq!(mode(), 0o700);
        std::fs::write(folder.join("somebody's"), "").unwrap();
        make_private(&folder).unwrap();
        open();
        let problem = make_private(&folder).unwrap_err();
        assert!(problem.what().contains("777"), "{problem:?}");
        assert!(problem.step().unwrap().contains("chmod 700"));
        assert_eq!(mode(), 0o777);
    }

    #[test]
    fn a_folder_has_one_granter() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_granter(dir.path()).unwrap();
        let problem = lock_granter(dir.path()).unwrap_err();
        assert!(problem.what().contains("already runs"));
        assert!(problem.step().unwrap().contains("--state"));
        drop(first);
        lock_granter(dir.path()).unwrap();
    }
}
