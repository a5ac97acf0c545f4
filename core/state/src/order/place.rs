//! Leases queued tasks to nodes, as a plan asks; every placement is judged again.

use bytes::Bytes;
use farlane_model::{ForwardSecrecy, MAX_QUOTE_BYTES, NodeId, TaskId};
use farlane_units::Millis;

use super::{MAX_LEADER_BATCH, place_gang};
use crate::apply::Ctx;
use crate::capacity::Need;
use crate::codec::{Reader, Write};
use crate::node::{CONTEXT_LIFE, Context, Held, PREKEYS_LOW, PrekeyKind, Room};
use crate::row::{ContextRow, keys};
use crate::rows::Table;
use crate::task::{Lease, Quoted};
use crate::{Change, Outcome, Refusal};

/// A plan's placements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Log index of the state that the plan was made on.
    pub based_on: u64,
    /// In the order in which they take room.
    pub placements: Vec<Placement>,
    /// What they are expected to take: a `Quote`'s bytes, and the place of the first placement that it is of; it
    /// holds up to the next.
    ///
    /// *Shape*: places ascend, and are all there, else the order is refused. Placements before the first have none.
    pub quotes: Vec<(u32, Bytes)>,
}

/// One task to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Which call.
    pub task: TaskId,
    /// Where.
    pub node: NodeId,
    /// The node's generation that the plan saw.
    pub generation: u32,
}

impl Place {
    pub(crate) fn encode(&self) -> Bytes {
        let quotes: usize = self.quotes.iter().map(|(_, quote)| quote.len() + 8).sum();
        let mut out = Vec::with_capacity(16 + self.placements.len() * 52 + quotes);
        out.u64(self.based_on);
        out.u32(self.placements.len() as u32);
        for p in &self.placements {
            out.raw(&p.task.to_bytes());
            out.raw(&p.node.0);
            out.u32(p.generation);
        }
        out.u32(self.quotes.len() as u32);
        for (from, quote) in &self.quotes {
            out.u32(*from);
            out.bytes(quote);
        }
        out.into()
    }

    pub(crate) fn decode(body: Bytes) -> Option<Self> {
        let mut r = Reader::new(body);
        let based_on = r.u64()?;
        let n = r.count(52)?;
        let mut one = || {
            Some(Placement {
                task: TaskId::from_bytes(r.array()?),
                node: NodeId(r.array()?),
                generation: r.u32()?,
            })
        };
        let placements = (0..n).map(|_| one()).collect::<Option<_>>()?;
        let quoted = r.count(8)?;
        let mut quote = || Some((r.u32()?, r.bytes()?));
        let quotes = (0..quoted).map(|_| quote()).collect::<Option<Vec<_>>>()?;
        r.is_done().then_some(Self {
            based_on,
            placements,
            quotes,
        })
    }

    /// Whether its quotes are of its placements, one after the other, each as short as one is.
    pub fn is_well_formed(&self) -> bool {
        let (quotes, count) = (&self.quotes, self.placements.len());
        let mut each = quotes.iter();
        quotes.is_sorted_by(|a, b| a.0 < b.0)
            && quotes
                .last()
                .is_none_or(|(from, _)| (*from as usize) < count)
            && each.all(|(_, quote)| quote.len() <= MAX_QUOTE_BYTES)
    }

    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.placements.len() > MAX_LEADER_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_LEADER_BATCH as u32,
            });
        }
        if !self.is_well_formed() {
            return Err(Refusal::PlanInvalid);
        }
        ctx.writes
            .reserve(self.placements.len(), self.placements.len() * 160);
        ctx.changes.reserve(self.placements.len() * 2);
        let (mut placed, mut refused) = (0, Vec::new());
        let mut quotes = Quotes::of(&self.quotes);
        let mut rest = &self.placements[..];
        while let Some(first) = rest.first() {
            let (count, gang) = place_gang::run(ctx, rest);
            let (these, left) = rest.split_at(count);
            let done = match gang {
                None => place(ctx, first, quotes.next(), Start::OrLater)
                    .map_err(|refusal| (first.task, refusal)),
                Some(gang) => place_gang::place_whole(ctx, gang, these, &mut quotes),
            };
            match done {
                Ok(()) => placed += count as u32,
                Err((task, refusal)) => {
                    let first = gang.map_or(task.seq(), |((_, first), _)| first);
                    let rank = (task.seq() - first) as u16;
                    let others = these.iter().map(|p| p.task).filter(|t| *t != task);
                    refused.push((task, refusal));
                    refused.extend(others.map(|t| (t, Refusal::GangUnplaced { rank })));
                }
            }
            rest = left;
        }
        Ok(Outcome::Placed { placed, refused })
    }
}

