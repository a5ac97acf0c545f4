//! Tasks of one session, in order of their numbers.

use bytes::Bytes;
use farlane_model::{BlobRef, Digest, MAX_ROW_BYTES, Sealed, TaskId};
use farlane_units::{Millis, NanoGramsCo2, UsdMicros};

use super::submit_gang::take_gang;
use super::submit_specs::Known;
use super::{MAX_BATCH, MAX_REFS};
use crate::apply::Ctx;
use crate::codec::{Reader, Write};
use crate::row::{MAX_OUTBOX, keys};
use crate::rows::Table;
use crate::session::VERDICT_WINDOW;
use crate::task::{Task, WRAPPED_KEY};
use crate::{Outcome, Refusal, Verdict};

/// Most live tasks of one project. Source: twice the 1,000,000 queued tasks that SPEC.md promises.
const MAX_LIVE: u64 = 2_000_000;
/// How long an idempotency key counts. Source: choice; as long as results are kept.
pub(crate) const IDEMPOTENCY: Millis = Millis(24 * 3600 * 1000);

/// Submissions `first_seq..`, contiguous in their session.
///
/// A prefix that was taken in before is answered as it was then. A gap is refused and consumes
/// nothing; a task that is refused consumes its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitBatch {
    /// Whose.
    pub session: farlane_model::SessionId,
    /// Number of the first task.
    pub first_seq: u64,
    /// Canonical `TaskSpec`s that the session has not sent before.
    pub specs: Vec<Bytes>,
    /// At most [`MAX_BATCH`].
    pub tasks: Vec<Submitted>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Digest of its spec.
    pub spec: Digest,
    /// Task key under the session's key: 48 bytes.
    pub wrapped_key: Bytes,
    /// Sealed payload.
    pub payload: Sealed,
    /// BLAKE3 of the sealed payload.
    pub payload_digest: Digest,
    /// Keyed hash of the caller's idempotency key.
    pub idempotency: Option<Digest>,
    /// Argument blobs that the payload names.
    pub refs: Vec<BlobRef>,
}

impl SubmitBatch {
    pub(crate) fn encode(&self) -> Bytes {
        let size: usize = self.tasks.iter().map(Submitted::size).sum();
        let specs: usize = self.specs.iter().map(|s| s.len() + 4).sum();
        let mut out = Vec::with_capacity(32 + size + specs);
        out.raw(&self.session.to_bytes());
        out.u64(self.first_seq);
        out.u32(self.specs.len() as u32);
        for spec in &self.specs {
            out.bytes(spec);
        }
        out.u32(self.tasks.len() as u32);
        for task in &self.tasks {
            task.encode(&mut out);
        }
        out.into()
    }

    pub(crate) fn decode(body: Bytes) -> Option<Self> {
        let mut r = Reader::new(body);
        let session = farlane_model::SessionId::from_bytes(r.array()?);
        let first_seq = r.u64()?;
        let specs = r.count(4)?;
        let specs = (0..specs).map(|_| r.bytes()).collect::<Option<_>>()?;
        let tasks = r.count(Submitted::LEAST)?;
        let tasks = (0..tasks)
            .map(|_| Submitted::decode(&mut r))
            .collect::<Option<_>>()?;
        r.is_done().then_some(Self {
            session,
            first_seq,
            specs,
            tasks,
        })
    }

    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let handle = *ctx
            .state
            .session_ids
            .get(&self.session)
            .ok_or(Refusal::SessionUnknown)?;
        let session = &ctx.state.sessions[handle];
        if ctx.state.key_revoked(&session.key) {
            return Err(Refusal::KeyRevoked);
        }
        if self.tasks.len() > MAX_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_BATCH as u32,
            });
        }
        let expected = session.next_seq;
        if self.first_seq == 0 || self.first_seq > expected {
            return Err(Refusal::SequenceGap { expected });
        }
        let resent = (expected - self.first_seq).min(self.tasks.len() as u64);
        let fresh = self.tasks.len() as u64 - resent;
        let live = ctx.state.project_live(&session.project);
        if live + fresh > MAX_LIVE {
            return Err(Refusal::QueueFull { most: MAX_LIVE });
        }
        if fresh > 0 && ctx.state.accounts_behind() {
            return Err(Refusal::AccountsBehind { most: MAX_OUTBOX });
        }
        let mut answer = Answer {
            refused: Vec::new(),
            duplicates: Vec::new(),
        };
        for (seq, verdict) in session
            .verdicts
            .range(self.first_seq..self.first_seq + resent)
        {
            answer.add(*seq, verdict.clone());
        }
        self.take_in(ctx, handle, resent as usize, &mut answer);
        let through = ctx.state.sessions[handle].next_seq - 1;
        Ok(Outcome::Submitted {
            through,
            refused: answer.refused,
            duplicates: answer.duplicates,
        })
    }

    fn take_in(self, ctx: &mut Ctx, session: u32, resent: usize, answer: &mut Answer) {
        let mut known = Known::default();
        let fresh = self.tasks.len() - resent;
        // What was taken before is answered while accounts are behind, and must not fill the outbox.
        if fresh > 0 {
            known.learn(ctx, session, &self.specs);
        }
        let bytes: usize = self.tasks[resent..].iter().map(|t| t.size() + 64).sum();
        ctx.writes.reserve(fresh + 2, bytes + 512);
        let mut rest = &self.tasks[resent..];
        while let Some(task) = rest.first() {
            let seq = ctx.state.sessions[session].next_seq;
            let refused = match known.gang(ctx, session, &task.spec) {
                None => {
                    rest = &rest[1..];
                    ctx.state.sessions[session].next_seq += 1;
                    let taken = take_one(ctx, session, seq, task, &mut known);
                    taken.err().into_iter().collect()
                }
                Some(size) => {
                    let same = rest.iter().take(usize::from(size));
                    let same = same.take_while(|t| t.spec == task.spec).count();
                    let (these, left) = rest.split_at(same);
                    rest = left;
                    let taken = take_gang(ctx, session, these, size, &mut known);
                    taken.err().unwrap_or_default()
                }
            };
            for (seq, verdict) in (seq..).zip(refused) {
                remember(ctx, session, seq, &verdict);
                answer.add(seq, verdict);
            }
        }
        ctx.mark(session);
    }
}

