//! A granter is there: work of its tasks may be placed.

use bytes::Bytes;
use farlane_model::{ProjectId, SessionId};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::keys;
use crate::rows::Table;
use crate::{Granter, Outcome, Refusal};

/// Most granters attached. Source: as many as a cell's sessions at 10 a node of 10,000 nodes.
const MAX_GRANTERS: usize = 100_000;

/// A client, or a standing granter of the project, can give grants from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachGranter {
    /// Names it; a client's own session.
    pub granter: SessionId,
    /// Whose tasks.
    pub project: ProjectId,
    /// Grants tasks of any session of the project.
    pub standing: bool,
    /// Canonical signed device record.
    pub device: Bytes,
}

impl AttachGranter {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let state = &mut *ctx.state;
        match state.granters.get(&self.granter) {
            Some(known) if known.project != self.project => return Err(Refusal::WrongProject),
            None if state.granters.len() >= MAX_GRANTERS => {
                return Err(Refusal::TooMany {
                    what: "granters".into(),
                    most: MAX_GRANTERS as u64,
                });
            }
            _ => {}
        }
        if state
            .session(&self.granter)
            .is_some_and(|s| s.project != self.project)
        {
            return Err(Refusal::WrongProject);
        }
        let granter = Granter {
            project: self.project,
            standing: self.standing,
            device: self.device,
        };
        ctx.writes
            .put_serde(Table::Granters, &keys::session(self.granter), &granter);
        ctx.state.add_granter(self.granter, granter);
        Ok(Outcome::Done)
    }
}

impl crate::State {
    pub(crate) fn add_granter(&mut self, id: SessionId, granter: Granter) {
        let standing = self.standing.entry(granter.project).or_default();
        match granter.standing {
            true => standing.insert(id),
            false => standing.remove(&id),
        };
        if standing.is_empty() {
            self.standing.remove(&granter.project);
        }
        self.granters.insert(id, granter);
    }
}
