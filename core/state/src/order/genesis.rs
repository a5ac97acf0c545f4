//! Founds the cluster.

use farlane_model::Digest;
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::{ClusterRow, keys};
use crate::rows::Table;
use crate::{Outcome, Refusal};

/// The first order of a cluster, given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Names the network for ever.
    pub network: Digest,
    /// From 1; a restore starts a new one.
    pub epoch: u64,
    /// Gates new behaviour.
    pub cluster_version: u32,
}

impl Genesis {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if ctx.state.is_founded() {
            return Err(Refusal::AlreadyFounded);
        }
        let row = ClusterRow {
            network: self.network,
            epoch: self.epoch,
            version: self.cluster_version,
            founded: ctx.stamp.now,
            next_node: 0,
        };
        ctx.writes.put_serde(Table::Cluster, keys::CLUSTER, &row);
        ctx.state.cluster = Some(row);
        Ok(Outcome::Done)
    }
}
