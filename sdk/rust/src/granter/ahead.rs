//! Grants that travel with a submission, to the node that most likely gets it: nobody need be asked.

use bytes::Bytes;
use farlane_model::{AttemptRef, Digest};
use farlane_seal::grant::Grant;
use farlane_units::Millis;
use farlane_wire::v1;

use super::{Granting, OPEN_WITHIN, Source};
use crate::session::Shared;

/// Most tasks of a batch that is granted ahead: calls that somebody waits for come a few at a time, and of
/// many at once most would not be placed yet. Source: network.proto, `SubmitBatch`.
const MAX_AHEAD: usize = 16;

impl Granting {
    /// First attempts of the session's own new tasks, for the node that got the last one of their spec.
    pub fn ahead(
        &mut self,
        shared: &Shared,
        batch: &v1::SubmitBatch,
        epoch: u64,
        now: Millis,
    ) -> Option<v1::GrantBatch> {
        if batch.tasks.len() > MAX_AHEAD || !matches!(self.source, Source::Session) {
            return None;
        }
        let spec = Digest::from_slice(&batch.tasks.first()?.spec).ok()?;
        let (node, context_id) = *self.likely.get(&spec)?;
        let context = self.contexts.get_mut(&(node, context_id))?;
        // An opening need not be sent along then.
        if !context.proven || !context.inner.is_open(now) {
            return None;
        }
        let mut live = shared.live.lock();
        let mut grants = Vec::with_capacity(batch.tasks.len());
        for (seq, _) in (batch.first_seq..).zip(&batch.tasks) {
            let task = shared.session.task(seq);
            let Some(call) = live.get_mut(&task).filter(|call| call.spec == spec) else {
                continue;
            };
            let attempt = AttemptRef {
                task,
                attempt: 1,
                epoch,
            };
            let suits = |place| context.record.suits(place).is_ok();
            if call.place.as_deref().is_some_and(suits)
                && self.log.admit_ahead(attempt, node, call.grants).is_ok()
            {
                call.holder.add(node);
                grants.push(Grant {
                    attempt,
                    open_by: now.saturating_add(OPEN_WITHIN),
                    spec_digest: spec,
                    payload_digest: call.payload_digest,
                    key: call.key.clone(),
                });
            }
        }
        drop(live);
        if grants.is_empty() {
            return None;
        }
        let (counter, sealed) = context.inner.seal(&grants).ok()?;
        Some(v1::GrantBatch {
            node: Bytes::copy_from_slice(node.as_bytes()),
            context: context_id,
            opening: None,
            counter,
            sealed: Bytes::from(sealed),
            attempts: grants.iter().map(|grant| grant.attempt.into()).collect(),
        })
    }
}
