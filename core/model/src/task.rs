//! A task as everybody between may see it: what is asked, never what is computed.

use bytes::Bytes;
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::request::bounded;
use crate::{
    Amount, Company, Declared, Digest, Gang, GpuRequest, NodeId, NodeRequest, PolicyName,
    ProjectId, PythonVersion, TaskId,
};

/// Sealed bytes up to this size lie in a row; larger ones are blobs. Source: docs/design/payload.md.
pub const MAX_ROW_BYTES: usize = 16 * 1024;
/// Most bytes of one entry of the log. Source: choice; two full batches and their placements fit.
pub const MAX_ENTRY_BYTES: usize = 1024 * 1024;

/// Output kept of each attempt unless set: some ten thousand lines.
pub const LOG_LIMIT: ByteCount = ByteCount::mib(1);
/// From being asked to make way to being ended, unless set. Source: choice; most functions that save what they have do so
/// in seconds, and whoever waits is told so.
pub const GRACE: Millis = Millis(10_000);
/// The most of it. Source: choice; six times as long: somebody waits for the room.
pub const MAX_GRACE: Millis = Millis(60_000);

/// Resources one attempt holds while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Cores; 1000 is one.
    pub cpus: MilliCpu,
    /// Memory.
    pub memory: ByteCount,
    /// Scratch space.
    pub scratch: ByteCount,
    /// GPUs: a fraction of one, or whole ones; 1000 is one.
    pub gpus: MilliGpu,
}

impl Resources {
    /// How many GPUs an attempt has a hold of, in part or whole.
    pub const fn devices(&self) -> u32 {
        self.gpus.0.div_ceil(1000)
    }
    /// What it holds of each of them, thousandths.
    pub const fn share(&self) -> u32 {
        if self.gpus.0 < 1000 {
            self.gpus.0
        } else {
            1000
        }
    }
}

impl Default for Resources {
    /// One core, and a memory and scratch that hold a scientific stack: what a call gets that asks for
    /// nothing.
    fn default() -> Self {
        Self {
            cpus: MilliCpu(1000),
            memory: ByteCount::gib(1),
            scratch: ByteCount::gib(1),
            gpus: MilliGpu::ZERO,
        }
    }
}

/// An environment, by keyed hash of its lock (so that the hash reveals nothing) and its sealed lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvRef {
    /// Cache key, per project.
    pub id: Digest,
    /// The sealed lock.
    pub lock: BlobRef,
}

/// Immutable ciphertext, by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the ciphertext.
    pub digest: Digest,
    /// Of the ciphertext.
    pub size: ByteCount,
}

/// Sealed bytes: in place when small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sealed {
    /// At most [`MAX_ROW_BYTES`].
    Inline(Bytes),
    /// In the blob store.
    Blob(BlobRef),
}

impl Sealed {
    /// Of the ciphertext.
    pub const fn size(&self) -> ByteCount {
        match self {
            Self::Inline(bytes) => ByteCount(bytes.len() as u64),
            Self::Blob(blob) => blob.size,
        }
    }
}

/// What may be tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// After lost workers and nodes. 3 unless set.
    pub lost: u16,
    /// After exceptions. 0 unless set.
    pub raised: u16,
    /// One grant ever, whatever becomes of it.
    pub at_most_once: bool,
}

impl Default for Retry {
    /// Three times after lost workers, never after exceptions: these are usually the function's own.
    fn default() -> Self {
        Self {
            lost: 3,
            raised: 0,
            at_most_once: false,
        }
    }
}

/// Times after which it is given up; none unless set, but for the grace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Of one attempt's run.
    pub timeout: Option<Millis>,
    /// From submission to result, attempts and waits in all.
    pub deadline: Option<Millis>,
    /// From submission to the first placement.
    pub queue_timeout: Option<Millis>,
    /// Keeping of the result beyond the default.
    pub result_ttl: Option<Millis>,
    /// From being asked to make way for more urgent work to being ended; [`GRACE`] unless set.
    pub grace: Option<Millis>,
}

/// Whether a one-time prekey is demanded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForwardSecrecy {
    /// The daily key serves when the stock is empty; the receipt says so.
    #[default]
    Preferred,
    /// Wait for a one-time prekey.
    Required,
}

/// Everything asked of one call that many calls share. Its digest is in the grant, so the control
/// plane can read it and cannot change it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Must be the key's project.
    pub project: ProjectId,
    /// Name for people; at most 256 bytes.
    pub function: String,
    /// The sealed pickled function.
    pub code: BlobRef,
    /// Beyond the bare interpreter.
    pub environment: Option<EnvRef>,
    /// Held while running.
    pub resources: Resources,
    /// Which GPUs those are.
    pub gpu: GpuRequest,
    /// Named resources held while running. Sorted by name.
    pub amounts: Vec<Amount>,
    /// Where.
    pub node: NodeRequest,
    /// Among which others.
    pub company: Company,
    /// One of so many that run at once; `None`: on its own.
    pub gang: Option<Gang>,
    /// Again?
    pub retry: Retry,
    /// Until when.
    pub timing: Timing,
    /// What its placement minimises; `None`: what its project has set, else `balanced`.
    pub policy: Option<PolicyName>,
    /// What it computes, where it says so.
    pub work: Option<Declared>,
    /// −100 to 100, higher first, within the project.
    pub priority: i8,
    /// Prekey policy.
    pub forward_secrecy: ForwardSecrecy,
    /// Most bytes of stdout and stderr kept, each attempt.
    pub log_limit: ByteCount,
}

