//! What workers and templates say, and how they end.

use farlane_model::{Exit, ExitKind, LostCause};
use tokio::sync::mpsc;

use super::Engine;
use super::attempt::Token;
use super::finish::Usage;
use super::pool::FAILURES;
use crate::clock::ClusterClock;
use crate::worker::message::{Answer, Said};
use crate::worker::template::{TemplateNumber, WaitStatus};
use crate::worker::{Event, WorkerNumber};

/// How someone ended.
enum Death {
    /// As this template says.
    Worker(TemplateNumber, WorkerNumber, Option<WaitStatus>),
    Template(TemplateNumber, String),
}

/// Looks into a worker's pipe at the end of a task. Source: pipe(7): 64 KiB, in looks of a page.
const LAST_LOOKS: usize = 16;
/// Output below Python's own streams counts as stdout.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

impl Engine {
    /// Handles events; ends come last, so that nothing said before is missed.
    pub(super) fn workers_said(&mut self, said: &mut Vec<Event>, more: &mut mpsc::Receiver<Event>) {
        let mut deaths = Vec::new();
        for event in said.drain(..) {
            self.happened(event, &mut deaths);
        }
        if deaths.is_empty() {
            return;
        }
        while let Ok(event) = more.try_recv() {
            self.happened(event, &mut deaths);
        }
        for death in deaths {
            match death {
                Death::Worker(template, number, status) => {
                    if self.pools.is_of(number, template) {
                        self.worker_ended(number, status);
                    }
                }
                Death::Template(number, complaint) => self.template_gone(number, complaint),
            }
        }
    }

    fn happened(&mut self, event: Event, deaths: &mut Vec<Death>) {
        match event {
            Event::TemplateReady { template } => {
                if let Some(pool) = self.pools.pools.get_mut(&template) {
                    pool.up = true;
                }
            }
            Event::WorkerForked {
                template,
                worker,
                process,
            } => {
                if self.pools.is_of(worker, template)
                    && let Some(worker) = self.pools.workers.get_mut(&worker)
                {
                    worker.meter.process = Some(process);
                }
            }
            Event::Said { worker, said } => self.said(worker, said),
            Event::Violated { worker, said } => {
                self.said(worker, said);
                self.violated(worker);
            }
            Event::Printing { worker } => {
                self.take_output(worker);
            }
            Event::WorkerEnded {
                template,
                worker,
                status,
            } => deaths.push(Death::Worker(template, worker, status)),
            Event::TemplateGone {
                template,
                complaint,
            } => {
                deaths.push(Death::Template(template, complaint));
            }
        }
    }

    fn said(&mut self, number: WorkerNumber, said: Vec<Said>) {
        for one in said {
            match one {
                Said::Hello => self.worker_up(number),
                Said::Log {
                    token,
                    stream,
                    dropped,
                    data,
                } => {
                    let owns = |w: &super::worker::Worker| w.queue.contains(&Token(token));
                    if self.pools.workers.get(&number).is_some_and(owns) {
                        self.printed(Token(token), stream, &data, dropped);
                    }
                }
                Said::Result(answer) => {
                    if !self.answer(number, answer) {
                        return self.violated(number);
                    }
                }
            }
        }
    }

    fn worker_up(&mut self, number: WorkerNumber) {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        worker.up = true;
        // What its beginning cost is nobody's.
        worker.meter.read();
        worker.idle_since = ClusterClock::steady();
        let pool = worker.pool;
        if let Some(pool) = self.pools.pools.get_mut(&pool) {
            pool.failures = 0;
        }
    }

