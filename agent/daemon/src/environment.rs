//! Environments: built once from their lock, shared by everyone of the same project who asks.
//!
//! Owns building with uv, the cache on disk and its bound. Leaves the lock's secrecy to `engine`.
//! Wheels only, hashes required, nothing resolved: what is not in the lock is not installed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{Digest, ProjectId, TenantId};
use farlane_units::ByteCount;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::{OnceCell, Semaphore};

use crate::probe::python::Python;

/// Longest a build may take. Source: PyTorch with CUDA (3 GB) over 10 MB/s takes 5 minutes.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Builds at once. Source: a second one still uses what the first leaves of the link.
const AT_ONCE: usize = 2;
/// Most bytes of a build's log.
const LOG: u64 = 256 * 1024;
/// Written last: an environment without it is not complete.
const COMPLETE: &str = ".farlane-complete";
/// What uv keeps for the next build; emptied above a quarter of the bound.
const DOWNLOADS: &str = "downloads";

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) project: ProjectId,
    pub(crate) id: Digest,
    pub(crate) lock: Bytes,
    pub(crate) python: &'a Python,
}

/// A build that failed, in the words of the tool.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the environment could not be built")]
pub(crate) struct BuildError {
    pub(crate) log: String,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Environments {
    dir: PathBuf,
    /// As configured.
    uv: Option<PathBuf>,
    bound: ByteCount,
    turns: Semaphore,
    building: Arc<Mutex<Building>>,
    uses: Arc<Mutex<Uses>>,
}

type Building = HashMap<Digest, Arc<OnceCell<PathBuf>>>;
type Uses = HashMap<PathBuf, Weak<Environment>>;

/// An environment that is not removed for as long as this is held: by attempts that wait for it, and by the
/// sandbox that shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    path: PathBuf,
}

impl Environment {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Environments {
    /// `uv` is the one configured; else it is looked for.
    pub(crate) fn new(dir: PathBuf, uv: Option<PathBuf>, bound: ByteCount) -> Self {
        let _ = std::fs::create_dir_all(&dir);
        Self {
            dir,
            uv,
            bound,
            turns: Semaphore::new(AT_ONCE),
            building: Arc::default(),
            uses: Arc::default(),
        }
    }

    /// From here on it stays, whether or not it has been built.
    fn using(&self, path: &Path) -> Arc<Environment> {
        let mut uses = self.uses.lock();
        if let Some(known) = uses.get(path).and_then(Weak::upgrade) {
            return known;
        }
        uses.retain(|_, environment| environment.strong_count() > 0);
        let path = path.to_owned();
        let environment = Arc::new(Environment { path: path.clone() });
        uses.insert(path, Arc::downgrade(&environment));
        environment
    }

    /// A built environment; those who ask at the same time share one build.
    ///
    /// *Errors*: the build's log. The next one who asks tries again.
    pub(crate) async fn get(&self, wanted: Wanted<'_>) -> Result<Arc<Environment>, BuildError> {
        let name = name(&wanted);
        let path = self.dir.join(name.to_string());
        let environment = self.using(&path);
        let cell = self.building.lock().entry(name).or_default().clone();
        let built = cell
            .get_or_try_init(|| async {
                if !path.join(COMPLETE).exists() {
                    self.build(&wanted, &path).await?;
                }
                Ok(path.clone())
            })
            .await;
        if built.is_err() {
            // Kept only for those who wait with us: a lock that cannot be built is no reason to remember it.
            let mut building = self.building.lock();
            if Arc::strong_count(&cell) == 2 {
                building.remove(&name);
            }
        }
        let built = built?;
        // Used now: what was used longest ago goes first.
        let _ = std::fs::File::options()
            .append(true)
            .open(built.join(COMPLETE))
            .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Ok(environment)
    }

    async fn build(&self, wanted: &Wanted<'_>, path: &Path) -> Result<(), BuildError> {
        let failed = |log: String| BuildError { log };
        if let Some(line) = strange_line(&wanted.lock) {
            return Err(failed(format!(
                "the lock must name packages with versions and hashes only; this line does more: {line}"
            )));
        }
        let _turn = self.turns.acquire().await;
        let (dir, bound, building) = (self.dir.clone(), self.bound, self.building.clone());
        let (uses, python) = (self.uses.clone(), wanted.python.clone());
        let configured = self.uv.clone().map(|path| vec![path]);
        let uv = blocking(move || {
            shrink(&dir, bound, &building, &uses);
            configured.or_else(|| find_uv(&python))
        });
        let uv = uv.await.flatten().ok_or_else(|| {
            failed(
                "this node has no uv; install it (`pip install uv`) and restart the agent".into(),
            )
        })?;
        let work = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(&self.dir)
            .map_err(|e| failed(format!("no room to build in: {e}")))?;
        let lock = work.path().join("requirements.txt");
        let target = work.path().join("site");
        std::fs::write(&lock, &wanted.lock).map_err(|e| failed(e.to_string()))?;
        let (status, log) = self
            .run(&uv, &lock, &target, wanted.python, work.path())
            .await?;
        if !status {
            return Err(failed(log));
        }
        let path = path.to_owned();
        let kept = blocking(move || finish(&target, &path)).await;
        let kept = kept.unwrap_or_else(|| Err(std::io::ErrorKind::Other.into()));
        kept.map_err(|e| failed(format!("{log}\nkeeping it failed: {e}")))
    }

