//! A sink outside the cluster has taken in events.

use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::{OutboxKey, keys};
use crate::rows::Table;
use crate::{Outcome, Refusal};

/// Most events that one order forgets; a sink acknowledges again. Source: 8 times its batch of 512.
const MAX_FORGOTTEN: u64 = 4096;
/// Most sinks. Source: one is built (SQL), and each must be seen by a person who adds it.
const MAX_SINKS: usize = 8;

/// One high-water mark a sink. Events that every known sink has taken in are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckOutbox {
    /// Number of the sink; 0 is SQL.
    pub sink: u8,
    /// Everything up to and with this event.
    pub through: OutboxKey,
}

impl AckOutbox {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if usize::from(self.sink) >= MAX_SINKS {
            return Err(Refusal::TooMany {
                what: "sinks".into(),
                most: MAX_SINKS as u64,
            });
        }
        if ctx
            .state
            .sink(self.sink)
            .is_none_or(|mark| mark < self.through)
        {
            ctx.state.sinks.insert(self.sink, self.through);
            ctx.writes
                .put_serde(Table::Sinks, &keys::sink(self.sink), &self.through);
        }
        let reached = ctx.state.sinks.values().min().copied().unwrap_or_default();
        let mut left = MAX_FORGOTTEN;
        while left > 0 {
            let Some(run) = ctx.state.outbox.front_mut() else {
                break;
            };
            let key = OutboxKey {
                index: run.index,
                ordinal: run.ordinal,
                n: run.from,
            };
            if key > reached {
                break;
            }
            ctx.writes.delete(Table::Outbox, &keys::outbox(key));
            ctx.state.outbox_len -= 1;
            left -= 1;
            run.from += 1;
            if run.from == run.to {
                ctx.state.outbox.pop_front();
            }
        }
        Ok(Outcome::Done)
    }
}