/// A spec that must not be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// Not canonical bytes of a known version.
    #[error("the task's spec cannot be read; is the client newer than the server?")]
    Unreadable,
    /// A field is out of its bounds.
    #[error("{field} must be {bound}")]
    OutOfBounds {
        /// Which.
        field: &'static str,
        /// What it must be.
        bound: &'static str,
    },
    /// Two things are asked that no node can have together.
    #[error("{one} and {other} contradict each other: no node can satisfy both")]
    Contradiction {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
}

impl BadSpec {
    pub(crate) const fn contradiction(one: String, other: String) -> Self {
        Self::Contradiction { one, other }
    }
}

/// Version of the canonical bytes. Source: 2 added GPUs, named resources and rules, and 3 policies and declared work,
/// before anything was shipped.
const VERSION: u8 = 3;

impl TaskSpec {
    /// A call that asks for nothing but its code and interpreter; every other field as it is unless set.
    pub fn new(project: ProjectId, code: BlobRef, python: PythonVersion) -> Self {
        Self {
            project,
            function: "call".to_owned(),
            code,
            environment: None,
            resources: Resources::default(),
            gpu: GpuRequest::default(),
            amounts: Vec::new(),
            node: NodeRequest::any(python),
            company: Company::default(),
            gang: None,
            retry: Retry::default(),
            timing: Timing::default(),
            policy: None,
            work: None,
            priority: 0,
            forward_secrecy: ForwardSecrecy::default(),
            log_limit: LOG_LIMIT,
        }
    }

    /// Canonical bytes: version 3, postcard.
    pub fn to_canonical(&self) -> Vec<u8> {
        canonical(VERSION, self)
    }

    /// From canonical bytes, checked.
    ///
    /// *Errors*: unreadable, or a field out of bounds.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, BadSpec> {
        let spec: Self = from_canonical(VERSION, bytes).ok_or(BadSpec::Unreadable)?;
        spec.check()?;
        Ok(spec)
    }

    /// Holds every field against its bounds.
    ///
    /// *Errors*: the first field that is out of them, or the first two that contradict each other.
    pub fn check(&self) -> Result<(), BadSpec> {
        bounded(&[
            (self.function.len() <= 256, "function", "at most 256 bytes"),
            (
                (1..=1_024_000).contains(&self.resources.cpus.0),
                "num_cpus",
                "between 0.001 and 1024",
            ),
            (
                self.resources.memory.0 <= 1 << 50,
                "memory",
                "at most 1 PiB",
            ),
            (
                self.resources.scratch.0 <= 1 << 50,
                "scratch",
                "at most 1 PiB",
            ),
            (
                (-100..=100).contains(&self.priority),
                "priority",
                "between -100 and 100",
            ),
            (self.log_limit.0 <= 64 << 20, "log_limit", "at most 64 MiB"),
            (
                self.timing.grace.is_none_or(|grace| grace <= MAX_GRACE),
                "grace",
                "at most 60 s",
            ),
        ])?;
        self.work.map_or(Ok(()), |work| work.check())?;
        self.gpu.check(self.resources.gpus)?;
        Amount::check(&self.amounts)?;
        self.node.check()?;
        self.company.check()?;
        Gang::check(self.gang.as_ref(), self.retry.at_most_once)
    }
}

/// The fencing token of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptRef {
    /// Of which call.
    pub task: TaskId,
    /// From 1.
    pub attempt: u32,
    /// Of the cluster; a restore starts a new one.
    pub epoch: u64,
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskPhase {
    /// Waits for a node.
    Queued,
    /// Leased to a node.
    Placed(NodeId),
    /// Ended; its result is kept.
    Finished,
}

/// A version byte and the postcard encoding.
pub(crate) fn canonical<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let out = vec![version];
    postcard::to_extend(value, out).expect("postcard into a Vec cannot fail for these types")
}

/// Refuses trailing bytes and other versions, so that one value has one encoding.
pub(crate) fn from_canonical<T: DeserializeOwned + Serialize>(
    version: u8,
    bytes: &[u8],
) -> Option<T> {
    let (first, rest) = bytes.split_first()?;
    if *first != version {
        return None;
    }
    let (value, left) = postcard::take_from_bytes(rest).ok()?;
    (left.is_empty() && canonical(version, &value) == bytes).then_some(value)
}
