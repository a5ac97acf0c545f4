//! Immutable bytes by hash: the port [`BlobStore`] and its file implementation.
//!
//! Owns where ciphertext above a row's size lies, whose it is, its integrity and its durability: a
//! blob is acknowledged only when its bytes and its name are synced, and what is read back was hashed
//! when it was written. Leaves what the bytes mean (nobody here can read them) to their owners, and
//! transport to the API.
//!
//! ```text
//! begin(owner, claim) ─ write* ─ finish ──▶ temp file ─ fsync ─ rename ─ fsync(dir) ──▶ receipt
//!                        └ drop: the temp file goes
//! ```
//! Every blob is somebody's: the same bytes put by two projects are two blobs, so that a name alone
//! neither opens nor shows another project's. A result is its node's until the attempt that it
//! belongs to completes; then the project adopts it.

mod count;
mod file;
mod upload;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farlane_model::{BlobRef, Digest, NodeId, ProjectId};
use farlane_units::ByteCount;

pub use file::{FileBlobStore, Limits};

/// Most bytes of one chunk, both ways. Source: types.proto, `BlobChunk`.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No blob of that hash is here. The caller uploads it, or gives up.
    #[error("blob {0} is not here")]
    NotFound(Digest),
    /// The bytes do not hash to what was claimed. The caller's fault.
    #[error("the bytes hash to {found}, not to {claimed}")]
    WrongDigest {
        /// What the caller said.
        claimed: Digest,
        /// What the bytes say.
        found: Digest,
    },
    /// More or fewer bytes than were claimed. The caller's fault.
    #[error("{found} bytes came, {claimed} were claimed")]
    WrongSize {
        /// What the caller said.
        claimed: u64,
        /// How many came (at least).
        found: u64,
    },
    /// Larger than one blob may be. The caller's fault.
    #[error("a blob holds at most {limit}, this one has {size}")]
    TooLarge {
        /// What was claimed.
        size: ByteCount,
        /// The bound.
        limit: ByteCount,
    },
    /// The project's own bound is reached, and its reserve where the blob is small. The caller waits until
    /// blobs are swept, or has it raised.
    #[error(
        "the project's blobs, large results among them, hold {used} of at most {limit}; there is room \
         again 3 days after blobs were last put, once no call and no result names them (results are \
         forgotten 24 h after they ended), or when whoever runs the network raises blob_project"
    )]
    Quota {
        /// In use.
        used: ByteCount,
        /// The bound.
        limit: ByteCount,
    },
    /// The store's own bound is reached. Whoever runs it raises the bound.
    #[error(
        "the network's blob store is full: it holds {used} of at most {limit}; whoever runs the \
         network raises blob_total"
    )]
    Full {
        /// In use.
        used: ByteCount,
        /// The bound.
        limit: ByteCount,
    },
    /// The disk has no room left, whatever the bounds. Whoever runs it makes some.
    #[error(
        "the disk of the network's blob store is full ({used} of it are blobs); whoever runs the \
         network makes room there"
    )]
    NoRoom {
        /// In use by blobs.
        used: ByteCount,
    },
    /// A range that starts past the end. The caller's fault.
    #[error("offset {offset} is past the end of {size} bytes")]
    BadOffset {
        /// Asked.
        offset: u64,
        /// The blob's size.
        size: u64,
    },
    /// The disk failed. Retry.
    #[error("the blob store's disk failed: {0}")]
    Disk(#[from] std::io::Error),
}

/// Whose move a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The caller sent something wrong.
    Caller,
    /// Worth trying again.
    Retry,
}

impl BlobError {
    /// Whose move it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound(_)
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::BadOffset { .. } => Class::Caller,
            Self::Quota { .. } | Self::Full { .. } | Self::NoRoom { .. } | Self::Disk(_) => {
                Class::Retry
            }
        }
    }
}

/// Whose a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A project's: its keys may read it.
    Project(ProjectId),
    /// A node's, which has not completed the attempt yet: nobody reads it.
    Node(NodeId),
}

/// Among whose blobs a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This project's.
    Project(ProjectId),
    /// Every project's: for nodes, which run tasks of all.
    Everybody,
}

/// What a finished upload became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name and size.
    pub blob: BlobRef,
    /// The same bytes were already here; nothing was written.
    pub already_there: bool,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// An upload in progress. Dropping it discards what was written.
#[async_trait]
pub trait Upload: Send {
    /// Adds bytes.
    ///
    /// *Errors*: more than was claimed, or the disk.
    async fn write(&mut self, data: Bytes) -> Result<(), BlobError>;
    /// Checks size and hash, syncs, and names it. Durable when this returns.
    ///
    /// *Errors*: size or hash differ from the claim, or the disk.
    async fn finish(self: Box<Self>) -> Result<Stored, BlobError>;
}

/// A blob being read.
#[async_trait]
pub trait Download: Send {
    /// The whole blob's name and size.
    fn blob(&self) -> BlobRef;
    /// The next bytes, at most [`CHUNK_BYTES`]; `None` at the end.
    ///
    /// *Errors*: the disk.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError>;
}

/// Where blobs lie.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Starts an upload of what the caller says it is.
    ///
    /// *Errors*: too large, quota reached, store full, or the disk.
    async fn begin(&self, owner: Owner, claim: BlobRef) -> Result<Box<dyn Upload>, BlobError>;
    /// Opens a blob for reading from `offset`.
    ///
    /// *Errors*: not here, offset past the end, or the disk.
    async fn get(
        &self,
        reach: Reach,
        digest: Digest,
        offset: u64,
    ) -> Result<Box<dyn Download>, BlobError>;
    /// Gives a node's blob to a project; one that the project has already is fine.
    ///
    /// *Errors*: neither has it, or the disk.
    async fn adopt(
        &self,
        node: NodeId,
        project: ProjectId,
        digest: Digest,
    ) -> Result<(), BlobError>;
    /// Blobs that nobody has put again for this long, at most `limit`; in no order.
    ///
    /// *Errors*: the disk.
    async fn idle(&self, age: Duration, limit: usize) -> Result<Vec<(Owner, Digest)>, BlobError>;
    /// Forgets a blob if nobody has put it again for this long still; whether it is gone.
    ///
    /// *Errors*: the disk.
    async fn forget(&self, owner: Owner, digest: Digest, age: Duration) -> Result<bool, BlobError>;
    /// What is held.
    fn usage(&self) -> Usage;
}
