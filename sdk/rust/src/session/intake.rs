//! From batches of results to the sink: verify, open, hand over.
//!
//! Owns the delivery thread. One node signature is verified for each batch, whatever its size; what
//! fails a check is delivered as a failure and never tried again.
//!
//! A result that comes alone needs none where this client gave the task's key to that node and to no
//! other: whoever sealed it had the key. Unless it is a pickle, which may run code here: a granter
//! elsewhere may have been made to give another node the key, and that node's provider need not be ours.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BlobRef, Digest, Exit, ExitKind, NodeId, Sealed, SessionId, TaskId,
};
use farlane_seal::record::NodeRecord;
use farlane_seal::{StreamContext, TaskKey, batch, stream};
use farlane_units::{ByteCount, Millis, NanoGramsCo2, UsdMicros, UsdPicos};
use farlane_wire::v1;

use super::Shared;
use super::driver::failed;
use super::live::{Holder, Live};
use crate::options::MAX_OPENED_BYTES;
use crate::outcome::{Buffer, Codec, Delivered, Outcome, Receipt, Sink};
use crate::{Error, blobs};

/// Results gathered into one call of the sink: large enough to share the caller's lock, small
/// enough that the first is not late.
const MAX_GATHERED: usize = 2048;
/// Verified signatures remembered, since one node's batch may arrive in several pieces.
const MAX_VERIFIED: usize = 64;

/// What the delivery thread works on.
pub(crate) enum Work {
    /// Results as the server sent them.
    Batch(v1::ResultBatch),
    /// A result whose blob has arrived, its signature verified before.
    Fetched(Box<Fetched>),
    /// Decided on this side.
    Local(Vec<Delivered>),
    /// The end.
    Stop,
}

/// A verified result with its ciphertext.
pub(crate) struct Fetched {
    result: Checked,
    body: Result<Bytes, Error>,
}

/// A result that is awaited and whose signature holds.
struct Checked {
    attempt: AttemptRef,
    exit: Exit,
    sealed: Option<Sealed>,
    receipt: Receipt,
    key: TaskKey,
    holder: Holder,
    token: u64,
    signer: Option<Signer>,
}

/// Who signed, and whether it is our own provider's.
#[derive(Clone, Copy)]
struct Signer {
    node: NodeId,
    own: bool,
}

/// Starts the delivery thread.
pub(crate) fn start(shared: Arc<Shared>, sink: Sink) -> std::io::Result<Sender<Work>> {
    let (tx, rx) = channel();
    let back = tx.clone();
    std::thread::Builder::new()
        .name("farlane-deliver".to_owned())
        .spawn(move || {
            Intake {
                shared,
                sink,
                back,
                records: HashMap::new(),
                verified: VecDeque::new(),
            }
            .run(rx);
        })?;
    Ok(tx)
}

struct Intake {
    shared: Arc<Shared>,
    sink: Sink,
    back: Sender<Work>,
    records: HashMap<NodeId, (NodeRecord, bool)>,
    verified: VecDeque<(NodeId, Digest)>,
}

impl Intake {
    fn run(mut self, rx: Receiver<Work>) {
        while let Ok(first) = rx.recv() {
            let mut out = Vec::new();
            let mut cursor = None;
            let mut next = Some(first);
            while let Some(work) = next {
                if !self.take(work, &mut out, &mut cursor) {
                    self.hand_over(out, cursor);
                    return;
                }
                next = if out.len() < MAX_GATHERED {
                    rx.try_recv().ok()
                } else {
                    None
                };
            }
            self.hand_over(out, cursor);
        }
    }

    fn hand_over(&self, out: Vec<Delivered>, cursor: Option<v1::Cursor>) {
        if !out.is_empty() {
            (self.sink)(out);
        }
        if let Some(cursor) = cursor {
            *self.shared.delivered.lock() = Some(cursor);
        }
    }

