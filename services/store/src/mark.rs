//! What all servers of a network must have alike: the first to start says what it has, and later ones are
//! held to it.

use sqlx::{Row, query};

use crate::{Store, StoreError};

/// Name of the pepper's mark.
const PEPPER: &str = "pepper";

impl Store {
    /// Whether `mark`, a hash, is what the first server that named it had too.
    ///
    /// *Errors*: the database.
    pub async fn is_alike(&self, name: &str, mark: &[u8; 32]) -> Result<bool, StoreError> {
        query("INSERT INTO marks (name, mark) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(mark.to_vec())
            .execute(&self.pool)
            .await?;
        let found = query("SELECT mark FROM marks WHERE name = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await?;
        let first: Vec<u8> = found.try_get("mark")?;
        Ok(first == mark)
    }

    /// *Errors*: keys here were hashed under another pepper, so that none would be known; the database.
    pub(crate) async fn check_pepper(&self) -> Result<(), StoreError> {
        let mark = self.pepper.hash(&[b"mark of the pepper"]);
        match self.is_alike(PEPPER, mark.as_bytes()).await? {
            true => Ok(()),
            false => Err(StoreError::OtherPepper),
        }
    }
}
