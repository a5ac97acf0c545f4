//! A client has read its results up to a place in the log.

use farlane_model::SessionId;
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::Cursor;
use crate::session::MAX_ACKS;
use crate::{Outcome, Refusal};

/// Acknowledgements closer than this share one time, the earlier one. Source: a minute against the hour
/// of retention that it starts.
const COALESCE_MS: u64 = 60_000;

/// Starts the hour after which these results may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckResults {
    /// Whose results.
    pub session: SessionId,
    /// Everything that finished up to and with this.
    pub through: Cursor,
}

impl AckResults {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let handle = *ctx
            .state
            .session_ids
            .get(&self.session)
            .ok_or(Refusal::SessionUnknown)?;
        let now = ctx.stamp.now;
        // Nothing that is still to come can have been read.
        let most = Cursor {
            index: ctx.stamp.index,
            ordinal: 0,
        };
        let through = self.through.min(most);
        let session = &mut ctx.state.sessions[handle];
        match session.acks.last_mut() {
            Some((known, _)) if *known >= through => return Ok(Outcome::Done),
            Some((known, when)) if now.0 < when.0.saturating_add(COALESCE_MS) => *known = through,
            _ => {
                if session.acks.len() >= MAX_ACKS {
                    session.acks.remove(0);
                }
                session.acks.push((through, now));
            }
        }
        ctx.mark(handle);
        Ok(Outcome::Done)
    }
}
