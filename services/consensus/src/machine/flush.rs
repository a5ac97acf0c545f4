//! The one thread that writes the state file.
//!
//! ```text
//! idle ── dirty ─▶ waits a second, or until 16 MiB or somebody asks ─▶ commits ─▶ idle
//! ```
//! Owns the database. After a failed commit it writes nothing more and the replica stops.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::Database;
use tokio::sync::{oneshot, watch};

use super::Failure;
use super::file::Tree;
use super::shelf::Shelf;

/// How long rows gather. Source: docs/design/log-store.md, "How long rows gather".
const GATHER: Duration = Duration::from_secs(1);

/// The state file could not be written; the replica has stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state file cannot be written")]
pub(crate) struct FlushFailed;

type Reply = oneshot::Sender<Result<Arc<Tree>, FlushFailed>>;

#[derive(Default)]
struct Wanted {
    since: Option<Instant>,
    full: bool,
    asked: Vec<Reply>,
    stop: bool,
}

#[derive(Default)]
struct Bell {
    wanted: Mutex<Wanted>,
    rung: Condvar,
}

/// A handle on the thread, which ends with it, flushing nothing: the log has everything.
pub(crate) struct Flusher {
    bell: Arc<Bell>,
    shelf: Arc<Shelf>,
    /// Shared with the thread; the installer of a snapshot puts another in its place. `None` once
    /// closed.
    database: Arc<Mutex<Option<Database>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    /// Starts the thread.
    pub fn start(
        shelf: Arc<Shelf>,
        database: Database,
        failure: watch::Sender<Option<Failure>>,
    ) -> std::io::Result<Self> {
        let own = Self {
            bell: Arc::default(),
            shelf: shelf.clone(),
            database: Arc::new(Mutex::new(Some(database))),
            thread: Mutex::new(None),
        };
        let (bell, database) = (own.bell.clone(), own.database.clone());
        let thread = std::thread::Builder::new()
            .name("farlane-rows".to_owned())
            .spawn(move || run(&bell, &shelf, &database, &failure))?;
        *own.thread.lock() = Some(thread);
        Ok(own)
    }

    /// Something was merged.
    pub fn dirty(&self) {
        let full = self.shelf.is_full();
        let mut wanted = self.bell.wanted.lock();
        let ring = wanted.since.is_none() || (full && !wanted.full);
        wanted.since.get_or_insert_with(Instant::now);
        wanted.full |= full;
        if ring {
            self.bell.rung.notify_one();
        }
    }

    /// Flushes now, and gives the file as it then is.
    pub async fn flush(&self) -> Result<Arc<Tree>, FlushFailed> {
        let (reply, answer) = oneshot::channel();
        {
            let mut wanted = self.bell.wanted.lock();
            if wanted.stop {
                return Err(FlushFailed);
            }
            wanted.asked.push(reply);
            self.bell.rung.notify_one();
        }
        answer.await.map_err(|_| FlushFailed)?
    }

    /// The database, kept from the thread for as long as it is held.
    pub fn hold(&self) -> parking_lot::MutexGuard<'_, Option<Database>> {
        self.database.lock()
    }

    /// Ends the thread and closes the file. Blocks while a commit is under way.
    pub fn close(&self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::warn!("the state file's thread ended with a panic");
        }
        self.shelf.close();
        self.database.lock().take();
    }

    fn stop(&self) {
        self.bell.wanted.lock().stop = true;
        self.bell.rung.notify_one();
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until there is something to do; `None` once the handle is gone.
fn wait(bell: &Bell) -> Option<Vec<Reply>> {
    let mut wanted = bell.wanted.lock();
    loop {
        if wanted.stop {
            return None;
        }
        let due = wanted.since.map(|since| since + GATHER);
        if wanted.full || !wanted.asked.is_empty() || due.is_some_and(|due| due <= Instant::now()) {
            wanted.full = false;
            wanted.since = None;
            return Some(std::mem::take(&mut wanted.asked));
        }
        match due {
            Some(due) => drop(bell.rung.wait_until(&mut wanted, due)),
            None => bell.rung.wait(&mut wanted),
        }
    }
}

fn run(
    bell: &Bell,
    shelf: &Shelf,
    database: &Mutex<Option<Database>>,
    failure: &watch::Sender<Option<Failure>>,
) {
    while let Some(asked) = wait(bell) {
        let held = database.lock();
        let Some(open) = held.as_ref() else { return };
        let flushed = shelf.flush(open);
        drop(held);
        if let Err(error) = &flushed {
            tracing::error!(%error, "the state file cannot be written");
            let reason = format!("the state file cannot be written: {error}");
            failure.send_if_modified(|known| known.replace(Failure { reason }).is_none());
            let mut wanted = bell.wanted.lock();
            wanted.stop = true;
            wanted.asked.clear();
        }
        for reply in asked {
            // Who asked may have gone away.
            let _ = reply.send(flushed.as_ref().map(Arc::clone).map_err(|_| FlushFailed));
        }
    }
}
