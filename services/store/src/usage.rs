//! Usage per attempt: history and receipts. Rows come in through the outbox only.

use farlane_ledger::{OutboxId, Outcome, Receipt, Usage};
use farlane_model::{ProjectId, TaskId};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use crate::row::{int, millis, number, parsed, small};
use crate::{MAX_PAGE, Store, StoreError};

/// One attempt of a project's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Where its row came from; give it back to read on.
    pub id: OutboxId,
    /// What was used.
    pub usage: Usage,
}

/// The usage rows of a store.
#[derive(Debug, Clone, Copy)]
pub struct UsageRows<'a> {
    pub(crate) store: &'a Store,
}

impl UsageRows<'_> {
    /// Attempts of `project` that ended, newest first, before `before` where given; at most
    /// `limit`, held to [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn history(
        &self,
        project: ProjectId,
        before: Option<OutboxId>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let top = OutboxId {
            epoch: u64::MAX,
            index: u64::MAX,
            ordinal: u32::MAX,
            row: u32::MAX,
        };
        let before = before.unwrap_or(top);
        let found = query(
            "SELECT epoch, idx, ordinal, row_no, project, task, attempt, node, region, function, \
             started_ms, ended_ms, milli_cpus, peak_memory, cpu_ms, price_usd_micros, outcome, emitted_ng, \
             moved_there, moved_back, egress_usd_femtos \
             FROM usage WHERE project = $1 AND (epoch, idx, ordinal, row_no) < ($2, $3, $4, $5) \
             ORDER BY epoch DESC, idx DESC, ordinal DESC, row_no DESC LIMIT $6",
        )
        .bind(project.to_string())
        .bind(int(before.epoch))
        .bind(int(before.index))
        .bind(i64::from(before.ordinal))
        .bind(i64::from(before.row))
        .bind(i64::from(limit.min(MAX_PAGE)))
        .fetch_all(&self.store.pool)
        .await?;
        found.iter().map(read).collect()
    }

    /// The receipt of one call; without lines where no attempt of it has ended.
    ///
    /// *Errors*: the database.
    pub async fn receipt(&self, project: ProjectId, task: TaskId) -> Result<Receipt, StoreError> {
        let found = query(
            "SELECT epoch, idx, ordinal, row_no, project, task, attempt, node, region, function, \
             started_ms, ended_ms, milli_cpus, peak_memory, cpu_ms, price_usd_micros, outcome, emitted_ng, \
             moved_there, moved_back, egress_usd_femtos \
             FROM usage WHERE task = $1 AND project = $2 ORDER BY attempt LIMIT $3",
        )
        .bind(task.to_string())
        .bind(project.to_string())
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        let usage: Result<Vec<_>, _> = found.iter().map(|r| read(r).map(|e| e.usage)).collect();
        Ok(Receipt::of(task, &usage?))
    }
}

/// Below zero where nobody knew.
fn emitted(from: &AnyRow) -> Result<Option<NanoGramsCo2>, StoreError> {
    let nanograms: i64 = from.try_get("emitted_ng")?;
    Ok(u64::try_from(nanograms).ok().map(NanoGramsCo2))
}

fn read(from: &AnyRow) -> Result<HistoryEntry, StoreError> {
    let word: String = from.try_get("outcome")?;
    Ok(HistoryEntry {
        id: OutboxId {
            epoch: number(from, "epoch")?,
            index: number(from, "idx")?,
            ordinal: small(from, "ordinal")?,
            row: small(from, "row_no")?,
        },
        usage: Usage {
            project: parsed(from, "project")?,
            task: parsed(from, "task")?,
            attempt: small(from, "attempt")?,
            node: parsed(from, "node")?,
            region: from.try_get("region")?,
            function: from.try_get("function")?,
            started: millis(from, "started_ms")?,
            ended: millis(from, "ended_ms")?,
            cpus: MilliCpu(small(from, "milli_cpus")?),
            peak_memory: ByteCount(number(from, "peak_memory")?),
            cpu_time: Millis(number(from, "cpu_ms")?),
            price: UsdMicros(from.try_get("price_usd_micros")?),
            outcome: Outcome::from_word(&word).ok_or(StoreError::Corrupt { column: "outcome" })?,
            emitted: emitted(from)?,
            moved_there: ByteCount(number(from, "moved_there")?),
            moved_back: ByteCount(number(from, "moved_back")?),
            egress: UsdFemtos(number(from, "egress_usd_femtos")?),
        },
    })
}
