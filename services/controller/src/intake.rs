//! Batches of the wire as orders of the state.
//!
//! Owns the checks that need no state: shape, bounds, and that what should be sealed is. Leaves
//! meaning to `farlane-state`, which judges every order again.

use farlane_model::{
    AttemptRef, BlobRef, BootId, Digest, Exit, MAX_ROW_BYTES, NodeId, Sealed, SessionId,
};
use farlane_state::{
    BatchSignature, CompleteBatch, Completion, MAX_BATCH, Moved, SubmitBatch, Submitted,
};
use farlane_units::{ByteCount, Millis};
use farlane_wire::{looks_sealed, v1};

use crate::ControlError;

/// Most encoded bytes of one batch. Source: twice what peers aim at (docs/design/spine.md, "One call,
/// hop by hop"), since they count sealed bytes and this counts all.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Bytes of a wrapped task key. Source: docs/design/spine.md, "Task, spec, payload".
const WRAPPED_KEY: usize = 48;

fn field<T, E>(value: Result<T, E>, what: &'static str) -> Result<T, ControlError> {
    value.map_err(|_| ControlError::invalid(format!("{what} is missing or malformed")))
}

/// Reads sealed bytes, which may be a blob.
fn sealed(wire: Option<v1::Sealed>, what: &'static str) -> Result<Sealed, ControlError> {
    let wire = wire.ok_or_else(|| ControlError::invalid(format!("{what} is missing")))?;
    let sealed = field(Sealed::try_from(wire), what)?;
    match &sealed {
        Sealed::Inline(bytes) if bytes.len() > MAX_ROW_BYTES => Err(ControlError::TooLarge {
            what: "sealed bytes in a row",
            most: MAX_ROW_BYTES as u64,
        }),
        _ => Ok(sealed),
    }
}

fn bounded(items: usize) -> Result<(), ControlError> {
    match items {
        1..=MAX_BATCH => Ok(()),
        _ => Err(ControlError::invalid(format!(
            "a batch holds 1 to {MAX_BATCH} items"
        ))),
    }
}

/// Bytes of a submission that count towards the window, and in an entry: never less than the order
/// takes there, since one that takes more would have everybody's refused.
pub(crate) fn submit_bytes(batch: &v1::SubmitBatch) -> u64 {
    let place = |t: &v1::TaskEnvelope| match t.payload.as_ref().and_then(|p| p.place.as_ref()) {
        Some(v1::sealed::Place::Inline(bytes)) => bytes.len() + 160,
        _ => 240,
    };
    let one = |t: &v1::TaskEnvelope| {
        place(t) + t.refs.len() * 40 + t.wrapped_key.len().saturating_sub(WRAPPED_KEY)
    };
    let specs: usize = batch.spec_bytes.iter().map(|s| s.len() + 4).sum();
    (batch.tasks.iter().map(one).sum::<usize>() + specs) as u64
}

/// A submission as an order.
///
/// *Errors*: malformed, too large, or not sealed.
pub(crate) fn submit(
    session: SessionId,
    batch: v1::SubmitBatch,
) -> Result<SubmitBatch, ControlError> {
    bounded(batch.tasks.len())?;
    if submit_bytes(&batch) > MAX_BATCH_BYTES as u64 {
        return Err(ControlError::TooLarge {
            what: "a batch",
            most: MAX_BATCH_BYTES as u64,
        });
    }
    let mut tasks = Vec::with_capacity(batch.tasks.len());
    for (seq, task) in (batch.first_seq..).zip(batch.tasks) {
        let payload = sealed(task.payload, "payload")?;
        if let Sealed::Inline(bytes) = &payload
            && !looks_sealed(bytes)
        {
            return Err(ControlError::Unsealed { seq });
        }
        let idempotency = match task.idempotency_key.as_str() {
            "" => None,
            text => Some(field(text.parse::<Digest>(), "idempotency_key")?),
        };
        let refs = task
            .refs
            .into_iter()
            .map(|r| field(BlobRef::try_from(r), "refs"));
        tasks.push(Submitted {
            spec: field(Digest::from_slice(&task.spec), "spec")?,
            wrapped_key: task.wrapped_key,
            payload,
            payload_digest: field(Digest::from_slice(&task.payload_digest), "payload_digest")?,
            idempotency,
            refs: refs.collect::<Result<_, _>>()?,
        });
    }
    Ok(SubmitBatch {
        session,
        first_seq: batch.first_seq,
        specs: batch.spec_bytes,
        tasks,
    })
}

