//! Asks attempts to make way for more urgent work; each is judged again.
//!
//! ```text
//! Preempt ─▶ asked (told to its node) ─┬▶ ends by itself within the grace: counts as any end
//!                                      ├▶ Lost(Preempted) from its node ─┐
//!                                      └▶ Return(Preempted), overdue ────┴▶ queued again, with its age
//! ```

use farlane_model::{AttemptRef, GRACE, TaskId};
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::{Change, LiveTask, Outcome, Refusal, State};

/// How often one task is asked in its life; then it runs to its end. Source: choice; ten minutes of work at least are
/// done between the first and the last.
pub const MAX_PREEMPTIONS: u16 = 10;
/// A task that made way runs at least this long before it is asked again.
pub const PREEMPT_PAUSE: Millis = Millis(60_000);
/// Beyond the grace, for the node to end it and to say so. Source: half of a lease.
const SLACK: Millis = Millis(5_000);

/// Asks attempts to make way, and with one of a gang all of it. Those that are not current, were asked already, may run only
/// once, wait on their node, or were asked lately or too often are passed over, a gang where that holds of any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preempt {
    /// Which.
    pub attempts: Vec<AttemptRef>,
}

impl Preempt {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.attempts.len() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        let mut count = 0;
        for attempt in self.attempts {
            if !ctx.state.may_preempt(&attempt, ctx.stamp.now) {
                continue;
            }
            let Some(handle) = ctx.state.find(attempt.task) else {
                continue;
            };
            for member in std::iter::once(handle).chain(ctx.state.kin(handle)) {
                ask(ctx, member);
                count += 1;
            }
        }
        Ok(Outcome::Settled { count })
    }
}

fn ask(ctx: &mut Ctx, handle: u32) {
    let spec = ctx.state.tasks[handle].spec;
    let grace = ctx.state.specs.slab[spec].task.timing.grace;
    let until = ctx.stamp.now.saturating_add(grace.unwrap_or(GRACE));
    let attempt = ctx.attempt_ref(handle);
    let Some(lease) = ctx.state.tasks[handle].lease.as_deref_mut() else {
        return;
    };
    lease.yields = until;
    let number = lease.node;
    ctx.state.yielding.insert((until, attempt.task));
    ctx.put_attempt(handle);
    if let Some(node) = ctx.state.node_by_number(number) {
        let node = node.id;
        // The node knows the attempt, and hears until when it may go on.
        ctx.changes.push(Change::Assigned { node, attempt });
    }
}

impl State {
    /// Whether an attempt, and all of its gang, may be asked to make way at `now`.
    pub fn may_preempt(&self, attempt: &AttemptRef, now: Millis) -> bool {
        let Some(live) = self.task(attempt.task).filter(|_| self.is_current(attempt)) else {
            return false;
        };
        match &live.gang {
            None => Self::may_yield(&live, now),
            Some(member) => self.gang(member).all(|one| Self::may_yield(&one, now)),
        }
    }

    fn may_yield(live: &LiveTask<'_>, now: Millis) -> bool {
        let Some(lease) = live.placed.map(|p| p.lease) else {
            return false;
        };
        let lately = live.preempted > 0 && lease.at.saturating_add(PREEMPT_PAUSE) > now;
        !lease.backlog
            && lease.yields == Millis::ZERO
            && !live.spec.task.retry.at_most_once
            && live.preempted < MAX_PREEMPTIONS
            && !lately
    }

    /// Attempts that were asked to make way so long ago that their nodes should have said how they ended.
    pub fn overdue_to_yield(&self, now: Millis) -> impl Iterator<Item = AttemptRef> + '_ {
        let due = self.yielding.iter();
        let due = due.take_while(move |(until, _)| until.saturating_add(SLACK) <= now);
        due.filter_map(|(_, task): &(Millis, TaskId)| Some(self.task(*task)?.attempt_ref()))
    }
}

impl Ctx<'_> {
    /// Whether the current attempt was asked to make way.
    pub fn is_asked(&self, handle: u32) -> bool {
        let lease = self.state.tasks[handle].lease.as_deref();
        lease.is_some_and(|lease| lease.yields > Millis::ZERO)
    }

    /// Takes note that the current attempt, and all of its gang, make way: they are to be queued again.
    pub fn yields(&mut self, handle: u32) -> bool {
        let asked = self.is_asked(handle);
        for member in std::iter::once(handle).chain(self.state.kin(handle)) {
            self.state.tasks[member].preempted += u16::from(asked);
        }
        asked
    }

    /// Whether the current attempt was asked, and its grace has long ended.
    pub fn is_overdue_to_yield(&self, handle: u32) -> bool {
        let lease = self.state.tasks[handle].lease.as_deref();
        lease.is_some_and(|lease| {
            lease.yields > Millis::ZERO && lease.yields.saturating_add(SLACK) <= self.stamp.now
        })
    }
}