/// Whether a task may wait at its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It runs at once, or is not placed: a gang's member.
    AtOnce,
    OrLater,
}

/// What each placement is expected to take, one after the other.
pub(super) struct Quotes<'a> {
    rest: &'a [(u32, Bytes)],
    at: u32,
    quoted: Quoted,
}

impl<'a> Quotes<'a> {
    fn of(rest: &'a [(u32, Bytes)]) -> Self {
        Self {
            rest,
            at: 0,
            quoted: Quoted::default(),
        }
    }

    /// Of the next placement.
    pub fn next(&mut self) -> &Quoted {
        if let Some(((from, quote), rest)) = self.rest.split_first()
            && *from == self.at
        {
            (self.quoted, self.rest) = (Quoted::new(quote), rest);
        }
        self.at += 1;
        &self.quoted
    }

    /// Passes over some.
    pub fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }
}

pub(super) fn place(
    ctx: &mut Ctx,
    placement: &Placement,
    quoted: &Quoted,
    start: Start,
) -> Result<(), Refusal> {
    let state = &*ctx.state;
    let handle = state.find(placement.task).ok_or(Refusal::TaskGone)?;
    let task = &state.tasks[handle];
    if task.lease.is_some() {
        return Err(Refusal::TaskPlaced);
    }
    let spec = state.specs.slab[task.spec].task.clone();
    let node = state.node(&placement.node).ok_or(Refusal::NodeUnknown)?;
    if node.revoked {
        return Err(Refusal::NodeRevoked);
    }
    if node.standing.is_quarantined() {
        return Err(Refusal::NodeQuarantined);
    }
    if node.generation != placement.generation {
        return Err(Refusal::PlanStale);
    }
    if !state.company_allows(&spec, node) {
        return Err(Refusal::CompanyBroken);
    }
    let boot = node.boots.last().ok_or(Refusal::BootUnknown)?.number;
    let session = &state.sessions[task.session];
    let ucu = node.spec.ucu_of(spec.resources.cpus);
    let project = state.project(&session.project);
    if let Some(why) = project.reached(&spec.resources, ucu, 1, ctx.stamp.now) {
        return Err(Refusal::QuotaExceeded(why));
    }
    let need = Need {
        task: &spec,
        tenant: session.tenant,
    };
    // What runs once at most could not be called back from there.
    let waits = start == Start::OrLater && !spec.retry.at_most_once;
    let (backlog, devices) = match node.room(&need) {
        Room::Running(devices) => (false, devices),
        Room::Backlog if waits => (true, 0),
        Room::Backlog | Room::Full => return Err(Refusal::NodeFull),
    };
    let granter = state.granter_for(session).ok_or(Refusal::NoGranter)?;
    let number = node.number;
    let (context, kind) = context(ctx, number, granter, spec.forward_secrecy)?;

    let entry = &mut ctx.state.entry;
    let lease = Lease {
        node: number,
        boot,
        granter,
        context,
        number: ctx.stamp.index << 20 | u64::from(entry.leases & 0xf_ffff),
        at: ctx.stamp.now,
        backlog,
        forward_secret: kind == PrekeyKind::OneTime,
        devices,
        ucu,
        yields: Millis::ZERO,
        quoted: quoted.clone(),
    };
    entry.leases += 1;
    hold(ctx, handle, lease);
    let attempt = ctx.attempt_ref(handle);
    ctx.changes.push(Change::Assigned {
        node: placement.node,
        attempt,
    });
    ctx.changes.push(Change::GrantWanted { granter, attempt });
    Ok(())
}

