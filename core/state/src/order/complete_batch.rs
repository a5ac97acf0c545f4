//! Attempts ended, as the node that ran them says. The first valid report of an attempt counts.

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BootId, Exit, ExitKind, LostCause, MAX_EXIT_MESSAGE, MAX_ROW_BYTES, NodeId, Sealed,
    SessionId, TaskId,
};
use farlane_units::{ByteCount, Millis};
use serde::{Deserialize, Serialize};

use super::MAX_BATCH;
use crate::apply::Ctx;
use crate::codec::{Reader, Write};
use crate::row::{BatchRow, Cursor, keys};
use crate::rows::Table;
use crate::settle::{Ending, Used};
use crate::{Outcome, Refusal};

/// Results of one session from one boot of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteBatch {
    /// Who ran them.
    pub node: NodeId,
    /// Under which boot they were leased.
    pub boot: BootId,
    /// Whose they are.
    pub session: SessionId,
    /// Counts up within the boot.
    pub batch: u64,
    /// Over all items.
    pub signature: Option<BatchSignature>,
    /// At most [`MAX_BATCH`].
    pub items: Vec<Completion>,
}

/// The node's signature over the digests of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSignature {
    /// Names the batch.
    pub id: [u8; 16],
    /// n × 32 bytes, one digest an item, in order.
    pub leaves: Bytes,
    /// Over id and leaves.
    pub signature: Bytes,
}

/// One attempt's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub attempt: AttemptRef,
    /// How.
    pub exit: Exit,
    /// Result, exception or build log.
    pub sealed: Option<Sealed>,
    /// Cluster time, as the agent estimates it.
    pub started: Millis,
    /// Cluster time, as the agent estimates it.
    pub ended: Millis,
    /// At its highest.
    pub peak_memory: ByteCount,
    /// User and system.
    pub cpu: Millis,
    /// What the leader saw go between regions for it; nothing where that costs nothing.
    pub moved: Moved,
}

/// Bytes that went between the servers' region and a node's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// To the node: payload, function, lock, large arguments.
    pub there: ByteCount,
    /// From it: result, exception or build log.
    pub back: ByteCount,
}

impl Moved {
    /// Nothing.
    pub const NONE: Self = Self {
        there: ByteCount::ZERO,
        back: ByteCount::ZERO,
    };

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let some = *self != Self::NONE;
        out.u8(u8::from(some));
        if some {
            out.u64(self.there.0);
            out.u64(self.back.0);
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Option<Self> {
        Some(match r.flag()? {
            false => Self::NONE,
            true => Self {
                there: ByteCount(r.u64()?),
                back: ByteCount(r.u64()?),
            },
        })
    }
}

/// An encoded completion without sealed bytes, words or bytes that moved.
const LEAST: usize = 28 + 10 + 1 + 32 + 1;

impl CompleteBatch {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.items.len() * 256);
        out.raw(&self.node.0);
        out.raw(&self.boot.0);
        out.raw(&self.session.to_bytes());
        out.u64(self.batch);
        out.u8(u8::from(self.signature.is_some()));
        if let Some(signature) = &self.signature {
            out.raw(&signature.id);
            out.bytes(&signature.leaves);
            out.bytes(&signature.signature);
        }
        out.u32(self.items.len() as u32);
        for item in &self.items {
            out.raw(&item.attempt.task.to_bytes());
            out.u32(item.attempt.attempt);
            out.u64(item.attempt.epoch);
            out.exit(&item.exit);
            out.u8(u8::from(item.sealed.is_some()));
            if let Some(sealed) = &item.sealed {
                out.sealed(sealed);
            }
            for number in [item.started.0, item.ended.0, item.peak_memory.0, item.cpu.0] {
                out.u64(number);
            }
            item.moved.write(&mut out);
        }
        out.into()
    }

    pub(crate) fn decode(body: Bytes) -> Option<Self> {
        let mut r = Reader::new(body);
        let node = NodeId(r.array()?);
        let boot = BootId(r.array()?);
        let session = SessionId::from_bytes(r.array()?);
        let batch = r.u64()?;
        let signature = match r.flag()? {
            true => Some(BatchSignature {
                id: r.array()?,
                leaves: r.bytes()?,
                signature: r.bytes()?,
            }),
            false => None,
        };
        let n = r.count(LEAST)?;
        let items = (0..n)
            .map(|_| Completion::decode(&mut r))
            .collect::<Option<_>>()?;
        r.is_done().then_some(Self {
            node,
            boot,
            session,
            batch,
            signature,
            items,
        })
    }

    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.items.len() > MAX_BATCH {
            return Err(Refusal::BatchTooLarge {
                most: MAX_BATCH as u32,
            });
        }
        if let Some(signature) = &self.signature
            && (signature.leaves.len() != 32 * self.items.len() || signature.signature.len() > 128)
        {
            return Err(Refusal::EnvelopeInvalid {
                field: "signature".into(),
            });
        }
        let node = ctx.state.node(&self.node).ok_or(Refusal::NodeUnknown)?;
        if node.revoked {
            return Err(Refusal::NodeRevoked);
        }
        // An attempt of a boot that is forgotten, or never was, cannot be current.
        let (number, boot) = (node.number, node.boot_number(&self.boot));
        let signed = self.signature.as_ref().map(|_| ctx.ordinal);
        let (mut stale, mut finished) = (Vec::new(), false);
        ctx.writes
            .reserve(self.items.len() * 6 + 2, self.items.len() * 768 + 512);
        for (i, item) in self.items.into_iter().enumerate() {
            let current = boot.and_then(|b| current(ctx, number, b, self.session, &item.attempt));
            match current {
                Some(handle) => finished |= complete(ctx, handle, item, signed, i as u32),
                None => stale.push(i as u32),
            }
        }
        if let Some(BatchSignature {
            id,
            leaves,
            signature,
        }) = self.signature
            && finished
        {
            let at = Cursor {
                index: ctx.stamp.index,
                ordinal: ctx.ordinal,
            };
            let row = BatchRow {
                node: self.node,
                id,
                leaves,
                signature,
            };
            ctx.writes
                .put(Table::Batches, &keys::result(self.session, at), |out| {
                    row.write(out)
                });
        }
        Ok(Outcome::Completed { stale })
    }
}