    fn printed(&mut self, token: Token, stream: u8, data: &[u8], dropped: u32) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        let limit = attempt
            .spec
            .as_ref()
            .map_or(0, |spec| spec.spec.log_limit.0);
        attempt.log.drop_more(dropped);
        if attempt.log.take(stream, data, limit) {
            self.push_log(token);
        }
    }

    /// Takes what a worker printed below Python's own streams: it is of the task that runs. False when
    /// there was nothing.
    fn take_output(&mut self, number: WorkerNumber) -> bool {
        let Some(worker) = self.pools.workers.get(&number) else {
            return false;
        };
        let data = worker.link.printed();
        let running = worker.queue.front().copied();
        if let (Some(token), false) = (running, data.is_empty()) {
            self.printed(token, STDOUT, &data, 0);
        }
        !data.is_empty()
    }

    /// Takes what is in the pipe at the end of a task, and no more: a child may print without end.
    fn take_last_output(&mut self, number: WorkerNumber) {
        let mut looks = 0;
        while looks < LAST_LOOKS && self.take_output(number) {
            looks += 1;
        }
    }

    fn push_log(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        let Some(grant) = &attempt.grant else { return };
        for chunk in attempt.log.seal(attempt.at, grant, self.node, false) {
            let _ = self.logs.try_send(chunk);
        }
    }

    /// Lets output that has gathered go, so that a reader who follows sees it.
    pub(super) fn flush_logs(&mut self) {
        let due: Vec<Token> = self
            .pools
            .workers
            .values()
            .filter_map(|worker| worker.queue.front().copied())
            .filter(|token| {
                self.attempts
                    .get(token)
                    .is_some_and(|a| a.log.is_due(false))
            })
            .collect();
        due.into_iter().for_each(|token| self.push_log(token));
    }

    /// Takes an answer; false where it answers nothing that this worker runs.
    fn answer(&mut self, number: WorkerNumber, answer: Answer) -> bool {
        let now = ClusterClock::steady_micros();
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return true;
        };
        let token = Token(answer.token);
        if worker.queue.front() != Some(&token) {
            return false;
        }
        // Nobody can answer what has not been said to the end.
        if worker.writer.as_ref().is_some_and(|w| !w.is_finished()) {
            return false;
        }
        self.take_last_output(number);
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return true;
        };
        // For the size of what is sent ahead only, a worker's word counts, if it lived as long.
        let lived = now.saturating_sub(worker.born * 1000);
        let measured = worker.measure(&answer, now);
        worker.queue.pop_front();
        worker.writer = None;
        worker.done += 1;
        let steady = now / 1000;
        worker.idle_since = steady;
        let last = answer.last;
        let worn = worker.queue.is_empty() && worker.doom.is_none() && worker.is_worn(steady);
        let micros = (answer.end.saturating_sub(answer.begin) / 1000).min(lived);
        if let Some(spec) = self.attempts.get(&token).and_then(|a| a.spec.as_ref()) {
            spec.ran(micros);
        }
        self.tasks_run += 1;
        self.average_micros = match self.average_micros {
            0 => micros.max(1),
            average => (average - average / 16 + micros / 16).max(1),
        };
        self.answered(token, answer, measured);
        match last {
            true => self.leaves(number),
            false if worn => self.pools.dismiss(number),
            false => {}
        }
        true
    }

    /// A worker says that it ends: what it has not begun goes to others. It is seen to that it does, and
    /// nobody waits for it: its files are many.
    fn leaves(&mut self, number: WorkerNumber) {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let (pool, back) = (worker.pool, worker.take_back());
        let lied = !worker.queue.is_empty();
        self.put_back(pool, back);
        if lied {
            return self.violated(number);
        }
        self.kill(number);
        self.pools.dismiss(number);
    }

    fn violated(&mut self, number: WorkerNumber) {
        tracing::warn!(worker = number.0, "a worker broke its protocol");
        let running = self
            .pools
            .workers
            .get(&number)
            .and_then(|w| w.queue.front().copied());
        let message = "the worker broke its protocol";
        let exit = Exit::new(ExitKind::Lost(LostCause::Sandbox), message);
        match running {
            Some(token) => self.kill_for(number, token, Some(exit)),
            None => self.kill(number),
        }
    }

    /// A worker is gone: what it said last still counts, what it had not begun goes to another.
    fn worker_ended(&mut self, number: WorkerNumber, status: Option<WaitStatus>) {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let last_words = worker.link.last_words();
        self.said(number, last_words);
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let back = worker.take_back();
        self.take_last_output(number);
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let was_up = worker.up;
        let Some(mut worker) = self.pools.remove(number) else {
            return;
        };
        self.put_back(worker.pool, back);
        // However it ended: one that never said hello was not ended by a task.
        let broke = !was_up && worker.doom.is_none();
        if let (true, Some(pool)) = (broke, self.pools.pools.get_mut(&worker.pool)) {
            pool.failures += 1;
            if pool.failures >= FAILURES {
                // It forks nothing that lives: a new one, or nobody, serves what waits.
                self.end_template(worker.pool);
            }
        }
        let killed = status.and_then(WaitStatus::signal) == Some(libc::SIGKILL);
        let pool = self.pools.pools.get_mut(&worker.pool);
        let starved = killed
            && (worker.meter.ran_out_of_memory()
                || pool.is_some_and(super::pool::Pool::ran_out_of_memory));
        let verdict = worker.doom.take().and_then(|doom| doom.verdict);
        let usage = match worker.queue.is_empty() {
            true => Usage::default(),
            false => self.used(&worker.measure_death(ClusterClock::steady_micros())),
        };
        for token in std::mem::take(&mut worker.queue) {
            match &verdict {
                Some((doomed, exit)) if *doomed == token => match exit.clone() {
                    Some(exit) => self.end(token, exit, Some(usage)),
                    None => self.forget(token),
                },
                _ if starved => {
                    let exit = Exit::plain(ExitKind::Lost(LostCause::OutOfMemory));
                    self.end(token, exit, Some(usage));
                }
                _ => self.end(token, lost(status), Some(usage)),
            }
        }
    }

    fn template_gone(&mut self, number: TemplateNumber, complaint: String) {
        let Some(pool) = self.pools.pools.get_mut(&number) else {
            return;
        };
        if !pool.up {
            pool.failures += 1;
        }
        // Of one that has begun a tenant may have written every word: those go to who submitted the work.
        match pool.up {
            true => tracing::warn!("a sandbox ended"),
            false => tracing::warn!(%complaint, "a sandbox could not be made"),
        }
        pool.template = None;
        pool.environment = None;
        pool.up = false;
        pool.complaint = complaint.clone();
        for worker in std::mem::take(&mut pool.workers) {
            let tokens = self.pools.workers.get(&worker).map(|w| w.queue.clone());
            for token in tokens.unwrap_or_default() {
                self.complain(token, &complaint);
            }
            self.worker_ended(worker, None);
        }
    }

    /// What a sandbox said on its way out, into the sealed log of an attempt that it ends with.
    pub(super) fn complain(&mut self, token: Token, complaint: &str) {
        self.printed(token, STDERR, complaint.as_bytes(), 0);
    }
}

/// Why a worker is gone, from how it ended.
fn lost(status: Option<WaitStatus>) -> Exit {
    let signal = status.and_then(WaitStatus::signal);
    let code = status.and_then(WaitStatus::code);
    match (signal, code) {
        (Some(signal), _) => Exit::plain(ExitKind::Lost(LostCause::Signal(signal))),
        (_, Some(code)) => Exit::plain(ExitKind::Lost(LostCause::ExitCode(code))),
        _ => Exit::new(
            ExitKind::Lost(LostCause::Sandbox),
            "its sandbox ended; what it said is in the attempt's log",
        ),
    }
}
