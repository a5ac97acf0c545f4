//! A live task: what the state keeps of it. What is sealed lies in rows.

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, Quote, SessionId, TaskId, TaskPhase};
use farlane_units::{MicroGramsCo2, MilliUcu, Millis, NanoGramsCo2, UsdMicros};

use crate::gang::Member;
use crate::row::AttemptRow;
use crate::{Node, Session, Spec};

/// Bytes of a wrapped task key. Source: docs/design/spine.md, "Task, spec, payload".
pub(crate) const WRAPPED_KEY: usize = 48;

/// In the slab; about 120 bytes.
pub(crate) struct Task {
    pub seq: u64,
    pub submitted: Millis,
    pub spent: UsdMicros,
    /// By the attempts that ended; the most that can be held once nobody knows of one of them.
    pub emitted: NanoGramsCo2,
    pub lease: Option<Box<Lease>>,
    pub session: u32,
    pub spec: u32,
    pub attempt: u32,
    pub lost: u16,
    pub raised: u16,
    pub preempted: u16,
    pub wrapped_key: [u8; WRAPPED_KEY],
}

impl Task {
    pub fn row(&self) -> AttemptRow {
        AttemptRow {
            attempt: self.attempt,
            lost: self.lost,
            raised: self.raised,
            preempted: self.preempted,
            spent: self.spent,
            emitted: self.emitted,
            lease: self.lease.as_deref().cloned(),
        }
    }
}

/// The hold of the current attempt on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The node's number within the state file.
    pub node: u32,
    /// The node's boot, by number.
    pub boot: u32,
    /// Who grants it.
    pub granter: SessionId,
    /// Names the HPKE context: the log index of the prekey's issue.
    pub context: u64,
    /// Sorts leases by placement: log index in the high 44 bits, a running number in the low 20.
    pub number: u64,
    /// Cluster time.
    pub at: Millis,
    /// In backlog credit rather than in running capacity.
    pub backlog: bool,
    /// Whether its context rests on a one-time prekey.
    pub forward_secret: bool,
    /// The GPUs that it holds: bit n is the n-th device of the node's spec. None while in backlog.
    pub devices: u64,
    /// What its cores count for in its project's quota: by what the node was measured to be when it was placed, so that
    /// a new measurement changes nothing of what is given back.
    pub ucu: MilliUcu,
    /// Cluster time until which it may go on, once it was asked to make way; zero before.
    pub yields: Millis,
    /// What the placement was expected to take.
    pub quoted: Quoted,
}

/// Grams, where they are known of every attempt.
pub(crate) fn known(emitted: NanoGramsCo2) -> Option<NanoGramsCo2> {
    (emitted != NanoGramsCo2::MAX).then_some(emitted)
}

/// A `Quote` in its bytes, which attempts that were placed together share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quoted {
    bytes: Bytes,
    emits: Option<MicroGramsCo2>,
}

impl Quoted {
    /// None where the bytes are no quote: whatever a leader says, a placement is judged without it.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match Quote::from_bytes(bytes) {
            Some(quote) => Self {
                // A copy, so that it does not keep the whole entry in memory.
                bytes: Bytes::copy_from_slice(bytes),
                emits: quote.emits,
            },
            None => Self::default(),
        }
    }
    /// As they were proposed; empty where there is none.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// What an attempt emitted that held its room for so long: to the nearest billionth of a gram. The most that
    /// can be held where nobody knows.
    pub(crate) fn emitted(&self, run: Millis) -> NanoGramsCo2 {
        /// Milliseconds of an hour, over billionths in a millionth.
        const HOUR: u128 = 3_600_000;
        let Some(emits) = self.emits else {
            return NanoGramsCo2::MAX;
        };
        let nanograms = (u128::from(emits.0) * u128::from(run.0) * 1000 + HOUR / 2) / HOUR;
        NanoGramsCo2(u64::try_from(nanograms).unwrap_or(u64::MAX))
    }
}

impl Lease {
    /// The GPUs that it holds, by their place in the node's list of devices, lowest first.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        farlane_model::places(self.devices)
    }
    /// Log index of the placement.
    pub const fn index(&self) -> u64 {
        self.number >> 20
    }
}

/// A live task, seen from outside.
#[derive(Clone, Copy)]
pub struct LiveTask<'a> {
    /// Which call.
    pub id: TaskId,
    /// Epoch of the cluster.
    pub epoch: u64,
    /// What it asks.
    pub spec: &'a Spec,
    /// Who submitted it.
    pub session: &'a Session,
    /// Cluster time.
    pub submitted: Millis,
    /// The last attempt's number; 0 before the first placement.
    pub attempt: u32,
    /// Retries used up after lost workers and nodes.
    pub lost: u16,
    /// Retries used up after exceptions.
    pub raised: u16,
    /// How often it made way for more urgent work.
    pub preempted: u16,
    /// Cost of the attempts that ended.
    pub spent: UsdMicros,
    /// By the attempts that ended; `None` once nobody knows of one of them.
    pub emitted: Option<NanoGramsCo2>,
    /// The task key under the session's key.
    pub wrapped_key: &'a [u8; 48],
    /// Its place in its gang.
    pub gang: Option<Member>,
    /// Where it is placed.
    pub placed: Option<PlacedOn<'a>>,
}

/// Where a live task is placed.
#[derive(Clone, Copy)]
pub struct PlacedOn<'a> {
    /// The node.
    pub node: &'a Node,
    /// The hold on it.
    pub lease: &'a Lease,
}

impl<'a> PlacedOn<'a> {
    /// The boot it was placed under; `None` when that boot is too long ago to be known.
    pub fn boot(&self) -> Option<BootId> {
        self.node
            .boots
            .iter()
            .find(|b| b.number == self.lease.boot)
            .map(|b| b.id)
    }
}

impl LiveTask<'_> {
    /// The fencing token of the last attempt.
    pub const fn attempt_ref(&self) -> AttemptRef {
        AttemptRef {
            task: self.id,
            attempt: self.attempt,
            epoch: self.epoch,
        }
    }
    /// Queued or placed.
    pub fn phase(&self) -> TaskPhase {
        match &self.placed {
            None => TaskPhase::Queued,
            Some(placed) => TaskPhase::Placed(placed.node.id),
        }
    }
}
