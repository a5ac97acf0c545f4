//! The bytes of a segment: frames, each of which is written and synced as one.
//!
//! ```text
//! frame │ length u32 │ count u32 │ first index u64 │ chain 16 B │ body │
//! entry │ length u32 │ term u64 │ node u64 │ kind u8 │ payload │            (count of them)
//! ```
//! `chain` = BLAKE3(chain before ‖ length ‖ count ‖ first index ‖ body), cut to 16 bytes: a frame
//! counts only in its place, so stale or torn bytes never read as a frame. A count of zero is a
//! truncation: entries from `first index` on are void. Zeros are the end.

use bytes::{Buf, Bytes};
use openraft::{CommittedLeaderId, EntryPayload};

use crate::raft::{Batch, Entry, LogId};

/// Bytes before a frame's body.
pub(crate) const HEAD: usize = 32;
/// Bytes before an entry's payload, its length included.
pub(crate) const ENTRY_HEAD: usize = 21;
/// Most bytes of a frame's body: two full entries and some, so that a damaged length asks for no
/// more memory than that. A frame takes at least one entry, whatever its size.
pub(crate) const MOST_BODY: usize = 4 * 1024 * 1024;

const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The running checksum that a frame continues.
pub(crate) type Chain = [u8; 16];

/// Bytes that are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no entry of the log")]
pub(crate) struct BadEntry;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub length: u32,
    pub count: u32,
    pub first: u64,
    pub chain: Chain,
}

impl Head {
    /// Reads a head; `None` where the log ends.
    pub fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let mut at: &[u8] = bytes;
        let (length, count, first) = (at.get_u32_le(), at.get_u32_le(), at.get_u64_le());
        let mut chain = Chain::default();
        at.copy_to_slice(&mut chain);
        (chain != Chain::default()).then_some(Self {
            length,
            count,
            first,
            chain,
        })
    }

    /// Whether the head and body continue this chain.
    pub fn continues(&self, before: &Chain, body: &[u8]) -> bool {
        self.chain == chain(before, self.length, self.count, self.first, body)
    }
}

fn chain(before: &Chain, length: u32, count: u32, first: u64, body: &[u8]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&length.to_le_bytes());
    hasher.update(&count.to_le_bytes());
    hasher.update(&first.to_le_bytes());
    hasher.update(body);
    let mut out = Chain::default();
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    // All zeros reads as the end of the log: one chance in 2¹²⁸.
    out
}

/// Closes the frame that starts at `start` in `out`, whose head is still to be filled in.
pub(crate) fn close(out: &mut [u8], start: usize, count: u32, first: u64, before: &Chain) -> Chain {
    let length = (out.len() - start - HEAD) as u32;
    let (head, body) = out[start..].split_at_mut(HEAD);
    let sum = chain(before, length, count, first, body);
    head[0..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&count.to_le_bytes());
    head[8..16].copy_from_slice(&first.to_le_bytes());
    head[16..].copy_from_slice(&sum);
    sum
}

/// How many bytes the entry takes, near enough to bound a frame or an answer.
pub(crate) fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => ENTRY_HEAD + batch.body.len(),
        // A membership names a handful of servers.
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_HEAD + 512,
    }
}

/// Appends the entry.
///
/// *Panics*: never; a membership of strings and numbers always encodes.
pub(crate) fn write(out: &mut Vec<u8>, entry: &Entry) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&entry.log_id.leader_id.node_id.to_le_bytes());
    match &entry.payload {
        EntryPayload::Blank => out.push(KIND_BLANK),
        EntryPayload::Normal(batch) => {
            out.push(KIND_NORMAL);
            out.extend_from_slice(&batch.body);
        }
        EntryPayload::Membership(membership) => {
            out.push(KIND_MEMBERSHIP);
            let bytes =
                postcard::to_stdvec(membership).expect("numbers and strings encode into memory");
            out.extend_from_slice(&bytes);
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes the next entry, whose index is `index`, off the front of `bytes`.
///
/// *Errors*: lengths or kinds that this build does not write.
pub(crate) fn read(bytes: &mut Bytes, index: u64) -> Result<Entry, BadEntry> {
    if bytes.len() < ENTRY_HEAD {
        return Err(BadEntry);
    }
    let length = bytes.get_u32_le() as usize;
    if length < ENTRY_HEAD - 4 || length > bytes.len() {
        return Err(BadEntry);
    }
    let mut own = bytes.split_to(length);
    let leader = CommittedLeaderId::new(own.get_u64_le(), own.get_u64_le());
    let payload = match own.get_u8() {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Batch {
            body: own,
            ..Batch::default()
        }),
        KIND_MEMBERSHIP => {
            EntryPayload::Membership(postcard::from_bytes(&own).map_err(|_| BadEntry)?)
        }
        _ => return Err(BadEntry),
    };
    Ok(Entry {
        log_id: LogId::new(leader, index),
        payload,
    })
}

/// Writes entries for another server: a count, then each with its index.
pub(crate) fn write_all(out: &mut Vec<u8>, entries: &[Entry]) {
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.log_id.index.to_le_bytes());
        write(out, entry);
    }
}

/// Reads what [`write_all`] wrote; payloads are slices of `bytes`.
pub(crate) fn read_all(bytes: &mut Bytes) -> Result<Vec<Entry>, BadEntry> {
    if bytes.len() < 4 {
        return Err(BadEntry);
    }
    let count = bytes.get_u32_le() as usize;
    if count.saturating_mul(8 + ENTRY_HEAD) > bytes.len() {
        return Err(BadEntry);
    }
    (0..count)
        .map(|_| {
            if bytes.len() < 8 {
                return Err(BadEntry);
            }
            let index = bytes.get_u64_le();
            read(bytes, index)
        })
        .collect()
}
