//! Somebody of the project asked to stop tasks.

use farlane_model::{Exit, ExitKind, ProjectId, TaskId};
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::settle::Ending;
use crate::{Outcome, Refusal};

/// Ends tasks at once, queued or placed: the earlier log entry wins over a result under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who asks; tasks of other projects are passed over.
    pub project: ProjectId,
    /// Those that are finished are passed over.
    pub tasks: Vec<TaskId>,
    /// For people; may be empty.
    pub reason: String,
}

impl Cancel {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.tasks.len() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        let exit = Exit::new(ExitKind::Cancelled, self.reason);
        let mut tasks = Vec::new();
        for id in self.tasks {
            let Some(handle) = ctx.state.find(id) else {
                continue;
            };
            let session = ctx.state.tasks[handle].session;
            if ctx.state.sessions[session].project != self.project {
                continue;
            }
            // The rest of its gang ends with it.
            tasks.push(id);
            tasks.extend(
                ctx.state
                    .kin(handle)
                    .into_iter()
                    .map(|h| ctx.attempt_ref(h).task),
            );
            ctx.end(handle, exit.clone());
        }
        Ok(Outcome::Cancelled { tasks })
    }
}

impl Ctx<'_> {
    /// The control plane ends a task: its attempt, if any, is stopped and billed nothing.
    pub fn end(&mut self, handle: u32, exit: Exit) {
        self.stop(handle);
        self.bill_unreported(handle, exit.kind, true);
        self.finish_task(handle, Ending::decided(exit, self.stamp.now));
    }
}
