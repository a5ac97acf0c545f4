//! A gang within a plan: each of its members gets its lease, or none does.

use farlane_model::{GangRegions, TaskId};

use super::place::{Placement, Quotes, Start, place};
use crate::Refusal;
use crate::apply::Ctx;
use crate::gang::GangKey;
use crate::row::keys;
use crate::rows::Table;

/// How many of the first placements are for one gang, and which; 1 and none for a task on its own.
pub(super) fn run(ctx: &Ctx, placements: &[Placement]) -> (usize, Option<(GangKey, u16)>) {
    let of = |id: TaskId| {
        let handle = ctx.state.find(id)?;
        ctx.state.gang_of(&ctx.state.tasks[handle])
    };
    let Some(gang) = placements.first().and_then(|p| of(p.task)) else {
        return (1, None);
    };
    let others = placements.iter().take_while(|p| of(p.task) == Some(gang));
    (others.count(), Some(gang))
}

/// Places a gang's unfinished members, all running at once.
///
/// *Errors*: the first that does not fit, and why; then none is placed.
pub(super) fn place_whole(
    ctx: &mut Ctx,
    (key, size): (GangKey, u16),
    placements: &[Placement],
    quotes: &mut Quotes,
) -> Result<(), (TaskId, Refusal)> {
    let Some(named) = placements.first().map(|p| p.task) else {
        return Ok(());
    };
    if ctx.state.members(key, size).len() != placements.len() {
        quotes.skip(placements.len());
        let size = u32::from(size);
        return Err((named, Refusal::GangSplit { size }));
    }
    if !within_regions(ctx, placements) {
        quotes.skip(placements.len());
        return Err((named, Refusal::GangApart));
    }
    let hints = ctx.changes.len();
    for (at, placement) in placements.iter().enumerate() {
        if let Err(refusal) = place(ctx, placement, quotes.next(), Start::AtOnce) {
            quotes.skip(placements.len() - at - 1);
            placements[..at]
                .iter()
                .rev()
                .for_each(|p| unplace(ctx, p.task));
            ctx.changes.truncate(hints);
            return Err((placement.task, refusal));
        }
    }
    Ok(())
}

/// One region, where the spec wants that.
fn within_regions(ctx: &Ctx, placements: &[Placement]) -> bool {
    let state = &*ctx.state;
    let spec = placements.first().and_then(|p| state.find(p.task));
    let spec = spec.map(|handle| &state.specs.slab[state.tasks[handle].spec].task);
    if spec.and_then(|s| s.gang).map(|g| g.regions) != Some(GangRegions::One) {
        return true;
    }
    let mut regions = placements
        .iter()
        .map(|p| state.node(&p.node).map(|n| &n.region));
    let first = regions.next();
    regions.all(|region| Some(region) == first)
}

/// As if it had never been placed; a context that was issued for it stays, and serves the next.
fn unplace(ctx: &mut Ctx, id: TaskId) {
    let Some(handle) = ctx.state.find(id) else {
        return;
    };
    ctx.release(handle);
    let before = ctx.state.ends_at(&ctx.state.tasks[handle]);
    ctx.state.tasks[handle].attempt -= 1;
    let state = &mut *ctx.state;
    let task = &state.tasks[handle];
    let (queue, seq, first) = (state.queue_key(task), task.seq, task.attempt == 0);
    let after = state.ends_at(task);
    state.queues.push(queue, seq);
    before.map(|at| state.deadlines.remove(&(at, id)));
    after.map(|at| state.deadlines.insert((at, id)));
    match first {
        true => ctx.writes.delete(Table::Attempts, &keys::task(id)),
        false => ctx.put_attempt(handle),
    }
}
