//! Keys of rows: big-endian, so that they sort as they were made.

use farlane_model::{Digest, KeyId, NodeId, ProjectId, SessionId, TaskId};

use super::{Cursor, OutboxKey};

/// The one row of `Table::Cluster`.
pub const CLUSTER: &[u8] = b"cluster";

/// Of `Table::Tasks`, `Attempts`, `Verdicts` and `Finished`.
pub const fn task(id: TaskId) -> [u8; 16] {
    id.to_bytes()
}

/// First and past-the-last key of a session's rows in the tables that are keyed by task.
pub fn session_tasks(session: SessionId) -> ([u8; 16], [u8; 16]) {
    (session.to_bytes(), after(session.to_bytes()))
}

/// Of `Table::Sessions`, `Marks` and `Granters`.
pub const fn session(id: SessionId) -> [u8; 16] {
    id.to_bytes()
}

/// Of `Table::Nodes` and `Records`.
pub const fn node(id: NodeId) -> [u8; 32] {
    id.0
}

/// Of `Table::Specs`.
pub const fn spec(digest: Digest) -> [u8; 32] {
    digest.0
}

/// Of `Table::SessionSpecs`.
pub fn session_spec(session: SessionId, digest: Digest) -> [u8; 48] {
    join(&session.to_bytes(), &digest.0)
}

/// Of `Table::Prekeys`.
pub fn prekey(node: NodeId, number: u64) -> [u8; 40] {
    join(&node.0, &number.to_be_bytes())
}

/// Of `Table::Contexts`.
pub fn context(node: NodeId, granter: SessionId) -> [u8; 48] {
    join(&node.0, &granter.to_bytes())
}

/// Of `Table::Idempotency`.
pub fn idempotency(project: ProjectId, key: Digest) -> [u8; 48] {
    join(&project.to_bytes(), &key.0)
}

/// Of `Table::RevokedKeys`.
pub const fn key(id: KeyId) -> [u8; 16] {
    id.to_bytes()
}

/// Of `Table::RevokedKeys`, a provider's list: its fingerprint.
pub const fn revocations(provider: Digest) -> [u8; 32] {
    provider.0
}

/// Of `Table::Results` and `Table::Batches`: session, then where in the log.
pub fn result(session: SessionId, at: Cursor) -> [u8; 28] {
    let mut out = [0; 28];
    out[..16].copy_from_slice(&session.to_bytes());
    out[16..24].copy_from_slice(&at.index.to_be_bytes());
    out[24..].copy_from_slice(&at.ordinal.to_be_bytes());
    out
}

/// Reads a key of `Table::Results` or `Table::Batches`.
pub fn read_result(key: &[u8]) -> Option<(SessionId, Cursor)> {
    let key: &[u8; 28] = key.try_into().ok()?;
    let session = SessionId::from_slice(&key[..16]).ok()?;
    let index = u64::from_be_bytes(key[16..24].try_into().ok()?);
    let ordinal = u32::from_be_bytes(key[24..].try_into().ok()?);
    Some((session, Cursor { index, ordinal }))
}

/// The range of a session's results that come after `seen`: first and past-the-last key.
pub fn results_after(session: SessionId, seen: Cursor) -> ([u8; 28], [u8; 28]) {
    let mut end = [0; 28];
    end[..16].copy_from_slice(&after(session.to_bytes()));
    (result(session, seen.next()), end)
}

/// Of `Table::Outbox`.
pub fn outbox(key: OutboxKey) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&key.index.to_be_bytes());
    out[8..12].copy_from_slice(&key.ordinal.to_be_bytes());
    out[12..].copy_from_slice(&key.n.to_be_bytes());
    out
}

/// Reads a key of `Table::Outbox`.
pub fn read_outbox(key: &[u8]) -> Option<OutboxKey> {
    let key: &[u8; 16] = key.try_into().ok()?;
    Some(OutboxKey {
        index: u64::from_be_bytes(key[..8].try_into().ok()?),
        ordinal: u32::from_be_bytes(key[8..12].try_into().ok()?),
        n: u32::from_be_bytes(key[12..].try_into().ok()?),
    })
}

/// Of `Table::Sinks`.
pub const fn sink(number: u8) -> [u8; 1] {
    [number]
}

/// Of `Table::Projects`.
pub const fn project(id: ProjectId) -> [u8; 16] {
    id.to_bytes()
}

fn join<const N: usize>(a: &[u8], b: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out[..a.len()].copy_from_slice(a);
    out[a.len()..].copy_from_slice(b);
    out
}

/// The first session id after this one: sessions differ above their low 40 bits.
fn after(session: [u8; 16]) -> [u8; 16] {
    (u128::from_be_bytes(session).saturating_add(1 << 40)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_sort_as_made_and_read_back() {
        let session = SessionId::new(7, [1, 2, 3, 4, 5]);
        let other = SessionId::new(7, [1, 2, 3, 4, 6]);
        let at = |index, ordinal| Cursor { index, ordinal };
        assert!(result(session, at(1, 9)) < result(session, at(2, 0)));
        assert!(result(session, at(u64::MAX, u32::MAX)) < result(other, at(0, 0)));
        let key = result(session, at(3, 4));
        assert_eq!(read_result(&key).unwrap(), (session, at(3, 4)));
        let (from, to) = results_after(session, at(3, 4));
        assert!(key < from && from <= result(session, at(3, 5)));
        assert!(result(session, at(u64::MAX, 0)) < to && to <= result(other, at(0, 0)));
        let (from, to) = session_tasks(session);
        assert!(from < task(session.task(1)) && task(session.task((1 << 40) - 1)) < to);
        let key = OutboxKey {
            index: 1,
            ordinal: 2,
            n: 3,
        };
        assert_eq!(read_outbox(&outbox(key)).unwrap(), key);
    }
}
