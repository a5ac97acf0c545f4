//! A key or a node is no longer trusted.

use farlane_model::{KeyId, NodeId};
use serde::{Deserialize, Serialize};

use super::remove_node::empty;
use crate::apply::Ctx;
use crate::row::{OutboxEvent, keys};
use crate::rows::Table;
use crate::{Change, Outcome, Refusal};

/// Takes trust away, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// From whom.
    pub subject: Revoked,
}

/// What can be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revoked {
    /// Nothing more is taken from its sessions; live tasks go on.
    Key(KeyId),
    /// Its attempts are lost, and it may not come back.
    Node(NodeId),
}

impl Revoke {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let at = ctx.stamp.now;
        match self.subject {
            Revoked::Key(key) => {
                if ctx.state.revoked_keys.insert(key) {
                    ctx.writes.put(Table::RevokedKeys, &keys::key(key), |_| {});
                    ctx.event(&OutboxEvent::KeyRevoked { key, at });
                    ctx.changes.push(Change::KeyRevoked { key });
                }
            }
            Revoked::Node(id) => {
                let number = *ctx.state.nodes.get(&id).ok_or(Refusal::NodeUnknown)?;
                let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
                if node.revoked {
                    return Ok(Outcome::Done);
                }
                node.revoked = true;
                node.generation = node.generation.wrapping_add(1);
                let (prekeys, contexts) = node.void_keys();
                for n in prekeys {
                    ctx.writes.delete(Table::Prekeys, &keys::prekey(id, n));
                }
                for granter in contexts {
                    ctx.writes
                        .delete(Table::Contexts, &keys::context(id, granter));
                }
                empty(ctx, number);
                ctx.put_node(number);
                ctx.event(&OutboxEvent::NodeGone {
                    node: id,
                    revoked: true,
                    at,
                });
                ctx.changes.push(Change::NodeChanged { node: id });
            }
        }
        Ok(Outcome::Done)
    }
}
