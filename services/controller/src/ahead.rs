//! Grants that came with their submission, until it is placed.
//!
//! Owns the last few of a stream. Where the node that they are for gets the task they are passed on
//! at once, and nobody is asked; else they are forgotten.

use std::collections::VecDeque;

use farlane_model::{AttemptRef, NodeId};
use farlane_units::Micros;
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body as ToAgent;

use crate::grants::{Wanted, check_granter, named};
use crate::link::SessionLink;
use crate::{ControlError, Controller};

/// Most attempts of one batch. Source: network.proto, `SubmitBatch`.
const MAX_ATTEMPTS: usize = 16;
/// Most sealed bytes of one: 16 grants of about 150 B.
const MAX_SEALED: usize = 4096;
/// Batches held of one stream. Source: a client sends two before it waits for an answer.
const MAX_HELD: usize = 4;
/// They serve what is placed at once, and never outlive what they hold. Source: a node opens a grant within 60 s.
const LIFE: Micros = Micros(1_000_000);

/// What one stream granted ahead.
#[derive(Debug, Default)]
pub(crate) struct Ahead(VecDeque<Held>);

#[derive(Debug)]
struct Held {
    until: Micros,
    node: NodeId,
    attempts: Vec<AttemptRef>,
    batch: v1::GrantBatch,
}

impl Ahead {
    fn hold(&mut self, held: Held) {
        if self.0.len() >= MAX_HELD {
            self.0.pop_front();
        }
        self.0.push_back(held);
    }

    /// Takes out a batch that grants any of these on this node, under this context.
    fn take(
        &mut self,
        (node, context): (NodeId, u64),
        mut wanted: impl Iterator<Item = AttemptRef>,
        now: Micros,
    ) -> Option<Held> {
        self.0.retain(|held| held.until > now);
        if self.0.is_empty() {
            return None;
        }
        let same = |held: &Held| (held.node, held.batch.context) == (node, context);
        let (at, _) = wanted.find_map(|attempt| {
            let grants =
                |(_, held): &(usize, &Held)| same(held) && held.attempts.contains(&attempt);
            self.0.iter().enumerate().find(grants)
        })?;
        self.0.remove(at)
    }
}

impl Controller {
    /// Keeps what a client grants before it is placed.
    ///
    /// *Errors*: malformed, or the stream is no granter.
    pub(crate) fn hold_ahead(
        &self,
        from: &SessionLink,
        batch: v1::GrantBatch,
    ) -> Result<(), ControlError> {
        check_granter(from)?;
        if batch.attempts.len() > MAX_ATTEMPTS || batch.sealed.len() > MAX_SEALED {
            return Err(ControlError::invalid(format!(
                "at most {MAX_ATTEMPTS} attempts are granted ahead"
            )));
        }
        let (node, attempts) = named(&batch.node, &batch.attempts)?;
        from.ahead.lock().hold(Held {
            until: self.clock.steady().saturating_add(LIFE),
            node,
            attempts,
            batch,
        });
        Ok(())
    }

    /// Passes on what was granted ahead on this node, and leaves in `wanted` what is to be asked for.
    pub(crate) fn grant_ahead(
        &self,
        granter: &SessionLink,
        slot: (NodeId, u64),
        wanted: &mut Vec<Wanted>,
    ) {
        let now = self.clock.steady();
        loop {
            let attempts = wanted.iter().map(|task| task.attempt);
            let Some(held) = granter.ahead.lock().take(slot, attempts, now) else {
                return;
            };
            let agent = self.links.agent(slot.0);
            // One that was not told of the attempts yet is asked for when it is.
            let Some(agent) = agent.filter(|agent| !agent.push.lock().behind) else {
                return;
            };
            if !agent.frame(ToAgent::Grant(held.batch)) {
                return;
            }
            // What else the client named lies elsewhere, or waits.
            let granted = wanted.extract_if(.., |task| held.attempts.contains(&task.attempt));
            let granted: Vec<AttemptRef> = granted.map(|task| task.attempt).collect();
            self.ungranted.lock().settle(&granted);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::SessionId;

    #[test]
    fn what_was_granted_ahead_serves_its_node_and_context_for_a_second() {
        let session = SessionId::new(1, [0; 5]);
        let at = |seq| AttemptRef {
            task: session.task(seq),
            attempt: 1,
            epoch: 1,
        };
        let node = NodeId([1; 32]);
        let held = |seq| Held {
            until: Micros(1_000_000),
            node,
            attempts: vec![at(seq), at(seq + 1)],
            batch: v1::GrantBatch {
                context: 7,
                ..Default::default()
            },
        };
        let mut ahead = Ahead::default();
        (0..9).for_each(|n| ahead.hold(held(10 * n)));
        let now = Micros(999_999);
        let mut take = |slot, seq, now| ahead.take(slot, [at(seq)].into_iter(), now).is_some();
        assert!(!take((node, 7), 40, now), "only the last four are kept");
        assert!(!take((NodeId([2; 32]), 7), 80, now), "another node");
        assert!(!take((node, 8), 80, now), "another context");
        assert!(take((node, 7), 81, now));
        assert!(!take((node, 7), 80, now), "once");
        assert!(!take((node, 7), 70, Micros(1_000_000)), "too late");
        assert!(ahead.0.is_empty());
    }
}
