//! Says what nodes cost, and from when on.

use farlane_model::NodeId;
use farlane_units::UsdMicros;
use serde::{Deserialize, Serialize};

use super::MAX_LEADER_BATCH;
use crate::apply::Ctx;
use crate::node::DatedPrice;
use crate::{Change, Outcome, Refusal};

/// Most dated prices of one node. Source: what held in the last hour and a change every four hours of the day to
/// come; whoever proposes this adds later ones as they come near.
pub const MAX_DATED_PRICES: usize = 8;

/// What one node costs by its provider's book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePrices {
    /// Which.
    pub node: NodeId,
    /// By date, each later than the one before. Before the first, and where one names no price, the node's
    /// own price holds.
    pub prices: Vec<DatedPrice>,
}

/// Replaces what nodes cost, as their providers' books say. Dates may be to come, so that a price changes at its
/// moment also while nobody leads. An attempt costs what held when it ended; nodes that are gone are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPrices {
    /// Each once.
    pub nodes: Vec<NodePrices>,
}

fn valid(prices: &[DatedPrice]) -> bool {
    prices.len() <= MAX_DATED_PRICES
        && prices.is_sorted_by(|a, b| a.since < b.since)
        && prices.iter().all(|p| {
            let named = p
                .core_hour
                .into_iter()
                .chain([p.egress.there, p.egress.back]);
            named.min().is_none_or(|least| least >= UsdMicros::ZERO)
        })
}

impl SetPrices {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.nodes.len() > MAX_LEADER_BATCH {
            let most = MAX_LEADER_BATCH as u32;
            return Err(Refusal::BatchTooLarge { most });
        }
        if !self.nodes.iter().all(|n| valid(&n.prices)) {
            return Err(Refusal::PricesInvalid);
        }
        let mut count = 0;
        for NodePrices { node: id, prices } in self.nodes {
            let Some(number) = ctx.state.nodes.get(&id).copied() else {
                continue;
            };
            let Some(node) = ctx.state.node_mut(number) else {
                continue;
            };
            if node.revoked || node.prices == prices {
                continue;
            }
            node.prices = prices;
            count += 1;
            ctx.put_node(number);
            ctx.changes.push(Change::NodeChanged { node: id });
        }
        Ok(Outcome::Settled { count })
    }
}
