//! From calls to batches: seals, gathers, remembers what is not acknowledged.
//!
//! ```text
//! queue ─ take ─▶ raw ─ seal ─▶ prepared ─ uploads done ─▶ batch ─▶ sent ─ SubmitAck ─▶ released
//! ```
//!
//! A batch leaves at once while fewer than two are unacknowledged; else calls gather. No timers.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use farlane_model::{Digest, MAX_ROW_BYTES, Sealed};
use farlane_seal::payload::Payload;
use farlane_seal::{StreamContext, TaskKey, stream, wrap};
use farlane_wire::v1;

use super::Shared;
use super::live::{Holder, Live, Phase};
use super::queue::{Waiting, cost};
use crate::blobs::start_upload;
use crate::call::Upload;
use crate::options::{MAX_BATCH_BYTES, MAX_BATCH_TASKS, MAX_BATCHES_IN_FLIGHT};
use crate::{Error, Spec};

/// Calls sealed ahead of one that waits for its upload, so that uploads overlap.
const MAX_AHEAD: usize = 64;
/// Most ciphertext on its way to the blob store before sealing ahead stops.
const MAX_AHEAD_BYTES: u64 = 64 << 20;
/// Encoded bytes of an envelope beside its payload: digests, wrapped key, tags. Source: the field
/// sizes in network.proto, rounded up.
const ENVELOPE_BYTES: usize = 192;

/// Sealed, and waiting for its uploads.
struct Prepared {
    seq: u64,
    spec: Spec,
    envelope: v1::TaskEnvelope,
    uploads: Vec<Upload>,
    cost: u64,
    bytes: usize,
    /// Its rank in a gang, and how many that has.
    gang: Option<(u16, u16)>,
}

/// Sent and not acknowledged.
struct Sent {
    last_seq: u64,
    batch: v1::SubmitBatch,
    cost: u64,
}

/// A call that cannot be sent, by token.
pub(crate) struct Refused {
    pub seq: u64,
    pub error: Error,
}

/// One session's submissions.
#[derive(Default)]
pub(crate) struct Batcher {
    raw: VecDeque<Waiting>,
    prepared: VecDeque<Prepared>,
    sent: VecDeque<Sent>,
    /// Specs that went out before: batches stay in order, so the server has them by now or will.
    known_specs: HashSet<Digest>,
    /// Everything up to here is durable.
    through: u64,
    /// Sequence of the prepared call whose uploads somebody waits for already.
    awaited: u64,
}

impl Batcher {
    /// The next batch, if one may leave now.
    pub fn next(&mut self, shared: &Shared) -> Option<v1::SubmitBatch> {
        if self.sent.len() >= MAX_BATCHES_IN_FLIGHT {
            return None;
        }
        let mut batch = v1::SubmitBatch::default();
        let (mut bytes, mut cost, mut last_seq) = (0usize, 0u64, 0u64);
        while batch.tasks.len() < MAX_BATCH_TASKS && self.ready(shared) {
            // A gang has gathered by now, and is not cut.
            let whole = self.head();
            let begins = self.prepared.front().is_none_or(Prepared::begins);
            let together: usize = self.prepared.iter().take(whole).map(|p| p.bytes).sum();
            let fits =
                bytes + together <= MAX_BATCH_BYTES && batch.tasks.len() + whole <= MAX_BATCH_TASKS;
            if begins && !fits && !batch.tasks.is_empty() {
                break;
            }
            let Some(next) = self.prepared.pop_front() else {
                break;
            };
            if self.known_specs.insert(next.spec.digest()) {
                bytes += next.spec.canonical().len();
                batch.spec_bytes.push(next.spec.canonical().clone());
            }
            if batch.tasks.is_empty() {
                batch.first_seq = next.seq;
            }
            bytes += next.bytes;
            cost += next.cost;
            last_seq = next.seq;
            batch.tasks.push(next.envelope);
        }
        if batch.tasks.is_empty() {
            self.prepare_ahead(shared);
            return None;
        }
        self.sent.push_back(Sent {
            last_seq,
            batch: batch.clone(),
            cost,
        });
        Some(batch)
    }

