//! Adds prekeys to a node's stock.

use bytes::Bytes;
use farlane_model::{BootId, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::node::MAX_PREKEYS;
use crate::row::keys;
use crate::rows::Table;
use crate::{Change, Outcome, Refusal};

/// Most bytes of one signed prekey. Source: a record of about 250 bytes, doubled twice.
const MAX_PREKEY_BYTES: usize = 1024;

/// Signed prekeys of the current boot. What does not fit into the stock is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockPrekeys {
    /// Whose.
    pub node: NodeId,
    /// The boot that holds the private halves.
    pub boot: BootId,
    /// Canonical signed daily key; none when unchanged.
    pub daily: Option<Bytes>,
    /// Canonical signed one-time keys.
    pub one_time: Vec<Bytes>,
}

impl StockPrekeys {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let mut keys_given = self.one_time.iter().chain(&self.daily);
        if keys_given.any(|k| k.is_empty() || k.len() > MAX_PREKEY_BYTES) {
            return Err(Refusal::EnvelopeInvalid {
                field: "prekey".into(),
            });
        }
        let number = *ctx
            .state
            .nodes
            .get(&self.node)
            .ok_or(Refusal::NodeUnknown)?;
        let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
        if node.revoked {
            return Err(Refusal::NodeRevoked);
        }
        if node.boot() != Some(self.boot) {
            return Err(Refusal::BootUnknown);
        }
        if self.daily.is_some() {
            node.daily = self.daily;
        }
        let space = MAX_PREKEYS.saturating_sub(node.one_time.len());
        for prekey in self.one_time.into_iter().take(space) {
            let n = node.next_prekey;
            node.next_prekey += 1;
            ctx.writes
                .put(Table::Prekeys, &keys::prekey(self.node, n), |out| {
                    out.extend_from_slice(&prekey);
                });
            node.one_time.push_back((n, prekey));
        }
        ctx.put_node(number);
        ctx.changes.push(Change::NodeChanged { node: self.node });
        Ok(Outcome::Done)
    }
}
