//! Which attempt goes to which worker.
//!
//! At most as many run as the node has cores for. A worker gets one task at a time, unless its tasks
//! are known to be short: then messages lie ahead in its socket, and are taken back when the one that
//! runs turns out long.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use farlane_model::{Exit, ExitKind, LostCause, Resources};

use super::Engine;
use super::attempt::{Prepared, Spec, Stage, Token};
use super::pool::{FAILURES, pieces};
use super::worker::{Doom, Worker};
use crate::clock::ClusterClock;
use crate::environment::Environment;
use crate::worker::WorkerNumber;
use crate::worker::message::{FLAG_PICKLE, TaskHead, code_head};
use crate::worker::socket::{PIECE, Sent, Socket};
use crate::worker::template::TemplateNumber;

/// Tasks shorter than this are sent ahead, in microseconds.
const SHORT: u32 = 2_000;
/// As many as run within this, in microseconds. Source: the longest that anything waits on the path
/// to the control plane and back (5 ms with two syncs under load).
const AHEAD: u32 = 5_000;
/// And at most so many. Source: the smallest usual socket buffer (208 KiB) holds 160 small messages.
const MOST_AHEAD: usize = 64;
/// A task that has run so long no longer holds up those behind it, in microseconds.
pub(super) const STUCK: u64 = 20_000;
/// Functions that one worker holds.
const CODES_A_WORKER: usize = 64;
/// Whether a pool can take more now.
enum Step {
    Again,
    Enough,
}

impl Engine {
    /// Gives every free worker something to do.
    pub(super) fn dispatch(&mut self) {
        let mut waiting: Vec<TemplateNumber> = self
            .pools
            .pools
            .iter()
            .filter(|(_, pool)| !pool.ready.is_empty())
            .map(|(number, _)| *number)
            .collect();
        if waiting.is_empty() {
            return;
        }
        self.pools.turn = self.pools.turn.wrapping_add(1);
        let first = self.pools.turn % waiting.len();
        waiting.rotate_left(first);
        for number in waiting {
            while let Step::Again = self.dispatch_one(number) {}
        }
    }

    /// Sends the first ready attempt of a pool, or sees to it that it can be sent soon.
    fn dispatch_one(&mut self, number: TemplateNumber) -> Step {
        let Some(pool) = self.pools.pools.get_mut(&number) else {
            return Step::Enough;
        };
        let Some(token) = pool.ready.front().copied() else {
            return Step::Enough;
        };
        pool.used = ClusterClock::steady();
        let ready = self
            .attempts
            .get(&token)
            .map(|attempt| (&attempt.stage, &attempt.spec));
        let Some((Stage::Ready(prepared), Some(spec))) = ready else {
            pool.ready.pop_front();
            return Step::Again;
        };
        if pool.template.is_none() {
            let environment = prepared.environment.clone();
            return self.start_template(number, environment);
        }
        if !pool.up {
            return Step::Enough;
        }
        let resources = spec.spec.resources;
        let memory = resources.memory.0;
        let depth = depth(spec);
        let starting = |w: &WorkerNumber| self.pools.workers.get(w).is_some_and(|w| !w.up);
        let starting = pool.workers.iter().filter(|w| starting(w)).count();
        let idle = pool
            .workers
            .iter()
            .find(|w| self.pools.workers.get(w).is_some_and(|w| w.is_idle()))
            .copied();
        let fits = self.pools.fits(&resources, number);
        if let (Some(worker), true) = (idle, fits) {
            if !self.pools.hold_to(worker, memory, resources.scratch.0) {
                // It keeps what an earlier task left in its memory; a new one takes its place.
                self.pools.dismiss(worker);
                return Step::Again;
            }
            return self.send(worker, token, &resources);
        }
        let waiting = self
            .pools
            .pools
            .get(&number)
            .map_or(0, |pool| pool.ready.len());
        if idle.is_none() && fits && starting < waiting {
            return match self.pools.fork(number, &resources) {
                Ok(()) => Step::Again,
                Err(error) => {
                    tracing::warn!(%error, "a template does not take orders; its sandbox is ended");
                    self.end_template(number);
                    Step::Enough
                }
            };
        }
        match self.shortest(number, depth, memory) {
            Some(worker) => self.send(worker, token, &resources),
            None => Step::Enough,
        }
    }

