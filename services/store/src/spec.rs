//! What calls asked: each spec once, by its digest, for as long as usage rows name it.

use bytes::Bytes;
use farlane_model::Digest;
use sqlx::{Row, query};

use crate::{Store, StoreError};

/// The specs of a store.
#[derive(Debug, Clone, Copy)]
pub struct Specs<'a> {
    pub(crate) store: &'a Store,
}

impl Specs<'_> {
    /// Keeps these canonical specs, all or nothing; those that are there stay.
    ///
    /// *Errors*: the database.
    pub async fn keep(&self, specs: &[(Digest, Bytes)]) -> Result<(), StoreError> {
        let mut transaction = self.store.pool.begin().await?;
        for (digest, spec) in specs {
            query(
                "INSERT INTO specs (digest, spec) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
            )
            .bind(digest.0.to_vec())
            .bind(spec.to_vec())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// One spec's canonical bytes.
    ///
    /// *Errors*: the database.
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = query("SELECT spec FROM specs WHERE digest = $1")
            .bind(digest.0.to_vec())
            .fetch_optional(&self.store.pool)
            .await?;
        found.map(|row| Ok(row.try_get("spec")?)).transpose()
    }
}
