//! One-time tokens with which nodes join.

use farlane_model::Digest;
use farlane_units::Millis;
use sqlx::{Row, query};

use crate::row::{self, millis};
use crate::{MAX_PAGE, Store, StoreError};

/// Longest enrolment certificate that is kept. Chosen: a certificate is a few hundred bytes.
const MAX_ENROLMENT: usize = 16 * 1024;

/// A token to register. The secret itself never leaves the provider's machine.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// BLAKE3 of the join secret.
    pub hash: Digest,
    /// Until when it may be taken.
    pub expires: Millis,
    /// Canonical enrolment certificate.
    pub enrolment: Vec<u8>,
    /// Who registered it, for people.
    pub created_by: String,
}

/// A registered token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// BLAKE3 of the join secret.
    pub hash: Digest,
    /// Canonical enrolment certificate.
    pub enrolment: Vec<u8>,
    /// Who registered it.
    pub created_by: String,
    /// When.
    pub created: Millis,
    /// Until when it may be taken.
    pub expires: Millis,
    /// When a node took it.
    pub taken: Option<Millis>,
    /// Which identity did.
    pub taken_by: Option<Taker>,
}

/// The public identity key of a machine that takes a token.
pub type Taker = [u8; 32];

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Never registered here.
    #[error("this network does not know the join token")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired; make another one with `farlane tokens create`")]
    Expired,
    /// It works once, and did.
    #[error("the join token was used before; make another one with `farlane tokens create`")]
    Taken,
    /// The enrolment certificate is too large to be one.
    #[error("the enrolment certificate is larger than {MAX_ENROLMENT} bytes")]
    TooLarge,
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for JoinError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The join tokens of a store.
#[derive(Debug, Clone, Copy)]
pub struct JoinTokens<'a> {
    pub(crate) store: &'a Store,
}

impl JoinTokens<'_> {
    /// Registers a token; registering the same one again changes nothing.
    ///
    /// *Errors*: the certificate is too large; the database.
    pub async fn create(&self, new: NewJoinToken, now: Millis) -> Result<(), JoinError> {
        if new.enrolment.len() > MAX_ENROLMENT {
            return Err(JoinError::TooLarge);
        }
        query(
            "INSERT INTO join_tokens \
             (hash, enrolment, created_by, created_ms, expires_ms, taken_ms, taken_by) \
             VALUES ($1, $2, $3, $4, $5, 0, '') ON CONFLICT (hash) DO NOTHING",
        )
        .bind(new.hash.as_bytes().to_vec())
        .bind(new.enrolment)
        .bind(new.created_by)
        .bind(row::int(now.0))
        .bind(row::int(new.expires.0))
        .execute(&self.store.pool)
        .await?;
        Ok(())
    }

    /// Takes the token of this secret for one machine: of two takers at the same time one succeeds.
    /// The same machine may take it again, so that a crash between this and its registration costs
    /// nothing.
    ///
    /// *Errors*: unknown, expired, taken by another, or the database.
    pub async fn take(
        &self,
        secret: &[u8],
        by: Taker,
        now: Millis,
    ) -> Result<JoinToken, JoinError> {
        let hash = Digest::of(secret);
        let mut transaction = self.store.pool.begin().await?;
        // Written first, so that a second taker waits here and then finds it taken.
        let done = query(
            "UPDATE join_tokens SET taken_ms = $1, taken_by = $3 \
             WHERE hash = $2 AND taken_ms = 0 AND expires_ms > $1",
        )
        .bind(row::int(now.0.max(1)))
        .bind(hash.as_bytes().to_vec())
        .bind(hex::encode(by))
        .execute(&mut *transaction)
        .await?;
        let found = query(
            "SELECT enrolment, created_by, created_ms, expires_ms, taken_ms, taken_by \
             FROM join_tokens WHERE hash = $1",
        )
        .bind(hash.as_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(JoinError::Unknown)?;
        let token = read(hash, &found)?;
        if done.rows_affected() == 1 {
            transaction.commit().await?;
            return Ok(token);
        }
        match token.taken_by {
            Some(taker) if taker == by => Ok(token),
            Some(_) => Err(JoinError::Taken),
            None => Err(JoinError::Expired),
        }
    }

    /// Forgets a token that nobody has taken; `false` where there is none.
    ///
    /// *Errors*: the database.
    pub async fn revoke(&self, hash: Digest) -> Result<bool, StoreError> {
        let done = query("DELETE FROM join_tokens WHERE hash = $1 AND taken_ms = 0")
            .bind(hash.as_bytes().to_vec())
            .execute(&self.store.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Every token, newest first; at most [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn list(&self) -> Result<Vec<JoinToken>, StoreError> {
        let found = query(
            "SELECT hash, enrolment, created_by, created_ms, expires_ms, taken_ms, taken_by \
             FROM join_tokens ORDER BY created_ms DESC, hash LIMIT $1",
        )
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        found
            .iter()
            .map(|r| {
                let bytes: Vec<u8> = r.try_get("hash")?;
                let hash = Digest::from_slice(&bytes)
                    .map_err(|_| StoreError::Corrupt { column: "hash" })?;
                read(hash, r)
            })
            .collect()
    }

    /// Forgets tokens that expired before `now`; how many.
    ///
    /// *Errors*: the database.
    pub async fn forget_expired(&self, now: Millis) -> Result<u64, StoreError> {
        let done = query("DELETE FROM join_tokens WHERE expires_ms <= $1 AND taken_ms = 0")
            .bind(row::int(now.0))
            .execute(&self.store.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

fn read(hash: Digest, from: &sqlx::any::AnyRow) -> Result<JoinToken, StoreError> {
    let taken = millis(from, "taken_ms")?;
    let by: String = from.try_get("taken_by")?;
    let taken_by = match by.as_str() {
        "" => None,
        text => {
            let bytes = hex::decode(text).ok().and_then(|b| b.try_into().ok());
            Some(bytes.ok_or(StoreError::Corrupt { column: "taken_by" })?)
        }
    };
    Ok(JoinToken {
        hash,
        enrolment: from.try_get("enrolment")?,
        created_by: from.try_get("created_by")?,
        created: millis(from, "created_ms")?,
        expires: millis(from, "expires_ms")?,
        taken: (taken.0 != 0).then_some(taken),
        taken_by,
    })
}
