//! API keys: `flk_<id>_<64 hex digits>`, of which only a peppered hash is stored.

use farlane_model::{KeyId, ProjectId, TenantId};
use farlane_units::Millis;
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use crate::project::check_name;
use crate::row::{self, millis, parsed};
use crate::{MAX_PAGE, Pepper, Store, StoreError};

/// First letters of every key, so that a leaked one is found by searching.
const PREFIX: &str = "flk_";
/// Bytes of a secret: 256 bits. Source: choice; as many as the keys of seals have.
const SECRET_BYTES: usize = 32;

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit, grant and cancel tasks.
    Submit,
    /// Look at tasks, nodes and status.
    Read,
    /// Keys of the project.
    Admin,
    /// What concerns every project of the network: join tokens, removal of nodes.
    Network,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Admin, Self::Network];

    /// The word on the wire and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Network => "network",
        }
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every right.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }
    /// Whether `scope` is in it.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
    /// Whether everything in `other` is in it.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
    /// Its rights, in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |s| self.contains(*s))
    }
    /// Its words, in order.
    pub fn words(self) -> Vec<String> {
        self.iter().map(|s| s.as_str().to_owned()).collect()
    }
    /// Reads words; `Err` names the first that is no scope.
    pub fn from_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, &'w str> {
        words
            .into_iter()
            .map(|word| {
                Scope::ALL
                    .into_iter()
                    .find(|s| s.as_str() == word)
                    .ok_or(word)
            })
            .collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, s| bits | 1 << s as u8))
    }
}

/// A key's text, shown once.
pub struct Secret(String);

impl Secret {
    /// The text that its owner keeps.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What a new key should be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// For which project.
    pub project: ProjectId,
    /// For people; at most 64 bytes.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
    /// Until when.
    pub expires: Millis,
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its public part.
    pub id: KeyId,
    /// For which project.
    pub project: ProjectId,
    /// For people.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Millis,
    /// Until when.
    pub expires: Millis,
    /// Since when it counts no more.
    pub revoked: Option<Millis>,
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIdentity {
    /// By which key.
    pub key: KeyId,
    /// Of which project.
    pub project: ProjectId,
    /// Its name.
    pub project_name: String,
    /// Whose project it is; `None` until a device of a tenant has used it.
    pub tenant: Option<TenantId>,
    /// The key's name.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
    /// Until when.
    pub expires: Millis,
}

/// Why a key was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not a key, or not one of this network. The two are not told apart.
    #[error("this network does not know the API key")]
    Unknown,
    /// Its time is over.
    #[error(
        "the API key has expired; have another made (`farlane keys create`), then `farlane login FILE`"
    )]
    Expired,
    /// Somebody revoked it.
    #[error("the API key was revoked")]
    Revoked,
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The API keys of a store.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    pub(crate) store: &'a Store,
}

const COLUMNS: &str =
    "SELECT id, project, name, scopes, created_ms, expires_ms, revoked_ms FROM api_keys";

