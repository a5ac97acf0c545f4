//! Applying one order: total over every decodable order, synchronous, pure.

use std::collections::BTreeSet;

use farlane_model::ProjectId;

use crate::row::{OutboxEvent, OutboxKey, keys};
use crate::rows::Table;
use crate::rows::Writes;
use crate::state::{EntryCounts, OutboxRun};
use crate::{Applied, Change, Order, Outcome, Refusal, Stamp, State};

/// Changes the state by one order, and says what to commit, what to answer and what to push.
///
/// `ordinal` is the order's place in its entry; orders of one entry see the effects of those before.
pub fn apply(state: &mut State, stamp: Stamp, ordinal: u32, order: Order) -> Applied {
    if state.entry.index != stamp.index {
        state.entry = EntryCounts {
            index: stamp.index,
            finished: 0,
            leases: 0,
        };
    }
    state.stamp = Stamp {
        now: stamp.now.max(state.stamp.now),
        ..stamp
    };
    let mut ctx = Ctx {
        stamp: state.stamp,
        state,
        ordinal,
        writes: Writes::default(),
        changes: Vec::new(),
        events: 0,
        marks: BTreeSet::new(),
        projects: BTreeSet::new(),
    };
    let result = match (ctx.state.is_founded(), order) {
        (_, Order::Genesis(order)) => order.apply(&mut ctx),
        (false, _) => Err(Refusal::NotFounded),
        (true, order) => dispatch(order, &mut ctx),
    };
    ctx.finish(result.unwrap_or_else(Outcome::Refused))
}

fn dispatch(order: Order, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
    match order {
        Order::Genesis(order) => order.apply(ctx),
        Order::RegisterNode(order) => order.apply(ctx),
        Order::UpdateNode(order) => order.apply(ctx),
        Order::RemoveNode(order) => order.apply(ctx),
        Order::StockPrekeys(order) => order.apply(ctx),
        Order::AttachGranter(order) => order.apply(ctx),
        Order::DetachGranter(order) => order.apply(ctx),
        Order::OpenSession(order) => order.apply(ctx),
        Order::SubmitBatch(order) => order.apply(ctx),
        Order::Place(order) => order.apply(ctx),
        Order::CompleteBatch(order) => order.apply(ctx),
        Order::Return(order) => order.apply(ctx),
        Order::Cancel(order) => order.apply(ctx),
        Order::Expire(order) => order.apply(ctx),
        Order::AckResults(order) => order.apply(ctx),
        Order::Revoke(order) => order.apply(ctx),
        Order::AckOutbox(order) => order.apply(ctx),
        Order::Refuse(order) => order.apply(ctx),
        Order::PublishRevocations(order) => order.apply(ctx),
        Order::SetPrices(order) => order.apply(ctx),
        Order::SetProject(order) => order.apply(ctx),
        Order::Preempt(order) => order.apply(ctx),
        Order::SetStanding(order) => order.apply(ctx),
    }
}

/// One order at work.
pub(crate) struct Ctx<'a> {
    pub state: &'a mut State,
    pub stamp: Stamp,
    pub ordinal: u32,
    pub writes: Writes,
    pub changes: Vec<Change>,
    events: u32,
    marks: BTreeSet<u32>,
    projects: BTreeSet<ProjectId>,
}

impl Ctx<'_> {
    /// The session's marks changed: written once, when the order ends.
    pub fn mark(&mut self, session: u32) {
        self.marks.insert(session);
        self.state.sessions[session].active = self.stamp.now;
    }

    /// What is set of the project, or its month's charges, changed: written once, when the order ends.
    pub fn put_project(&mut self, project: ProjectId) {
        self.projects.insert(project);
    }

    /// Forgets marks of a session that goes away.
    pub fn unmark(&mut self, session: u32) {
        self.marks.remove(&session);
    }

    /// Leaves an event for sinks outside the cluster.
    pub fn event(&mut self, event: &OutboxEvent) {
        let key = OutboxKey {
            index: self.stamp.index,
            ordinal: self.ordinal,
            n: self.events,
        };
        self.writes
            .put(Table::Outbox, &keys::outbox(key), |out| event.write(out));
        self.events += 1;
    }

    /// Writes a node's row.
    pub fn put_node(&mut self, number: u32) {
        if let Some(node) = self.state.node_by_number(number) {
            self.writes
                .put_serde(Table::Nodes, &keys::node(node.id), &node.row());
        }
    }

    fn finish(mut self, outcome: Outcome) -> Applied {
        for handle in std::mem::take(&mut self.marks) {
            if let Some(session) = self.state.sessions.get(handle) {
                self.writes
                    .put_serde(Table::Marks, &keys::session(session.id), &session.marks());
            }
        }
        for id in std::mem::take(&mut self.projects) {
            if let Some(load) = self.state.projects.get(&id) {
                let key = keys::project(id);
                self.writes.put_serde(Table::Projects, &key, &load.row);
            }
        }
        if self.events > 0 {
            let Stamp { index, .. } = self.stamp;
            self.state.outbox.push_back(OutboxRun {
                index,
                ordinal: self.ordinal,
                from: 0,
                to: self.events,
            });
            self.state.outbox_len += u64::from(self.events);
        }
        Applied {
            outcome,
            writes: self.writes.finish(),
            changes: self.changes,
        }
    }
}
