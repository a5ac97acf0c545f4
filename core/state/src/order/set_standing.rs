//! Says what audits have found of a node.

use farlane_model::{NodeId, Standing};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::{Change, Outcome, Refusal};

/// A node's standing from now on. What it runs goes on; one in quarantine gets nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStanding {
    /// Which.
    pub node: NodeId,
    /// In the place of the one it has.
    pub standing: Standing,
}

impl SetStanding {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if !self.standing.is_bounded() {
            return Err(Refusal::NodeInvalid);
        }
        let nodes = &ctx.state.nodes;
        let number = *nodes.get(&self.node).ok_or(Refusal::NodeUnknown)?;
        let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
        if node.revoked {
            return Err(Refusal::NodeRevoked);
        }
        if node.standing == self.standing {
            return Ok(Outcome::Done);
        }
        node.standing = self.standing;
        ctx.put_node(number);
        ctx.changes.push(Change::NodeChanged { node: self.node });
        Ok(Outcome::Done)
    }
}