    /// One piece of work; `false` at the end.
    fn take(
        &mut self,
        work: Work,
        out: &mut Vec<Delivered>,
        cursor: &mut Option<v1::Cursor>,
    ) -> bool {
        match work {
            Work::Batch(batch) => {
                *cursor = batch.cursor.or(*cursor);
                self.take_batch(batch, out);
            }
            Work::Fetched(fetched) => {
                let Fetched { result, body } = *fetched;
                let outcome = match body {
                    Ok(body) => open(&self.shared, &result, body),
                    Err(error) => Outcome::Failed(error),
                };
                out.push(delivered(result, outcome));
            }
            Work::Local(local) => out.extend(local),
            Work::Stop => return false,
        }
        true
    }

    fn take_batch(&mut self, mut batch: v1::ResultBatch, out: &mut Vec<Delivered>) {
        let results = std::mem::take(&mut batch.results);
        let session = session_of(&results);
        let shown = self.take_record(&batch);
        let mut awaited = self.claim(results, out);
        if let [(result, _)] = &mut awaited[..]
            && let Some(outcome) = self.vouched(&batch, result)
        {
            out.extend(awaited.pop().map(|(result, _)| delivered(result, outcome)));
            return;
        }
        let signer = shown.and_then(|()| self.signer(&batch, session));
        let leaves = batch.signature.map(|s| s.leaves).unwrap_or_default();
        for (result, leaf) in awaited {
            let result = match check(result, &signer, &leaves, leaf) {
                Ok(result) => result,
                Err((result, error)) => {
                    out.push(delivered(*result, Outcome::Failed(error)));
                    continue;
                }
            };
            match &result.sealed {
                Some(Sealed::Blob(blob)) => self.fetch(*blob, result),
                Some(Sealed::Inline(body)) => {
                    let outcome = open(&self.shared, &result, body.clone());
                    out.push(delivered(result, outcome));
                }
                None => {
                    let outcome = without_body(&result.exit);
                    out.push(delivered(result, outcome));
                }
            }
        }
    }

    /// What a result says that needs no signature: only its node could have sealed it, and reading it
    /// runs nothing.
    fn vouched(&self, batch: &v1::ResultBatch, result: &mut Checked) -> Option<Outcome> {
        let node = NodeId::from_slice(&batch.node).ok()?;
        let Some(Sealed::Inline(body)) = &result.sealed else {
            return None;
        };
        if result.holder != Holder::One(node) || result.exit.kind != ExitKind::Returned {
            return None;
        }
        let context = StreamContext::result(self.shared.network.tenant(), result.attempt, node);
        let plain = open_plain(&result.key, &context, body.clone()).ok()?;
        let outcome = safe(&plain)?;
        result.receipt.node = Some(node);
        Some(outcome)
    }

    /// Takes the batch's tasks out of the awaited ones; others were delivered before, or are not
    /// ours. What cannot be read is delivered as a failure.
    fn claim(&self, results: Vec<v1::TaskResult>, out: &mut Vec<Delivered>) -> Vec<(Checked, u32)> {
        let mut live = self.shared.live.lock();
        let mut claimed = Vec::with_capacity(results.len());
        for result in results {
            let Some(named) = &result.attempt else {
                continue;
            };
            let Ok(task) = TaskId::from_slice(&named.task) else {
                continue;
            };
            // The attempt is 0 where none was ever placed.
            let (attempt, epoch) = (named.attempt, named.epoch);
            let attempt = AttemptRef {
                task,
                attempt,
                epoch,
            };
            let Some(awaited) = live.remove(&task) else {
                continue;
            };
            let leaf = result.leaf;
            match read(attempt, &awaited, result) {
                Some(result) => claimed.push((result, leaf)),
                None => {
                    let error = Error::Integrity(format!("the result of task {task} is malformed"));
                    out.push(failed(awaited.token, task, epoch, error));
                }
            }
        }
        claimed
    }

    /// Remembers the record that a node's first batch comes with.
    ///
    /// *Errors*: it does not hold.
    fn take_record(&mut self, batch: &v1::ResultBatch) -> Result<(), Error> {
        if batch.record_bytes.is_empty() || batch.signature.is_none() {
            return Ok(());
        }
        let record = self.shared.network.trusted_record(&batch.record_bytes)?;
        let node = record.0.node();
        if node.as_bytes()[..] != batch.node {
            let what = "a result came with another node's record";
            return Err(Error::Integrity(what.to_owned()));
        }
        self.records.insert(node, record);
        Ok(())
    }

