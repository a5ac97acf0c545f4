//! A node's proof, by its identity key, that a new transport key is its own.
//!
//! signature = Ed25519(node identity, label ‖ node ‖ BLAKE3(network) ‖ time ‖ BLAKE3(certificate request))
//!
//! It needs no transport certificate, so that a machine which was off for longer than one lives comes back
//! by itself. Whoever overhears a proof can have the same key certified again while the time in it is
//! fresh, and gains nothing: that key's private half never left the node.

use farlane_model::{Digest, NodeId};
use farlane_units::Millis;

use crate::record::NodeRecord;
use crate::sign::{NodeIdentity, SIGNATURE_BYTES, Sign};

/// How far the time of a proof may lie from the server's, either way. Source: transport
/// certificates are backdated 1 h, so clocks further apart than this break them anyway.
pub const MAX_SKEW: Millis = Millis(50 * 60 * 1000);

const LABEL: &[u8] = b"farlane/renewal/1";

/// A proof that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRenewal {
    /// Another key's, another network's, or altered. The caller's fault.
    #[error("the renewal is not signed by the node's identity key for this network")]
    Signature,
    /// Too old, or of a clock that is wrong. Set the clock, and sign anew.
    #[error("the renewal was signed {} s {} this time", .skew_ms.unsigned_abs() / 1000, if *.skew_ms < 0 { "before" } else { "after" })]
    Stale {
        /// The proof's time minus the verifier's.
        skew_ms: i64,
    },
}

fn message(node: NodeId, network: &[u8], at: Millis, request: &[u8]) -> [u8; 104] {
    let mut out = [0; 104];
    out[..32].copy_from_slice(node.as_bytes());
    out[32..64].copy_from_slice(Digest::of(network).as_bytes());
    out[64..72].copy_from_slice(&at.0.to_be_bytes());
    out[72..].copy_from_slice(Digest::of(request).as_bytes());
    out
}

/// Signs the wish to have `request` certified, at `at` of the node's wall clock.
pub fn sign(
    identity: &NodeIdentity,
    node: NodeId,
    network: &[u8],
    at: Millis,
    request: &[u8],
) -> [u8; SIGNATURE_BYTES] {
    identity.sign(LABEL, &[&message(node, network, at, request)])
}

/// Checks that `record`'s node wished it in this network, within [`MAX_SKEW`] of `now`.
///
/// *Errors*: not signed so, or at another time; only the right key's owner hears of the time.
pub fn verify(
    record: &NodeRecord,
    network: &[u8],
    at: Millis,
    request: &[u8],
    signature: &[u8],
    now: Millis,
) -> Result<(), BadRenewal> {
    let message = message(record.node(), network, at, request);
    if !record.identity().verifies(LABEL, &[&message], signature) {
        return Err(BadRenewal::Signature);
    }
    let whole = |time: Millis| i64::try_from(time.0).unwrap_or(i64::MAX);
    let skew_ms = whole(at).saturating_sub(whole(now));
    match skew_ms.unsigned_abs() <= MAX_SKEW.0 {
        true => Ok(()),
        false => Err(BadRenewal::Stale { skew_ms }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::{Cast, NETWORK, NOW};

    #[test]
    fn a_proof_holds_for_its_node_network_time_and_request() {
        let cast = Cast::new();
        let node = cast.record.node();
        let signature = sign(&cast.identity, node, NETWORK, NOW, b"request");
        let holds = |network: &[u8], at, request: &[u8], signature: &[u8]| {
            verify(&cast.record, network, at, request, signature, NOW)
        };
        holds(NETWORK, NOW, b"request", &signature).unwrap();
        let bad = Err(BadRenewal::Signature);
        assert_eq!(holds(b"other", NOW, b"request", &signature), bad);
        assert_eq!(holds(b"", NOW, b"request", &signature), bad);
        assert_eq!(holds(NETWORK, NOW, b"requesu", &signature), bad);
        let later = NOW.saturating_add(Millis(1));
        assert_eq!(holds(NETWORK, later, b"request", &signature), bad);
        assert_eq!(holds(NETWORK, NOW, b"request", &[]), bad);
        assert_eq!(holds(NETWORK, NOW, b"request", &signature[1..]), bad);
        for i in 0..signature.len() {
            let mut altered = signature;
            altered[i] ^= 1;
            assert_eq!(holds(NETWORK, NOW, b"request", &altered), bad, "byte {i}");
        }
        let other = Cast::new();
        let theirs = sign(&other.identity, node, NETWORK, NOW, b"request");
        assert_eq!(holds(NETWORK, NOW, b"request", &theirs), bad);
        let theirs = sign(
            &cast.identity,
            other.record.node(),
            NETWORK,
            NOW,
            b"request",
        );
        assert_eq!(holds(NETWORK, NOW, b"request", &theirs), bad);
    }

    #[test]
    fn a_proof_holds_for_as_long_as_clocks_may_differ() {
        let cast = Cast::new();
        let node = cast.record.node();
        let at = |at: Millis| {
            let signature = sign(&cast.identity, node, NETWORK, at, b"request");
            verify(&cast.record, NETWORK, at, b"request", &signature, NOW)
        };
        let beyond = Millis(MAX_SKEW.0 + 1);
        assert_eq!(at(NOW.saturating_add(MAX_SKEW)), Ok(()));
        assert_eq!(at(NOW.saturating_sub(MAX_SKEW)), Ok(()));
        let skew_ms = beyond.0 as i64;
        let ahead = at(NOW.saturating_add(beyond));
        assert_eq!(ahead, Err(BadRenewal::Stale { skew_ms }));
        let behind = at(NOW.saturating_sub(beyond));
        assert_eq!(behind, Err(BadRenewal::Stale { skew_ms: -skew_ms }));
        assert_eq!(
            behind.unwrap_err().to_string(),
            "the renewal was signed 3000 s before this time"
        );
        for far in [Millis::ZERO, Millis(u64::MAX)] {
            assert!(matches!(at(far), Err(BadRenewal::Stale { .. })), "{far:?}");
        }
    }
}
