//! Tasks that can never run are ended at once, with the reason.

use farlane_model::{Exit, TaskId};
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::{Outcome, Refusal};

/// Ends queued tasks with an exit, `Infeasible` as a rule. Placed ones are passed over: somebody
/// found a place for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Which.
    pub tasks: Vec<TaskId>,
    /// How they end; the message names what would have to differ.
    pub exit: Exit,
}

impl Refuse {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.tasks.len() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        let exit = Exit::new(self.exit.kind, self.exit.message);
        let mut count = 0;
        for id in self.tasks {
            let Some(handle) = ctx.state.find(id) else {
                continue;
            };
            if ctx.state.tasks[handle].lease.is_none() {
                ctx.end(handle, exit.clone());
                count += 1;
            }
        }
        Ok(Outcome::Settled { count })
    }
}
