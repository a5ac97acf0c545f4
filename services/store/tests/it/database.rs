//! Databases for a test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farlane_store::{Pepper, Store};
use tempfile::TempDir;

/// User and group "nobody" on Debian: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;
/// A cold initdb and start take two seconds on a slow disk; ten times that is a failure.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A fresh SQLite ledger.
pub async fn sqlite() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("ledger.sqlite").display());
    (Store::open(&url, Pepper::new([7; 32])).await.unwrap(), dir)
}

/// A PostgreSQL server of this test's own, on a Unix socket in a temporary folder.
pub struct Postgres {
    server: Child,
    dir: TempDir,
    bin: PathBuf,
}

impl Postgres {
    pub fn start() -> Self {
        let bin = find_bin();
        let dir = tempfile::Builder::new()
            .prefix("farlane-pg-")
            .tempdir_in("/tmp")
            .unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = command(&bin, "initdb", dir.path())
            .args([
                "--auth=trust",
                "--username=farlane",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let server = command(&bin, "postgres", dir.path())
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { server, dir, bin };
        let begun = Instant::now();
        while !this.psql("SELECT 1") {
            assert!(begun.elapsed() < START_LIMIT, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        this
    }

    fn psql(&self, sql: &str) -> bool {
        command(&self.bin, "psql", self.dir.path())
            .args(["-U", "farlane", "-d", "postgres", "-c", sql, "-h"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }

    /// A fresh ledger in a database of that name.
    pub async fn store(&self, name: &str) -> Store {
        assert!(self.psql(&format!("CREATE DATABASE {name}")));
        let url = format!(
            "postgres://farlane@localhost/{name}?host={}",
            self.dir.path().display()
        );
        Store::open(&url, Pepper::new([7; 32])).await.unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: immediate shutdown, the postmaster takes its children with it.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.server.id().to_string()])
            .status();
        let _ = self.server.wait();
    }
}

fn command(bin: &Path, name: &str, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(name));
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Where PostgreSQL's programs lie: Debian's folders, newest first, then the PATH.
fn find_bin() -> PathBuf {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    folders
        .into_iter()
        .find(|f| f.join("initdb").exists() && f.join("postgres").exists())
        .expect("PostgreSQL is not installed: apt-get install -y postgresql (or run `cargo xtask test`)")
}
