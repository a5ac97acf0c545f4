//! Rows: what every replica commits for an entry, in one transaction with last-applied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The tables of the state file, in the order in which `State::load` wants them.
///
/// *Shape*: the number is part of the file's format; append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// One row: network, epoch, counters.
    Cluster = 0,
    /// Node → spec, generation, boots, daily prekey.
    Nodes = 1,
    /// Node ‖ number → one-time prekey.
    Prekeys = 2,
    /// Node ‖ granter → the context's issue.
    Contexts = 3,
    /// Session → project, tenant, key, wrapped session key, device.
    Sessions = 4,
    /// Session → next sequence number, results kept, acknowledgements.
    Marks = 5,
    /// Digest → canonical spec.
    Specs = 6,
    /// Session ‖ digest → nothing: the session knows the spec.
    SessionSpecs = 7,
    /// Task → verdict on a sequence number that is no task of its own.
    Verdicts = 8,
    /// Task → envelope, written once at submission.
    Tasks = 9,
    /// Task → what changes: attempt, lease, retries. Absent until the first placement.
    Attempts = 10,
    /// Project ‖ key → task and end, for 24 h.
    Idempotency = 11,
    /// Granter → project, kind, device.
    Granters = 12,
    /// Key → nothing; provider → its signed list of revoked nodes.
    RevokedKeys = 13,
    /// (index, ordinal, n) → event for sinks outside the cluster.
    Outbox = 14,
    /// Sink → high-water mark.
    Sinks = 15,
    /// Project → what is set of it, and what its month came to.
    Projects = 16,
    /// A gang's first task → its size, while a member is unfinished.
    Gangs = 17,
    /// Task → finished task. Not loaded.
    Finished = 18,
    /// Session ‖ (index, n) → which task finished there. Not loaded.
    Results = 19,
    /// Session ‖ (index, ordinal) → a node's signature over a batch. Not loaded.
    Batches = 20,
    /// Node → canonical signed record. Not loaded.
    Records = 21,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 22] = [
        Table::Cluster,
        Table::Nodes,
        Table::Prekeys,
        Table::Contexts,
        Table::Sessions,
        Table::Marks,
        Table::Specs,
        Table::SessionSpecs,
        Table::Verdicts,
        Table::Tasks,
        Table::Attempts,
        Table::Idempotency,
        Table::Granters,
        Table::RevokedKeys,
        Table::Outbox,
        Table::Sinks,
        Table::Projects,
        Table::Gangs,
        Table::Finished,
        Table::Results,
        Table::Batches,
        Table::Records,
    ];
    /// Those that `State::load` reads, in the order it wants them.
    pub const LOADED: [Table; 18] = {
        let mut out = [Table::Cluster; 18];
        let mut i = 0;
        while i < 18 {
            out[i] = Table::ALL[i];
            i += 1;
        }
        out
    };

    /// From its number.
    pub fn from_u8(number: u8) -> Option<Table> {
        Table::ALL.get(usize::from(number)).copied()
    }
    /// For the names of tables in files and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Cluster => "cluster",
            Table::Nodes => "nodes",
            Table::Prekeys => "prekeys",
            Table::Contexts => "contexts",
            Table::Sessions => "sessions",
            Table::Marks => "marks",
            Table::Specs => "specs",
            Table::SessionSpecs => "session_specs",
            Table::Verdicts => "verdicts",
            Table::Tasks => "tasks",
            Table::Attempts => "attempts",
            Table::Idempotency => "idempotency",
            Table::Granters => "granters",
            Table::RevokedKeys => "revoked_keys",
            Table::Outbox => "outbox",
            Table::Sinks => "sinks",
            Table::Projects => "projects",
            Table::Gangs => "gangs",
            Table::Finished => "finished",
            Table::Results => "results",
            Table::Batches => "batches",
            Table::Records => "records",
        }
    }
}

/// One row put or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub table: Table,
    /// Sorts as bytes.
    pub key: Bytes,
    /// `None` deletes.
    pub value: Option<Bytes>,
}

/// The rows of one order.
///
/// *Shape*: in order; a later row of the same key wins. Keys and values are slices of one
/// allocation: a row kept for long keeps its neighbours, so copy what is to be kept for long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// In order.
    pub rows: Vec<Row>,
}

/// Reading of rows: an overlay and the file behind it, or a snapshot.
pub trait Rows {
    /// One row.
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes>;
    /// Rows with `from <= key < to`, ascending, at most `limit`.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)>;
}

/// Gathers a write-set in one buffer.
#[derive(Default)]
pub(crate) struct Writes {
    buffer: Vec<u8>,
    rows: Vec<Pending>,
}

struct Pending {
    table: Table,
    key: (u32, u32),
    value: Option<u32>,
}

impl Writes {
    pub fn reserve(&mut self, rows: usize, bytes: usize) {
        self.rows.reserve(rows);
        self.buffer.reserve(bytes);
    }

    /// Puts a row; `fill` appends its value.
    pub fn put(&mut self, table: Table, key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        let key = self.key(key);
        fill(&mut self.buffer);
        let value = Some(self.buffer.len() as u32);
        self.rows.push(Pending { table, key, value });
    }

    /// Puts a row of a cold table.
    pub fn put_serde<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) {
        self.put(table, key, |out| {
            let bytes = postcard::to_stdvec(value)
                .expect("postcard into a Vec cannot fail for these types");
            out.extend_from_slice(&bytes);
        });
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let key = self.key(key);
        self.rows.push(Pending {
            table,
            key,
            value: None,
        });
    }

    fn key(&mut self, key: &[u8]) -> (u32, u32) {
        let from = self.buffer.len() as u32;
        self.buffer.extend_from_slice(key);
        (from, self.buffer.len() as u32)
    }

    pub fn finish(self) -> WriteSet {
        let body = Bytes::from(self.buffer);
        let slice = |from: u32, to: u32| body.slice(from as usize..to as usize);
        let rows = self.rows.iter().map(|row| Row {
            table: row.table,
            key: slice(row.key.0, row.key.1),
            value: row.value.map(|end| slice(row.key.1, end)),
        });
        WriteSet {
            rows: rows.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_know_their_numbers() {
        for (i, table) in Table::ALL.iter().enumerate() {
            assert_eq!(*table as usize, i);
            assert_eq!(Table::from_u8(i as u8), Some(*table));
        }
        assert_eq!(Table::from_u8(Table::ALL.len() as u8), None);
        assert_eq!(Table::LOADED.last(), Some(&Table::Gangs));
    }

    #[test]
    fn a_write_set_keeps_order_keys_and_values() {
        let mut writes = Writes::default();
        writes.put(Table::Tasks, b"a", |out| out.extend_from_slice(b"one"));
        writes.delete(Table::Tasks, b"bb");
        writes.put(Table::Specs, b"", |_| {});
        let rows = writes.finish().rows;
        let seen: Vec<_> = rows
            .iter()
            .map(|r| (r.table, &r.key[..], r.value.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                (Table::Tasks, &b"a"[..], Some(&b"one"[..])),
                (Table::Tasks, &b"bb"[..], None),
                (Table::Specs, &b""[..], Some(&b""[..])),
            ]
        );
    }
}