    /// The batch's signer, `None` where it is unsigned.
    ///
    /// *Errors*: the signature does not hold.
    fn signer(
        &mut self,
        batch: &v1::ResultBatch,
        session: Option<SessionId>,
    ) -> Result<Option<Signer>, Error> {
        let Some(signature) = &batch.signature else {
            return Ok(None);
        };
        let bad = |what: String| Error::Integrity(what);
        let node = NodeId::from_slice(&batch.node).map_err(|e| bad(e.to_string()))?;
        let (record, own) = self.records.get(&node).ok_or_else(|| {
            bad(format!(
                "node {node} signed a result but never showed its record"
            ))
        })?;
        let signer = Signer { node, own: *own };
        let session = session.ok_or_else(|| bad("an empty signed batch".to_owned()))?;
        let seen = (node, fingerprint(signature));
        if self.verified.contains(&seen) {
            return Ok(Some(signer));
        }
        batch::verify(
            record,
            session,
            &signature.batch,
            &signature.leaves,
            &signature.signature,
        )
        .map_err(|e| bad(format!("results of node {node}: {e}")))?;
        if self.verified.len() == MAX_VERIFIED {
            self.verified.pop_front();
        }
        self.verified.push_back(seen);
        Ok(Some(signer))
    }

    fn fetch(&self, blob: BlobRef, result: Checked) {
        let (network, back) = (self.shared.network.clone(), self.back.clone());
        self.shared.runtime.spawn(async move {
            let body = blobs::fetch(&network, blob).await;
            // The thread has ended: the client was closed meanwhile.
            let _ = back.send(Work::Fetched(Box::new(Fetched { result, body })));
        });
    }
}

/// Whose results these are: a node's batch holds one session's.
fn session_of(results: &[v1::TaskResult]) -> Option<SessionId> {
    let first = results.first()?.attempt.as_ref()?;
    TaskId::from_slice(&first.task).ok().map(TaskId::session)
}

fn fingerprint(signature: &v1::NodeSignature) -> Digest {
    let mut hash = blake3::Hasher::new();
    hash.update(&signature.batch)
        .update(&signature.signature)
        .update(&signature.leaves);
    Digest(*hash.finalize().as_bytes())
}

/// Holds one result against the signed leaves.
fn check(
    mut result: Checked,
    signer: &Result<Option<Signer>, Error>,
    leaves: &[u8],
    leaf: u32,
) -> Result<Checked, (Box<Checked>, Error)> {
    let signer = match signer {
        Ok(signer) => *signer,
        Err(error) => return Err((Box::new(result), error.clone())),
    };
    let Some(signer) = signer else {
        return match result.sealed {
            // What the control plane decides has no body; a body without a signature is forged.
            Some(_) => Err((
                Box::new(result),
                Error::Integrity("a result is not signed by any node".to_owned()),
            )),
            None if matches!(result.exit.kind, ExitKind::Returned | ExitKind::Raised) => Err((
                Box::new(result),
                Error::Integrity("a finished task came without its result".to_owned()),
            )),
            None => Ok(result),
        };
    };
    let digest = match &result.sealed {
        Some(Sealed::Inline(body)) => Some(Digest::of(body)),
        Some(Sealed::Blob(blob)) => Some(blob.digest),
        None => None,
    };
    let expected = batch::leaf(&result.attempt, result.exit.kind, digest.as_ref());
    if !batch::matches(leaves, leaf as usize, &expected) {
        let error = Error::Integrity(format!(
            "the result of task {} is not what its node signed",
            result.attempt.task
        ));
        return Err((Box::new(result), error));
    }
    result.receipt.node = Some(signer.node);
    result.signer = Some(signer);
    Ok(result)
}