    /// How many at the front of `prepared` leave together: one, or what is left of a gang.
    fn head(&self) -> usize {
        let gang = self.prepared.front().and_then(|p| p.gang);
        gang.map_or(1, |(rank, size)| usize::from(size - rank))
    }

    /// Whether the front of `prepared` can be sent, sealing as many more calls as leave with it.
    fn ready(&mut self, shared: &Shared) -> bool {
        while self.prepared.len() < self.head() {
            if !self.prepare_one(shared) {
                return false;
            }
        }
        let mut head = self.prepared.iter().take(self.head());
        head.all(|p| p.uploads.iter().all(Upload::is_done))
    }

    fn prepare_one(&mut self, shared: &Shared) -> bool {
        if self.raw.is_empty() {
            shared.queue.take(MAX_BATCH_TASKS, &mut self.raw);
        }
        match self.raw.pop_front() {
            Some(waiting) => {
                self.prepared.push_back(prepare(shared, waiting));
                true
            }
            None => false,
        }
    }

    /// While the head waits for an upload: start those of the calls behind it, and have the driver
    /// woken when the head's are done.
    fn prepare_ahead(&mut self, shared: &Shared) {
        let Some(first) = self.prepared.front().map(|p| p.seq) else {
            return;
        };
        if first != self.awaited {
            self.awaited = first;
            let head = self.prepared.iter().take(self.head());
            let uploads: Vec<Upload> = head.flat_map(|p| p.uploads.iter().cloned()).collect();
            let shared = shared.me();
            shared.clone().runtime.spawn(async move {
                for upload in uploads {
                    // A failed upload is found by `failed_uploads`.
                    let _ = upload.wait().await;
                }
                shared.queue.nudge();
            });
        }
        let mut ahead: u64 = self.prepared.iter().map(Prepared::upload_bytes).sum();
        while self.prepared.len() < MAX_AHEAD && ahead < MAX_AHEAD_BYTES && self.prepare_one(shared)
        {
            ahead += self.prepared.back().map_or(0, Prepared::upload_bytes);
        }
    }

    /// Calls whose uploads failed: they are named, and go out without waiting any longer, so that
    /// the sequence has no gap.
    pub fn failed_uploads(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        for prepared in &mut self.prepared {
            if let Some(error) = prepared.uploads.iter().find_map(Upload::failure) {
                prepared.uploads.clear();
                refused.push(Refused {
                    seq: prepared.seq,
                    error,
                });
            }
        }
        refused
    }

    /// Takes an acknowledgement; returns whether it named anything.
    pub fn acknowledge(&mut self, shared: &Shared, through: u64) -> bool {
        let mut any = false;
        self.through = self.through.max(through);
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.last_seq <= through) {
            shared
                .queue
                .release(sent.cost, sent.batch.tasks.len() as u64);
            shared.network.moves();
            any = true;
        }
        any
    }

    /// Whether the network has acknowledged this call.
    pub fn is_durable(&self, seq: u64) -> bool {
        seq <= self.through
    }

    /// What a new stream must carry again, oldest first.
    pub fn unacknowledged(&self) -> impl Iterator<Item = v1::SubmitBatch> + '_ {
        self.sent.iter().map(|sent| sent.batch.clone())
    }

    /// First sequence number not acknowledged.
    pub fn next_seq(&self) -> Option<u64> {
        let sent = self.sent.front().map(|sent| sent.batch.first_seq);
        let prepared = self.prepared.front().map(|p| p.seq);
        sent.or(prepared).or(self.raw.front().map(|w| w.seq))
    }

    /// Calls taken from the queue and never sealed, when the client gives up.
    pub fn drain_raw(&mut self) -> impl Iterator<Item = Waiting> + '_ {
        self.raw.drain(..)
    }
}

