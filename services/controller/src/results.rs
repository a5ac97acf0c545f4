//! Finished tasks on their way to clients.
//!
//! Owns the walk along a session's results from its cursor, and their form on the wire. A client that
//! is slow, new or back simply has a lower cursor: there is one path for all of them.

use bytes::Bytes;
use farlane_model::{AttemptRef, NodeId, TaskId};
use farlane_state::{BatchRow, Cursor, FinishedTask, ResultRow, Rows, Table, keys};
use farlane_wire::v1;
use farlane_wire::v1::session_frame::Body as ToClient;

use crate::Controller;
use crate::link::{RESULT_RESERVE, SessionLink};
use crate::push::bytes_of;

/// Results read at a time. Source: docs/design/spine.md, the bound of a batch.
const PAGE: usize = 512;
/// Sealed bytes of one frame. Source: as for `Assign`.
const FRAME_BYTES: usize = 1 << 20;

/// Results that go out together: one node's signature, or none.
struct Run {
    batch: Option<(u64, u32)>,
    results: Vec<v1::TaskResult>,
    bytes: usize,
    last: Cursor,
}

impl Controller {
    /// Sends what finished after the session's cursor. False when its queue was short.
    pub(crate) fn push_results(&self, session: &SessionLink) -> bool {
        let rows = self.consensus.rows();
        let mut push = session.push.lock();
        loop {
            let (from, to) = keys::results_after(session.session, push.cursor);
            let page = rows.scan(Table::Results, &from, &to, PAGE);
            let whole = page.len() < PAGE;
            let last = page.last().and_then(|(key, _)| keys::read_result(key));
            for run in runs(session, page, &rows) {
                if !self.send_run(session, &mut push, run, &rows) {
                    push.behind = true;
                    return false;
                }
            }
            // Also past rows whose task is no longer kept.
            push.cursor = push.cursor.max(last.map(|(_, at)| at).unwrap_or_default());
            if whole {
                push.behind = false;
                return true;
            }
        }
    }

    fn send_run(
        &self,
        session: &SessionLink,
        push: &mut crate::link::SessionPush,
        run: Run,
        rows: &impl Rows,
    ) -> bool {
        if session.link.room() <= RESULT_RESERVE {
            return false;
        }
        let mut frame = v1::ResultBatch {
            cursor: Some(v1::Cursor {
                index: run.last.index,
                ordinal: run.last.ordinal,
            }),
            results: run.results,
            ..Default::default()
        };
        if let Some((index, ordinal)) = run.batch {
            let key = keys::result(session.session, Cursor { index, ordinal });
            self.sign(&mut frame, rows.get(Table::Batches, &key), |node| {
                push.tell_signer(node)
            });
        }
        push.cursor = run.last;
        session.frame(ToClient::Results(frame))
    }

    /// Adds the node's signature, and its record where `new` says that this stream has not had it.
    fn sign(
        &self,
        frame: &mut v1::ResultBatch,
        row: Option<Bytes>,
        new: impl FnOnce(NodeId) -> bool,
    ) {
        let Some(batch) = row.and_then(BatchRow::from_bytes) else {
            return;
        };
        frame.node = bytes_of(&batch.node.0);
        if new(batch.node) {
            frame.record_bytes = self.record_of(batch.node).unwrap_or_default();
        }
        frame.signature = Some(signature(batch));
    }

    /// A registered node's canonical signed record.
    pub(crate) fn record_of(&self, node: NodeId) -> Option<Bytes> {
        let rows = self.consensus.rows();
        rows.get(Table::Records, &keys::node(node))
    }

