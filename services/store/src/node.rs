//! Nodes that have ever joined.

use farlane_model::{Digest, NodeId};
use farlane_units::Millis;
use sqlx::{Row, query};

use crate::row::{self, millis, parsed};
use crate::{MAX_PAGE, Store, StoreError};

/// A node as it registers or changes.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its identity.
    pub node: NodeId,
    /// For people.
    pub name: String,
    /// From its enrolment certificate.
    pub region: String,
    /// Hash of its provider's root.
    pub provider: Digest,
    /// Canonical NodeSpec.
    pub spec: Vec<u8>,
}

/// A node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its identity.
    pub node: NodeId,
    /// For people.
    pub name: String,
    /// From its enrolment certificate.
    pub region: String,
    /// Hash of its provider's root.
    pub provider: Digest,
    /// Canonical NodeSpec, the newest.
    pub spec: Vec<u8>,
    /// When it joined.
    pub first_seen: Millis,
    /// When its row last changed.
    pub changed: Millis,
    /// Since when it is removed.
    pub removed: Option<Millis>,
}

/// The nodes of a store.
#[derive(Debug, Clone, Copy)]
pub struct Nodes<'a> {
    pub(crate) store: &'a Store,
}

impl Nodes<'_> {
    /// Notes a node, or what has changed about it. A removed one stays removed.
    ///
    /// *Errors*: the database.
    pub async fn upsert(&self, new: NewNode, now: Millis) -> Result<(), StoreError> {
        query(
            "INSERT INTO nodes (id, name, region, provider, spec, first_seen_ms, changed_ms, removed_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, 0) ON CONFLICT (id) DO UPDATE SET \
             name = excluded.name, region = excluded.region, provider = excluded.provider, \
             spec = excluded.spec, changed_ms = excluded.changed_ms",
        )
        .bind(new.node.to_string())
        .bind(new.name)
        .bind(new.region)
        .bind(new.provider.to_string())
        .bind(new.spec)
        .bind(row::int(now.0))
        .execute(&self.store.pool)
        .await?;
        Ok(())
    }

    /// Marks a node removed; `false` where there is none.
    ///
    /// *Errors*: the database.
    pub async fn remove(&self, node: NodeId, now: Millis) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE nodes SET removed_ms = $1, changed_ms = $1 WHERE id = $2 AND removed_ms = 0",
        )
        .bind(row::int(now.0.max(1)))
        .bind(node.to_string())
        .execute(&self.store.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Every node, by name; at most [`MAX_PAGE`] after `after` (an identity of an earlier page).
    ///
    /// *Errors*: the database.
    pub async fn list(&self, after: Option<NodeId>) -> Result<Vec<NodeRow>, StoreError> {
        let found = query(
            "SELECT id, name, region, provider, spec, first_seen_ms, changed_ms, removed_ms FROM nodes \
             WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after.map(|n| n.to_string()).unwrap_or_default())
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        found
            .iter()
            .map(|r| {
                let removed = millis(r, "removed_ms")?;
                Ok(NodeRow {
                    node: parsed(r, "id")?,
                    name: r.try_get("name")?,
                    region: r.try_get("region")?,
                    provider: parsed(r, "provider")?,
                    spec: r.try_get("spec")?,
                    first_seen: millis(r, "first_seen_ms")?,
                    changed: millis(r, "changed_ms")?,
                    removed: (removed.0 != 0).then_some(removed),
                })
            })
            .collect()
    }
}
