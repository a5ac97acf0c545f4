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

use std::path::{Path, PathBuf};

use farlane::discover::{self, ProcessEnvironment};

use crate::problem::{Problem, doing};

/// The folder of `farlane up`.
pub fn data() -> PathBuf {
    let endpoint = discover::endpoint_file(&ProcessEnvironment);
    endpoint.parent().map(Path::to_owned).unwrap_or_default()
}

/// The owner's keys.
pub fn keys(data: &Path) -> PathBuf {
    data.join("keys")
}

/// The profile of that name.
pub fn profile(name: &str) -> PathBuf {
    discover::profiles_dir(&ProcessEnvironment).join(format!("{name}.json"))
}

/// Makes a folder that only its owner can enter.
///
/// *Errors*: it cannot be made.
pub fn make_private(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(doing(format!("making {}", path.display())))
}
