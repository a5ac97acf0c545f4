//! A node's agent started, or measured its machine anew.

use bytes::Bytes;
use farlane_model::{BootId, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::node::{Boot, MAX_BOOTS};
use crate::row::{OutboxEvent, keys};
use crate::rows::Table;
use crate::{Change, Outcome, Refusal};

/// What the agent of a registered node says of itself.
///
/// A new boot voids prekeys and contexts, whose private halves lived in the old one. Attempts stay:
/// the leader asks for results that survived before it returns them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateNode {
    /// Which.
    pub node: NodeId,
    /// Drawn at the agent's start.
    pub boot: BootId,
    /// Canonical `NodeSpec`.
    pub spec: Bytes,
}

impl UpdateNode {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let spec = ctx
            .state
            .alike
            .spec(&self.spec)
            .ok_or(Refusal::NodeInvalid)?;
        let number = *ctx
            .state
            .nodes
            .get(&self.node)
            .ok_or(Refusal::NodeUnknown)?;
        let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
        if node.revoked {
            return Err(Refusal::NodeRevoked);
        }
        let changed = node.spec != spec;
        if node.boot() == Some(self.boot) && !changed {
            return Ok(Outcome::Done);
        }
        node.generation = node.generation.wrapping_add(1);
        node.spec = spec;
        let (region, provider) = (node.region.to_string(), node.provider);
        if node.boot() != Some(self.boot) {
            node.boots.retain(|b| b.id != self.boot);
            let number = node.boots.last().map_or(0, |b| b.number) + 1;
            node.boots.push(Boot {
                id: self.boot,
                number,
            });
            let extra = node.boots.len().saturating_sub(MAX_BOOTS);
            node.boots.drain(..extra);
            let (prekeys, contexts) = node.void_keys();
            for n in prekeys {
                ctx.writes
                    .delete(Table::Prekeys, &keys::prekey(self.node, n));
            }
            for granter in contexts {
                ctx.writes
                    .delete(Table::Contexts, &keys::context(self.node, granter));
            }
            ctx.changes.push(Change::PrekeysLow { node: self.node });
        }
        ctx.put_node(number);
        ctx.promote(number);
        if changed {
            let at = ctx.stamp.now;
            ctx.event(&OutboxEvent::Node {
                node: self.node,
                spec: self.spec,
                region,
                provider,
                at,
            });
        }
        ctx.changes.push(Change::NodeChanged { node: self.node });
        Ok(Outcome::Done)
    }
}
