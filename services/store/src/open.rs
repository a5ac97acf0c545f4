//! Opening a database and bringing its schema up to date.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{AnyPool, ConnectOptions, Connection, Executor};

use crate::{
    Audit, Carbon, Charges, JoinTokens, Keys, Nodes, Outbox, Pepper, PriceBooks, Projects, Specs,
    StoreError, UsageRows,
};

/// Connections to PostgreSQL from one server. Chosen: enough for API calls beside the outbox, and
/// far below PostgreSQL's default of 100 for five servers.
const POSTGRES_CONNECTIONS: u32 = 8;
/// SQLite has one writer at a time anyway; one connection never finds its file busy.
const SQLITE_CONNECTIONS: u32 = 1;
/// Longest wait for a connection. Chosen: a person at a prompt gives up about then.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which database it is, where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// An open ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: AnyPool,
    pub(crate) pepper: Pepper,
}

impl Store {
    /// Opens `url` (`sqlite:///path`, `sqlite::memory:`, `postgres://…`), makes the database's file
    /// where there is none (mode 0600) and brings the schema up to date.
    ///
    /// *Errors*: not such an address; the file or server cannot be reached; the schema is another
    /// build's; the keys in it were hashed under another pepper.
    pub async fn open(url: &str, pepper: Pepper) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let kind = kind_of(url)?;
        let url = match kind {
            Kind::Sqlite => prepare_file(url)?,
            Kind::Postgres => url.to_owned(),
        };
        let connections = match kind {
            Kind::Sqlite => SQLITE_CONNECTIONS,
            Kind::Postgres => POSTGRES_CONNECTIONS,
        };
        let options = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // An idle SQLite connection that closes would forget an in-memory database.
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if kind == Kind::Sqlite {
                        // FULL: the outbox is acknowledged once its rows are committed, so a commit
                        // must survive the power. Small cache: 1 MiB.
                        connection
                            .execute(
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                                 PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; \
                                 PRAGMA cache_size = -1024;",
                            )
                            .await?;
                    }
                    Ok(())
                })
            });
        // Statements are our own, and thousands a second: their log tells nobody anything.
        let connection = AnyConnectOptions::from_str(&url)?.disable_statement_logging();
        let open = async {
            if kind == Kind::Sqlite {
                // The pool would try a file that is no database again until its patience ends.
                let mut first = connection.connect().await?;
                first.execute("SELECT count(*) FROM sqlite_master").await?;
                first.close().await?;
            }
            let pool = options.connect_with(connection).await?;
            sqlx::migrate!("../../migrations/sql").run(&pool).await?;
            Ok::<_, StoreError>(pool)
        };
        let pool = open.await.map_err(|error| named(&url, error))?;
        let store = Self { pool, pepper };
        store.check_pepper().await?;
        Ok(store)
    }

    /// Tenants' projects.
    pub fn projects(&self) -> Projects<'_> {
        Projects { store: self }
    }
    /// API keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys { store: self }
    }
    /// One-time tokens with which nodes join.
    pub fn join_tokens(&self) -> JoinTokens<'_> {
        JoinTokens { store: self }
    }
    /// Nodes that have ever joined.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes { store: self }
    }
    /// What providers ask, and since when.
    pub fn prices(&self) -> PriceBooks<'_> {
        PriceBooks { store: self }
    }
    /// The carbon of regions by hour.
    pub fn carbon(&self) -> Carbon<'_> {
        Carbon { store: self }
    }
    /// Usage per attempt, history, receipts.
    pub fn usage(&self) -> UsageRows<'_> {
        UsageRows { store: self }
    }
    /// What calls asked.
    pub fn specs(&self) -> Specs<'_> {
        Specs { store: self }
    }
    /// Usage folded by the minute.
    pub fn charges(&self) -> Charges<'_> {
        Charges { store: self }
    }
    /// What the cluster's outbox brings, exactly once.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox { store: self }
    }
    /// Who did what.
    pub fn audit(&self) -> Audit<'_> {
        Audit { store: self }
    }

    /// Waits for running statements and closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Tells a file that is no database any more, and another build's schema, from other failures. Source:
/// sqlite.org/rescode.html, SQLITE_CORRUPT (11) and SQLITE_NOTADB (26); an extended code has the plain
/// one in its low byte.
fn named(url: &str, error: StoreError) -> StoreError {
    let file = url.strip_prefix("sqlite://");
    if let StoreError::Migrate(
        why @ (MigrateError::VersionMissing(_)
        | MigrateError::VersionMismatch(_)
        | MigrateError::VersionTooOld(..)
        | MigrateError::VersionTooNew(..)),
    ) = &error
    {
        return StoreError::OtherBuild {
            // An address of PostgreSQL may hold a password.
            place: file.unwrap_or("the PostgreSQL database").to_owned(),
            why: why.to_string(),
        };
    }
    let (StoreError::Database(inner) | StoreError::Migrate(MigrateError::Execute(inner))) = &error
    else {
        return error;
    };
    let sqlx::Error::Database(said) = inner else {
        return error;
    };
    let code = said.code().and_then(|code| code.parse::<u32>().ok());
    match (code.map(|c| c & 0xff), file) {
        (Some(11 | 26), Some(path)) => StoreError::Damaged {
            path: path.to_owned(),
            why: said.message().to_owned(),
        },
        _ => error,
    }
}

fn kind_of(url: &str) -> Result<Kind, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Kind::Sqlite),
        Some("postgres" | "postgresql") => Ok(Kind::Postgres),
        scheme => Err(StoreError::BadUrl {
            what: scheme.unwrap_or("an address without scheme").to_owned(),
        }),
    }
}

/// Makes the file of a SQLite address, closes it to others, and returns the address that opens it.
fn prepare_file(url: &str) -> Result<String, StoreError> {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = rest.split('?').next().unwrap_or(rest);
    if path == ":memory:" || path.is_empty() {
        return Ok("sqlite::memory:".to_owned());
    }
    let file = |source| StoreError::File {
        path: path.to_owned(),
        source,
    };
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file)?;
    opened
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(file)?;
    Ok(format!("sqlite://{path}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(dir: &tempfile::TempDir) -> String {
        format!("sqlite://{}", dir.path().join("accounts.db").display())
    }

    #[tokio::test]
    async fn another_builds_schema_is_named_with_its_place() {
        for change in [
            "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1",
            "UPDATE _sqlx_migrations SET version = 999 WHERE version = 2",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let pepper = Pepper::new([7; 32]);
            let store = Store::open(&address(&dir), pepper.clone()).await.unwrap();
            sqlx::query(change).execute(&store.pool).await.unwrap();
            store.close().await;
            let error = Store::open(&address(&dir), pepper).await.unwrap_err();
            assert!(matches!(error, StoreError::OtherBuild { .. }), "{error}");
            let place = dir.path().join("accounts.db").display().to_string();
            assert!(error.to_string().contains(&place), "{error}");
        }
    }

    #[tokio::test]
    async fn a_wrong_pepper_is_told_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let right = Pepper::new([7; 32]);
        let store = Store::open(&address(&dir), right.clone()).await.unwrap();
        assert!(store.is_alike("ca", &[1; 32]).await.unwrap());
        store.close().await;
        let wrong = Store::open(&address(&dir), Pepper::new([8; 32])).await;
        assert!(matches!(wrong.unwrap_err(), StoreError::OtherPepper));
        let store = Store::open(&address(&dir), right).await.unwrap();
        assert!(store.is_alike("ca", &[1; 32]).await.unwrap());
        assert!(!store.is_alike("ca", &[2; 32]).await.unwrap());
    }
}
