//! Where things lie: the repository, the one target folder, the cache folder.
//!
//! ```text
//! $CARGO_TARGET_DIR, else $XDG_CACHE_HOME/farlane/target, else ~/.cache/farlane/target
//! $XDG_CACHE_HOME/farlane, else ~/.cache/farlane
//!   venv/NAME/          Python environments; root's under /var/cache/farlane, see [`venvs`]
//!   log/COMMAND/        what each stage said, of the last run
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cache folder; it can be removed at any time.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.filter(|p| p.is_absolute()).unwrap_or_else(|| {
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache")
    });
    base.join("farlane")
}

/// The one target folder of every build that xtask starts.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => cache().join("target"),
    }
}

/// Where Python environments lie. Root's home is closed to everybody else, also to the system user
/// that root's agents run as, who must be able to run the `uv` of the environment: so root's lie
/// where a system's caches do. Source: Filesystem Hierarchy Standard 3.0, /var/cache.
pub fn venvs() -> PathBuf {
    let chosen = env::var_os("XDG_CACHE_HOME").is_some();
    match crate::preflight::is_root() && !chosen {
        true => PathBuf::from("/var/cache/farlane/venv"),
        false => cache().join("venv"),
    }
}

/// A fresh folder for the logs of one command.
///
/// *Errors*: it cannot be emptied or made.
pub fn logs(command: &str) -> Result<PathBuf> {
    let dir = cache().join("log").join(command);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    make(&dir)?;
    Ok(dir)
}

/// Makes a folder and its parents.
///
/// *Errors*: it cannot be made.
pub fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}