    async fn run(
        &self,
        uv: &[PathBuf],
        lock: &Path,
        target: &Path,
        python: &Python,
        work: &Path,
    ) -> Result<(bool, String), BuildError> {
        let failed = |log: String| BuildError { log };
        let mut command = tokio::process::Command::new(&uv[0]);
        if uv.len() > 1 {
            command.args(["-m", "uv"]);
        }
        command.args([
            "pip",
            "install",
            "--no-config",
            "--require-hashes",
            "--no-deps",
        ]);
        command.args([
            "--only-binary",
            ":all:",
            "--no-progress",
            "--color",
            "never",
        ]);
        command
            .arg("--python")
            .arg(&python.path)
            .arg("--target")
            .arg(target);
        command.arg("--cache-dir").arg(self.dir.join(DOWNLOADS));
        command
            .arg("--link-mode")
            .arg("hardlink")
            .arg("-r")
            .arg(lock);
        command.env("HOME", work).kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| failed(format!("uv does not start: {e}")))?;
        let stderr = child.stderr.take();
        let watching = async {
            let mut log = Vec::new();
            if let Some(pipe) = stderr {
                let _ = pipe.take(LOG).read_to_end(&mut log).await;
            }
            (child.wait().await, log)
        };
        let (status, log) = tokio::time::timeout(PATIENCE, watching)
            .await
            .map_err(|_| failed(format!("not built within {} s", PATIENCE.as_secs())))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        Ok((status.is_ok_and(|status| status.success()), log))
    }
}

/// Runs what reads and removes whole trees where it may block: the agent's one thread keeps the lease.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Removes what was used longest ago and nobody uses now, until the bound holds.
fn shrink(dir: &Path, bound: ByteCount, building: &Mutex<Building>, uses: &Mutex<Uses>) {
    let Ok(entries) = dir.read_dir() else {
        return;
    };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let used = path.join(COMPLETE).metadata().ok()?.modified().ok()?;
            Some((used, size(&path), path))
        })
        .collect();
    all.sort();
    let downloads = dir.join(DOWNLOADS);
    if size(&downloads) > bound.0 / 4 {
        let _ = std::fs::remove_dir_all(downloads);
    }
    let mut total: u64 = all.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in all {
        if total > bound.0 && take_away(&path, building, uses) {
            total -= size;
        }
    }
}

/// Removes an environment that nobody uses; false where somebody does, or it will not go.
fn take_away(path: &Path, building: &Mutex<Building>, uses: &Mutex<Uses>) -> bool {
    let away = {
        // Whoever comes after this finds it gone, and builds it again.
        let uses = uses.lock();
        let is_used = |known: &Weak<Environment>| known.strong_count() > 0;
        if uses.get(path).is_some_and(is_used) {
            return false;
        }
        building
            .lock()
            .retain(|_, cell| cell.get().is_none_or(|built| built != path));
        let away = path.with_extension("gone");
        match std::fs::rename(path, &away) {
            Ok(()) => away,
            Err(_) => return false,
        }
    };
    std::fs::remove_dir_all(away).is_ok()
}

/// The first line of a lock that is no `name==version`, marker, hash or comment: options and paths
/// would make this machine read and fetch what the lock's author likes.
fn strange_line(lock: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(lock) {
        Ok(text) => text,
        Err(_) => return Some("(it is not UTF-8 text)".into()),
    };
    let is_plain = |line: &str| {
        let line = line.trim().trim_end_matches('\\').trim_end();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first() else {
            return true;
        };
        let hash = |word: &str| word.starts_with("--hash=sha256:");
        let requirement = line.split(" --hash=").next().unwrap_or("");
        first.starts_with('#')
            || words.iter().all(|word| hash(word))
            || (first.starts_with(|c: char| c.is_ascii_alphanumeric())
                && requirement.contains("==")
                && !requirement.contains(['/', '@', '$'])
                && words
                    .iter()
                    .all(|word| !word.starts_with("--") || hash(word)))
    };
    text.lines()
        .find(|line| !is_plain(line))
        .map(|line| line.chars().take(200).collect())
}

