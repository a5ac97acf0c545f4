//! Signed batches of results: one signature over a node's whole batch for one session.
//!
//! signature = Ed25519(node identity, label ‖ node ‖ session ‖ batch id ‖ BLAKE3(leaves)); a leaf
//! binds how one attempt ended to the digest of what it sealed. A reader holds all leaves of the
//! batch, checks the signature once, and then each result against its leaf.

use farlane_model::{AttemptRef, BootId, Digest, ExitKind, NodeId, SessionId};

use crate::record::NodeRecord;
use crate::sign::{NodeIdentity, SIGNATURE_BYTES, Sign};

/// Bytes of one leaf.
pub const LEAF_BYTES: usize = 32;
/// Most leaves of a batch. Source: docs/design/spine.md, "One call, hop by hop".
pub const MAX_LEAVES: usize = 512;

const LABEL: &[u8] = b"farlane/batch/1";
const LEAF_LABEL: &[u8] = b"farlane/leaf/1\0";

/// A batch whose signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node's signature over this batch of results does not hold")]
pub struct BadBatch;

/// Names a batch: the node's boot and its count within the boot, hashed to 16 bytes.
pub fn id(boot: BootId, number: u64) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("farlane/batch-id/1");
    hasher.update(boot.as_bytes()).update(&number.to_be_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

/// The leaf of one attempt: BLAKE3(label ‖ task ‖ attempt ‖ epoch ‖ exit kind ‖ sealed digest).
///
/// `sealed` is the BLAKE3 of the sealed bytes, whether they travel inline or as a blob; absent when
/// nothing was sealed.
pub fn leaf(attempt: &AttemptRef, exit: ExitKind, sealed: Option<&Digest>) -> Digest {
    let mut message = [0u8; 15 + 16 + 4 + 8 + 1 + 1 + 32];
    message[..15].copy_from_slice(LEAF_LABEL);
    message[15..31].copy_from_slice(&attempt.task.to_bytes());
    message[31..35].copy_from_slice(&attempt.attempt.to_be_bytes());
    message[35..43].copy_from_slice(&attempt.epoch.to_be_bytes());
    message[43] = exit_code(exit);
    if let Some(digest) = sealed {
        message[44] = 1;
        message[45..].copy_from_slice(digest.as_bytes());
    }
    Digest::of(&message)
}

/// Same numbers as `ExitKind` on the wire.
const fn exit_code(exit: ExitKind) -> u8 {
    match exit {
        ExitKind::Returned => 1,
        ExitKind::Raised => 2,
        ExitKind::Lost(_) => 3,
        ExitKind::TimedOut => 4,
        ExitKind::Cancelled => 5,
        ExitKind::EnvFailed => 6,
        ExitKind::Refused => 7,
        ExitKind::Expired => 8,
        ExitKind::Infeasible => 9,
    }
}

/// Leaves as they travel: n × 32 bytes.
pub fn join_leaves(leaves: &[Digest]) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| leaf.0).collect()
}

/// Signs a node's batch for a session. `leaves` are n × 32 bytes in the order of the items.
pub fn sign(
    identity: &NodeIdentity,
    node: NodeId,
    session: SessionId,
    batch: &[u8; 16],
    leaves: &[u8],
) -> [u8; SIGNATURE_BYTES] {
    let digest = Digest::of(leaves);
    identity.sign(
        LABEL,
        &[
            node.as_bytes(),
            &session.to_bytes(),
            batch,
            digest.as_bytes(),
        ],
    )
}

/// Checks a batch once; afterwards each result is held against its leaf with [`matches`].
///
/// *Errors*: not this node's, another session's, altered, or of a wrong size.
pub fn verify(
    record: &NodeRecord,
    session: SessionId,
    batch: &[u8],
    leaves: &[u8],
    signature: &[u8],
) -> Result<(), BadBatch> {
    let sized = leaves.len().is_multiple_of(LEAF_BYTES) && leaves.len() <= MAX_LEAVES * LEAF_BYTES;
    if batch.len() != 16 || !sized {
        return Err(BadBatch);
    }
    let digest = Digest::of(leaves);
    let node = record.node();
    let message: [&[u8]; 4] = [
        node.as_bytes(),
        &session.to_bytes(),
        batch,
        digest.as_bytes(),
    ];
    match record.identity().verifies(LABEL, &message, signature) {
        true => Ok(()),
        false => Err(BadBatch),
    }
}

/// Whether `leaf` is the one at `index` of a verified batch's leaves.
pub fn matches(leaves: &[u8], index: usize, leaf: &Digest) -> bool {
    let from = index.saturating_mul(LEAF_BYTES);
    leaves.get(from..from.saturating_add(LEAF_BYTES)) == Some(leaf.as_bytes().as_slice())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::Cast;
    use farlane_model::LostCause;

    #[test]
    fn a_batch_holds_for_its_node_session_id_and_leaves() {
        let cast = Cast::new();
        let session = SessionId::new(9, [9; 5]);
        let at = |seq, attempt| AttemptRef {
            task: session.task(seq),
            attempt,
            epoch: 1,
        };
        let sealed = Digest::of(b"sealed");
        let all = [
            leaf(&at(1, 1), ExitKind::Returned, Some(&sealed)),
            leaf(&at(2, 1), ExitKind::Lost(LostCause::OutOfMemory), None),
        ];
        assert_ne!(all[0], leaf(&at(1, 2), ExitKind::Returned, Some(&sealed)));
        assert_ne!(all[0], leaf(&at(1, 1), ExitKind::Raised, Some(&sealed)));
        assert_ne!(all[0], leaf(&at(1, 1), ExitKind::Returned, None));
        let leaves = join_leaves(&all);
        let batch = id(cast.boot, 4);
        assert_ne!(batch, id(cast.boot, 5));
        let node = cast.record.node();
        let signature = sign(&cast.identity, node, session, &batch, &leaves);
        verify(&cast.record, session, &batch, &leaves, &signature).unwrap();
        assert!(matches(&leaves, 1, &all[1]) && !matches(&leaves, 0, &all[1]));
        assert!(!matches(&leaves, 2, &all[1]) && !matches(&leaves, usize::MAX, &all[1]));
        let other = SessionId::new(10, [9; 5]);
        assert!(verify(&cast.record, other, &batch, &leaves, &signature).is_err());
        assert!(
            verify(
                &cast.record,
                session,
                &id(cast.boot, 5),
                &leaves,
                &signature
            )
            .is_err()
        );
        assert!(verify(&cast.record, session, &batch, &leaves[32..], &signature).is_err());
        assert!(verify(&Cast::new().record, session, &batch, &leaves, &signature).is_err());
        for i in 0..64 {
            let mut bad = signature;
            bad[i] ^= 1;
            assert!(verify(&cast.record, session, &batch, &leaves, &bad).is_err());
        }
        for i in 0..leaves.len() {
            let mut bad = leaves.clone();
            bad[i] ^= 0x80;
            assert!(verify(&cast.record, session, &batch, &bad, &signature).is_err());
        }
    }
}
