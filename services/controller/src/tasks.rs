//! Tasks, as people and other processes look at them: one, a page of them, and why they are where they are.
//!
//! Owns the views of tasks. Every one is read from applied state and rows; nothing is kept for them.

use bytes::Bytes;
use farlane_model::{AttemptRef, NodeId, TaskId};
use farlane_state::{FinishedTask, LiveTask, Rows, Session, State, Table};
use farlane_wire::{id, v1};

use crate::results::{signature, task_result};
use crate::{Caller, ControlError, Controller};

/// Tasks of one page. Source: network.proto, `ListTasksRequest`.
const MAX_PAGE: usize = 1000;
/// Sessions of a project that a listing looks into, newest first.
const MAX_SESSIONS: usize = 256;
/// Numbers of a session looked at in one scan for its newest finished tasks.
const WINDOW: u64 = 1024;
/// Such scans for one page: four million tasks that still wait may lie above those that finished.
const MAX_WINDOWS: u64 = 4096;

impl Controller {
    /// One task of the caller's project.
    ///
    /// *Errors*: unknown, another project's, or no longer kept.
    pub fn get_task(&self, caller: &Caller, task: &Bytes) -> Result<v1::TaskView, ControlError> {
        let task = id::task(task)?;
        let live = self.consensus.read(|state| {
            let session = state
                .session(&task.session())
                .filter(|s| s.project == caller.project);
            let next = session.ok_or(ControlError::UnknownTask)?.next_seq;
            match state.task(task) {
                Some(live) => Ok(Some(self.live_view(&live))),
                None if task.seq() == 0 || task.seq() >= next => Err(ControlError::UnknownTask),
                None => Ok(None),
            }
        })?;
        match live {
            Some(view) => Ok(view),
            None => self.finished_view(task).ok_or(ControlError::ResultExpired),
        }
    }

    /// Whether a task has not finished.
    pub fn is_live(&self, task: TaskId) -> bool {
        self.consensus.read(|s| s.task(task).is_some())
    }

    /// Of the cluster.
    pub fn epoch(&self) -> u64 {
        self.consensus.read(|s| s.epoch())
    }

    /// Whether an attempt is, or was at the end, this node's.
    pub fn ran_on(&self, attempt: &AttemptRef, node: NodeId) -> bool {
        let live = self.consensus.read(|s| {
            let task = s.task(attempt.task)?;
            Some(task.attempt == attempt.attempt && task.placed.is_some_and(|p| p.node.id == node))
        });
        live.unwrap_or_else(|| {
            let finished = self.finished(attempt.task);
            finished.is_some_and(|(f, _)| f.attempt == attempt.attempt && f.node == Some(node))
        })
    }

    fn live_view(&self, task: &LiveTask<'_>) -> v1::TaskView {
        let node = task.placed.map(|p| p.node);
        let running = self.is_started(&task.attempt_ref());
        v1::TaskView {
            task: id::task_bytes(&task.id),
            function: task.spec.task.function.clone(),
            phase: match node {
                None => v1::TaskPhase::Queued,
                Some(_) if running => v1::TaskPhase::Running,
                Some(_) => v1::TaskPhase::Placed,
            }
            .into(),
            attempt: task.attempt,
            node: node.map(|n| id::node_bytes(&n.id)).unwrap_or_default(),
            node_name: node.map(|n| n.spec.name.clone()).unwrap_or_default(),
            region: node.map(|n| n.region.to_string()).unwrap_or_default(),
            submitted_ms: task.submitted.0,
            cost_usd_micros: task.spent.0,
            emitted_ng: task.emitted.map(|ng| ng.0),
            quote_bytes: quoted(task),
            retries: u32::from(task.lost) + u32::from(task.raised),
            gang_rank: task.gang.map_or(0, |gang| gang.rank.into()),
            gang_size: task.gang.map_or(0, |gang| gang.size.into()),
            spec_bytes: task.spec.bytes.clone(),
            wrapped_key: Bytes::copy_from_slice(task.wrapped_key),
            wrapped_session_key: task.session.wrapped_session_key.clone(),
            ..Default::default()
        }
    }

    fn finished_view(&self, task: TaskId) -> Option<v1::TaskView> {
        let (finished, batch) = self.finished(task)?;
        let mut view = self
            .consensus
            .read(|state| finished_summary(state, &finished));
        if let Some(batch) = batch.and_then(farlane_state::BatchRow::from_bytes) {
            view.record_bytes = self.record_of(batch.node).unwrap_or_default();
            view.signature = Some(signature(batch));
        }
        view.result = Some(task_result(finished));
        Some(view)
    }

