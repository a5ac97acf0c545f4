//! A granter is gone.

use farlane_model::SessionId;
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::keys;
use crate::rows::Table;
use crate::{Outcome, Refusal};

/// Nothing more is placed on its grants. What is placed and not granted, the leader returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachGranter {
    /// Which.
    pub granter: SessionId,
}

impl DetachGranter {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let granter = ctx
            .state
            .granters
            .remove(&self.granter)
            .ok_or(Refusal::GranterUnknown)?;
        if let Some(standing) = ctx.state.standing.get_mut(&granter.project) {
            standing.remove(&self.granter);
            if standing.is_empty() {
                ctx.state.standing.remove(&granter.project);
            }
        }
        ctx.writes
            .delete(Table::Granters, &keys::session(self.granter));
        Ok(Outcome::Done)
    }
}
