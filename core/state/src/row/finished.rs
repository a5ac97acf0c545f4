//! A finished task: all that its client, and people who look at it, will ask.

use bytes::Bytes;
use farlane_model::{Digest, Exit, NodeId, Sealed, TaskId};
use farlane_units::{Millis, NanoGramsCo2, UsdFemtos, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, Write};
use crate::order::Moved;
use crate::task::known;

/// A place in the log: the entry's index, and a number that counts within it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Cursor {
    /// Log index.
    pub index: u64,
    /// Within the entry.
    pub ordinal: u32,
}

impl Cursor {
    /// The place just after.
    pub const fn next(self) -> Self {
        match self.ordinal.checked_add(1) {
            Some(ordinal) => Self {
                index: self.index,
                ordinal,
            },
            None => Self {
                index: self.index.saturating_add(1),
                ordinal: 0,
            },
        }
    }
}

/// Row of `Table::Finished`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTask {
    /// Which call.
    pub task: TaskId,
    /// The last attempt; 0 when it was never placed.
    pub attempt: u32,
    /// Of the cluster.
    pub epoch: u64,
    /// How it ended.
    pub exit: Exit,
    /// Result, exception or build log.
    pub sealed: Option<Sealed>,
    /// Where in the log it finished: what a client resumes from.
    pub at: Cursor,
    /// The signed batch it came in: its ordinal in the entry `at.index`; see `keys::result`. None
    /// for what the control plane decided.
    pub batch: Option<u32>,
    /// Its place among that batch's leaves.
    pub leaf: u32,
    /// Digest of its spec; the bytes are in `Table::Specs` as long as the session is known.
    pub spec: Digest,
    /// The task key under the session's key: 48 bytes.
    pub wrapped_key: Bytes,
    /// Cluster time.
    pub submitted: Millis,
    /// Of the last attempt; 0 when it never ran.
    pub started: Millis,
    /// Of the last attempt.
    pub ended: Millis,
    /// Of all attempts that were reported.
    pub cost: UsdMicros,
    /// Between regions, for the last attempt.
    pub moved: Moved,
    /// What that cost; it is in `cost`.
    pub egress: UsdFemtos,
    /// By all attempts that ran; `None` where nobody knows of one of them.
    pub emitted: Option<NanoGramsCo2>,
    /// Attempts beyond the first that it took.
    pub retries: u32,
    /// Where the last attempt was leased.
    pub node: Option<NodeId>,
    /// That node's name; empty when there is none.
    pub node_name: String,
    /// That node's region; empty when there is none.
    pub region: String,
    /// Whether the last grant rested on a one-time prekey.
    pub forward_secret: bool,
    /// What the last placement was expected to take: a `Quote`'s bytes; empty where there is none.
    pub quote: Bytes,
    /// Its rank in its gang, and the gang's size.
    pub gang: Option<(u16, u16)>,
}

/// Of the row's bytes. Source: 2 added quotes, before anything was shipped.
const VERSION: u8 = 2;

impl FinishedTask {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(VERSION);
        out.raw(&self.task.to_bytes());
        out.u32(self.attempt);
        out.u64(self.epoch);
        out.exit(&self.exit);
        out.u8(u8::from(self.sealed.is_some()));
        if let Some(sealed) = &self.sealed {
            out.sealed(sealed);
        }
        out.u64(self.at.index);
        out.u32(self.at.ordinal);
        out.u8(u8::from(self.batch.is_some()));
        out.u32(self.batch.unwrap_or(0));
        out.u32(self.leaf);
        out.raw(&self.spec.0);
        out.bytes(&self.wrapped_key);
        for time in [self.submitted, self.started, self.ended] {
            out.u64(time.0);
        }
        out.u64(self.cost.0 as u64);
        self.moved.write(out);
        if self.moved != Moved::NONE {
            out.u64(self.egress.0);
        }
        out.u64(self.emitted.unwrap_or(NanoGramsCo2::MAX).0);
        out.u32(self.retries);
        out.u8(u8::from(self.node.is_some()));
        if let Some(node) = &self.node {
            out.raw(&node.0);
        }
        out.bytes(self.node_name.as_bytes());
        out.bytes(self.region.as_bytes());
        out.u8(u8::from(self.forward_secret));
        out.bytes(&self.quote);
        // No gang has no members.
        let (rank, size) = self.gang.unwrap_or((0, 0));
        out.u16(rank);
        out.u16(size);
    }

    /// To a row's bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// From a row's bytes; what is sealed stays a slice of them.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return None;
        }
        let moved;
        let row = Self {
            task: TaskId::from_bytes(r.array()?),
            attempt: r.u32()?,
            epoch: r.u64()?,
            exit: r.exit()?,
            sealed: match r.flag()? {
                true => Some(r.sealed()?),
                false => None,
            },
            at: Cursor {
                index: r.u64()?,
                ordinal: r.u32()?,
            },
            batch: {
                let (some, ordinal) = (r.flag()?, r.u32()?);
                some.then_some(ordinal)
            },
            leaf: r.u32()?,
            spec: r.digest()?,
            wrapped_key: r.bytes()?,
            submitted: Millis(r.u64()?),
            started: Millis(r.u64()?),
            ended: Millis(r.u64()?),
            cost: UsdMicros(r.u64()? as i64),
            moved: {
                moved = Moved::read(&mut r)?;
                moved
            },
            egress: match moved {
                Moved::NONE => UsdFemtos::ZERO,
                _ => UsdFemtos(r.u64()?),
            },
            emitted: known(NanoGramsCo2(r.u64()?)),
            retries: r.u32()?,
            node: match r.flag()? {
                true => Some(NodeId(r.array()?)),
                false => None,
            },
            node_name: r.text()?,
            region: r.text()?,
            forward_secret: r.flag()?,
            quote: r.bytes()?,
            gang: {
                let (rank, size) = (r.u16()?, r.u16()?);
                (size > 0).then_some((rank, size))
            },
        };
        r.is_done().then_some(row)
    }
}

