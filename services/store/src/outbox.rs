//! What the cluster's outbox brings, exactly once.
//!
//! Each sink has one high-water mark, in the same transaction as the rows up to it:
//!
//! ```text
//! outbox rows ─▶ lock the mark ─▶ drop what is not above it ─▶ rows + charges + mark ─▶ commit
//!                                 (a repeated delivery)                                  │
//!                                                            acknowledge in the log ◀────┘
//! ```
//!
//! A leader that dies between the commit and the acknowledgement leaves rows that its successor
//! delivers again, and which are then below the mark.

use std::sync::OnceLock;

use farlane_ledger::{Charge, OutboxId, Usage, fold};
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, query};

use crate::row::{int, number, small};
use crate::{Store, StoreError};

/// Columns of a usage row.
const COLUMNS: usize = 25;
/// Rows of one statement: 25 × 128 values stay far below SQLite's bound of 32,766
/// (sqlite.org/limits.html) and PostgreSQL's of 65,535.
const ROWS: usize = 128;
/// Rows of a smaller one, for what is left: a statement costs about as much as three rows.
const FEW: usize = 16;

/// What one delivery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    /// The mark now: everything up to here is stored. Acknowledge this.
    pub mark: OutboxId,
    /// Rows that were new.
    pub added: usize,
    /// Rows that had come before.
    pub repeated: usize,
}

/// The receiving end of the outbox.
#[derive(Debug, Clone, Copy)]
pub struct Outbox<'a> {
    pub(crate) store: &'a Store,
}

impl Outbox<'_> {
    /// The mark of `sink`: everything up to it is stored. All zero where nothing ever came.
    ///
    /// *Errors*: the database.
    pub async fn mark(&self, sink: &str) -> Result<OutboxId, StoreError> {
        let found = query("SELECT epoch, idx, ordinal, row_no FROM outbox_marks WHERE sink = $1")
            .bind(sink)
            .fetch_optional(&self.store.pool)
            .await?;
        found.as_ref().map_or(Ok(OutboxId::default()), read_mark)
    }

    /// Stores the usage rows above the mark of `sink`, folds them into charges and moves the mark,
    /// all or nothing.
    ///
    /// *Shape*: `rows` grow by identity; give at most a few thousand at once.
    /// *Errors*: the database; nothing has happened then, and the same call may be repeated.
    pub async fn ingest(
        &self,
        sink: &str,
        rows: &[(OutboxId, Usage)],
    ) -> Result<Ingested, StoreError> {
        let mut transaction = self.store.pool.begin().await?;
        query(
            "INSERT INTO outbox_marks (sink, epoch, idx, ordinal, row_no) VALUES ($1, 0, 0, 0, 0) \
             ON CONFLICT (sink) DO UPDATE SET epoch = outbox_marks.epoch",
        )
        .bind(sink)
        .execute(&mut *transaction)
        .await?;
        let locked = query("SELECT epoch, idx, ordinal, row_no FROM outbox_marks WHERE sink = $1")
            .bind(sink)
            .fetch_one(&mut *transaction)
            .await?;
        let before = read_mark(&locked)?;
        let mut fresh: Vec<&(OutboxId, Usage)> =
            rows.iter().filter(|(id, _)| *id > before).collect();
        fresh.sort_by_key(|(id, _)| *id);
        fresh.dedup_by_key(|(id, _)| *id);
        let Some((mark, _)) = fresh.last() else {
            return Ok(Ingested {
                mark: before,
                added: 0,
                repeated: rows.len(),
            });
        };
        let mark = *mark;
        insert_usage(&mut transaction, &fresh).await?;
        for charge in fold(fresh.iter().map(|(_, usage)| usage)) {
            add_charge(&mut transaction, &charge).await?;
        }
        query("UPDATE outbox_marks SET epoch = $1, idx = $2, ordinal = $3, row_no = $4 WHERE sink = $5")
            .bind(int(mark.epoch))
            .bind(int(mark.index))
            .bind(i64::from(mark.ordinal))
            .bind(i64::from(mark.row))
            .bind(sink)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Ingested {
            mark,
            added: fresh.len(),
            repeated: rows.len() - fresh.len(),
        })
    }
}

