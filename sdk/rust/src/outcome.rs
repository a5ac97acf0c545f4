//! What comes back: one [`Delivered`] for each task, opened and checked.

use bytes::{Buf, Bytes};
use farlane_model::{AttemptRef, Exit, NodeId, Quote};
use farlane_units::{ByteCount, Millis, NanoGramsCo2, UsdMicros, UsdPicos};

/// How a task ended, as its caller sees it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The encoded value; `Codec::Pickle` only from a provider of one's own.
    Returned {
        /// How `body` is encoded.
        codec: Codec,
        /// The encoded value.
        body: Bytes,
        /// The large buffers that a pickle left out, in its order.
        buffers: Vec<Buffer>,
    },
    /// The safe-encoded exception record of docs/design/payload.md.
    Raised {
        /// Whether pickles inside may be loaded.
        trusted: bool,
        /// The encoded record.
        body: Bytes,
    },
    /// The environment could not be built; the log, where there is one.
    EnvFailed {
        /// What the agent says.
        exit: Exit,
        /// Safe-encoded text of the build log; empty when none came.
        log: Bytes,
    },
    /// It ended without a value: lost, timed out, cancelled, expired, infeasible, refused.
    Ended(Exit),
    /// The result does not hold against its signature or seal, or the client gave up.
    Failed(crate::Error),
}

/// How a result is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// The codec that cannot execute.
    Safe,
    /// Python's pickle.
    Pickle,
}

/// A buffer beside a pickle: what `pickle.loads(…, buffers=)` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Whether its owner could not write to it either.
    pub read_only: bool,
    /// What it holds.
    pub bytes: Bytes,
}

impl Buffer {
    /// The pickle and the buffers behind it, of docs/design/payload.md, codec 2.
    ///
    /// *Errors*: `None` where the lengths are not those of the bytes.
    pub(crate) fn split(mut body: Bytes) -> Option<(Bytes, Vec<Self>)> {
        let count = body.try_get_u32_le().ok()?;
        let mut table = Vec::new();
        for _ in 0..count {
            let read_only = body.try_get_u8().ok()? != 0;
            table.push((read_only, body.try_get_u64_le().ok()?));
        }
        let pickle = body.try_get_u64_le().ok()?;
        let mut take = |len: u64| {
            let len = usize::try_from(len).ok()?;
            (len <= body.len()).then(|| body.split_to(len))
        };
        let pickle = take(pickle)?;
        let buffers = table.into_iter().map(|(read_only, len)| {
            let bytes = take(len)?;
            Some(Self { read_only, bytes })
        });
        let buffers = buffers.collect::<Option<_>>()?;
        body.is_empty().then_some((pickle, buffers))
    }
}

/// Where and when it ran, and what it cost.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// The last attempt; zero where none ran.
    pub attempt: u32,
    /// The node, where one ran it.
    pub node: Option<NodeId>,
    /// Its name for people.
    pub node_name: String,
    /// Its region.
    pub region: String,
    /// Cluster time.
    pub started: Millis,
    /// Cluster time.
    pub ended: Millis,
    /// What it cost.
    pub cost: UsdMicros,
    /// What went between the servers' region and the node's, for the last attempt.
    pub moved: ByteCount,
    /// What that cost; it is in `cost`.
    pub egress: UsdPicos,
    /// What it emitted; `None` where nobody knew.
    pub emitted: Option<NanoGramsCo2>,
    /// Bytes of what its placement was expected to take.
    pub(crate) quote: Bytes,
}

impl Receipt {
    /// What its placement was expected to take: each term, the policy, and where it would have gone else. `None` where
    /// it was never placed.
    pub fn quote(&self) -> Option<Quote> {
        Quote::from_bytes(&self.quote)
    }

    /// How long the last attempt ran.
    pub fn run_time(&self) -> Millis {
        self.ended.saturating_sub(self.started)
    }
}

/// One ended task, handed to the sink.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// What the caller gave at submission.
    pub token: u64,
    /// Which attempt.
    pub attempt: AttemptRef,
    /// How it ended.
    pub outcome: Outcome,
    /// Where, when, how much.
    pub receipt: Receipt,
}

/// Takes delivered tasks in batches, from one thread, in no promised order between tasks.
pub type Sink = Box<dyn Fn(Vec<Delivered>) + Send + Sync>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::BufMut;

    use super::*;

    #[test]
    fn buffers_come_apart_as_they_were_put_together_and_lies_are_refused() {
        let mut body = Vec::new();
        body.put_u32_le(2);
        for (read_only, len) in [(1, 3), (0, 0)] {
            body.put_u8(read_only);
            body.put_u64_le(len);
        }
        body.put_u64_le(2);
        body.put_slice(b"pkabc");
        let (pickle, buffers) = Buffer::split(body.clone().into()).unwrap();
        let wanted = [(true, &b"abc"[..]), (false, b"")].map(|(read_only, bytes)| Buffer {
            read_only,
            bytes: Bytes::from_static(bytes),
        });
        assert_eq!((&pickle[..], &buffers[..]), (&b"pk"[..], &wanted[..]));
        for cut in 0..body.len() {
            let cut = Bytes::copy_from_slice(&body[..cut]);
            assert_eq!(Buffer::split(cut), None);
        }
        body.push(0);
        assert_eq!(Buffer::split(body.clone().into()), None);
        body[..4].fill(0xff);
        assert_eq!(Buffer::split(body.into()), None);
    }
}
