//! One batch of grants as bytes: n(2) | n × (epoch 8, task 16, attempt 4, open-by 8, spec digest 32,
//! payload digest 32, key 32), big-endian.

use farlane_model::{AttemptRef, Digest, TaskId};
use farlane_units::Millis;

use crate::key::{KEY_BYTES, TaskKey};

/// Most grants of one batch. Source: docs/design/spine.md, "One call, hop by hop".
pub const MAX_GRANTS: usize = 512;

pub(super) const ROW: usize = 8 + 16 + 4 + 8 + 32 + 32 + KEY_BYTES;

/// The right to open and run one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which execution.
    pub attempt: AttemptRef,
    /// Not opened later than this, in cluster time.
    pub open_by: Millis,
    /// BLAKE3 of the canonical `TaskSpec`, which fixes code, environment, limits.
    pub spec_digest: Digest,
    /// BLAKE3 of the sealed payload.
    pub payload_digest: Digest,
    /// Opens the payload, seals the result.
    pub key: TaskKey,
}

pub(super) fn encode(grants: &[Grant], out: &mut Vec<u8>) {
    out.extend_from_slice(&(grants.len() as u16).to_be_bytes());
    for grant in grants {
        out.extend_from_slice(&grant.attempt.epoch.to_be_bytes());
        out.extend_from_slice(&grant.attempt.task.to_bytes());
        out.extend_from_slice(&grant.attempt.attempt.to_be_bytes());
        out.extend_from_slice(&grant.open_by.0.to_be_bytes());
        out.extend_from_slice(grant.spec_digest.as_bytes());
        out.extend_from_slice(grant.payload_digest.as_bytes());
        out.extend_from_slice(grant.key.expose());
    }
}

/// `None` where the bytes are no batch: only a granter's bug can make one, they are authentic.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Grant>> {
    let (count, rows) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count > MAX_GRANTS || rows.len() != count * ROW {
        return None;
    }
    rows.chunks_exact(ROW).map(decode_row).collect()
}

fn decode_row(row: &[u8]) -> Option<Grant> {
    let (epoch, row) = row.split_first_chunk::<8>()?;
    let (task, row) = row.split_first_chunk::<16>()?;
    let (attempt, row) = row.split_first_chunk::<4>()?;
    let (open_by, row) = row.split_first_chunk::<8>()?;
    let (spec, row) = row.split_first_chunk::<32>()?;
    let (payload, row) = row.split_first_chunk::<32>()?;
    Some(Grant {
        attempt: AttemptRef {
            task: TaskId::from_bytes(*task),
            attempt: u32::from_be_bytes(*attempt),
            epoch: u64::from_be_bytes(*epoch),
        },
        open_by: Millis(u64::from_be_bytes(*open_by)),
        spec_digest: Digest(*spec),
        payload_digest: Digest(*payload),
        key: TaskKey::from_slice(row)?,
    })
}
