//! Who did what.

use farlane_units::Millis;
use sqlx::{AnyConnection, Row, query};

use crate::row::{self, int, millis};
use crate::{MAX_PAGE, Store, StoreError};

/// Longest field of an entry; longer ones are cut. Chosen: an entry must fit a screen.
const MAX_FIELD: usize = 1024;

/// One thing done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Millis,
    /// By whom: a key's id, a node's id, or `server`.
    pub actor: String,
    /// What: `key.create`, `node.enrol`, …
    pub action: String,
    /// To what.
    pub subject: String,
    /// More, for people; never a secret.
    pub detail: String,
}

/// The audit of a store: it only grows.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    pub(crate) store: &'a Store,
}

impl Audit<'_> {
    /// Adds an entry; fields are cut to 1 KiB.
    ///
    /// *Errors*: the database.
    pub async fn append(&self, entry: AuditEntry) -> Result<(), StoreError> {
        let mut connection = self.store.pool.acquire().await?;
        insert(entry, &mut connection).await
    }

    /// Entries before `before`, newest first; at most `limit`, held to [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn list(&self, before: Millis, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let found = query(
            "SELECT at_ms, actor, action, subject, detail FROM audit WHERE at_ms < $1 \
             ORDER BY at_ms DESC, id DESC LIMIT $2",
        )
        .bind(int(before.0))
        .bind(i64::from(limit.min(MAX_PAGE)))
        .fetch_all(&self.store.pool)
        .await?;
        found
            .iter()
            .map(|r| {
                Ok(AuditEntry {
                    at: millis(r, "at_ms")?,
                    actor: r.try_get("actor")?,
                    action: r.try_get("action")?,
                    subject: r.try_get("subject")?,
                    detail: r.try_get("detail")?,
                })
            })
            .collect()
    }
}

/// Adds an entry in the transaction of what it tells of.
pub(crate) async fn insert(
    entry: AuditEntry,
    connection: &mut AnyConnection,
) -> Result<(), StoreError> {
    let id = hex::encode(row::random::<10>()?);
    query(
        "INSERT INTO audit (at_ms, id, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(int(entry.at.0))
    .bind(id)
    .bind(cut(entry.actor))
    .bind(cut(entry.action))
    .bind(cut(entry.subject))
    .bind(cut(entry.detail))
    .execute(connection)
    .await?;
    Ok(())
}

fn cut(mut field: String) -> String {
    if field.len() > MAX_FIELD {
        let end = (0..=MAX_FIELD).rev().find(|i| field.is_char_boundary(*i));
        field.truncate(end.unwrap_or(0));
    }
    field
}