struct Answer {
    refused: Vec<(u64, Refusal)>,
    duplicates: Vec<(u64, TaskId)>,
}

impl Answer {
    fn add(&mut self, seq: u64, verdict: Verdict) {
        match verdict {
            Verdict::Refused(refusal) => self.refused.push((seq, refusal)),
            Verdict::Duplicate(task) => self.duplicates.push((seq, task)),
        }
    }
}

pub(super) fn take_one(
    ctx: &mut Ctx,
    session: u32,
    seq: u64,
    task: &Submitted,
    known: &mut Known,
) -> Result<(), Verdict> {
    let wrapped_key = task.check().map_err(Verdict::Refused)?;
    let spec = known
        .find(ctx, session, &task.spec)
        .map_err(Verdict::Refused)?;
    let now = ctx.stamp.now;
    let project = ctx.state.sessions[session].project;
    let id = ctx.state.sessions[session].task_id(seq);
    if let Some(key) = task.idempotency {
        if let Some((earlier, until)) = ctx.state.idempotency.get(&(project, key)).copied() {
            if now < until {
                return Err(Verdict::Duplicate(earlier));
            }
            ctx.state.idempotency_ends.remove(&(until, project, key));
        }
        let until = now.saturating_add(IDEMPOTENCY);
        ctx.writes.put_serde(
            Table::Idempotency,
            &keys::idempotency(project, key),
            &(id, until),
        );
        ctx.state.idempotency.insert((project, key), (id, until));
        ctx.state.idempotency_ends.insert((until, project, key));
    }
    ctx.writes.put(Table::Tasks, &keys::task(id), |out| {
        let Submitted {
            spec,
            wrapped_key,
            payload,
            payload_digest,
            refs,
            ..
        } = task;
        crate::row::write_envelope(out, spec, now, wrapped_key, payload, payload_digest, refs);
    });
    let task = Task {
        seq,
        submitted: now,
        spent: UsdMicros::ZERO,
        emitted: NanoGramsCo2::ZERO,
        lease: None,
        session,
        spec,
        attempt: 0,
        lost: 0,
        raised: 0,
        preempted: 0,
        wrapped_key,
    };
    ctx.state.admit(task);
    Ok(())
}

fn remember(ctx: &mut Ctx, session: u32, seq: u64, verdict: &Verdict) {
    let owner = &mut ctx.state.sessions[session];
    ctx.writes
        .put_serde(Table::Verdicts, &keys::task(owner.id.task(seq)), verdict);
    owner.verdicts.insert(seq, verdict.clone());
    let kept = owner.next_seq.saturating_sub(VERDICT_WINDOW);
    while let Some(first) = owner.verdicts.first_entry()
        && *first.key() < kept
    {
        let (old, _) = first.remove_entry();
        ctx.writes
            .delete(Table::Verdicts, &keys::task(owner.id.task(old)));
    }
}

impl crate::State {
    /// A live task joins every index. Its spec and session are there already.
    pub(crate) fn admit(&mut self, task: Task) -> u32 {
        let (session, seq, queued) = (task.session, task.seq, task.lease.is_none());
        let (key, ends) = (self.queue_key(&task), self.ends_at(&task));
        let handle = self.tasks.insert(task);
        self.sessions[session].push_task(seq, handle);
        self.projects.entry(key.project).or_default().live += 1;
        if let Some(at) = ends {
            self.deadlines
                .insert((at, self.sessions[session].task_id(seq)));
        }
        if queued {
            self.queues.push(key, seq);
        }
        handle
    }
}