    /// Looks at the watched tasks that are due, and sends those that have finished, outside the cursor.
    /// What is sent is no longer watched. False when the stream's queue was short.
    pub(crate) fn push_due(&self, session: &SessionLink) -> bool {
        let mut push = session.push.lock();
        while let Some(task) = push.due.front().copied() {
            if session.link.room() <= RESULT_RESERVE {
                // A stream that has ended will never have room again.
                return session.link.has_ended();
            }
            push.due.pop_front();
            if !push.watched.contains(&task) {
                continue;
            }
            let Some((finished, batch)) = self.finished(task) else {
                continue;
            };
            let mut frame = v1::ResultBatch {
                results: vec![task_result(finished)],
                ..Default::default()
            };
            self.sign(&mut frame, batch, |node| push.tell_signer(node));
            session.frame(ToClient::Results(frame));
            self.links.watched(session, &mut push, task);
        }
        true
    }

    /// Tells those who watch that these have finished. False when a queue was short.
    pub(crate) fn push_watched(&self, tasks: &[TaskId]) -> bool {
        let mut all = true;
        for task in tasks {
            for session in self.links.watchers(*task) {
                session.push.lock().due.push_back(*task);
                all &= self.push_due(&session);
            }
        }
        all
    }

    /// A finished task's row, and the row of the signature over it.
    pub(crate) fn finished(&self, task: TaskId) -> Option<(FinishedTask, Option<Bytes>)> {
        let rows = self.consensus.rows();
        let finished = rows
            .get(Table::Finished, &keys::task(task))
            .and_then(FinishedTask::from_bytes)?;
        let batch = finished.batch.and_then(|ordinal| {
            let at = Cursor {
                index: finished.at.index,
                ordinal,
            };
            rows.get(Table::Batches, &keys::result(task.session(), at))
        });
        Some((finished, batch))
    }
}

/// A page of results, cut where the signature changes or a frame is full.
fn runs(session: &SessionLink, page: Vec<(Bytes, Bytes)>, rows: &impl Rows) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (key, value) in page {
        let (Some((_, at)), Some(row)) = (keys::read_result(&key), ResultRow::from_bytes(value))
        else {
            continue;
        };
        let task = keys::task(session.session.task(row.seq));
        let Some(finished) = rows
            .get(Table::Finished, &task)
            .and_then(FinishedTask::from_bytes)
        else {
            continue;
        };
        let batch = finished.batch.map(|ordinal| (finished.at.index, ordinal));
        if runs
            .last()
            .is_none_or(|run| run.batch != batch || run.bytes > FRAME_BYTES)
        {
            runs.push(Run {
                batch,
                results: Vec::new(),
                bytes: 0,
                last: at,
            });
        }
        if let Some(run) = runs.last_mut() {
            run.last = at;
            run.bytes += sealed_len(&finished);
            run.results.push(task_result(finished));
        }
    }
    runs
}

fn sealed_len(finished: &FinishedTask) -> usize {
    match &finished.sealed {
        Some(farlane_model::Sealed::Inline(bytes)) => bytes.len() + 64,
        _ => 128,
    }
}

/// A batch's signature on the wire.
pub(crate) fn signature(batch: BatchRow) -> v1::NodeSignature {
    v1::NodeSignature {
        batch: bytes_of(&batch.id),
        leaves: batch.leaves,
        signature: batch.signature,
    }
}

/// A finished task on the wire.
pub(crate) fn task_result(finished: FinishedTask) -> v1::TaskResult {
    let FinishedTask {
        task,
        attempt,
        epoch,
        ..
    } = finished;
    v1::TaskResult {
        attempt: Some(
            AttemptRef {
                task,
                attempt,
                epoch,
            }
            .into(),
        ),
        exit: Some(finished.exit.into()),
        sealed: finished.sealed.map(Into::into),
        leaf: finished.leaf,
        started_ms: finished.started.0,
        ended_ms: finished.ended.0,
        cost_usd_micros: finished.cost.0,
        region: finished.region,
        node_name: finished.node_name,
        emitted_ng: finished.emitted.map(|ng| ng.0),
        quote_bytes: finished.quote,
        moved_bytes: finished.moved.there.saturating_add(finished.moved.back).0,
        egress_usd_picos: finished.egress.picos().0,
    }
}
