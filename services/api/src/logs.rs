//! Sealed output in and out.

use std::sync::Arc;
use std::time::Duration;

use farlane_controller::{Caller, ControlError, Controller, LogError, LogStore, StoredChunk};
use farlane_model::{AttemptRef, NodeId, TaskId};
use farlane_wire::{ErrorCode, id, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Replies, invalid, status};

/// Chunks read ahead of a reader.
const AHEAD: usize = 16;
/// How long to wait for the last output of a task that has ended. Source: an agent sends what it has
/// within a second of the end.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often a follower looks whether the task has ended meanwhile.
const LOOK: Duration = Duration::from_secs(1);

fn log_status(error: LogError) -> Status {
    match error {
        LogError::ChunkTooLarge => ErrorCode::PayloadTooLarge.status(error.to_string()),
        LogError::Disk(error) => {
            tracing::error!(%error, "the log store's disk failed");
            ErrorCode::Unavailable.status("output cannot be kept or read now")
        }
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Status::internal(e.to_string()))?
        .map_err(log_status)
}

/// Keeps what an agent pushes; how many chunks came.
///
/// *Errors*: malformed, of an attempt that the node never had, too large, or the disk.
pub(crate) async fn keep(
    controller: &Controller,
    node: NodeId,
    mut chunks: Streaming<v1::LogChunk>,
) -> Result<u64, Status> {
    let mut count = 0;
    let mut allowed: Option<AttemptRef> = None;
    while let Some(chunk) = chunks.message().await? {
        let attempt = farlane_wire::convert::attempt(chunk.attempt)?;
        if allowed != Some(attempt) {
            if !controller.ran_on(&attempt, node) {
                // Given to another node since: nobody will ask for it.
                count += 1;
                continue;
            }
            allowed = Some(attempt);
        }
        let logs = controller.logs().clone();
        let stored = StoredChunk {
            chunk: chunk.chunk,
            last: chunk.last,
            dropped: chunk.dropped_bytes,
            node,
            sealed: chunk.sealed,
        };
        on_disk(move || logs.append(attempt, &[stored])).await?;
        count += 1;
    }
    Ok(count)
}

/// Streams a task's output, as far as it is there, or until the task has ended.
///
/// *Errors*: unknown task.
pub(crate) fn read(
    controller: Arc<Controller>,
    caller: Caller,
    request: v1::LogsRequest,
) -> Result<Replies<v1::LogChunk>, Status> {
    let task = id::task(&request.task)?;
    if request.attempt > 0 && request.from_chunk == u32::MAX {
        return Err(invalid("from_chunk is past any chunk"));
    }
    // Also answers `unknown_task` for those of other projects.
    match controller.get_task(&caller, &request.task) {
        Ok(_) | Err(ControlError::ResultExpired) => {}
        Err(error) => return Err(status(error)),
    }
    let (out, chunks) = mpsc::channel(AHEAD);
    let reader = Reader {
        controller,
        caller,
        task,
        request,
        out,
    };
    tokio::spawn(reader.run());
    Ok(Box::pin(ReceiverStream::new(chunks)))
}

struct Reader {
    controller: Arc<Controller>,
    caller: Caller,
    task: TaskId,
    request: v1::LogsRequest,
    out: mpsc::Sender<Result<v1::LogChunk, Status>>,
}

impl Reader {
    async fn run(self) {
        if let Err(status) = self.stream().await {
            // A reader that has gone needs no error.
            let _ = self.out.send(Err(status)).await;
        }
    }

    async fn stream(&self) -> Result<(), Status> {
        let logs: LogStore = self.controller.logs().clone();
        let mut more = logs.follow(self.task);
        let (mut attempt, mut from) = (self.request.attempt, self.request.from_chunk);
        let mut ended = false;
        loop {
            self.controller.check_key(&self.caller).map_err(status)?;
            let was_live = self.controller.is_live(self.task);
            let task = self.task;
            if self.request.attempt == 0 {
                let store = logs.clone();
                let newest = on_disk(move || store.newest(task)).await?.unwrap_or(0);
                if newest != attempt && attempt != 0 {
                    from = 0;
                }
                attempt = newest;
            }
            let (store, number, start) = (logs.clone(), attempt, from);
            let page = on_disk(move || store.read(task, number, start)).await?;
            let got = page.len();
            for chunk in page {
                from = chunk.chunk.saturating_add(1);
                ended = chunk.last;
                if self.out.send(Ok(self.wire(attempt, chunk))).await.is_err() {
                    return Ok(());
                }
            }
            if got > 0 {
                continue;
            }
            let over = !self.request.follow || (ended && (!was_live || self.request.attempt != 0));
            if over {
                return Ok(());
            }
            let wait = if was_live { LOOK } else { LAST_WAIT };
            let waited = tokio::select! {
                () = self.out.closed() => return Ok(()),
                waited = tokio::time::timeout(wait, more.changed()) => waited,
            };
            if waited.is_err() && !was_live {
                return Ok(());
            }
        }
    }

    fn wire(&self, attempt: u32, chunk: StoredChunk) -> v1::LogChunk {
        let attempt = AttemptRef {
            task: self.task,
            attempt,
            epoch: self.controller.epoch(),
        };
        v1::LogChunk {
            attempt: Some(attempt.into()),
            chunk: chunk.chunk,
            node: id::node_bytes(&chunk.node),
            sealed: chunk.sealed,
            last: chunk.last,
            dropped_bytes: chunk.dropped,
        }
    }
}