    /// The worker with the fewest tasks ahead, where one may take another. It is bounded by what its first
    /// asked for, so all behind that ask for the same.
    fn shortest(&self, number: TemplateNumber, depth: usize, memory: u64) -> Option<WorkerNumber> {
        let pool = self.pools.pools.get(&number)?;
        let now = ClusterClock::steady();
        let can = |number: &WorkerNumber| {
            let worker = self.pools.workers.get(number)?;
            let free = worker.up
                && worker.doom.is_none()
                && worker.writer.is_none()
                && !worker.queue.is_empty()
                && worker.queue.len() < depth
                && worker.memory == memory
                && !worker.is_worn(now)
                && ClusterClock::steady_micros().saturating_sub(worker.began) < STUCK;
            free.then_some((worker.queue.len(), *number))
        };
        pool.workers
            .iter()
            .filter_map(can)
            .min()
            .map(|(_, number)| number)
    }

    fn start_template(
        &mut self,
        number: TemplateNumber,
        environment: Option<Arc<Environment>>,
    ) -> Step {
        let given_up = match self.pools.pools.get(&number) {
            Some(pool) if pool.failures >= FAILURES => Some(pool.complaint.clone()),
            _ => None,
        };
        if given_up.is_none() && !self.pools.has_room() {
            return Step::Enough;
        }
        let failed = match given_up {
            Some(complaint) => Some(complaint),
            None => self
                .pools
                .start(number, environment)
                .err()
                .map(|error| error.to_string()),
        };
        if let Some(complaint) = failed {
            self.give_up(number, &complaint);
        }
        Step::Enough
    }

    /// Ends everything that waits for a sandbox that cannot be made.
    fn give_up(&mut self, number: TemplateNumber, complaint: &str) {
        let Some(pool) = self.pools.pools.get_mut(&number) else {
            return;
        };
        pool.failures = 0;
        let ready: Vec<_> = pool.ready.drain(..).collect();
        // Not in its own words: the control plane reads this, and the sandbox may quote a tenant.
        let message = match complaint.is_empty() {
            true => "the sandbox could not be made: nothing in it begins to work",
            false => "the sandbox could not be made; what it said is in the attempt's log",
        };
        for token in ready {
            self.complain(token, complaint);
            let exit = Exit::new(ExitKind::Lost(LostCause::Sandbox), message);
            self.end(token, exit, None);
        }
    }

    /// Sends one attempt to a worker.
    fn send(&mut self, number: WorkerNumber, token: Token, need: &Resources) -> Step {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return Step::Enough;
        };
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return Step::Enough;
        };
        let (Stage::Ready(prepared), Some(spec), Some(grant)) =
            (&attempt.stage, &attempt.spec, &attempt.grant)
        else {
            return Step::Enough;
        };
        let deadline = spec
            .spec
            .timing
            .deadline
            .map_or(0, |limit| attempt.arrived_ms.saturating_add(limit.0));
        let head = TaskHead {
            flags: if grant.own { FLAG_PICKLE } else { 0 },
            code: prepared.code.number,
            attempt: attempt.at.attempt,
            blobs: prepared.blobs.len() as u32,
            token: token.0,
            deadline_ms: deadline,
            task: attempt.at.task.to_bytes(),
            log_limit: spec.spec.log_limit.0,
            memory: spec.spec.resources.memory.0,
            gang: spec
                .spec
                .gang
                .map_or((0, 0), |gang| (prepared.rank, gang.size)),
        };
        let was_idle = worker.queue.is_empty();
        let sent = transmit(worker, &head, prepared, was_idle);
        if sent != Sent::Whole {
            // A full socket empties with the next answer; a closed one is a worker that has ended.
            return Step::Enough;
        }
        if let Stage::Ready(prepared) = std::mem::replace(&mut attempt.stage, Stage::Waiting) {
            attempt.stage = Stage::Sent(number, prepared);
        }
        if was_idle {
            worker.began = ClusterClock::steady_micros();
            worker.hold(need);
        }
        worker.queue.push_back(token);
        let pool = worker.pool;
        if let Some(pool) = self.pools.pools.get_mut(&pool) {
            pool.ready.pop_front();
        }
        Step::Again
    }

    /// Puts attempts that have not begun back to the front of their pool.
    pub(super) fn put_back(&mut self, pool: TemplateNumber, tokens: Vec<Token>) {
        for token in tokens.into_iter().rev() {
            let Some(attempt) = self.attempts.get_mut(&token) else {
                continue;
            };
            match std::mem::replace(&mut attempt.stage, Stage::Waiting) {
                Stage::Sent(_, prepared) => attempt.stage = Stage::Ready(prepared),
                other => {
                    attempt.stage = other;
                    continue;
                }
            }
            if let Some(pool) = self.pools.pools.get_mut(&pool) {
                pool.ready.push_front(token);
            }
        }
    }

    /// Ends the run of one attempt in a worker: those behind it are taken back first.
    pub(super) fn kill_for(&mut self, number: WorkerNumber, token: Token, exit: Option<Exit>) {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let pool = worker.pool;
        let mut back = worker.take_back();
        if back.contains(&token) {
            // It had not begun: nothing needs to die.
            back.retain(|other| *other != token);
            self.put_back(pool, back);
            return match exit {
                Some(exit) => self.end(token, exit, None),
                None => self.forget(token),
            };
        }
        if worker.doom.is_none() {
            let since = ClusterClock::steady();
            worker.doom = Some(Doom {
                verdict: Some((token, exit)),
                since,
            });
        }
        self.put_back(pool, back);
        self.kill(number);
    }

    pub(super) fn kill(&mut self, number: WorkerNumber) {
        let Some(worker) = self.pools.workers.get_mut(&number) else {
            return;
        };
        let since = ClusterClock::steady();
        worker.doom.get_or_insert(Doom {
            verdict: None,
            since,
        });
        let pool = worker.pool;
        let template = self
            .pools
            .pools
            .get(&pool)
            .and_then(|pool| pool.template.as_ref());
        if template.is_none_or(|template| template.kill(number).is_err()) {
            self.end_template(pool);
        }
    }

    /// Ends a sandbox at once, with all in it; its `TemplateGone` event does the rest.
    pub(super) fn end_template(&mut self, number: TemplateNumber) {
        if let Some(pool) = self.pools.pools.get_mut(&number) {
            pool.up = false;
            if let Some(template) = &mut pool.template {
                template.end();
            }
        }
    }
}

