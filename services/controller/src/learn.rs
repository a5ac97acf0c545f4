//! What is learned of attempts that ended, and of what is submitted.
//!
//! Owns what estimates, sizes and warmth are told, and the candidate in shadow before them. Leaves what they make of it
//! to `farlane-plan`.

use farlane_model::{BlobRef, Digest, ExitKind, NodeId, TaskId, WorkKind};
use farlane_plan::{Case, Shape, Sizes};
use farlane_state::{Completion, LiveTask, Order, Rows, Submitted, Table, TaskEnvelopeRow, keys};
use farlane_units::{ByteCount, Micros, Millis};

use crate::view::ViewCache;

/// Run times and results of one node's batch: those of a spec in a row count once, by their mean. The candidate in
/// shadow is told the first of each row, with its size.
pub(crate) struct Learned<'a, R> {
    node: NodeId,
    cache: &'a mut ViewCache,
    rows: &'a R,
    now: Millis,
    row: Option<Row>,
}

struct Row {
    spec: Digest,
    shape: Shape,
    first: (TaskId, Micros),
    sum: u64,
    bytes: u64,
    runs: u64,
}

fn micros(time: Millis) -> Micros {
    Micros(time.0.saturating_mul(1000))
}

impl<'a, R: Rows> Learned<'a, R> {
    /// On this node, by now.
    pub fn of(node: NodeId, cache: &'a mut ViewCache, rows: &'a R, now: Millis) -> Self {
        Self {
            node,
            cache,
            rows,
            now,
            row: None,
        }
    }

    /// One more; another spec ends the row.
    pub fn ended(&mut self, task: &LiveTask<'_>, item: &Completion) {
        // As it is billed: no attempt began before its lease, or ends later than now.
        let from = task.placed.map_or(self.now, |p| p.lease.at).min(self.now);
        let started = item.started.clamp(from, self.now);
        let ran = micros(item.ended.clamp(started, self.now).saturating_sub(started));
        let bytes = item.sealed.as_ref().map_or(0, |sealed| sealed.size().0);
        let digest = task.spec.digest;
        if let Some(row) = self.row.as_mut().filter(|row| row.spec == digest) {
            row.sum = row.sum.saturating_add(ran.0);
            row.bytes = row.bytes.saturating_add(bytes);
            row.runs += 1;
            return;
        }
        self.end();
        if matches!(item.exit.kind, ExitKind::Returned | ExitKind::Raised)
            && let Some(placed) = task.placed
        {
            let waited = micros(started.saturating_sub(placed.lease.at));
            self.cache.warmth.ran(&task.spec.task, self.node, waited);
        }
        self.row = Some(Row {
            spec: digest,
            shape: Shape::of(&task.spec.task),
            first: (task.id, ran),
            sum: ran.0,
            bytes,
            runs: 1,
        });
    }

    /// The row's mean counts once.
    pub fn end(&mut self) {
        let Some(row) = self.row.take() else { return };
        let Some((class, rates)) = self.cache.fleet.hardware(&self.node) else {
            return;
        };
        let (task, ran) = row.first;
        if let Some(payload) = payload(self.rows, task) {
            let case = Case {
                spec: row.spec,
                shape: row.shape,
                class,
                rates,
                payload,
            };
            let estimates = &mut self.cache.estimates;
            self.cache.shadow.see(estimates, &case, ran);
        }
        let mean = Micros(row.sum / row.runs);
        let estimates = &mut self.cache.estimates;
        estimates.learn(row.spec, row.shape, class, &rates, mean);
        let core = rates.rate(WorkKind::Fp32);
        self.cache.pace.learn(row.spec, self.node, core, mean);
        let mean = ByteCount(row.bytes / row.runs);
        self.cache.sizes.learn_result(row.spec, mean);
    }
}

/// What new tasks bring along: those of a spec in a row count once, by their mean.
pub(crate) fn learn_arguments(orders: &[Order], sizes: &mut Sizes) {
    for order in orders {
        let Order::SubmitBatch(batch) = order else {
            continue;
        };
        for run in batch.tasks.chunk_by(|a, b| a.spec == b.spec) {
            let of = |task: &Submitted| {
                let sizes = task.refs.iter().map(|blob| blob.size.0);
                sizes.fold(task.payload.size().0, u64::saturating_add)
            };
            let sum = run.iter().map(of).fold(0, u64::saturating_add);
            let mean = ByteCount(sum / run.len() as u64);
            sizes.learn_arguments(run[0].spec, mean);
            let all = |blob: &&BlobRef| run.iter().all(|task| task.refs.contains(blob));
            sizes.learn_shared(run[0].spec, run[0].refs.iter().filter(all).copied());
        }
    }
}

/// Sealed bytes of a live task's arguments, with the blobs that they name.
fn payload(rows: &impl Rows, task: TaskId) -> Option<ByteCount> {
    let row = rows.get(Table::Tasks, &keys::task(task))?;
    let row = TaskEnvelopeRow::from_bytes(row)?;
    let sealed = row.payload.size().0;
    let blobs = row
        .refs
        .iter()
        .fold(0, |sum: u64, blob| sum.saturating_add(blob.size.0));
    Some(ByteCount(sealed.saturating_add(blobs)))
}