async fn insert_usage(
    connection: &mut AnyConnection,
    rows: &[&(OutboxId, Usage)],
) -> Result<(), StoreError> {
    static NUMBERED: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    static UNNAMED: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    // SQLite finds the name of a named place by walking all names: unnamed ones cost nothing, where
    // two thousand numbered ones were half of a server's work. PostgreSQL has numbered ones only.
    let unnamed = connection.backend_name() == "SQLite";
    let statements = if unnamed { &UNNAMED } else { &NUMBERED };
    let mut left = rows;
    for (size, statement) in [ROWS, FEW, 1].iter().zip(statements) {
        let sql: &'static str = statement.get_or_init(|| insert_sql(*size, unnamed));
        let chunks = left.chunks_exact(*size);
        left = chunks.remainder();
        for chunk in chunks {
            let filled = chunk.iter().fold(query(sql), |q, row| bind(q, row));
            filled.execute(&mut *connection).await?;
        }
    }
    Ok(())
}

fn insert_sql(rows: usize, unnamed: bool) -> String {
    let mut sql = String::from(
        "INSERT INTO usage (epoch, idx, ordinal, row_no, project, task, attempt, node, region, \
         function, started_ms, ended_ms, milli_cpus, peak_memory, cpu_ms, price_usd_micros, outcome, emitted_ng, \
         moved_there, moved_back, egress_usd_femtos, \
         submitted_ms, spec, gang_rank, ends) VALUES ",
    );
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=COLUMNS {
            let comma = if column == 1 { "" } else { ", " };
            match unnamed {
                true => sql.push_str(&format!("{comma}?")),
                false => sql.push_str(&format!("{comma}${}", row * COLUMNS + column)),
            }
        }
        sql.push(')');
    }
    sql
}

fn bind<'q>(
    query: Query<'q, Any, AnyArguments>,
    (id, usage): &'q (OutboxId, Usage),
) -> Query<'q, Any, AnyArguments> {
    query
        .bind(int(id.epoch))
        .bind(int(id.index))
        .bind(i64::from(id.ordinal))
        .bind(i64::from(id.row))
        .bind(usage.project.to_string())
        .bind(usage.task.to_string())
        .bind(i64::from(usage.attempt))
        .bind(usage.node.to_string())
        .bind(usage.region.clone())
        .bind(usage.function.clone())
        .bind(int(usage.started.0))
        .bind(int(usage.ended.0))
        .bind(i64::from(usage.cpus.0))
        .bind(int(usage.peak_memory.0))
        .bind(int(usage.cpu_time.0))
        .bind(usage.price.0)
        .bind(usage.outcome.as_str())
        .bind(usage.emitted.map_or(-1, |nanograms| int(nanograms.0)))
        .bind(int(usage.moved_there.0))
        .bind(int(usage.moved_back.0))
        .bind(int(usage.egress.0))
        .bind(int(usage.submitted.0))
        .bind(usage.spec.0.to_vec())
        .bind(usage.rank.map_or(-1, i64::from))
        .bind(i64::from(usage.last))
}

/// The sum of a charge's column and what is added, held at the bound of a BIGINT: beyond it PostgreSQL refuses the whole
/// delivery, for ever, and SQLite makes a float of it.
macro_rules! sum {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN charges.",
            $column,
            " > 9223372036854775807 - excluded.",
            $column,
            " THEN 9223372036854775807 ELSE charges.",
            $column,
            " + excluded.",
            $column,
            " END"
        )
    };
}

async fn add_charge(connection: &mut AnyConnection, charge: &Charge) -> Result<(), StoreError> {
    query(concat!(
        "INSERT INTO charges (project, node, price_usd_micros, minute, attempts, core_time, egress_usd_femtos) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project, minute, node, price_usd_micros) DO UPDATE SET ",
        sum!("attempts"),
        ", ",
        sum!("core_time"),
        ", ",
        sum!("egress_usd_femtos"),
    ))
    .bind(charge.key.project.to_string())
    .bind(charge.key.node.to_string())
    .bind(charge.key.price.0)
    .bind(int(charge.key.minute))
    .bind(int(charge.attempts))
    .bind(int(charge.core_time.0))
    .bind(int(charge.egress.0))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn read_mark(from: &sqlx::any::AnyRow) -> Result<OutboxId, StoreError> {
    Ok(OutboxId {
        epoch: number(from, "epoch")?,
        index: number(from, "idx")?,
        ordinal: small(from, "ordinal")?,
        row: small(from, "row_no")?,
    })
}
