//! What several orders do to a task: release its lease, queue it again, finish it, bill it.

use bytes::Bytes;
use farlane_model::{AttemptRef, Exit, ExitKind, LostCause, Sealed};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};

use crate::apply::Ctx;
use crate::capacity::Need;
use crate::gang::Member;
use crate::order::Moved;
use crate::row::{Cursor, FinishedTask, OutboxEvent, ResultRow, Usage, keys};
use crate::rows::Table;
use crate::task::{Lease, Task, known};
use crate::{Change, Spec};

/// How a task ends.
pub(crate) struct Ending {
    pub exit: Exit,
    pub sealed: Option<Sealed>,
    pub signed: Option<u32>,
    pub leaf: u32,
    pub started: Millis,
    pub ended: Millis,
    /// Between regions, for the last attempt, and what that cost.
    pub moved: Moved,
    pub egress: UsdFemtos,
}

impl Ending {
    /// What the control plane decided itself.
    pub fn decided(exit: Exit, now: Millis) -> Self {
        Self {
            exit,
            sealed: None,
            signed: None,
            leaf: 0,
            started: Millis::ZERO,
            ended: now,
            moved: Moved::NONE,
            egress: UsdFemtos::ZERO,
        }
    }
}

/// What an attempt used, as reported.
#[derive(Default)]
pub(crate) struct Used {
    pub started: Millis,
    pub ended: Millis,
    pub cpu: Millis,
    pub peak_memory: ByteCount,
    pub moved: Moved,
}