/// One environment a (tenant, project, lock, interpreter).
fn name(wanted: &Wanted<'_>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("farlane/environment/1");
    hasher.update(wanted.tenant.as_bytes());
    hasher.update(&wanted.project.to_bytes());
    hasher.update(wanted.id.as_bytes());
    hasher.update(Digest::of(&wanted.lock).as_bytes());
    hasher.update(wanted.python.path.as_os_str().as_encoded_bytes());
    hasher.update(wanted.python.interpreter.full.as_bytes());
    Digest(*hasher.finalize().as_bytes())
}

/// Makes it readable for workers, marks it complete and puts it in its place.
fn finish(target: &Path, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(target)?;
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(target.join(COMPLETE), b"")?;
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    std::fs::rename(target, path)
}

fn size(path: &Path) -> u64 {
    let Ok(entries) = path.read_dir() else {
        return 0;
    };
    let each = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    each.sum()
}

/// Beside this binary, in `PATH`, or as a module of an interpreter.
fn find_uv(python: &Python) -> Option<Vec<PathBuf>> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("uv")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("uv"));
    if let Some(found) = beside
        .into_iter()
        .chain(in_path)
        .find(|file| file.is_file())
    {
        return Some(vec![found]);
    }
    let asked = std::process::Command::new(&python.path)
        .args(["-c", "import uv"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked
        .is_ok_and(|status| status.success())
        .then(|| vec![python.path.clone(), "uv".into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_name_packages_and_nothing_else() {
        let fine = "# made by uv\nnumpy==2.1.0 ; python_version >= '3.10' \\\n    --hash=sha256:aa \\\n    \
                    --hash=sha256:bb\n    # via scikit-learn\nscikit-learn[all]==1.5 --hash=sha256:cc\n\n";
        assert_eq!(strange_line(fine.as_bytes()), None);
        for line in [
            "--index-url http://169.254.169.254/",
            "-e /home/somebody",
            "--find-links=/",
            "-r /etc/passwd",
            "pkg @ file:///etc/passwd",
            "./wheel.whl",
            "/abs.whl",
            "numpy==1 --config-settings=x",
            "numpy",
            "numpy==${HOME}",
        ] {
            assert!(
                strange_line(format!("a==1\n{line}\n").as_bytes()).is_some(),
                "{line}"
            );
        }
        assert!(strange_line(&[0xff]).is_some());
    }

    #[tokio::test]
    async fn what_is_used_is_not_removed_however_long_ago_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let environments = Environments::new(dir.path().join("e"), None, ByteCount(1500));
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let put = |name: &str| {
            let path = environments.dir.join(name);
            let made = std::fs::create_dir(&path)
                .and_then(|()| std::fs::write(path.join("module.py"), [b'#'; 1000]))
                .and_then(|()| std::fs::File::create(path.join(COMPLETE)))
                .and_then(|file| file.set_modified(long_ago));
            made.unwrap_or_else(|error| panic!("{error}"));
            path
        };
        let shrink = || {
            let environments = &environments;
            super::shrink(
                &environments.dir,
                environments.bound,
                &environments.building,
                &environments.uses,
            );
        };
        let (used, unused) = (put("a"), put("b"));
        let (running, waiting) = (environments.using(&used), environments.using(&used));
        shrink();
        assert!(used.join("module.py").exists() && !unused.exists());
        put("b");
        drop(running);
        shrink();
        assert!(used.exists() && !unused.exists(), "one still waits");
        put("b");
        drop(waiting);
        shrink();
        assert!(!used.exists() && unused.exists());
        let left = environments.dir.read_dir().map_or(0, Iterator::count);
        assert_eq!(left, 1, "nothing lies around half removed");
    }

    #[tokio::test]
    async fn a_lock_that_cannot_be_built_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let environments = Environments::new(dir.path().join("e"), None, ByteCount::mib(1));
        let version = farlane_model::PythonVersion {
            major: 3,
            minor: 11,
        };
        let python = Python {
            path: "/usr/bin/python3".into(),
            interpreter: farlane_model::Interpreter {
                version,
                full: "3.11.0".into(),
            },
            prefixes: Vec::new(),
        };
        let wanted = Wanted {
            tenant: TenantId::default(),
            project: ProjectId::new(0, [0; 10]),
            id: Digest::default(),
            lock: Bytes::from_static(b"-e /home"),
            python: &python,
        };
        assert!(environments.get(wanted).await.is_err());
        assert!(environments.building.lock().is_empty());
    }
}
