//! The first message of every stream: which versions are spoken, and the server's limits.

use farlane_model::{MAX_ENTRY_BYTES, MAX_ROW_BYTES};

use crate::channel::KEEPALIVE;
use crate::code::{ErrorCode, Refused};
use crate::v1::{Hello, Limits};

/// Versions of the protocol that this build speaks, lowest first.
pub const VERSIONS: &[u32] = &[1];
/// Most tasks of one submit, grant or complete batch. Source: docs/design/spine.md, "One call".
pub const BATCH_TASKS: usize = 512;
/// Most bytes of one such batch, encoded. Source: likewise.
pub const BATCH_BYTES: usize = 256 * 1024;
/// A client's window: tasks submitted and not acknowledged. Source: 20,000 tasks/s over a round
/// trip of 0.8 s.
pub const WINDOW_TASKS: u64 = 16_384;
/// The same in bytes. Source: a WAN of 100 MB/s over a round trip of 0.6 s.
pub const WINDOW_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of one blob.
pub const BLOB_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Most data of one `BlobChunk`. Source: types.proto.
pub const BLOB_CHUNK: usize = 256 * 1024;
/// Bytes of a probe of bandwidth, each way. Source: its second half fills no socket's buffer, and at 1 MB/s a probe
/// takes two seconds.
pub const PROBE_BYTES: usize = 1024 * 1024;
/// Most data of one `ProbeChunk`. Source: fleet.proto.
pub const PROBE_CHUNK: usize = 64 * 1024;
/// Least between two probes of one node, where nothing else was timed. Source: choice; with [`PROBE_BYTES`] they bound
/// probes to 2 MiB an hour and node: 100,000 idle nodes bring 58 MB/s in all.
pub const PROBE_PAUSE_MS: u64 = 3_600_000;
/// What a machine is slower by for its heat is told, and planned with, in steps of so many millionths. Source: choice; an
/// eighth is more than run times of one kind differ by anyway, and a class of nodes has nine of them at most.
pub const HEAT_STEP_PPM: u32 = 125_000;
/// Most that it is believed to be slower by: a processor that is throttled all of the time does half.
pub const HEAT_MOST_PPM: u32 = 1_000_000;
/// Agents' heartbeats. Source: choice; a lease holds over two that are lost.
pub const HEARTBEAT_MS: u64 = 3_000;
/// Life of a lease that is not renewed. Source: choice; so long a lost node keeps what it had.
pub const LEASE_MS: u64 = 10_000;

/// A peer's hello: `software` is like "farlane/0.1.0 client".
pub fn hello(software: &str) -> Hello {
    Hello {
        versions: VERSIONS.to_vec(),
        software: software.to_owned(),
        limits: None,
    }
}

/// A server's hello, with the limits in force.
pub fn server_hello(software: &str) -> Hello {
    Hello {
        limits: Some(limits()),
        ..hello(software)
    }
}

/// The limits that this build's servers hold peers to.
pub fn limits() -> Limits {
    Limits {
        entry_bytes: MAX_ENTRY_BYTES as u64,
        row_bytes: MAX_ROW_BYTES as u64,
        window_tasks: WINDOW_TASKS,
        window_bytes: WINDOW_BYTES,
        blob_bytes: BLOB_BYTES,
        keepalive_ms: KEEPALIVE.as_millis() as u64,
        heartbeat_ms: HEARTBEAT_MS,
        lease_ms: LEASE_MS,
    }
}

/// The highest version that both sides speak.
///
/// *Errors*: there is none, or the peer sent no hello; the text names both sides' versions.
pub fn negotiate(peer: Option<&Hello>) -> Result<u32, Refused> {
    let mismatch = |message| Refused {
        code: ErrorCode::VersionMismatch,
        message,
    };
    let peer = peer.ok_or_else(|| mismatch("the peer sent no hello".to_owned()))?;
    let common = VERSIONS
        .iter()
        .rev()
        .find(|version| peer.versions.contains(version));
    common.copied().ok_or_else(|| {
        let theirs: Vec<_> = peer.versions.iter().take(8).collect();
        let software: String = peer.software.chars().take(64).collect();
        mismatch(format!(
            "{software:?} speaks versions {theirs:?}, this side {VERSIONS:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(negotiate(Some(&hello("x"))), Ok(1));
        let newer = Hello {
            versions: vec![1, 2, 9],
            ..hello("x")
        };
        assert_eq!(negotiate(Some(&newer)), Ok(1));
        for peer in [
            None,
            Some(Hello {
                versions: vec![2],
                ..hello("new")
            }),
        ] {
            let refused = negotiate(peer.as_ref()).unwrap_err();
            assert_eq!(refused.code, ErrorCode::VersionMismatch);
        }
        assert_eq!(server_hello("s").limits.unwrap().row_bytes, 16 * 1024);
    }
}