    /// Tasks of the caller's project, newest sessions first; live ones before finished ones.
    ///
    /// *Errors*: a phase or page that is none.
    pub fn list_tasks(
        &self,
        caller: &Caller,
        request: &v1::ListTasksRequest,
    ) -> Result<Vec<v1::TaskView>, ControlError> {
        let phases = ["", "queued", "placed", "running", "finished"];
        if !phases.contains(&request.phase.as_str()) {
            return Err(ControlError::invalid(
                "phase must be queued, placed, running or finished",
            ));
        }
        let before = match request.before.is_empty() {
            true => None,
            false => Some(id::task(&request.before)?),
        };
        let limit = (request.limit as usize).clamp(1, MAX_PAGE);
        let rows = self.consensus.rows();
        Ok(self.consensus.read(|state| {
            let mut sessions: Vec<_> = state
                .sessions()
                .filter(|s| s.project == caller.project)
                .collect();
            sessions.reverse();
            let mut views = Vec::new();
            for session in sessions.into_iter().take(MAX_SESSIONS) {
                let older = |task: &TaskId| before.is_none_or(|b| *task < b);
                let mut tasks: Vec<v1::TaskView> = Vec::new();
                if request.phase != "finished" {
                    let live = state.session_tasks(&session.id).filter(|t| older(&t.id));
                    tasks.extend(
                        live.map(|t| self.live_view(&t))
                            .filter(|v| in_phase(v, &request.phase)),
                    );
                }
                if matches!(request.phase.as_str(), "" | "finished") {
                    let found = newest_finished(&rows, session, before, limit);
                    tasks.extend(found.iter().map(|f| finished_summary(state, f)));
                }
                tasks.sort_by(|a, b| b.task.cmp(&a.task));
                views.extend(tasks);
                if views.len() >= limit {
                    break;
                }
            }
            views.truncate(limit);
            views
        }))
    }
}

/// What the placement was expected to take, in its bytes.
pub(crate) fn quoted(task: &LiveTask<'_>) -> Bytes {
    let placed = task.placed.map(|p| p.lease.quoted.bytes().clone());
    placed.unwrap_or_default()
}

fn in_phase(view: &v1::TaskView, phase: &str) -> bool {
    match phase {
        "queued" => view.phase() == v1::TaskPhase::Queued,
        "placed" => view.phase() == v1::TaskPhase::Placed,
        "running" => view.phase() == v1::TaskPhase::Running,
        _ => true,
    }
}

fn finished_summary(state: &State, finished: &FinishedTask) -> v1::TaskView {
    let spec = state.spec(&finished.spec);
    let session = state.session(&finished.task.session());
    v1::TaskView {
        task: id::task_bytes(&finished.task),
        function: spec.map(|s| s.task.function.clone()).unwrap_or_default(),
        phase: match finished.exit.kind {
            farlane_model::ExitKind::Cancelled => v1::TaskPhase::Cancelled,
            _ => v1::TaskPhase::Finished,
        }
        .into(),
        attempt: finished.attempt,
        node: finished
            .node
            .as_ref()
            .map(id::node_bytes)
            .unwrap_or_default(),
        node_name: finished.node_name.clone(),
        region: finished.region.clone(),
        submitted_ms: finished.submitted.0,
        started_ms: finished.started.0,
        ended_ms: finished.ended.0,
        cost_usd_micros: finished.cost.0,
        emitted_ng: finished.emitted.map(|ng| ng.0),
        quote_bytes: finished.quote.clone(),
        exit: Some(finished.exit.clone().into()),
        retries: finished.retries,
        gang_rank: finished.gang.map_or(0, |(rank, _)| rank.into()),
        gang_size: finished.gang.map_or(0, |(_, size)| size.into()),
        spec_bytes: spec.map(|s| s.bytes.clone()).unwrap_or_default(),
        wrapped_key: finished.wrapped_key.clone(),
        wrapped_session_key: session
            .map(|s| s.wrapped_session_key.clone())
            .unwrap_or_default(),
        ..Default::default()
    }
}

/// A session's newest finished tasks older than `before`, newest first. Its numbers are dense, so
/// they are walked down in windows, whatever lies further back.
fn newest_finished(
    rows: &impl Rows,
    session: &Session,
    before: Option<TaskId>,
    limit: usize,
) -> Vec<FinishedTask> {
    let mut top = match before {
        Some(before) if before.session() < session.id => return Vec::new(),
        Some(before) if before.session() == session.id => before.seq().min(session.next_seq),
        _ => session.next_seq,
    };
    let mut out = Vec::new();
    for _ in 0..MAX_WINDOWS {
        if top <= 1 || out.len() >= limit {
            break;
        }
        let bottom = top.saturating_sub(WINDOW).max(1);
        let (from, to) = (session.id.task(bottom), session.id.task(top));
        let found = rows.scan(
            Table::Finished,
            &from.to_bytes(),
            &to.to_bytes(),
            WINDOW as usize,
        );
        let newest_first = found.into_iter().rev();
        out.extend(newest_first.filter_map(|(_, row)| FinishedTask::from_bytes(row)));
        top = bottom;
    }
    out.truncate(limit);
    out
}