impl Keys<'_> {
    /// Makes a key. Its secret is not stored and cannot be shown again.
    ///
    /// *Errors*: a bad name; no such project; the database.
    pub async fn create(&self, new: NewKey, now: Millis) -> Result<(Key, Secret), StoreError> {
        check_name(&new.name)?;
        let id = KeyId::new(now.0, row::random()?);
        let secret = row::random::<SECRET_BYTES>()?;
        query(
            "INSERT INTO api_keys (id, project, name, hash, scopes, created_ms, expires_ms, revoked_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0)",
        )
        .bind(id.to_string())
        .bind(new.project.to_string())
        .bind(new.name.clone())
        .bind(hash(&self.store.pepper, id, &secret).as_bytes().to_vec())
        .bind(new.scopes.words().join(","))
        .bind(row::int(now.0))
        .bind(row::int(new.expires.0))
        .execute(&self.store.pool)
        .await?;
        let text = format!("{PREFIX}{id}_{}", hex::encode(secret));
        let NewKey {
            project,
            name,
            scopes,
            expires,
        } = new;
        Ok((
            Key {
                id,
                project,
                name,
                scopes,
                created: now,
                expires,
                revoked: None,
            },
            Secret(text),
        ))
    }

    /// Who `text` speaks for.
    ///
    /// *Errors*: unknown, expired, revoked, or the database.
    pub async fn authenticate(&self, text: &str, now: Millis) -> Result<KeyIdentity, AuthError> {
        let (id, secret) = split(text).ok_or(AuthError::Unknown)?;
        let found = query(
            "SELECT k.name AS key_name, k.hash, k.scopes, k.expires_ms, k.revoked_ms, k.project, \
             p.name AS project_name, p.tenant \
             FROM api_keys k JOIN projects p ON p.id = k.project WHERE k.id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.store.pool)
        .await
        .map_err(StoreError::from)?
        .ok_or(AuthError::Unknown)?;
        let stored: Vec<u8> = found.try_get("hash").map_err(StoreError::from)?;
        let stored = <[u8; 32]>::try_from(stored.as_slice())
            .map_err(|_| StoreError::Corrupt { column: "hash" })?;
        // Constant in time: blake3::Hash compares so.
        if hash(&self.store.pepper, id, &secret) != blake3::Hash::from_bytes(stored) {
            return Err(AuthError::Unknown);
        }
        if row::number(&found, "revoked_ms")? != 0 {
            return Err(AuthError::Revoked);
        }
        let expires = millis(&found, "expires_ms")?;
        if expires <= now {
            return Err(AuthError::Expired);
        }
        let tenant: String = found.try_get("tenant").map_err(StoreError::from)?;
        Ok(KeyIdentity {
            key: id,
            project: parsed(&found, "project")?,
            project_name: found.try_get("project_name").map_err(StoreError::from)?,
            tenant: if tenant.is_empty() {
                None
            } else {
                Some(parsed(&found, "tenant")?)
            },
            name: found.try_get("key_name").map_err(StoreError::from)?,
            scopes: scopes(&found)?,
            expires,
        })
    }

    /// Revokes a key of `project`; `false` where it has none of that id. Revoking twice is fine.
    ///
    /// *Errors*: the database.
    pub async fn revoke(
        &self,
        project: ProjectId,
        id: KeyId,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE api_keys SET revoked_ms = CASE WHEN revoked_ms = 0 THEN $1 ELSE revoked_ms END \
             WHERE id = $2 AND project = $3",
        )
        .bind(row::int(now.0.max(1)))
        .bind(id.to_string())
        .bind(project.to_string())
        .execute(&self.store.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Keys of `project`, newest first; at most [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn list(&self, project: ProjectId) -> Result<Vec<Key>, StoreError> {
        let sql =
            format!("{COLUMNS} WHERE project = $1 ORDER BY created_ms DESC, id DESC LIMIT $2");
        let found = query(sqlx::AssertSqlSafe(sql))
            .bind(project.to_string())
            .bind(i64::from(MAX_PAGE))
            .fetch_all(&self.store.pool)
            .await?;
        found.iter().map(read).collect()
    }

    /// Every revoked key that would not have expired yet: what a new cluster must refuse.
    ///
    /// *Errors*: the database.
    pub async fn revoked(&self, now: Millis) -> Result<Vec<KeyId>, StoreError> {
        let found =
            query("SELECT id FROM api_keys WHERE revoked_ms <> 0 AND expires_ms > $1 ORDER BY id")
                .bind(row::int(now.0))
                .fetch_all(&self.store.pool)
                .await?;
        found.iter().map(|r| parsed(r, "id")).collect()
    }
}

fn hash(pepper: &Pepper, id: KeyId, secret: &[u8; SECRET_BYTES]) -> blake3::Hash {
    pepper.hash(&[b"farlane api key v1", &id.to_bytes(), secret])
}

/// `flk_<id>_<secret>` in its parts.
fn split(text: &str) -> Option<(KeyId, [u8; SECRET_BYTES])> {
    let (id, secret) = text.trim().strip_prefix(PREFIX)?.split_once('_')?;
    let bytes = hex::decode(secret).ok()?;
    Some((id.parse().ok()?, bytes.try_into().ok()?))
}

fn scopes(from: &AnyRow) -> Result<Scopes, StoreError> {
    let words: String = from.try_get("scopes")?;
    Scopes::from_words(words.split(',').filter(|w| !w.is_empty()))
        .map_err(|_| StoreError::Corrupt { column: "scopes" })
}

fn read(from: &AnyRow) -> Result<Key, StoreError> {
    let revoked = millis(from, "revoked_ms")?;
    Ok(Key {
        id: parsed(from, "id")?,
        project: parsed(from, "project")?,
        name: from.try_get("name")?,
        scopes: scopes(from)?,
        created: millis(from, "created_ms")?,
        expires: millis(from, "expires_ms")?,
        revoked: (revoked.0 != 0).then_some(revoked),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sets_of_words() {
        let some = Scopes::from_words(["read", "submit"]);
        assert!(some.is_ok_and(|s| s.contains(Scope::Read) && !s.contains(Scope::Admin)));
        assert_eq!(
            some.map(Scopes::words),
            Ok(vec!["submit".to_owned(), "read".to_owned()])
        );
        assert_eq!(Scopes::from_words(["read", "fly"]), Err("fly"));
        assert!(Scopes::all().covers(Scopes::from_iter([Scope::Admin])));
        let project = Scopes::from_iter([Scope::Submit, Scope::Read, Scope::Admin]);
        assert!(!project.covers(Scopes::from_iter([Scope::Network])));
        assert!(!Scopes::from_iter([Scope::Read]).covers(Scopes::all()));
    }

    #[test]
    fn what_is_no_key_is_not_split() {
        let id = KeyId::new(1, [2; 10]);
        let good = format!("flk_{id}_{}", "ab".repeat(32));
        assert!(split(&good).is_some_and(|(i, s)| i == id && s == [0xab; 32]));
        for bad in [
            "",
            "flk_",
            "flk_x_y",
            &good[1..],
            &good[..good.len() - 2],
            &format!("{good}00"),
        ] {
            assert!(split(bad).is_none(), "{bad}");
        }
    }
}