impl Submitted {
    /// Encoded, with empty key and payload.
    const LEAST: usize = 32 + 4 + 5 + 32 + 1 + 4;

    fn size(&self) -> usize {
        let payload = match &self.payload {
            Sealed::Inline(bytes) => bytes.len(),
            Sealed::Blob(_) => 40,
        };
        Self::LEAST + self.wrapped_key.len() + payload + 32 + 40 * self.refs.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.raw(&self.spec.0);
        out.bytes(&self.wrapped_key);
        out.sealed(&self.payload);
        out.raw(&self.payload_digest.0);
        out.u8(u8::from(self.idempotency.is_some()));
        if let Some(key) = &self.idempotency {
            out.raw(&key.0);
        }
        out.u32(self.refs.len() as u32);
        for blob in &self.refs {
            out.blob(blob);
        }
    }

    fn decode(r: &mut Reader) -> Option<Self> {
        Some(Self {
            spec: r.digest()?,
            wrapped_key: r.bytes()?,
            payload: r.sealed()?,
            payload_digest: r.digest()?,
            idempotency: match r.flag()? {
                true => Some(r.digest()?),
                false => None,
            },
            refs: {
                let n = r.count(40)?;
                (0..n).map(|_| r.blob()).collect::<Option<_>>()?
            },
        })
    }

    pub(super) fn check(&self) -> Result<[u8; WRAPPED_KEY], Refusal> {
        let invalid = |field: &str| Refusal::EnvelopeInvalid {
            field: field.into(),
        };
        let key = self
            .wrapped_key
            .as_ref()
            .try_into()
            .map_err(|_| invalid("wrapped_key"))?;
        if self.refs.len() > MAX_REFS {
            return Err(invalid("refs"));
        }
        match &self.payload {
            Sealed::Inline(bytes) if bytes.is_empty() => Err(invalid("payload")),
            Sealed::Inline(bytes) if bytes.len() > MAX_ROW_BYTES => Err(Refusal::PayloadTooLarge {
                most: MAX_ROW_BYTES as u64,
            }),
            _ => Ok(key),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{AckOutbox, Genesis, OpenSession, Order, OutboxKey, Stamp, State, apply};
    use farlane_model::{KeyId, ProjectId, SessionId, TenantId};

    fn order(state: &mut State, order: impl Into<Order>) -> Outcome {
        let stamp = Stamp {
            index: state.stamp().index + 1,
            term: 1,
            now: Millis(1),
        };
        apply(state, stamp, 0, order.into()).outcome
    }

    fn submit(session: SessionId, first_seq: u64) -> SubmitBatch {
        let task = Submitted {
            spec: Digest([1; 32]),
            wrapped_key: Bytes::from_static(&[2; WRAPPED_KEY]),
            payload: Sealed::Inline(Bytes::from_static(b"sealed")),
            payload_digest: Digest([3; 32]),
            idempotency: None,
            refs: Vec::new(),
        };
        SubmitBatch {
            session,
            first_seq,
            specs: Vec::new(),
            tasks: vec![task],
        }
    }

    fn through(outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Submitted { through, .. } => through,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn while_the_outbox_is_full_nothing_new_is_taken_and_what_was_taken_is_answered() {
        let session = SessionId::new(1, [0; 5]);
        let mut state = State::empty();
        order(
            &mut state,
            Genesis {
                network: Digest([0; 32]),
                epoch: 1,
                cluster_version: 1,
            },
        );
        let open = OpenSession {
            session,
            project: ProjectId::new(1, [1; 10]),
            tenant: TenantId([2; 32]),
            key: KeyId::new(1, [3; 10]),
            wrapped_session_key: Bytes::from_static(b"key"),
            device: Bytes::from_static(b"device"),
        };
        assert_eq!(order(&mut state, open), Outcome::Done);
        assert_eq!(through(order(&mut state, submit(session, 1))), 1);

        // As many events as it takes, which nobody has acknowledged.
        state.outbox.push_back(crate::state::OutboxRun {
            index: 1,
            ordinal: 0,
            from: 0,
            to: MAX_OUTBOX as u32,
        });
        state.outbox_len = MAX_OUTBOX;
        let refused = Outcome::Refused(Refusal::AccountsBehind { most: MAX_OUTBOX });
        assert_eq!(order(&mut state, submit(session, 2)), refused);
        assert_eq!(through(order(&mut state, submit(session, 1))), 1);
        assert_eq!(state.session(&session).unwrap().next_seq, 2);

        let through_all = OutboxKey {
            index: 1,
            ordinal: 0,
            n: u32::MAX,
        };
        let ack = AckOutbox {
            sink: 0,
            through: through_all,
        };
        assert_eq!(order(&mut state, ack), Outcome::Done);
        assert_eq!(through(order(&mut state, submit(session, 2))), 2);
    }
}
