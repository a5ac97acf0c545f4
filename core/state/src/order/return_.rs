//! Attempts ended, as the leader says: not granted in time, or their node fell silent.

use farlane_model::{AttemptRef, ExitKind, LostCause};
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::{Outcome, Refusal};

/// Takes attempts back from their nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// Those that are no longer current are passed over.
    pub attempts: Vec<(AttemptRef, ReturnReason)>,
}

/// Why the leader takes an attempt back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnReason {
    /// No grant came within 2 s + round trip. Costs no retry.
    NotGranted,
    /// Costs a retry.
    Lost(LostCause),
    /// Its node did not say how it made way, long after its grace. Costs none.
    Preempted,
    /// It waits on its node behind others, and would run elsewhere. Passed over where it has its room by now. Costs none.
    CalledBack,
}

impl Return {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.attempts.len() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        let mut count = 0;
        for (attempt, reason) in self.attempts {
            if !ctx.state.is_current(&attempt) {
                continue;
            }
            let Some(handle) = ctx.state.find(attempt.task) else {
                continue;
            };
            let holds = match reason {
                ReturnReason::Preempted => ctx.is_overdue_to_yield(handle),
                ReturnReason::CalledBack => waits(ctx, handle),
                ReturnReason::NotGranted | ReturnReason::Lost(_) => true,
            };
            if !holds {
                continue;
            }
            count += 1;
            ctx.stop(handle);
            match reason {
                ReturnReason::NotGranted | ReturnReason::CalledBack => ctx.requeue(handle),
                ReturnReason::Lost(cause) => ctx.lose(handle, cause),
                ReturnReason::Preempted => {
                    ctx.yields(handle);
                    ctx.bill_unreported(handle, ExitKind::Lost(LostCause::Preempted), false);
                    ctx.requeue(handle);
                }
            }
        }
        Ok(Outcome::Settled { count })
    }
}

/// Whether the current attempt waits on its node for room.
fn waits(ctx: &Ctx<'_>, handle: u32) -> bool {
    let lease = ctx.state.tasks[handle].lease.as_deref();
    lease.is_some_and(|lease| lease.backlog)
}
