//! Where the log is written: by its thread, or at once by who appends.
//!
//! ```text
//! append ─┬─ nothing waits, the disk is quick, no followers ─▶ write and sync here
//!         └─ else ─▶ queue ─▶ the thread gathers, writes, syncs
//! ```
//! Owns who may write. A hand-over to the thread and back wakes a sleeping core twice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::writer::{Job, Writer};
use crate::raft::{Entry, TypeConfig};

/// Up to here a sync is done where it is asked for. Source: a choice: twice the slowest sync seen on a quick
/// disk (0.1 ms), and not more than a runtime's thread may well be kept for.
const QUICK_US: u64 = 200;

/// Who waits for a sync: decides whether the caller's thread may be kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followers {
    /// None: nothing can be done meanwhile.
    None,
    /// They are sent the entries while this server syncs.
    Some,
}

struct Shared {
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
    /// Jobs that the thread has not done.
    queued: AtomicUsize,
}

/// A handle; the thread ends with the last one.
#[derive(Clone)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    followers: Followers,
}

impl Desk {
    /// Starts the thread.
    ///
    /// *Errors*: no thread can be started.
    pub fn start(writer: Writer, followers: Followers) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            writer: Mutex::new(Some(writer)),
            queued: AtomicUsize::new(0),
        });
        let (jobs, received) = channel();
        let own = shared.clone();
        std::thread::Builder::new()
            .name("farlane-log".to_owned())
            .spawn(move || own.run(&received))?;
        Ok(Self {
            shared,
            jobs,
            followers,
        })
    }

    /// Writes and syncs; `flushed` hears of it, now or later.
    ///
    /// *Errors*: the writer has ended.
    pub fn append(&self, entries: Vec<Entry>, flushed: LogFlushed<TypeConfig>) -> io::Result<()> {
        if self.followers == Followers::None
            && self.shared.queued.load(Ordering::Acquire) == 0
            && let Some(mut writer) = self.shared.writer.try_lock()
            && let Some(writer) = writer.as_mut()
            && writer.sync_us.is_some_and(|us| us <= QUICK_US)
        {
            writer.append(&entries, [flushed]);
            return Ok(());
        }
        self.send(Job::Append { entries, flushed })
    }

    /// Has something done that is none of the above, in its turn.
    pub async fn ask(
        &self,
        job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(job(done))?;
        answer.await.map_err(|_| gone())?
    }

    fn send(&self, job: Job) -> io::Result<()> {
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        self.jobs.send(job).map_err(|_| gone())
    }
}

impl Shared {
    /// Works until every handle is gone.
    fn run(&self, jobs: &Receiver<Job>) {
        let mut held = None;
        while let Some(job) = held.take().or_else(|| jobs.recv().ok()) {
            let mut writer = self.writer.lock();
            let Some(open) = writer.as_mut() else { return };
            match job {
                Job::Close { done } => {
                    writer.take();
                    let _ = done.send(Ok(()));
                    return;
                }
                job => {
                    let (next, done) = open.work(job, jobs);
                    self.queued.fetch_sub(done, Ordering::AcqRel);
                    held = next;
                }
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the log's writer has ended")
}