/// A batch of completions as an order.
///
/// *Errors*: malformed, too large, or not sealed.
pub(crate) fn complete(
    node: NodeId,
    batch: v1::CompleteBatch,
) -> Result<CompleteBatch, ControlError> {
    bounded(batch.items.len())?;
    let signature = batch.signature.map(signature).transpose()?;
    let mut items = Vec::with_capacity(batch.items.len());
    for (seq, item) in (0u64..).zip(batch.items) {
        let sealed = match item.sealed {
            None => None,
            some => Some(sealed(some, "sealed")?),
        };
        if let Some(Sealed::Inline(bytes)) = &sealed
            && !looks_sealed(bytes)
        {
            return Err(ControlError::Unsealed { seq });
        }
        let attempt = item.attempt.unwrap_or_default();
        items.push(Completion {
            attempt: field(AttemptRef::try_from(attempt), "attempt")?,
            exit: field(Exit::try_from(item.exit.unwrap_or_default()), "exit")?,
            sealed,
            started: Millis(item.started_ms),
            ended: Millis(item.ended_ms),
            peak_memory: ByteCount(item.peak_memory),
            cpu: Millis(item.cpu_ms),
            // Not the agent's to say.
            moved: Moved::NONE,
        });
    }
    Ok(CompleteBatch {
        node,
        boot: field(BootId::from_slice(&batch.boot), "boot")?,
        session: field(SessionId::from_slice(&batch.session), "session")?,
        batch: batch.batch,
        signature,
        items,
    })
}

fn signature(wire: v1::NodeSignature) -> Result<BatchSignature, ControlError> {
    let id = field(<[u8; 16]>::try_from(wire.batch.as_ref()), "signature.batch")?;
    if !wire.leaves.len().is_multiple_of(32) || wire.signature.len() != 64 {
        return Err(ControlError::invalid("signature is malformed"));
    }
    Ok(BatchSignature {
        id,
        leaves: wire.leaves,
        signature: wire.signature,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_state::{MAX_REFS, Order};

    fn batch(tasks: usize, refs: usize, wrapped_key: usize) -> v1::SubmitBatch {
        let blob = BlobRef {
            digest: Digest([7; 32]),
            size: ByteCount(1),
        };
        let task = v1::TaskEnvelope {
            spec: vec![1; 32].into(),
            wrapped_key: vec![2; wrapped_key].into(),
            payload: Some(Sealed::Blob(blob).into()),
            payload_digest: vec![3; 32].into(),
            idempotency_key: Digest([4; 32]).to_string(),
            refs: vec![blob.into(); refs],
        };
        v1::SubmitBatch {
            first_seq: 1,
            tasks: vec![task; tasks],
            spec_bytes: vec![vec![5; 100].into(); 3],
            ahead: None,
        }
    }

    #[test]
    fn an_order_never_takes_more_of_an_entry_than_is_counted() {
        let session = SessionId::new(1, [0; 5]);
        for (tasks, refs, wrapped_key) in [(1, 0, 48), (100, MAX_REFS, 48), (10, 3, 4000)] {
            let batch = batch(tasks, refs, wrapped_key);
            let counted = submit_bytes(&batch);
            let order = Order::SubmitBatch(submit(session, batch).unwrap());
            let taken = order.encode().body.len() as u64;
            assert!(taken <= counted, "{taken} bytes, {counted} counted");
        }
    }

    #[test]
    fn refs_and_keys_count_towards_the_bound_of_a_batch() {
        let session = SessionId::new(1, [0; 5]);
        for batch in [batch(MAX_BATCH, MAX_REFS, 48), batch(1, 0, 1 << 20)] {
            assert!(matches!(
                submit(session, batch),
                Err(ControlError::TooLarge { .. })
            ));
        }
    }
}
