//! Time passed: deadlines, kept results, keys and sessions that came to their end.

use farlane_model::{Digest, Exit, ExitKind, ProjectId, SessionId, TaskId};
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::project::ProjectLoad;
use crate::row::{Cursor, keys};
use crate::rows::Table;
use crate::session::SESSION_IDLE;
use crate::{Outcome, Refusal};

/// What the leader found to be due. Tasks, keys and sessions are judged again by cluster time;
/// results are rows, so there the leader's word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    /// Tasks past `deadline`, or past `queue_timeout` and never placed.
    pub tasks: Vec<TaskId>,
    /// Idempotency keys.
    pub keys: Vec<(ProjectId, Digest)>,
    /// Results whose retention ended.
    pub results: Vec<Forgotten>,
    /// Signatures whose last result goes with `results`.
    pub batches: Vec<(SessionId, Cursor)>,
    /// Sessions that hold nothing and were silent for 48 h.
    pub sessions: Vec<SessionId>,
}

/// A result that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Whose.
    pub session: SessionId,
    /// Where it finished.
    pub at: Cursor,
    /// Its number.
    pub seq: u64,
}

impl Expire {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items() == 0
    }

    fn items(&self) -> usize {
        self.tasks.len()
            + self.keys.len()
            + self.results.len()
            + self.batches.len()
            + self.sessions.len()
    }

    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.items() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        let mut count = 0;
        for id in self.tasks {
            count += u32::from(expire_task(ctx, id));
        }
        for (project, key) in self.keys {
            count += u32::from(expire_key(ctx, project, key));
        }
        for result in self.results {
            count += u32::from(forget(ctx, result));
        }
        for (session, at) in self.batches {
            ctx.writes
                .delete(Table::Batches, &keys::result(session, at));
        }
        for session in self.sessions {
            count += u32::from(close(ctx, session));
        }
        Ok(Outcome::Settled { count })
    }
}

fn expire_task(ctx: &mut Ctx, id: TaskId) -> bool {
    let Some(handle) = ctx.state.find(id) else {
        return false;
    };
    let task = &ctx.state.tasks[handle];
    if ctx.state.ends_at(task).is_none_or(|at| at > ctx.stamp.now) {
        return false;
    }
    let deadline = ctx.state.specs.slab[task.spec].task.timing.deadline;
    let past = deadline.is_some_and(|d| task.submitted.saturating_add(d) <= ctx.stamp.now);
    let why = if past {
        "the deadline passed"
    } else {
        "not placed within queue_timeout"
    };
    ctx.end(handle, Exit::new(ExitKind::Expired, why));
    true
}

fn expire_key(ctx: &mut Ctx, project: ProjectId, key: Digest) -> bool {
    let Some((_, until)) = ctx.state.idempotency.get(&(project, key)).copied() else {
        return false;
    };
    if until > ctx.stamp.now {
        return false;
    }
    ctx.state.idempotency.remove(&(project, key));
    ctx.state.idempotency_ends.remove(&(until, project, key));
    ctx.writes
        .delete(Table::Idempotency, &keys::idempotency(project, key));
    true
}

fn forget(ctx: &mut Ctx, gone: Forgotten) -> bool {
    let Some(handle) = ctx.state.session_ids.get(&gone.session).copied() else {
        return false;
    };
    let session = &mut ctx.state.sessions[handle];
    // A live task has no result; nor has a number that was never given.
    if session.kept == 0 || gone.seq >= session.next_seq || session.task(gone.seq).is_some() {
        return false;
    }
    session.kept -= 1;
    let project = session.project;
    if let Some(load) = ctx.state.projects.get_mut(&project) {
        load.kept = load.kept.saturating_sub(1);
    }
    ctx.writes
        .delete(Table::Finished, &keys::task(gone.session.task(gone.seq)));
    ctx.writes
        .delete(Table::Results, &keys::result(gone.session, gone.at));
    // Not `mark`: forgetting is no sign of life.
    let (key, marks) = (
        keys::session(gone.session),
        ctx.state.sessions[handle].marks(),
    );
    ctx.writes.put_serde(Table::Marks, &key, &marks);
    true
}

fn close(ctx: &mut Ctx, id: SessionId) -> bool {
    let Some(handle) = ctx.state.session_ids.get(&id).copied() else {
        return false;
    };
    if !ctx
        .state
        .is_idle(&ctx.state.sessions[handle], ctx.stamp.now)
    {
        return false;
    }
    let Some(session) = ctx.state.sessions.remove(handle) else {
        return false;
    };
    ctx.state.session_ids.remove(&id);
    ctx.unmark(handle);
    for spec in session.specs {
        let digest = ctx.state.specs.slab[spec].digest;
        ctx.writes
            .delete(Table::SessionSpecs, &keys::session_spec(id, digest));
        if ctx.state.specs.release(spec) {
            ctx.writes.delete(Table::Specs, &keys::spec(digest));
        }
    }
    for seq in session.verdicts.into_keys() {
        ctx.writes
            .delete(Table::Verdicts, &keys::task(id.task(seq)));
    }
    ctx.writes.delete(Table::Sessions, &keys::session(id));
    ctx.writes.delete(Table::Marks, &keys::session(id));
    let load = ctx.state.projects.get(&session.project);
    if load.is_some_and(|load| *load == ProjectLoad::default()) {
        ctx.state.projects.remove(&session.project);
    }
    true
}

impl crate::State {
    /// Whether a session holds nothing and has been silent for long.
    pub(crate) fn is_idle(&self, session: &crate::Session, now: farlane_units::Millis) -> bool {
        session.live == 0
            && session.kept == 0
            && !self.granters.contains_key(&session.id)
            && session.active.saturating_add(SESSION_IDLE) <= now
    }
}
