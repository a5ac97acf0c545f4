//! Rows put and deleted since the last flush.

use std::collections::BTreeMap;

use bytes::Bytes;
use farlane_state::{Table, WriteSet};

/// What a row is counted as beside its bytes: the tree's node and the two handles. Estimated.
const ROW_COST: usize = 96;

/// The newest word on each touched row; `None` is deleted.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    tables: [BTreeMap<Bytes, Option<Bytes>>; Table::ALL.len()],
    /// Roughly what it takes in memory.
    pub bytes: usize,
}

impl Overlay {
    /// Takes in the rows, in order.
    pub fn merge(&mut self, writes: WriteSet) {
        for row in writes.rows {
            let cost = row.key.len() + row.value.as_ref().map_or(0, Bytes::len) + ROW_COST;
            let old = self.tables[row.table as usize].insert(row.key, row.value);
            self.bytes += cost;
            if let Some(old) = old {
                self.bytes = self
                    .bytes
                    .saturating_sub(old.map_or(0, |value| value.len()) + ROW_COST);
            }
        }
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// What it knows of the row: nothing, that it is deleted, or its value.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        self.tables[table as usize].get(key).cloned()
    }

    /// Touched rows with `from <= key < to`, ascending.
    pub fn range<'a>(
        &'a self,
        table: Table,
        from: &'a [u8],
        to: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> {
        let rows = &self.tables[table as usize];
        let bounds = (
            std::ops::Bound::Included(from),
            std::ops::Bound::Excluded(to),
        );
        // BTreeMap refuses a range that runs backwards.
        (from < to)
            .then(|| rows.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
    }

    /// Everything, ascending by table and key.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &Bytes, &Option<Bytes>)> {
        Table::ALL
            .iter()
            .zip(&self.tables)
            .flat_map(|(table, rows)| rows.iter().map(|(key, value)| (*table, key, value)))
    }
}
