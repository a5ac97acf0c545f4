//! Takes a node out. It may enrol again.

use farlane_model::{LostCause, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::{OutboxEvent, keys};
use crate::rows::Table;
use crate::{Change, Outcome, Refusal};

/// The node leaves; what it held counts as lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNode {
    /// Which.
    pub node: NodeId,
}

impl RemoveNode {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let number = *ctx
            .state
            .nodes
            .get(&self.node)
            .ok_or(Refusal::NodeUnknown)?;
        empty(ctx, number);
        let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
        let (prekeys, contexts) = node.void_keys();
        for n in prekeys {
            ctx.writes
                .delete(Table::Prekeys, &keys::prekey(self.node, n));
        }
        for granter in contexts {
            ctx.writes
                .delete(Table::Contexts, &keys::context(self.node, granter));
        }
        for table in [Table::Nodes, Table::Records] {
            ctx.writes.delete(table, &keys::node(self.node));
        }
        ctx.state.nodes.remove(&self.node);
        ctx.state.by_number[number as usize] = None;
        ctx.state.touched.gone();
        ctx.event(&OutboxEvent::NodeGone {
            node: self.node,
            revoked: false,
            at: ctx.stamp.now,
        });
        ctx.changes.push(Change::NodeChanged { node: self.node });
        Ok(Outcome::Done)
    }
}

/// Everything leased to the node is stopped and lost.
pub(crate) fn empty(ctx: &mut Ctx, number: u32) {
    let Some(node) = ctx.state.node_by_number(number) else {
        return;
    };
    let held: Vec<u32> = node.leased.values().map(|h| h.task).collect();
    for task in held {
        // Gone with its gang.
        let held = |t: &crate::task::Task| t.lease.as_deref().is_some_and(|l| l.node == number);
        if !ctx.state.tasks.get(task).is_some_and(held) {
            continue;
        }
        ctx.stop(task);
        ctx.lose(task, LostCause::NodeRemoved);
    }
}