/// The task, if this attempt is the one that the node holds under that boot.
fn current(
    ctx: &Ctx,
    node: u32,
    boot: u32,
    session: SessionId,
    attempt: &AttemptRef,
) -> Option<u32> {
    if attempt.epoch != ctx.state.epoch() || attempt.task.session() != session {
        return None;
    }
    let handle = ctx.state.find(attempt.task)?;
    let task = &ctx.state.tasks[handle];
    let lease = task.lease.as_deref()?;
    (task.attempt == attempt.attempt && lease.node == node && lease.boot == boot).then_some(handle)
}

/// Ends the attempt; true when the task ended with it.
fn complete(ctx: &mut Ctx, handle: u32, item: Completion, signed: Option<u32>, leaf: u32) -> bool {
    let (exit, sealed) = believable(item.exit, item.sealed);
    let (exit, sealed) = match exit.kind {
        ExitKind::Lost(LostCause::Preempted) if !ctx.is_asked(handle) => {
            broken("the node ended what nobody asked to make way")
        }
        _ => (exit, sealed),
    };
    let again = match exit.kind {
        ExitKind::Lost(LostCause::Preempted) => ctx.yields(handle),
        ExitKind::Lost(_) | ExitKind::Refused => ctx.spend_lost(handle),
        ExitKind::Raised => ctx.spend_raised(handle),
        _ => false,
    };
    let used = Used {
        started: item.started,
        ended: item.ended,
        cpu: item.cpu,
        peak_memory: item.peak_memory,
        moved: item.moved,
    };
    let egress = ctx.bill(handle, &used, exit.kind, !again);
    if again {
        ctx.requeue(handle);
        return false;
    }
    let ending = Ending {
        exit,
        sealed,
        signed,
        leaf,
        started: item.started,
        ended: item.ended,
        moved: item.moved,
        egress,
    };
    ctx.finish_task(handle, ending);
    true
}

fn broken(why: &str) -> (Exit, Option<Sealed>) {
    (Exit::new(ExitKind::Lost(LostCause::Sandbox), why), None)
}

/// A node may not claim what only the control plane decides, nor leave more than a row holds.
fn believable(exit: Exit, sealed: Option<Sealed>) -> (Exit, Option<Sealed>) {
    let large = matches!(&sealed, Some(Sealed::Inline(bytes)) if bytes.len() > MAX_ROW_BYTES);
    match exit.kind {
        _ if large => broken("the node sent sealed bytes that do not fit a row"),
        _ if exit.message.len() > MAX_EXIT_MESSAGE => (Exit::new(exit.kind, exit.message), sealed),
        ExitKind::Expired | ExitKind::Infeasible => broken("the node reported an impossible exit"),
        ExitKind::Returned | ExitKind::Raised if sealed.is_none() => {
            broken("the node reported a result and sent none")
        }
        _ => (exit, sealed),
    }
}

impl Completion {
    fn decode(r: &mut Reader) -> Option<Self> {
        Some(Self {
            attempt: AttemptRef {
                task: TaskId::from_bytes(r.array()?),
                attempt: r.u32()?,
                epoch: r.u64()?,
            },
            exit: r.exit()?,
            sealed: match r.flag()? {
                true => Some(r.sealed()?),
                false => None,
            },
            started: Millis(r.u64()?),
            ended: Millis(r.u64()?),
            peak_memory: ByteCount(r.u64()?),
            cpu: Millis(r.u64()?),
            moved: Moved::read(r)?,
        })
    }
}
