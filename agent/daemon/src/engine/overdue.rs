//! What the tick looks at: tasks that run too long or hold too much, what waits behind them, and how much the
//! node should be given ahead.

use bytes::Bytes;
use farlane_model::{Exit, ExitKind, LostCause};
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body;

use super::Engine;
use super::dispatch::STUCK;
use super::worker::Worker;
use crate::clock::ClusterClock;

/// A worker that was told to die has this long, in milliseconds; then its sandbox goes.
const DEATH: u64 = 2_000;
/// Between two looks for tasks that ran out of memory, in milliseconds. Source: a look takes 5 µs a worker; a
/// person does not notice.
const MEMORY_LOOKS: u64 = 100;

impl Engine {
    /// Looks for what has run too long, and for what waits behind it.
    pub(super) fn overdue(&mut self) {
        let (now, steady) = (ClusterClock::steady_micros(), ClusterClock::steady());
        let (mut late, mut stuck, mut undead) = (Vec::new(), Vec::new(), Vec::new());
        for (number, worker) in &self.pools.workers {
            if let Some(doom) = &worker.doom {
                if steady.saturating_sub(doom.since) > DEATH {
                    undead.push(worker.pool);
                }
                continue;
            }
            let Some(token) = worker.queue.front().copied() else {
                continue;
            };
            let ran = now.saturating_sub(worker.began);
            let attempt = self.attempts.get(&token);
            let timeout = attempt.and_then(|a| a.spec.as_ref()?.spec.timing.timeout);
            let is_over = timeout.is_some_and(|timeout| ran > timeout.0.saturating_mul(1000));
            if is_over && !worker.link.waits() {
                late.push((*number, token));
            } else if ran > STUCK
                && worker.queue.len() > 1
                && worker.writer.is_none()
                && !self.is_yielding(token)
            {
                stuck.push(*number);
            }
        }
        undead.into_iter().for_each(|pool| self.end_template(pool));
        self.starved();
        for (number, token) in late {
            self.kill_for(number, token, Some(Exit::plain(ExitKind::TimedOut)));
        }
        for number in stuck {
            let Some(worker) = self.pools.workers.get_mut(&number) else {
                continue;
            };
            let (pool, back) = (worker.pool, worker.take_back());
            self.put_back(pool, back);
        }
    }

    /// Ends tasks of which a part was killed for memory: version 1 of control groups kills the largest process
    /// of a task, and the others would wait for it for ever.
    fn starved(&mut self) {
        let (now, steady) = (ClusterClock::steady_micros(), ClusterClock::steady());
        if steady.saturating_sub(self.looked_at) < MEMORY_LOOKS {
            return;
        }
        self.looked_at = steady;
        let starved = |worker: &Worker| {
            now.saturating_sub(worker.began) > STUCK
                && worker.doom.is_none()
                && worker.meter.ran_out_of_memory()
        };
        let running = self.pools.workers.iter().filter(|(_, w)| starved(w));
        let over: Vec<_> = running
            .filter_map(|(number, w)| Some((*number, *w.queue.front()?)))
            .collect();
        for (number, token) in over {
            let exit = Exit::plain(ExitKind::Lost(LostCause::OutOfMemory));
            self.kill_for(number, token, Some(exit));
        }
    }

    /// Tells which attempts have begun, once they have run for a while; only for people.
    pub(super) fn tell_started(&mut self) {
        let now = ClusterClock::steady_micros();
        let mut begun = Vec::new();
        for worker in self.pools.workers.values() {
            if now.saturating_sub(worker.began) < STUCK {
                continue;
            }
            let Some(attempt) = worker.queue.front().and_then(|t| self.attempts.get_mut(t)) else {
                continue;
            };
            if !std::mem::replace(&mut attempt.told_started, true) {
                begun.push(attempt.at.into());
            }
        }
        if !begun.is_empty() {
            self.tell(Body::Started(v1::Started { attempts: begun }));
        }
    }

    /// Backlog credit follows what the node works off within a round trip.
    pub(super) fn size_credit(&mut self) {
        /// Beyond the round trip: two syncs and a plan under load.
        const SLACK_MICROS: u64 = 5_000;
        const EVERY_MS: u64 = 1_000;
        if self.tasks_run < 8 || self.average_micros == 0 || self.out.is_none() {
            return;
        }
        let steady = ClusterClock::steady();
        let first = self.credit_told_at == 0;
        if !first && steady.saturating_sub(self.credit_told_at) < EVERY_MS {
            return;
        }
        let cores = u64::from(self.spec.cpus.0.div_ceil(1000));
        // A worker needs about 25 µs a task beyond the task itself. Source: SPEC.md, CPU per no-op.
        let each = self.average_micros + 25;
        let window = self.round_trip_micros + SLACK_MICROS;
        let wanted = (cores * window / each).clamp(2 * cores, 1024);
        let wanted = u32::try_from(wanted).unwrap_or(1024);
        let now = self.spec.backlog_credit;
        if wanted >= now.saturating_mul(2) || wanted <= now / 2 {
            self.spec.backlog_credit = wanted;
            self.credit_told_at = steady;
            let spec_bytes: Bytes = self.spec.to_canonical().into();
            self.tell(Body::Update(v1::NodeUpdate { spec_bytes }));
        }
    }
}