/// The task leaves its queue and takes its room.
fn hold(ctx: &mut Ctx, handle: u32, lease: Lease) {
    let state = &mut *ctx.state;
    let (key, seq) = (
        state.queue_key(&state.tasks[handle]),
        state.tasks[handle].seq,
    );
    state.queues.remove(key, seq);
    let id = state.sessions[key.session].task_id(seq);
    let spec = state.specs.slab[key.spec].task.clone();
    let tenant = state.sessions[key.session].tenant;
    let before = state.ends_at(&state.tasks[handle]);
    let task = &mut state.tasks[handle];
    task.attempt += 1;
    let (number, on, ucu) = (lease.number, lease.node, lease.ucu);
    let held = Held {
        task: handle,
        backlog: lease.backlog,
        devices: lease.devices,
    };
    task.lease = Some(Box::new(lease));
    let after = state.ends_at(&state.tasks[handle]);
    if before != after {
        before.map(|at| state.deadlines.remove(&(at, id)));
        after.map(|at| state.deadlines.insert((at, id)));
    }
    if let Some(node) = state.node_mut(on) {
        let need = Need {
            task: &spec,
            tenant,
        };
        node.lease(number, held, &need);
    }
    state.placed += 1;
    state.companies.add(&state.specs.slab[key.spec], on);
    state
        .projects
        .entry(key.project)
        .or_default()
        .held
        .add(&spec.resources, ucu);
    ctx.put_attempt(handle);
}

/// The context under which `granter` grants on the node: the one it has, or a new prekey's.
fn context(
    ctx: &mut Ctx,
    number: u32,
    granter: farlane_model::SessionId,
    wanted: ForwardSecrecy,
) -> Result<(u64, PrekeyKind), Refusal> {
    let (now, index) = (ctx.stamp.now, ctx.stamp.index);
    let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
    let accepts = |kind| kind == PrekeyKind::OneTime || wanted == ForwardSecrecy::Preferred;
    let known = node.contexts.get(&granter);
    if let Some(c) = known
        && now < c.at.saturating_add(CONTEXT_LIFE)
        && accepts(c.kind)
    {
        return Ok((c.index, c.kind));
    }
    // Contexts are named by index: one entry cannot issue two to the same granter.
    if known.is_some_and(|c| c.index == index) {
        return Err(Refusal::NoPrekey);
    }
    let id = node.id;
    let (kind, prekey) = match node.one_time.pop_front() {
        Some((n, prekey)) => {
            ctx.writes.delete(Table::Prekeys, &keys::prekey(id, n));
            (PrekeyKind::OneTime, prekey)
        }
        None => match node.daily.clone().filter(|_| accepts(PrekeyKind::Daily)) {
            Some(daily) => (PrekeyKind::Daily, daily),
            None => {
                ctx.changes.push(Change::PrekeysLow { node: id });
                return Err(Refusal::NoPrekey);
            }
        },
    };
    if node.one_time.len() < PREKEYS_LOW {
        ctx.changes.push(Change::PrekeysLow { node: id });
    }
    let old = |c: &Context| now >= c.at.saturating_add(CONTEXT_LIFE);
    let stale: Vec<_> = node
        .contexts
        .iter()
        .filter(|(_, c)| old(c))
        .map(|(g, _)| *g)
        .collect();
    for stale in stale {
        node.contexts.remove(&stale);
        ctx.writes
            .delete(Table::Contexts, &keys::context(id, stale));
    }
    let row = ContextRow {
        index,
        at: now,
        kind,
        prekey: prekey.clone(),
    };
    ctx.writes
        .put_serde(Table::Contexts, &keys::context(id, granter), &row);
    node.contexts.insert(
        granter,
        Context {
            index,
            at: now,
            kind,
            prekey,
        },
    );
    Ok((index, kind))
}