/// A result's fields; `None` where one is malformed.
fn read(attempt: AttemptRef, awaited: &Live, result: v1::TaskResult) -> Option<Checked> {
    let receipt = Receipt {
        attempt: attempt.attempt,
        node: None,
        node_name: result.node_name,
        region: result.region,
        started: Millis(result.started_ms),
        ended: Millis(result.ended_ms),
        cost: UsdMicros(result.cost_usd_micros),
        moved: ByteCount(result.moved_bytes),
        egress: UsdPicos(result.egress_usd_picos),
        emitted: result.emitted_ng.map(NanoGramsCo2),
        quote: result.quote_bytes,
    };
    let exit = Exit::try_from(result.exit?).ok()?;
    let sealed = result.sealed.map(Sealed::try_from).transpose().ok()?;
    Some(Checked {
        attempt,
        exit,
        sealed,
        receipt,
        key: awaited.key.clone(),
        holder: awaited.holder,
        token: awaited.token,
        signer: None,
    })
}

fn delivered(result: Checked, outcome: Outcome) -> Delivered {
    Delivered {
        token: result.token,
        attempt: result.attempt,
        outcome,
        receipt: result.receipt,
    }
}

fn without_body(exit: &Exit) -> Outcome {
    match exit.kind {
        ExitKind::EnvFailed => Outcome::EnvFailed {
            exit: exit.clone(),
            log: Bytes::new(),
        },
        _ => Outcome::Ended(exit.clone()),
    }
}

/// Opens a verified body.
fn open(shared: &Shared, result: &Checked, sealed: Bytes) -> Outcome {
    let Some(signer) = result.signer else {
        return Outcome::Failed(Error::Integrity(
            "a result is not signed by any node".to_owned(),
        ));
    };
    let (tenant, attempt, node) = (shared.network.tenant(), result.attempt, signer.node);
    let context = match result.exit.kind {
        ExitKind::Returned => StreamContext::result(tenant, attempt, node),
        ExitKind::Raised => StreamContext::exception(tenant, attempt, node),
        ExitKind::EnvFailed => StreamContext::log(tenant, attempt, node, u32::MAX),
        _ => return Outcome::Ended(result.exit.clone()),
    };
    match open_plain(&result.key, &context, sealed) {
        Ok(plain) => decode(result, signer, plain),
        Err(error) => Outcome::Failed(error),
    }
}

/// Opens, unpads and decompresses.
///
/// *Errors*: damaged, or larger than a client takes.
pub(crate) fn open_plain(
    key: &TaskKey,
    context: &StreamContext,
    sealed: Bytes,
) -> Result<Bytes, Error> {
    let frame = stream::open_padded_owned(key, context, sealed, MAX_OPENED_BYTES)
        .map_err(|e| Error::Integrity(e.to_string()))?;
    farlane_codec::decompress_owned(frame, MAX_OPENED_BYTES)
        .map_err(|e| Error::Integrity(e.to_string()))
}

/// A result that is read without running anything; `None` for any other encoding.
fn safe(plain: &Bytes) -> Option<Outcome> {
    (plain.first() == Some(&0)).then(|| Outcome::Returned {
        codec: Codec::Safe,
        body: plain.slice(1..),
        buffers: Vec::new(),
    })
}

fn decode(result: &Checked, signer: Signer, plain: Bytes) -> Outcome {
    let bad = |what: &str| Outcome::Failed(Error::Integrity(what.to_owned()));
    let Some(codec) = plain.first().copied() else {
        return bad("an empty result");
    };
    if result.exit.kind == ExitKind::Returned
        && let Some(outcome) = safe(&plain)
    {
        return outcome;
    }
    let body = plain.slice(1..);
    match (result.exit.kind, codec) {
        (ExitKind::Returned, 1) if signer.own => Outcome::Returned {
            codec: Codec::Pickle,
            body,
            buffers: Vec::new(),
        },
        (ExitKind::Returned, 2) if signer.own => match Buffer::split(body) {
            Some((body, buffers)) => Outcome::Returned {
                codec: Codec::Pickle,
                body,
                buffers,
            },
            None => bad("a result whose buffers do not fit"),
        },
        (ExitKind::Returned, 1 | 2) => {
            bad("a provider that is not your own sent a pickle, which could run code here")
        }
        (ExitKind::Raised, 0) => Outcome::Raised {
            trusted: signer.own,
            body,
        },
        (ExitKind::EnvFailed, 0) => Outcome::EnvFailed {
            exit: result.exit.clone(),
            log: body,
        },
        _ => bad("a result in an unknown encoding"),
    }
}
