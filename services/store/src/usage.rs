//! Usage per attempt: history and receipts. Rows come in through the outbox only.

use farlane_ledger::{OutboxId, Outcome, Receipt, Usage};
use farlane_model::{Digest, ProjectId, TaskId};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use crate::row::{int, millis, number, parsed, small};
use crate::{MAX_PAGE, Store, StoreError};

/// A query over whole rows.
macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT epoch, idx, ordinal, row_no, project, task, attempt, node, region, function, started_ms, \
             ended_ms, milli_cpus, peak_memory, cpu_ms, price_usd_micros, outcome, emitted_ng, moved_there, moved_back, \
             egress_usd_femtos, submitted_ms, spec, gang_rank, ends FROM usage ",
            $rest
        )
    };
}

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
        let found = query(columns!(
            "WHERE project = $1 AND (epoch, idx, ordinal, row_no) < ($2, $3, $4, $5) \
             ORDER BY epoch DESC, idx DESC, ordinal DESC, row_no DESC LIMIT $6"
        ))
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
        let found = query(columns!(
            "WHERE task = $1 AND project = $2 ORDER BY attempt LIMIT $3"
        ))
        .bind(task.to_string())
        .bind(project.to_string())
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        let usage: Result<Vec<_>, _> = found.iter().map(|r| read(r).map(|e| e.usage)).collect();
        Ok(Receipt::of(task, &usage?))
    }

    /// Attempts of tasks that were submitted in a span of time, by submission, then task, then attempt, after the last
    /// one of the page before; at most [`MAX_PAGE`].
    ///
    /// *Errors*: the database.
    pub async fn submitted(
        &self,
        span: &Span,
        after: Option<&Usage>,
    ) -> Result<Vec<Usage>, StoreError> {
        let first = (span.from, String::new(), 0);
        let (at, task, attempt) =
            after.map_or(first, |u| (u.submitted, u.task.to_string(), u.attempt));
        let found = query(columns!(
            "WHERE submitted_ms >= $1 AND submitted_ms < $2 AND (submitted_ms, task, attempt) > ($1, $3, $4) \
             AND ($5 = '' OR project = $5) ORDER BY submitted_ms, task, attempt LIMIT $6"
        ))
        .bind(int(at.0))
        .bind(int(span.to.0))
        .bind(task)
        .bind(i64::from(attempt))
        .bind(span.project())
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        found.iter().map(|r| read(r).map(|e| e.usage)).collect()
    }

    /// How many tasks were submitted in a span of time and have ended since; counts no further than `most`.
    ///
    /// *Errors*: the database.
    pub async fn ended(&self, span: &Span, most: u64) -> Result<u64, StoreError> {
        let found = query(
            "SELECT COUNT(*) AS tasks FROM (SELECT 1 AS one FROM usage WHERE submitted_ms >= $1 \
             AND submitted_ms < $2 AND ($3 = '' OR project = $3) AND ends = 1 LIMIT $4) AS found",
        )
        .bind(int(span.from.0))
        .bind(int(span.to.0))
        .bind(span.project())
        .bind(int(most))
        .fetch_one(&self.store.pool)
        .await?;
        number(&found, "tasks")
    }
}

/// Tasks that were submitted in a span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Cluster time.
    pub from: Millis,
    /// Cluster time, not itself within.
    pub to: Millis,
    /// This project's alone; `None`: every project's.
    pub project: Option<ProjectId>,
}

impl Span {
    fn project(&self) -> String {
        self.project.map(|id| id.to_string()).unwrap_or_default()
    }
}

/// Below zero where nobody knew.
fn emitted(from: &AnyRow) -> Result<Option<NanoGramsCo2>, StoreError> {
    let nanograms: i64 = from.try_get("emitted_ng")?;
    Ok(u64::try_from(nanograms).ok().map(NanoGramsCo2))
}

fn spec(from: &AnyRow) -> Result<Digest, StoreError> {
    let bytes: Vec<u8> = from.try_get("spec")?;
    let digest = bytes.try_into().map(Digest);
    digest.map_err(|_| StoreError::Corrupt { column: "spec" })
}

/// Below zero where it is on its own.
fn rank(from: &AnyRow) -> Result<Option<u16>, StoreError> {
    let rank: i64 = from.try_get("gang_rank")?;
    let corrupt = StoreError::Corrupt {
        column: "gang_rank",
    };
    match rank < 0 {
        true => Ok(None),
        false => u16::try_from(rank).map(Some).map_err(|_| corrupt),
    }
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
            submitted: millis(from, "submitted_ms")?,
            spec: spec(from)?,
            rank: rank(from)?,
            last: number(from, "ends")? == 1,
        },
    })
}
