//! A probe of a node's way: so many bytes come, and as many go back. What goes back the agent times.

use bytes::Bytes;
use farlane_runtime::{Clock, Pace, SystemClock};
use farlane_units::{ByteCount, Micros};
use farlane_wire::hello::{PROBE_BYTES, PROBE_CHUNK};
use farlane_wire::v1;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::{Replies, invalid};

/// Reads a probe's bytes, and says how fast they came, where that can be told.
///
/// *Errors*: more than a probe has, or larger pieces.
pub(crate) async fn take(
    mut chunks: Streaming<v1::ProbeChunk>,
) -> Result<Option<(ByteCount, Micros)>, Status> {
    let mut pace = Pace::new(ByteCount(PROBE_BYTES as u64));
    let mut left = PROBE_BYTES;
    while let Some(chunk) = chunks.message().await? {
        if chunk.data.len() > PROBE_CHUNK.min(left) {
            return Err(invalid("a probe is of 1 MiB, in pieces of at most 64 KiB"));
        }
        left -= chunk.data.len();
        pace.came(chunk.data.len(), SystemClock.steady());
    }
    Ok(pace.timed())
}

/// As many bytes back.
pub(crate) fn give() -> Replies<v1::ProbeChunk> {
    let data = Bytes::from(vec![0; PROBE_CHUNK]);
    let chunks = std::iter::repeat_n(v1::ProbeChunk { data }, PROBE_BYTES / PROBE_CHUNK);
    Box::pin(tokio_stream::iter(chunks).map(Ok))
}
