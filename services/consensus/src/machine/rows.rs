//! Rows for readers outside the log.

use std::sync::Arc;

use bytes::Bytes;
use farlane_state::{Rows, Table};

use super::Replica;

/// Reads rows as of now: the overlay, then the state file. Cloning shares it.
///
/// A file that cannot be read stops the replica, and the row reads as absent.
#[derive(Clone)]
pub struct RowsHandle(pub(crate) Arc<Replica>);

impl RowsHandle {
    fn ok<T>(&self, read: Result<T, redb::StorageError>) -> Option<T> {
        read.map_err(|error| {
            self.0
                .fail(format!("the state file cannot be read: {error}"))
        })
        .ok()
    }
}

impl Rows for RowsHandle {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.ok(self.0.shelf.get(table, key)).flatten()
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        self.ok(self.0.shelf.scan(table, from, to, limit))
            .unwrap_or_default()
    }
}
