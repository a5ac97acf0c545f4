//! Batches of the wire as orders of the state.
//!
//! Owns the checks that need no state: shape, bounds, and that what should be sealed is. Leaves
//! meaning to `farlane-state`, which judges every order again.

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BlobRef, BootId, Digest, Exit, MAX_ROW_BYTES, NodeId, Sealed, SessionId,
};
use farlane_state::{BatchSignature, CompleteBatch, Completion, MAX_BATCH, SubmitBatch, Submitted};
use farlane_units::{ByteCount, Millis};
use farlane_wire::{looks_sealed, v1};

use crate::ControlError;

/// Most encoded bytes of one batch. Source: twice what peers aim at (docs/design/spine.md, "One call,
/// hop by hop"), since they count sealed bytes and this counts all.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

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

/// Bytes of a submission that count towards the window.
pub(crate) fn submit_bytes(batch: &v1::SubmitBatch) -> u64 {
    let one = |t: &v1::TaskEnvelope| match t.payload.as_ref().and_then(|p| p.place.as_ref()) {
        Some(v1::sealed::Place::Inline(bytes)) => bytes.len() + 160,
        _ => 240,
    };
    let specs: usize = batch.spec_bytes.iter().map(Bytes::len).sum();
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