/// Row of `Table::Results`: which task finished at that place, and until when it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultRow {
    /// Sequence number within the session.
    pub seq: u64,
    /// Cluster time.
    pub finished: Millis,
    /// Kept at least this long, whatever is acknowledged.
    pub ttl: Option<Millis>,
    /// The signed batch's ordinal, as in [`FinishedTask::batch`].
    pub batch: Option<u32>,
}

impl ResultRow {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(1);
        out.u64(self.seq);
        out.u64(self.finished.0);
        out.u64(self.ttl.map_or(0, |t| t.0));
        out.u8(u8::from(self.batch.is_some()));
        out.u32(self.batch.unwrap_or(0));
    }

    /// From a row's bytes.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return None;
        }
        let (seq, finished, ttl) = (r.u64()?, Millis(r.u64()?), r.u64()?);
        let (some, ordinal) = (r.flag()?, r.u32()?);
        r.is_done().then_some(Self {
            seq,
            finished,
            ttl: (ttl > 0).then_some(Millis(ttl)),
            batch: some.then_some(ordinal),
        })
    }
}

/// Row of `Table::Batches`: a node's signature over a whole batch of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    /// Who signed.
    pub node: NodeId,
    /// Names the batch.
    pub id: [u8; 16],
    /// n × 32 bytes.
    pub leaves: Bytes,
    /// Over id and leaves.
    pub signature: Bytes,
}

impl BatchRow {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(1);
        out.raw(&self.node.0);
        out.raw(&self.id);
        out.bytes(&self.leaves);
        out.bytes(&self.signature);
    }

    /// From a row's bytes.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return None;
        }
        let row = Self {
            node: NodeId(r.array()?),
            id: r.array()?,
            leaves: r.bytes()?,
            signature: r.bytes()?,
        };
        r.is_done().then_some(row)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{ExitKind, SessionId};
    use farlane_units::ByteCount;

    #[test]
    fn rows_survive_the_bytes() {
        let session = SessionId::new(1, [2; 5]);
        let row = FinishedTask {
            task: session.task(3),
            attempt: 2,
            epoch: 1,
            exit: Exit::new(ExitKind::Raised, "ValueError"),
            sealed: Some(Sealed::Inline(Bytes::from_static(b"sealed"))),
            at: Cursor {
                index: 9,
                ordinal: 4,
            },
            batch: Some(1),
            leaf: 5,
            spec: Digest::of(b"spec"),
            wrapped_key: Bytes::from_static(&[3; 48]),
            submitted: Millis(1),
            started: Millis(2),
            ended: Millis(3),
            cost: UsdMicros(-4),
            moved: Moved {
                there: ByteCount(7),
                back: ByteCount::ZERO,
            },
            egress: UsdFemtos(9),
            emitted: Some(NanoGramsCo2(5)),
            retries: 1,
            node: Some(NodeId([8; 32])),
            node_name: "a".into(),
            region: "eu-central".into(),
            forward_secret: true,
            quote: Bytes::from_static(b"terms"),
            gang: Some((0, 2)),
        };
        let bytes = row.to_bytes();
        assert_eq!(FinishedTask::from_bytes(bytes.clone()).unwrap(), row);
        for cut in 0..bytes.len() {
            assert!(
                FinishedTask::from_bytes(bytes.slice(..cut)).is_none(),
                "{cut}"
            );
        }
        let bare = FinishedTask {
            sealed: None,
            batch: None,
            node: None,
            emitted: None,
            moved: Moved::NONE,
            egress: UsdFemtos::ZERO,
            quote: Bytes::new(),
            gang: None,
            ..row
        };
        assert_eq!(FinishedTask::from_bytes(bare.to_bytes()).unwrap(), bare);

        for (ttl, batch) in [(None, None), (Some(Millis(5)), Some(0))] {
            let row = ResultRow {
                seq: 1,
                finished: Millis(2),
                ttl,
                batch,
            };
            let mut out = Vec::new();
            row.write(&mut out);
            assert_eq!(ResultRow::from_bytes(out.into()).unwrap(), row);
        }
        let row = BatchRow {
            node: NodeId([1; 32]),
            id: [2; 16],
            leaves: Bytes::from_static(&[0; 64]),
            signature: Bytes::from_static(&[9; 64]),
        };
        let mut out = Vec::new();
        row.write(&mut out);
        assert_eq!(BatchRow::from_bytes(out.into()).unwrap(), row);
    }
}