impl Prepared {
    /// Whether a batch may begin or end before it.
    fn begins(&self) -> bool {
        self.gang.is_none_or(|(rank, _)| rank == 0)
    }

    fn upload_bytes(&self) -> u64 {
        let running = self.uploads.iter().filter(|u| !u.is_done());
        running.map(|u| u.blob.size.get()).sum()
    }
}

/// Most sealed bytes that travel in the envelope itself: what a row holds, and of a gang what each may take of
/// the one batch that holds all.
fn inline_bytes(gang: Option<(u16, u16)>, blobs: usize) -> usize {
    let Some((_, size)) = gang else {
        return MAX_ROW_BYTES;
    };
    let each = MAX_BATCH_BYTES / usize::from(size.max(1));
    each.saturating_sub(ENVELOPE_BYTES + 48 * blobs)
        .min(MAX_ROW_BYTES)
}

/// Seals one call and makes its result awaited.
fn prepare(shared: &Shared, waiting: Waiting) -> Prepared {
    let Waiting { seq, call, gang } = waiting;
    let task = shared.session.task(seq);
    let tenant = shared.network.tenant();
    let cost = cost(&call);
    let key = TaskKey::generate();
    let mut uploads = Vec::new();
    let mut wait_for = |upload: &Upload| {
        if !upload.is_done() {
            uploads.push(upload.clone());
        }
    };
    let inner = &call.spec.0;
    wait_for(&inner.code);
    inner.environment.iter().for_each(&mut wait_for);
    call.blobs.iter().for_each(|blob| wait_for(&blob.0));

    let payload = Payload {
        spec: call.spec.digest(),
        rank: gang.map_or(0, |(rank, _)| rank),
        code_key: inner.code.key.clone(),
        env_key: inner.environment.as_ref().map(|e| e.key.clone()),
        arguments: call.arguments,
        blobs: call
            .blobs
            .iter()
            .map(|b| (b.0.blob, b.0.key.clone()))
            .collect(),
    };
    let plain = payload.encode();
    let frame = farlane_codec::compress(&plain);
    let context = StreamContext::payload(tenant, task);
    let sealed = Bytes::from(stream::seal_padded_parts(&key, &context, &frame.parts()));
    let payload_digest = Digest::of(&sealed);
    let most = inline_bytes(gang, call.blobs.len());
    let bytes = ENVELOPE_BYTES + sealed.len().min(most) + 48 * call.blobs.len();
    let place = if sealed.len() > most {
        let upload = start_upload(&shared.runtime, shared.network.clone(), key.clone(), sealed);
        let blob = upload.blob;
        uploads.push(upload);
        Sealed::Blob(blob)
    } else {
        Sealed::Inline(sealed)
    };
    let wrapped = wrap::wrap_task_key(&shared.session_key, seq, &key);
    let live = Live {
        key,
        holder: Holder::default(),
        spec: call.spec.digest(),
        payload_digest,
        grants: inner.grants,
        place: Some(inner.place.clone()),
        token: call.token,
        phase: Phase::Queued,
        attempt: 0,
        node: None,
    };
    shared.live.lock().insert(task, live);
    let envelope = v1::TaskEnvelope {
        spec: Bytes::copy_from_slice(call.spec.digest().as_bytes()),
        wrapped_key: Bytes::copy_from_slice(&wrapped),
        payload: Some(place.into()),
        payload_digest: Bytes::copy_from_slice(payload_digest.as_bytes()),
        idempotency_key: call
            .idempotency_key
            .map_or_else(String::new, |k| shared.network.keyed(&k)),
        refs: call.blobs.iter().map(|b| b.0.blob.into()).collect(),
    };
    Prepared {
        seq,
        spec: call.spec,
        envelope,
        uploads,
        cost,
        bytes,
        gang,
    }
}