/// Run time × cores × price, and what its bytes cost, together rounded up to a millionth of a dollar.
///
/// *Units*: price is for one core and hour, of 3,600,000 ms × 1000 thousandths of a core. Five of these, and eighteen
/// times the 10^9 quadrillionths of a millionth, are the same number: both are added before they are rounded.
pub(crate) fn cost(run: Millis, cpus: MilliCpu, price: UsdMicros, egress: UsdFemtos) -> UsdMicros {
    const BOTH: u128 = 5 * 3_600_000 * 1000;
    let price = u128::try_from(price.0).unwrap_or(0);
    let core_time = u128::from(run.0) * u128::from(cpus.0);
    let exact = core_time.saturating_mul(price).saturating_mul(5);
    let micros = exact
        .saturating_add(u128::from(egress.0) * 18)
        .div_ceil(BOTH);
    UsdMicros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Ctx<'_> {
    /// The fencing token of a task's last attempt.
    pub fn attempt_ref(&self, handle: u32) -> AttemptRef {
        let task = &self.state.tasks[handle];
        AttemptRef {
            task: self.state.sessions[task.session].task_id(task.seq),
            attempt: task.attempt,
            epoch: self.state.epoch(),
        }
    }

    /// Tells the node to end the current attempt, if there is one.
    pub fn stop(&mut self, handle: u32) {
        let Some(lease) = self.state.tasks[handle].lease.as_deref() else {
            return;
        };
        let attempt = self.attempt_ref(handle);
        if let Some(node) = self.state.node_by_number(lease.node) {
            self.changes.push(Change::StopWanted {
                node: node.id,
                attempt,
            });
        }
    }

    /// Bills the current attempt, and says what of that its bytes between regions cost. Times are held between the
    /// lease and now.
    pub fn bill(&mut self, handle: u32, used: &Used, exit: ExitKind, last: bool) -> UsdFemtos {
        let id = self.attempt_ref(handle);
        let task = &self.state.tasks[handle];
        let Some(lease) = task.lease.as_deref() else {
            return UsdFemtos::ZERO;
        };
        let Some(node) = self.state.node_by_number(lease.node) else {
            return UsdFemtos::ZERO;
        };
        let Spec {
            digest, task: spec, ..
        } = &self.state.specs.slab[task.spec];
        let member = spec.gang.and_then(|_| self.state.member(task));
        let (from, now) = (lease.at, self.stamp.now);
        let started = used.started.clamp(from, now);
        let ended = used.ended.clamp(started, now);
        let price = node.price_at(ended);
        let run = ended.saturating_sub(started);
        let egress = match used.moved {
            Moved::NONE => UsdFemtos::ZERO,
            moved => node.egress_at(ended).of(moved),
        };
        let cost = cost(run, spec.resources.cpus, price, egress);
        let emitted = match (run, exit) {
            // Nothing was reported of it. What ran for less than a millisecond where nobody knows the grid is
            // unknown, as all else there.
            (Millis::ZERO, ExitKind::Lost(_)) => NanoGramsCo2::ZERO,
            (run, _) => lease.quoted.emitted(run),
        };
        let usage = Usage {
            task: id.task,
            attempt: id.attempt,
            project: spec.project,
            node: node.id,
            region: node.region.to_string(),
            function: spec.function.clone(),
            spec: *digest,
            rank: member.map(|m| m.rank),
            submitted: task.submitted,
            started,
            ended,
            cpus: spec.resources.cpus,
            price_usd_micros_core_hour: price,
            cost,
            emitted: known(emitted),
            exit,
            last,
            cpu_time: used.cpu,
            peak_memory: used.peak_memory,
            moved: used.moved,
            egress,
        };
        let (project, spent) = (spec.project, task.spent.saturating_add(cost));
        let emitted = task.emitted.saturating_add(emitted);
        self.event(&OutboxEvent::Attempt(usage));
        let task = &mut self.state.tasks[handle];
        (task.spent, task.emitted) = (spent, emitted);
        self.charge(project, cost);
        egress
    }

    /// Bills nothing: the attempt ended without a report.
    pub fn bill_unreported(&mut self, handle: u32, exit: ExitKind, last: bool) {
        let now = self.stamp.now;
        let used = Used {
            started: now,
            ended: now,
            ..Used::default()
        };
        self.bill(handle, &used, exit, last);
    }

    /// Takes the lease off its node and lets the node's backlog move up.
    pub fn release(&mut self, handle: u32) -> Option<Lease> {
        let task = self.state.tasks.get_mut(handle)?;
        let lease = *task.lease.take()?;
        let spec = self.state.specs.slab[task.spec].task.clone();
        let tenant = self.state.sessions[task.session].tenant;
        if lease.yields > Millis::ZERO {
            let id = self.attempt_ref(handle).task;
            self.state.yielding.remove(&(lease.yields, id));
        }
        self.state.placed -= 1;
        let spec_row = &self.state.specs.slab[self.state.tasks[handle].spec];
        self.state.companies.remove(spec_row, lease.node);
        let project = self.state.sessions[self.state.tasks[handle].session].project;
        if let Some(load) = self.state.projects.get_mut(&project) {
            load.held.sub(&spec.resources, lease.ucu);
        }
        if let Some(node) = self.state.node_mut(lease.node) {
            let need = Need {
                task: &spec,
                tenant,
            };
            node.release(lease.number, &need);
        }
        self.promote(lease.node);
        Some(lease)
    }

    /// Moves leases from backlog to running, in order of placement, up to the first that does not fit.
    pub fn promote(&mut self, number: u32) {
        loop {
            let Some(node) = self.state.node_by_number(number) else {
                return;
            };
            let Some(&first) = node.backlog.first() else {
                return;
            };
            let Some(held) = node.leased.get(&first).copied() else {
                return;
            };
            let id = node.id;
            let task = &self.state.tasks[held.task];
            let spec = self.state.specs.slab[task.spec].task.clone();
            let need = Need {
                task: &spec,
                tenant: self.state.sessions[task.session].tenant,
            };
            let promoted = self
                .state
                .node_mut(number)
                .and_then(|n| n.promote(first, &need));
            let Some(devices) = promoted else { return };
            if let Some(lease) = self.state.tasks[held.task].lease.as_deref_mut() {
                lease.backlog = false;
                lease.devices = devices;
            }
            self.put_attempt(held.task);
            // The node knows the attempt, and waits to hear which GPUs are its.
            if devices != 0 {
                let attempt = self.attempt_ref(held.task);
                self.changes.push(Change::Assigned { node: id, attempt });
            }
        }
    }

    /// Writes what changes of a task.
    pub fn put_attempt(&mut self, handle: u32) {
        let task = &self.state.tasks[handle];
        let id = self.state.sessions[task.session].task_id(task.seq);
        self.writes.put(Table::Attempts, &keys::task(id), |out| {
            task.row().write(out)
        });
    }

    /// Ends the attempt without ending the task; the rest of its gang comes back with it.
    pub fn requeue(&mut self, handle: u32) {
        self.requeue_one(handle);
        self.recall_gang(handle);
    }

    pub(crate) fn requeue_one(&mut self, handle: u32) {
        self.release(handle);
        let task = &self.state.tasks[handle];
        let (key, seq) = (self.state.queue_key(task), task.seq);
        self.state.queues.push(key, seq);
        self.put_attempt(handle);
        let task = self.attempt_ref(handle).task;
        self.changes.push(Change::Queued { task });
    }

    /// The attempt is lost: again while the budget lasts, else the task ends with it.
    pub fn lose(&mut self, handle: u32, cause: LostCause) {
        let exit = ExitKind::Lost(cause);
        let again = self.spend_lost(handle);
        self.bill_unreported(handle, exit, !again);
        match again {
            true => self.requeue(handle),
            false => self.finish_task(handle, Ending::decided(Exit::plain(exit), self.stamp.now)),
        }
    }

    /// Takes a retry after a loss, of the whole gang; false when none is left.
    pub fn spend_lost(&mut self, handle: u32) -> bool {
        let task = &self.state.tasks[handle];
        let retry = self.state.specs.slab[task.spec].task.retry;
        let again = !retry.at_most_once && task.lost < retry.lost;
        self.spend(handle, |task| task.lost += u16::from(again));
        again
    }

    /// Takes a retry after an exception, of the whole gang; false when none is left.
    pub fn spend_raised(&mut self, handle: u32) -> bool {
        let task = &self.state.tasks[handle];
        let retry = self.state.specs.slab[task.spec].task.retry;
        let again = !retry.at_most_once && task.raised < retry.raised;
        self.spend(handle, |task| task.raised += u16::from(again));
        again
    }

    fn spend(&mut self, handle: u32, take: impl Fn(&mut Task)) {
        take(&mut self.state.tasks[handle]);
        for other in self.state.kin(handle) {
            take(&mut self.state.tasks[other]);
        }
    }

    /// The task leaves the state; its row holds all that will be asked of it.
    pub fn finish_task(&mut self, handle: u32, ending: Ending) {
        let attempt = self.attempt_ref(handle);
        if let Some(at) = self.state.ends_at(&self.state.tasks[handle]) {
            self.state.deadlines.remove(&(at, attempt.task));
        }
        let lease = self.release(handle);
        if lease.is_none() {
            let task = &self.state.tasks[handle];
            let (key, seq) = (self.state.queue_key(task), task.seq);
            self.state.queues.remove(key, seq);
        }
        let gang = self.state.member(&self.state.tasks[handle]);
        let Some(task) = self.state.tasks.remove(handle) else {
            return;
        };
        let exit = ending.exit.clone();
        self.put_finished(attempt, &task, gang, lease, ending);
        let session = &mut self.state.sessions[task.session];
        session.drop_task(task.seq);
        session.kept += 1;
        let load = self.state.projects.entry(session.project).or_default();
        load.live = load.live.saturating_sub(1);
        load.kept += 1;
        self.mark(task.session);
        self.changes.push(Change::Finished {
            session: attempt.task.session(),
            task: attempt.task,
        });
        self.member_left(&task, &exit);
    }

    /// The rows of a live task go, those of a finished one come.
    fn put_finished(
        &mut self,
        id: AttemptRef,
        task: &Task,
        gang: Option<Member>,
        lease: Option<Lease>,
        ending: Ending,
    ) {
        let at = Cursor {
            index: self.stamp.index,
            ordinal: self.state.entry.finished,
        };
        self.state.entry.finished += 1;
        let spec = &self.state.specs.slab[task.spec];
        let node = lease
            .as_ref()
            .and_then(|l| self.state.node_by_number(l.node));
        let result = ResultRow {
            seq: task.seq,
            finished: self.stamp.now,
            ttl: spec.task.timing.result_ttl,
            batch: ending.signed,
        };
        let row = FinishedTask {
            task: id.task,
            attempt: id.attempt,
            epoch: id.epoch,
            exit: ending.exit,
            sealed: ending.sealed,
            at,
            batch: ending.signed,
            leaf: ending.leaf,
            spec: spec.digest,
            wrapped_key: Bytes::copy_from_slice(&task.wrapped_key),
            submitted: task.submitted,
            started: ending.started,
            ended: ending.ended,
            moved: ending.moved,
            egress: ending.egress,
            cost: task.spent,
            emitted: known(task.emitted),
            retries: u32::from(task.lost) + u32::from(task.raised) + u32::from(task.preempted),
            node: node.map(|n| n.id),
            node_name: node.map(|n| n.spec.name.clone()).unwrap_or_default(),
            region: node.map(|n| n.region.to_string()).unwrap_or_default(),
            forward_secret: lease.as_ref().is_some_and(|l| l.forward_secret),
            quote: lease.map(|l| l.quoted.bytes().clone()).unwrap_or_default(),
            gang: gang.map(|g| (g.rank, g.size)),
        };
        let key = keys::task(id.task);
        self.writes.delete(Table::Tasks, &key);
        if task.attempt > 0 {
            self.writes.delete(Table::Attempts, &key);
        }
        self.writes.put(Table::Finished, &key, |out| row.write(out));
        let place = keys::result(id.task.session(), at);
        self.writes
            .put(Table::Results, &place, |out| result.write(out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(run: Millis, cpus: MilliCpu, price: UsdMicros) -> UsdMicros {
        cost(run, cpus, price, UsdFemtos::ZERO)
    }

    #[test]
    fn cost_rounds_up_and_cannot_wrap() {
        let price = UsdMicros(36_000); // 3.6 cents a core hour is 10 micros a core second
        assert_eq!(held(Millis(1000), MilliCpu(1000), price), UsdMicros(10));
        assert_eq!(held(Millis(1), MilliCpu(1000), price), UsdMicros(1));
        assert_eq!(held(Millis(0), MilliCpu(1000), price), UsdMicros(0));
        assert_eq!(
            held(Millis(1000), MilliCpu(500), UsdMicros(-5)),
            UsdMicros(0)
        );
        assert_eq!(
            held(Millis::MAX, MilliCpu::MAX, UsdMicros::MAX),
            UsdMicros::MAX
        );
        // Bytes and time, each a quarter of a millionth, are one together.
        let bytes = UsdFemtos(250_000_000);
        let quarter = cost(Millis(1), MilliCpu(1000), UsdMicros(900_000), bytes);
        assert_eq!(quarter, UsdMicros(1));
        let most = cost(
            Millis::ZERO,
            MilliCpu::ZERO,
            UsdMicros::ZERO,
            UsdFemtos::MAX,
        );
        assert_eq!(most, UsdMicros(18_446_744_074));
    }
}
