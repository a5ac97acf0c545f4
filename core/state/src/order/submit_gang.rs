//! A gang within a submission: taken in whole, or refused whole.

use farlane_model::TaskId;

use super::submit_batch::{Submitted, take_one};
use super::submit_specs::Known;
use crate::apply::Ctx;
use crate::{Refusal, Verdict};

/// Takes the tasks in under the session's next numbers; they ask for the same spec, which wants `size` of them.
///
/// *Errors*: what becomes of each of them, in their order.
pub(super) fn take_gang(
    ctx: &mut Ctx,
    session: u32,
    tasks: &[Submitted],
    size: u16,
    known: &mut Known,
) -> Result<(), Vec<Verdict>> {
    let first = ctx.state.sessions[session].next_seq;
    ctx.state.sessions[session].next_seq += tasks.len() as u64;
    let refused = |refusal: Refusal| vec![Verdict::Refused(refusal); tasks.len()];
    if tasks.len() != usize::from(size) {
        let size = u32::from(size);
        return Err(refused(Refusal::GangSplit { size }));
    }
    let earlier = judge(ctx, session, tasks).map_err(refused)?;
    if !earlier.is_empty() {
        return Err(earlier.into_iter().map(Verdict::Duplicate).collect());
    }
    for (seq, task) in (first..).zip(tasks) {
        if let Err(verdict) = take_one(ctx, session, seq, task, known) {
            // The first is the only one that can fail: it is the spec, which they share.
            return Err(vec![verdict; tasks.len()]);
        }
    }
    ctx.put_gang((session, first), size);
    Ok(())
}

/// The earlier tasks that these are; none where they are new.
///
/// *Errors*: one that cannot be taken, or that is an earlier task where another is none.
fn judge(ctx: &Ctx, session: u32, tasks: &[Submitted]) -> Result<Vec<TaskId>, Refusal> {
    let project = ctx.state.sessions[session].project;
    let mut earlier = Vec::new();
    let mut keys = Vec::new();
    for task in tasks {
        task.check()?;
        let Some(key) = task.idempotency else {
            continue;
        };
        keys.push(key);
        match ctx.state.idempotency.get(&(project, key)) {
            Some((id, until)) if ctx.stamp.now < *until => earlier.push(*id),
            _ => {}
        }
    }
    let named = keys.len();
    keys.sort_unstable();
    keys.dedup();
    let all_or_none = |n: usize| n == 0 || n == tasks.len();
    match keys.len() == named && all_or_none(named) && all_or_none(earlier.len()) {
        true => Ok(earlier),
        false => Err(Refusal::EnvelopeInvalid {
            field: "idempotency_key".into(),
        }),
    }
}
