//! The batcher: makes entries of what many propose.
//!
//! ```text
//! propose ─▶ queue ─▶ wait for one of two places in flight ─▶ take all that has come ─▶ one entry
//! ```
//! Owns the bound of an entry and the stamp on it. A lone proposal finds a place free and leaves
//! at once; while two entries are on their way the rest gather. Commands of one call stay together.
//! Every proposal is answered and its place freed: by `apply`, by openraft, or when leadership ends.

use std::sync::Arc;

use farlane_state::Command;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::body;
use crate::error::ProposeError;
use crate::leadership::Leadership;
use crate::machine::Replica;
use crate::raft::{Batch, Caller, Callers, Proposed, Raft};
use crate::time::ClusterTime;

/// Entries on their way at once: one is being synced while the next is being made.
/// Source: crates.md, measured 2026-11.
const IN_FLIGHT: usize = 2;
/// Proposals that wait before callers are made to wait.
const QUEUED: usize = 4096;
/// Proposals taken from the queue at once.
const TAKEN: usize = 1024;

/// One call to `propose`.
struct Request {
    commands: Vec<Command>,
    /// Their size in an entry.
    bytes: usize,
    reply: oneshot::Sender<Result<Proposed, ProposeError>>,
}

/// A handle on the batcher, whose task ends with the last of them.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Request>,
}

/// What the batcher's task works with.
pub(crate) struct Work {
    pub raft: Raft,
    pub replica: Arc<Replica>,
    pub time: Arc<ClusterTime>,
    pub leadership: watch::Receiver<Leadership>,
}

impl Batcher {
    /// Starts the task.
    pub fn start(work: Work) -> Self {
        let (queue, requests) = mpsc::channel(QUEUED);
        tokio::spawn(run(work, requests));
        Self { queue }
    }

    /// Waits until the commands are applied.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Proposed, ProposeError> {
        let bytes = body::size(&commands);
        if bytes > body::MOST {
            return Err(ProposeError::TooLarge {
                bytes,
                most: body::MOST,
            });
        }
        let (reply, answer) = oneshot::channel();
        let request = Request {
            commands,
            bytes,
            reply,
        };
        self.queue
            .send(request)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        answer.await.map_err(|_| ProposeError::Stopped)?
    }
}

async fn run(work: Work, mut requests: mpsc::Receiver<Request>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut held: std::collections::VecDeque<Request> = std::collections::VecDeque::new();
    let mut taken = Vec::new();
    loop {
        if held.is_empty() {
            if requests.recv_many(&mut taken, TAKEN).await == 0 {
                return;
            }
            held.extend(taken.drain(..));
        }
        let Ok(permit) = places.clone().acquire_owned().await else {
            return;
        };
        // More may have come while waiting for the place.
        while held.len() < TAKEN
            && let Ok(request) = requests.try_recv()
        {
            held.push_back(request);
        }
        let mut bytes = 0;
        let mut own = Vec::with_capacity(held.len());
        while let Some(request) = held.pop_front() {
            if !own.is_empty() && bytes + request.bytes > body::MOST {
                held.push_front(request);
                break;
            }
            bytes += request.bytes;
            own.push(request);
        }
        let term = work.leadership.borrow().term;
        let now = work.time.stamp(term, work.replica.shelf.now());
        let body = body::encode(now, bytes, own.iter().flat_map(|request| &request.commands));
        let callers = own.into_iter().map(|request| Caller {
            commands: request.commands.len(),
            reply: request.reply,
        });
        let callers = Callers::new(callers.collect(), permit);
        let batch = Batch {
            body,
            callers: callers.clone(),
        };
        if work.replica.is_stopping() {
            // openraft would report an error of a core that is gone.
            callers.ended(None);
            return;
        }
        let mut over = work.replica.over.subscribe();
        match work.raft.client_write_ff(batch).await {
            // One task an entry, which works only where the entry fails.
            Ok(ended) => drop(tokio::spawn(async move {
                tokio::select! {
                    biased;
                    ended = ended => callers.ended(ended.ok()),
                    // openraft forgets who waits for an entry that a snapshot covers.
                    Ok(()) = over.changed() => callers.unknown(),
                }
            })),
            Err(_) => {
                callers.ended(None);
                return;
            }
        }
    }
}
