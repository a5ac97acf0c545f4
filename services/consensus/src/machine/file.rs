//! The state file: one redb database with the rows, and the head in the same transaction.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farlane_state::Table;
use farlane_units::ByteCount;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::Head;
use super::overlay::Overlay;

/// Key: the table's number, then the row's key.
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// One row: [`FORMAT`] and the head.
const HEAD: TableDefinition<u8, &[u8]> = TableDefinition::new("head");
/// Of the file's own layout; rows carry versions of their own.
const FORMAT: u16 = 1;

/// The file at one moment, for as long as it is held.
pub(crate) struct Tree {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub head: Head,
}

/// A row as read: table, key, value.
pub(crate) type RowRead = Result<(Table, Bytes, Bytes), redb::StorageError>;

/// A row's key in the file.
fn full_key(out: &mut Vec<u8>, table: Table, key: &[u8]) {
    out.clear();
    out.push(table as u8);
    out.extend_from_slice(key);
}

/// Opens the file, or makes it.
pub(crate) fn open(path: &Path, cache: ByteCount) -> Result<Database, redb::Error> {
    let mut builder = Builder::new();
    builder.set_cache_size(usize::try_from(cache.get()).unwrap_or(usize::MAX));
    let database = builder.create(path)?;
    let transaction = database.begin_write()?;
    let fresh = {
        transaction.open_table(ROWS)?;
        transaction.open_table(HEAD)?.is_empty_head()?
    };
    if fresh {
        write_head(&transaction, &Head::default())?;
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(database)
}

/// Whether the head's row is missing.
trait IsEmptyHead {
    fn is_empty_head(&self) -> Result<bool, redb::StorageError>;
}

impl IsEmptyHead for redb::Table<'_, u8, &'static [u8]> {
    fn is_empty_head(&self) -> Result<bool, redb::StorageError> {
        Ok(redb::ReadableTable::get(self, 0)?.is_none())
    }
}

fn write_head(transaction: &redb::WriteTransaction, head: &Head) -> Result<(), redb::Error> {
    let bytes =
        postcard::to_stdvec(&(FORMAT, head)).map_err(|e| redb::Error::Corrupted(e.to_string()))?;
    transaction.open_table(HEAD)?.insert(0, bytes.as_slice())?;
    Ok(())
}

/// Commits the overlay together with the head, durably.
///
/// Quick repair keeps a start after a crash from reading the whole file.
pub(crate) fn commit(
    database: &Database,
    overlay: &Overlay,
    head: &Head,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut rows = transaction.open_table(ROWS)?;
        let mut full = Vec::with_capacity(128);
        for (table, key, value) in overlay.iter() {
            full_key(&mut full, table, key);
            match value {
                Some(value) => drop(rows.insert(full.as_slice(), value.as_ref())?),
                None => drop(rows.remove(full.as_slice())?),
            }
        }
    }
    write_head(&transaction, head)?;
    transaction.commit()?;
    Ok(())
}

/// Puts rows into a file that nobody reads yet. Durable only with the commit that follows.
pub(crate) fn fill(
    database: &Database,
    batch: impl Iterator<Item = (Table, Bytes, Bytes)>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(redb::Durability::None)
        .map_err(|e| redb::Error::Corrupted(e.to_string()))?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        let mut full = Vec::with_capacity(128);
        for (table, key, value) in batch {
            full_key(&mut full, table, &key);
            rows.insert(full.as_slice(), value.as_ref())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

impl Tree {
    /// The file as last committed.
    pub fn open(database: &Database) -> Result<Arc<Self>, redb::Error> {
        let transaction = database.begin_read()?;
        let bytes = transaction.open_table(HEAD)?.get(0)?;
        let bytes =
            bytes.ok_or_else(|| redb::Error::Corrupted("the head is missing".to_owned()))?;
        let (format, head): (u16, Head) = postcard::from_bytes(bytes.value())
            .map_err(|e| redb::Error::Corrupted(format!("the head: {e}")))?;
        if format != FORMAT {
            return Err(redb::Error::Corrupted(format!(
                "format {format}, and this build reads {FORMAT}"
            )));
        }
        let rows = transaction.open_table(ROWS)?;
        Ok(Arc::new(Self { rows, head }))
    }

    /// One row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, redb::StorageError> {
        let mut full = Vec::with_capacity(key.len() + 1);
        full_key(&mut full, table, key);
        Ok(self
            .rows
            .get(full.as_slice())?
            .map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Rows with `from <= key < to`, ascending.
    pub fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<
        impl Iterator<Item = Result<(Bytes, Bytes), redb::StorageError>> + use<>,
        redb::StorageError,
    > {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        full_key(&mut low, table, from);
        full_key(&mut high, table, to.max(from));
        let range = self.rows.range::<&[u8]>(low.as_slice()..high.as_slice())?;
        Ok(range.map(|row| {
            row.map(|(key, value)| {
                (
                    Bytes::copy_from_slice(&key.value()[1..]),
                    Bytes::copy_from_slice(value.value()),
                )
            })
        }))
    }

    /// Every row of the tables up to `last`, ascending by table and key.
    pub fn iter(
        &self,
        last: Table,
    ) -> Result<impl Iterator<Item = RowRead> + use<>, redb::StorageError> {
        let end = [last as u8 + 1];
        let range = self.rows.range::<&[u8]>(..end.as_slice())?;
        Ok(range.map(|row| {
            let (key, value) = row?;
            let (number, key) = key
                .value()
                .split_first()
                .ok_or_else(|| redb::StorageError::Corrupted("an empty key".to_owned()))?;
            let table = Table::from_u8(*number).ok_or_else(|| {
                redb::StorageError::Corrupted(format!("table {number} is unknown to this build"))
            })?;
            Ok((
                table,
                Bytes::copy_from_slice(key),
                Bytes::copy_from_slice(value.value()),
            ))
        }))
    }
}
