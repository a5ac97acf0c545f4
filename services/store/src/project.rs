//! Tenants' projects.

use farlane_model::{ProjectId, TenantId};
use farlane_units::Millis;
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use crate::row::{self, millis, parsed};
use crate::{MAX_PAGE, Store, StoreError};

/// Longest name of a project or key. Chosen: it must fit a table's column.
pub(crate) const MAX_NAME: usize = 64;

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its identity.
    pub id: ProjectId,
    /// Unique in the network.
    pub name: String,
    /// Whose it is; `None` until the first device of a tenant has used it.
    pub tenant: Option<TenantId>,
    /// When it was made.
    pub created: Millis,
}

/// The projects of a store.
#[derive(Debug, Clone, Copy)]
pub struct Projects<'a> {
    pub(crate) store: &'a Store,
}

impl Projects<'_> {
    /// The project of that name, made where there is none.
    ///
    /// *Errors*: a bad name; the database.
    pub async fn ensure(&self, name: &str, now: Millis) -> Result<Project, StoreError> {
        if let Some(made) = self.create(name, now).await? {
            return Ok(made);
        }
        let found = query("SELECT id, name, tenant, created_ms FROM projects WHERE name = $1")
            .bind(name)
            .fetch_one(&self.store.pool)
            .await?;
        read(&found)
    }

    /// A new project; `None` where there is one of that name.
    ///
    /// *Errors*: a bad name; the database.
    pub async fn create(&self, name: &str, now: Millis) -> Result<Option<Project>, StoreError> {
        check_name(name)?;
        let project = Project {
            id: ProjectId::new(now.0, row::random()?),
            name: name.to_owned(),
            tenant: None,
            created: now,
        };
        let made = query(
            "INSERT INTO projects (id, name, tenant, created_ms) VALUES ($1, $2, '', $3) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(project.id.to_string())
        .bind(name)
        .bind(row::int(now.0))
        .execute(&self.store.pool)
        .await?;
        Ok((made.rows_affected() > 0).then_some(project))
    }

    /// Makes `tenant` the owner, unless another one is already; returns the owner in force.
    ///
    /// *Errors*: no such project (as `sqlx::Error::RowNotFound`); the database.
    pub async fn bind_tenant(
        &self,
        id: ProjectId,
        tenant: TenantId,
    ) -> Result<TenantId, StoreError> {
        query("UPDATE projects SET tenant = $1 WHERE id = $2 AND tenant = ''")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(&self.store.pool)
            .await?;
        let found = query("SELECT tenant FROM projects WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&self.store.pool)
            .await?;
        parsed(&found, "tenant")
    }

    /// The project with this identity.
    ///
    /// *Errors*: the database.
    pub async fn get(&self, id: ProjectId) -> Result<Option<Project>, StoreError> {
        let found = query("SELECT id, name, tenant, created_ms FROM projects WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        found.as_ref().map(read).transpose()
    }

    /// Every project, by name; at most [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn list(&self) -> Result<Vec<Project>, StoreError> {
        let found =
            query("SELECT id, name, tenant, created_ms FROM projects ORDER BY name LIMIT $1")
                .bind(i64::from(MAX_PAGE))
                .fetch_all(&self.store.pool)
                .await?;
        found.iter().map(read).collect()
    }
}

fn read(from: &AnyRow) -> Result<Project, StoreError> {
    let tenant: String = from.try_get("tenant")?;
    Ok(Project {
        id: parsed(from, "id")?,
        name: from.try_get("name")?,
        tenant: if tenant.is_empty() {
            None
        } else {
            Some(parsed(from, "tenant")?)
        },
        created: millis(from, "created_ms")?,
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let why = if name.trim().is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 64 bytes"
    } else if name.chars().any(char::is_control) {
        "it holds control characters"
    } else {
        return Ok(());
    };
    Err(StoreError::BadName {
        name: name.chars().take(MAX_NAME).collect(),
        why,
    })
}
