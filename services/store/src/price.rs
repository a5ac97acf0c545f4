//! Providers' price books.

use farlane_ledger::{Entry, PriceBook, Rate, Scope};
use farlane_model::{Digest, Glob};
use farlane_units::{Millis, UsdMicros};
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use crate::row::{int, millis, number, parsed};
use crate::{Store, StoreError, audit};

/// Most books of one call of [`PriceBooks::list`]. Source: 16 books of 512 entries of 100 B are 0.8 MiB.
pub const MAX_BOOKS: u32 = 16;

/// A provider's book, and who changed it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookRow {
    /// Hash of the provider's root.
    pub provider: Digest,
    /// Counts changes, from 1.
    pub revision: u64,
    /// When it was changed last.
    pub changed: Millis,
    /// By whom: a key's id.
    pub changed_by: String,
    /// The prices.
    pub book: PriceBook,
}

/// A change of a book.
#[derive(Debug, Clone, Copy)]
pub struct NewBook<'a> {
    /// Hash of the provider's root.
    pub provider: Digest,
    /// The revision that it was made from; 0 for the first.
    pub after: u64,
    /// The prices.
    pub book: &'a PriceBook,
    /// Who changes it: a key's id.
    pub by: &'a str,
    /// What changes, for the audit.
    pub detail: &'a str,
}

/// The price books of a store.
#[derive(Debug, Clone, Copy)]
pub struct PriceBooks<'a> {
    pub(crate) store: &'a Store,
}

impl PriceBooks<'_> {
    /// One provider's book; `None` where it has none.
    ///
    /// *Errors*: the database.
    pub async fn get(&self, provider: Digest) -> Result<Option<BookRow>, StoreError> {
        let sql = "SELECT provider, revision, changed_ms, changed_by FROM price_books WHERE provider = $1";
        let found = query(sql)
            .bind(provider.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        match found {
            None => Ok(None),
            Some(row) => self.read(&row).await.map(Some),
        }
    }

    /// Books of providers after `after`, in the order of their fingerprints; at most [`MAX_BOOKS`].
    ///
    /// *Errors*: the database.
    pub async fn list(&self, after: Option<Digest>) -> Result<Vec<BookRow>, StoreError> {
        let sql = "SELECT provider, revision, changed_ms, changed_by FROM price_books \
                   WHERE provider > $1 ORDER BY provider LIMIT $2";
        let found = query(sql)
            .bind(after.map(|p| p.to_string()).unwrap_or_default())
            .bind(i64::from(MAX_BOOKS))
            .fetch_all(&self.store.pool)
            .await?;
        let mut books = Vec::with_capacity(found.len());
        for row in &found {
            books.push(self.read(row).await?);
        }
        Ok(books)
    }

    /// Each provider's revision, in the order of fingerprints: what tells whether anything changed.
    ///
    /// *Errors*: the database.
    pub async fn revisions(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let found = query("SELECT provider, revision FROM price_books ORDER BY provider")
            .fetch_all(&self.store.pool)
            .await?;
        let read = |r: &AnyRow| Ok((parsed(r, "provider")?, number(r, "revision")?));
        found.iter().map(read).collect()
    }

    /// Puts a book in the place of a provider's, together with its line in the audit; its revision now, or `None`
    /// where somebody else changed it since `new.after`.
    ///
    /// *Errors*: the database; nothing has changed then.
    pub async fn replace(&self, new: NewBook<'_>, now: Millis) -> Result<Option<u64>, StoreError> {
        let provider = new.provider.to_string();
        let mut transaction = self.store.pool.begin().await?;
        let revision = new.after + 1;
        let sql = match new.after {
            0 => {
                "INSERT INTO price_books (provider, revision, changed_ms, changed_by) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (provider) DO NOTHING"
            }
            _ => {
                "UPDATE price_books SET revision = $2, changed_ms = $3, changed_by = $4 \
                 WHERE provider = $1 AND revision = $2 - 1"
            }
        };
        let done = query(sql)
            .bind(provider.clone())
            .bind(int(revision))
            .bind(int(now.0))
            .bind(new.by.to_owned())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() != 1 {
            return Ok(None);
        }
        query("DELETE FROM price_entries WHERE provider = $1")
            .bind(provider.clone())
            .execute(&mut *transaction)
            .await?;
        for (ordinal, entry) in new.book.entries().iter().enumerate() {
            query(
                "INSERT INTO price_entries (provider, ordinal, rate, region, target, price_usd_micros, since_ms, \
                 until_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(provider.clone())
            .bind(int(ordinal as u64))
            .bind(entry.scope.rate.as_str())
            .bind(entry.scope.region.as_str().to_owned())
            .bind(entry.scope.target.as_str().to_owned())
            .bind(entry.price.0)
            .bind(int(entry.since.0))
            .bind(int(entry.until.map_or(0, |at| at.0)))
            .execute(&mut *transaction)
            .await?;
        }
        let line = audit::AuditEntry {
            at: now,
            actor: new.by.to_owned(),
            action: "prices.set".to_owned(),
            subject: provider,
            detail: new.detail.to_owned(),
        };
        audit::insert(line, &mut transaction).await?;
        transaction.commit().await?;
        Ok(Some(revision))
    }

    async fn read(&self, row: &AnyRow) -> Result<BookRow, StoreError> {
        let provider: Digest = parsed(row, "provider")?;
        let found = query(
            "SELECT rate, region, target, price_usd_micros, since_ms, until_ms FROM price_entries \
             WHERE provider = $1 ORDER BY ordinal",
        )
        .bind(provider.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        let entries: Result<Vec<Entry>, StoreError> = found.iter().map(entry).collect();
        Ok(BookRow {
            provider,
            revision: number(row, "revision")?,
            changed: millis(row, "changed_ms")?,
            changed_by: row.try_get("changed_by")?,
            book: PriceBook::new(entries?),
        })
    }
}

fn entry(row: &AnyRow) -> Result<Entry, StoreError> {
    let rate: String = row.try_get("rate")?;
    let until = millis(row, "until_ms")?;
    Ok(Entry {
        scope: Scope {
            rate: Rate::from_word(&rate).ok_or(StoreError::Corrupt { column: "rate" })?,
            region: glob(row, "region")?,
            target: glob(row, "target")?,
        },
        price: UsdMicros(row.try_get("price_usd_micros")?),
        since: millis(row, "since_ms")?,
        until: (until != Millis::ZERO).then_some(until),
    })
}

fn glob(row: &AnyRow, column: &'static str) -> Result<Glob, StoreError> {
    let text: String = row.try_get(column)?;
    Glob::new(text).map_err(|_| StoreError::Corrupt { column })
}