/// How many tasks of this spec may lie in one worker's socket, the running one included.
fn depth(spec: &Spec) -> usize {
    match spec.micros() {
        // With a GPU a worker runs one task, and is gone.
        Some(micros) if micros < SHORT && spec.spec.resources.devices() == 0 => {
            (AHEAD / micros.max(1)).clamp(2, MOST_AHEAD as u32) as usize
        }
        _ => 1,
    }
}

/// Sends function and task; what is too large for one piece only to a worker that has nothing else.
fn transmit(worker: &mut Worker, head: &TaskHead, prepared: &Prepared, idle: bool) -> Sent {
    let mut body = vec![prepared.arguments.clone()];
    if !prepared.blobs.is_empty() {
        let mut lengths = BytesMut::with_capacity(8 * (prepared.blobs.len() + 1));
        lengths.put_u64_le(prepared.arguments.len() as u64);
        prepared
            .blobs
            .iter()
            .for_each(|blob| lengths.put_u64_le(blob.len() as u64));
        body.insert(0, lengths.freeze());
        body.extend(prepared.blobs.iter().cloned());
    }
    let len: usize = body.iter().map(Bytes::len).sum();
    let head = head.encode(len);
    let code = &prepared.code;
    let has_code = worker.codes.contains(&code.number);
    let code_head = code_head(code.number, Some(code.bytes.len()));
    let small = head.len() + len <= PIECE
        && (has_code || code_head.len() + code.bytes.len() <= PIECE)
        && body.len() == 1;
    if !small {
        if !idle {
            return Sent::Full;
        }
        let mut messages = Vec::new();
        if !has_code {
            messages.extend(pieces(&code_head, vec![code.bytes.clone()]));
            remember(worker, code.number);
        }
        messages.extend(pieces(&head, body));
        let socket = worker.link.socket.clone();
        worker.writer = Some(tokio::spawn(write(socket, messages)));
        return Sent::Whole;
    }
    if !has_code {
        let sent = worker.link.socket.send(&code_head, &code.bytes);
        if sent != Sent::Whole {
            return sent;
        }
        remember(worker, code.number);
    }
    worker.link.socket.send(&head, &prepared.arguments)
}

/// The worker has this function now; beyond a bound it forgets another.
fn remember(worker: &mut Worker, code: u32) {
    if worker.codes.len() >= CODES_A_WORKER
        && worker.queue.is_empty()
        && let Some(other) = worker.codes.iter().copied().find(|other| *other != code)
        && worker
            .link
            .socket
            .send(&crate::worker::message::code_head(other, None), &[])
            == Sent::Whole
    {
        worker.codes.remove(&other);
    }
    worker.codes.insert(code);
}

/// Writes messages as the worker reads them.
async fn write(socket: Arc<Socket>, messages: Vec<Bytes>) {
    for message in messages {
        loop {
            match socket.send(&message, &[]) {
                Sent::Whole => break,
                Sent::Full => socket.writable().await,
                Sent::Closed => return,
            }
        }
    }
}
