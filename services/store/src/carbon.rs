//! The carbon of regions by hour, as the feed said last: what holds while the feed is away.

use farlane_ledger::CarbonTable;
use farlane_units::{MilliGramsKwh, Millis};
use sqlx::{Row, query};

use crate::row::{int, millis, small};
use crate::{Store, StoreError, audit};

/// Name of the one feed.
const NAME: &str = "carbon";
/// Rows of one statement: 3 × 256 values stay far below SQLite's bound of 32,766 and PostgreSQL's of 65,535.
const ROWS: usize = 256;
/// An hour that stands for every hour.
const ANY_HOUR: i64 = -1;

/// What a feed gave, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCarbon {
    /// File or URL.
    pub source: String,
    /// When it was read.
    pub fetched: Millis,
    /// What it said.
    pub table: CarbonTable,
}

/// The carbon table of a store.
#[derive(Debug, Clone, Copy)]
pub struct Carbon<'a> {
    pub(crate) store: &'a Store,
}

impl Carbon<'_> {
    /// When the table was last fetched; `None` where it never was.
    ///
    /// *Errors*: the database.
    pub async fn fetched(&self) -> Result<Option<Millis>, StoreError> {
        let found = query("SELECT fetched_ms FROM carbon_feeds WHERE name = $1")
            .bind(NAME)
            .fetch_optional(&self.store.pool)
            .await?;
        found.map(|row| millis(&row, "fetched_ms")).transpose()
    }

    /// What was kept last; `None` where nothing ever was.
    ///
    /// *Errors*: the database.
    pub async fn kept(&self) -> Result<Option<KeptCarbon>, StoreError> {
        let found = query("SELECT source, fetched_ms FROM carbon_feeds WHERE name = $1")
            .bind(NAME)
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(feed) = found else { return Ok(None) };
        let rows = query("SELECT region, hour_ms, mg_kwh FROM carbon ORDER BY region, hour_ms")
            .fetch_all(&self.store.pool)
            .await?;
        let mut table = CarbonTable::default();
        for row in &rows {
            let region: String = row.try_get("region")?;
            let hour: i64 = row.try_get("hour_ms")?;
            let of = MilliGramsKwh(small(row, "mg_kwh")?);
            let hour = u64::try_from(hour).ok().map(Millis);
            let bad = |_| StoreError::Corrupt { column: "region" };
            table.note(&region, hour, of).map_err(bad)?;
        }
        Ok(Some(KeptCarbon {
            source: feed.try_get("source")?,
            fetched: millis(&feed, "fetched_ms")?,
            table,
        }))
    }

    /// Keeps this in the place of what was kept, with its line in the audit.
    ///
    /// *Errors*: the database; nothing has changed then.
    pub async fn keep(&self, new: &KeptCarbon) -> Result<(), StoreError> {
        let rows: Vec<_> = new.table.readings().collect();
        let mut transaction = self.store.pool.begin().await?;
        query(
            "INSERT INTO carbon_feeds (name, source, fetched_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET source = excluded.source, fetched_ms = excluded.fetched_ms",
        )
        .bind(NAME)
        .bind(new.source.clone())
        .bind(int(new.fetched.0))
        .execute(&mut *transaction)
        .await?;
        query("DELETE FROM carbon")
            .execute(&mut *transaction)
            .await?;
        for chunk in rows.chunks(ROWS) {
            let places: Vec<String> = (0..chunk.len())
                .map(|n| format!("(${}, ${}, ${})", 3 * n + 1, 3 * n + 2, 3 * n + 3))
                .collect();
            let sql = format!(
                "INSERT INTO carbon (region, hour_ms, mg_kwh) VALUES {}",
                places.join(", ")
            );
            let mut filled = query(sqlx::AssertSqlSafe(sql));
            for (region, hour, of) in chunk {
                filled = filled
                    .bind((*region).to_owned())
                    .bind(hour.map_or(ANY_HOUR, |at| int(at.0)))
                    .bind(i64::from(of.0));
            }
            filled.execute(&mut *transaction).await?;
        }
        let line = audit::AuditEntry {
            at: new.fetched,
            actor: "server".to_owned(),
            action: "carbon.keep".to_owned(),
            subject: new.source.clone(),
            detail: format!("{} readings", rows.len()),
        };
        audit::insert(line, &mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}
