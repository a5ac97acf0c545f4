//! How a client behaves, and the bounds it keeps.

use std::path::PathBuf;
use std::time::Duration;

use farlane_model::TenantId;
use farlane_units::ByteCount;

use crate::discover;

/// Most tasks in one SubmitBatch or GrantBatch. Source: docs/design/spine.md.
pub const MAX_BATCH_TASKS: usize = 512;
/// Most encoded bytes of one SubmitBatch. Source: docs/design/spine.md.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Batches sent and not acknowledged before the rest gathers. Source: docs/design/spine.md.
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;
/// Counted for each task in the window beside its arguments: envelope, keys, maps. Measured as the
/// size of `Live`, envelope and maps for a 100-byte payload, rounded up.
pub const TASK_OVERHEAD_BYTES: u64 = 1024;
/// Buffers from this size leave as blobs of their own. Source: docs/design/payload.md.
pub const MIN_BLOB_BUFFER: usize = 1024 * 1024;
/// Most bytes of one opened result, exception or log chunk: what a client will hold for one task.
pub const MAX_OPENED_BYTES: usize = 4 << 30;
/// Largest blob, as it is before sealing and after. Source: what a node takes, agent/daemon/src/blobs.rs.
pub const MAX_BLOB_BYTES: u64 = 2 << 30;
/// Bytes of one BlobChunk. Source: network.proto.
pub const BLOB_CHUNK_BYTES: usize = 256 * 1024;

/// Settings of a connection. `Default` is right for almost everyone.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How long the first connection is tried, and each question that changes nothing.
    pub connect_timeout: Duration,
    /// How long a lost connection is tried again before every waiting call fails.
    pub reconnect_for: Duration,
    /// Bytes submitted and not acknowledged before `submit` blocks.
    pub window: ByteCount,
    /// Names this client to the server.
    pub software: String,
    /// What all that grant for one user and tenant share; `None`: [`crate::discover::memory_folder`].
    pub memory: Option<PathBuf>,
}

impl ConnectOptions {
    /// The folder that granters of this tenant share.
    pub(crate) fn memory_of(&self, tenant: TenantId) -> PathBuf {
        let found = || discover::memory_folder(&discover::ProcessEnvironment, tenant);
        self.memory.clone().unwrap_or_else(found)
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            // Longer than a server's restart on a new machine; shorter than a night.
            reconnect_for: Duration::from_secs(3600),
            window: ByteCount::mib(64),
            software: concat!("farlane/", env!("CARGO_PKG_VERSION"), " client").to_owned(),
            memory: None,
        }
    }
}
