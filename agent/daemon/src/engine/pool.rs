//! Templates and their workers, as dispatch sees them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{Exit, NodeSpec, Tier};
use farlane_units::ByteCount;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::attempt::{Attempt, PoolKey, Stage, Token};
use super::prepare::Preparer;
use crate::clock::ClusterClock;
use crate::sandbox::{Sandbox, SandboxError};
use crate::worker::message::{TakenBack, taken_back};
use crate::worker::socket::PIECE;
use crate::worker::template::{Limits, Place, Template, TemplateNumber};
use crate::worker::{Event, Link, WorkerNumber, raw};

/// A worker serves this many tasks. Source: docs/design/worker-recycling.md.
const TASKS_A_WORKER: u32 = 10_000;
/// And this long. Source: design.md, "Sandboxes".
const LIFE_MS: u64 = 600_000;
/// An idle worker is kept this long, and its template ten times as long. Source: a person thinks a
/// minute between two calls; 15 MiB are cheap for as long.
const IDLE_MS: u64 = 60_000;
/// Templates at once, beyond two for each core: above it the one longest unused goes, if it is idle.
/// Source: 15 MiB each; a tenant makes a new one with every size of scratch that it names.
const TEMPLATES: usize = 16;
const TEMPLATES_A_CORE: usize = 2;
/// Failures in a row after which a template's tasks are given up.
pub(super) const FAILURES: u32 = 3;
/// Scratch where a task does not ask for any. Source: a wheel's unpacked tests fit; 2 of them fit in
/// the memory of the smallest node (4 GiB).
const DEFAULT_SCRATCH: u64 = 256 << 20;
/// Processes and threads in one sandbox, beyond those for each core. Source: joblib, OpenBLAS and
/// Arrow together start about 3 threads a core.
const PROCESSES: u64 = 128;
const PROCESSES_A_CORE: u64 = 64;
/// Open files of a worker. Source: the usual soft limit, four times.
const FILES: u64 = 4096;

/// Why a worker is being killed.
#[derive(Debug)]
pub(super) struct Doom {
    /// Whose end is decided already, and how; `None`: it ends without a word.
    pub(super) verdict: Option<(Token, Option<Exit>)>,
    pub(super) since: u64,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pool: TemplateNumber,
    pub(super) link: Link,
    /// It has said hello.
    pub(super) up: bool,
    /// Sent to it and not answered; the first runs.
    pub(super) queue: VecDeque<Token>,
    /// Functions that it has.
    pub(super) codes: HashSet<u32>,
    pub(super) done: u32,
    pub(super) born: u64,
    pub(super) idle_since: u64,
    /// Held while starting or running.
    pub(super) cpus: u32,
    pub(super) memory: u64,
    /// When the first of the queue became the first, in microseconds.
    pub(super) began: u64,
    pub(super) doom: Option<Doom>,
    /// Writes a message too large for one piece; nothing else is sent meanwhile.
    pub(super) writer: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn is_idle(&self) -> bool {
        self.up && self.queue.is_empty() && self.doom.is_none() && self.writer.is_none()
    }

    pub(super) fn is_worn(&self, now: u64) -> bool {
        self.done >= TASKS_A_WORKER || now.saturating_sub(self.born) > LIFE_MS
    }

    /// Takes back what it has not received, first sent first.
    ///
    /// Of a message in pieces nothing is: the worker may have read some of them, and the others hold what
    /// the task's author chose, which may look like the head of anybody's task. For the same reason only
    /// what was sent to this worker counts.
    pub(super) fn take_back(&mut self) -> Vec<Token> {
        if self.writer.is_some() {
            return Vec::new();
        }
        let mut buffer = vec![0; PIECE];
        let mut back = Vec::new();
        while let Some(n) = self.link.socket.take_back(&mut buffer) {
            match taken_back(&buffer[..n]) {
                TakenBack::Task { token } if self.queue.contains(&Token(token)) => {
                    back.push(Token(token));
                }
                TakenBack::Task { .. } => {}
                TakenBack::Code { code } => {
                    self.codes.remove(&code);
                }
                TakenBack::Other => {}
            }
        }
        self.queue.retain(|token| !back.contains(token));
        back
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.abort();
        }
    }
}

/// One template and what waits for it.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) key: PoolKey,
    pub(super) template: Option<Template>,
    pub(super) up: bool,
    pub(super) failures: u32,
    pub(super) complaint: String,
    /// Deaths for memory that are accounted for.
    pub(super) oom_kills: u64,
    pub(super) ready: VecDeque<Token>,
    pub(super) workers: Vec<WorkerNumber>,
    pub(super) used: u64,
}

impl Pool {
    /// Whether something here was killed for memory since the last time this was asked.
    pub(super) fn ran_out_of_memory(&mut self) -> bool {
        let now = self.template.as_ref().map_or(0, Template::oom_kills);
        std::mem::replace(&mut self.oom_kills, now) < now
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) pools: HashMap<TemplateNumber, Pool>,
    by_key: HashMap<PoolKey, TemplateNumber>,
    pub(super) workers: HashMap<WorkerNumber, Worker>,
    pub(super) cpus: u32,
    pub(super) memory: u64,
    next: u32,
    base: Sandbox,
    place: Place,
    preparer: Arc<Preparer>,
    events: mpsc::Sender<Event>,
    /// Rotates, so that no pool always comes first.
    pub(super) turn: usize,
}

impl Pools {
    pub(super) fn new(
        spec: &NodeSpec,
        base: Sandbox,
        place: Place,
        preparer: Arc<Preparer>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            pools: HashMap::new(),
            by_key: HashMap::new(),
            workers: HashMap::new(),
            cpus: spec.cpus.0,
            memory: spec.memory.0,
            next: 1,
            base,
            place,
            preparer,
            events,
            turn: 0,
        }
    }

    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// An attempt can run as soon as a worker is free.
    pub(super) fn ready(&mut self, key: PoolKey, token: Token) {
        let number = match self.by_key.get(&key) {
            Some(number) => *number,
            None => {
                let number = TemplateNumber(self.number());
                self.by_key.insert(key.clone(), number);
                let pool = Pool {
                    key,
                    template: None,
                    up: false,
                    failures: 0,
                    complaint: String::new(),
                    oom_kills: 0,
                    ready: VecDeque::new(),
                    workers: Vec::new(),
                    used: 0,
                };
                self.pools.insert(number, pool);
                number
            }
        };
        if let Some(pool) = self.pools.get_mut(&number) {
            pool.ready.push_back(token);
        }
    }

    /// Starts a pool's template.
    ///
    /// *Errors*: the sandbox cannot be started.
    pub(super) fn start(
        &mut self,
        number: TemplateNumber,
        environment: Option<PathBuf>,
    ) -> Result<(), SandboxError> {
        let Some(pool) = self.pools.get_mut(&number) else {
            return Ok(());
        };
        let key = &pool.key;
        let pythons = &self.preparer.pythons;
        let python = pythons
            .iter()
            .find(|python| python.interpreter.version == key.python);
        let Some(python) = python else {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(SandboxError::Io {
                what: "the interpreter",
                source,
            });
        };
        let scratch = if key.scratch == 0 {
            DEFAULT_SCRATCH
        } else {
            key.scratch
        };
        let sandbox = Sandbox {
            tier: key.tier,
            python: python.clone(),
            environment,
            scratch: ByteCount(scratch),
            threads: key.threads,
            ..self.base.clone()
        };
        let cores = u64::from(self.cpus.div_ceil(1000));
        let limits = Limits {
            core: 0,
            files: FILES,
            // Counted inside the sandbox's own user namespace; without one it would be the user's.
            processes: (key.tier != Tier::Process).then_some(PROCESSES + PROCESSES_A_CORE * cores),
            file_size: scratch,
            data: self.memory,
        };
        let template =
            Template::start(number, &sandbox, &self.place, &limits, self.events.clone())?;
        pool.template = Some(template);
        pool.oom_kills = 0;
        pool.up = false;
        Ok(())
    }

    /// Asks a template for a worker that will hold so much.
    ///
    /// *Errors*: no descriptors, or the template does not read.
    pub(super) fn fork(
        &mut self,
        number: TemplateNumber,
        cpus: u32,
        memory: u64,
    ) -> std::io::Result<()> {
        let worker = WorkerNumber(self.number());
        let Some(pool) = self.pools.get_mut(&number) else {
            return Ok(());
        };
        let Some(template) = &pool.template else {
            return Ok(());
        };
        let (link, output) = Link::open(worker, &self.events)?;
        template.fork(worker, link.socket.far(), raw(&output))?;
        pool.workers.push(worker);
        let now = ClusterClock::steady();
        let worker_state = Worker {
            pool: number,
            link,
            up: false,
            queue: VecDeque::new(),
            codes: HashSet::new(),
            done: 0,
            born: now,
            idle_since: now,
            cpus,
            memory,
            began: 0,
            doom: None,
            writer: None,
        };
        self.workers.insert(worker, worker_state);
        Ok(())
    }

    /// Cores and memory that workers hold.
    pub(super) fn held(&self) -> (u32, u64) {
        self.workers
            .values()
            .filter(|worker| !worker.is_idle())
            .fold((0, 0), |(c, m), worker| {
                (
                    c.saturating_add(worker.cpus),
                    m.saturating_add(worker.memory),
                )
            })
    }

    /// Whether one more of this size fits. A single task larger than the node runs alone.
    pub(super) fn fits(&self, cpus: u32, memory: u64) -> bool {
        let (c, m) = self.held();
        (c == 0 && m == 0)
            || (c.saturating_add(cpus) <= self.cpus && m.saturating_add(memory) <= self.memory)
    }

    /// Whether this template forked this worker.
    pub(super) fn is_of(&self, number: WorkerNumber, template: TemplateNumber) -> bool {
        let worker = self.workers.get(&number);
        worker.is_some_and(|worker| worker.pool == template)
    }

    /// Forgets a worker that has ended; the caller has dealt with its queue.
    pub(super) fn remove(&mut self, number: WorkerNumber) -> Option<Worker> {
        let worker = self.workers.remove(&number)?;
        if let Some(pool) = self.pools.get_mut(&worker.pool) {
            pool.workers.retain(|other| *other != number);
        }
        Some(worker)
    }

    /// Ends a worker that has nothing to do: its socket closes, and it leaves.
    pub(super) fn dismiss(&mut self, number: WorkerNumber) {
        self.remove(number);
    }

    /// Ends what has been idle for long.
    pub(super) fn retire(&mut self, now: u64) {
        let tired: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, w)| w.is_idle() && now.saturating_sub(w.idle_since) > IDLE_MS)
            .map(|(number, _)| *number)
            .collect();
        tired.into_iter().for_each(|number| self.dismiss(number));
        let unused: Vec<_> = self
            .pools
            .iter()
            .filter(|(_, pool)| {
                pool.workers.is_empty()
                    && pool.ready.is_empty()
                    && now.saturating_sub(pool.used) > 10 * IDLE_MS
            })
            .map(|(number, _)| *number)
            .collect();
        for number in unused {
            if let Some(pool) = self.pools.remove(&number) {
                self.by_key.remove(&pool.key);
            }
        }
    }

    /// Makes room for one more template; false where all of them are in use.
    pub(super) fn has_room(&mut self) -> bool {
        let most = TEMPLATES + TEMPLATES_A_CORE * self.cpus.div_ceil(1000) as usize;
        let made = self.pools.values().filter(|pool| pool.template.is_some());
        if made.count() < most {
            return true;
        }
        let idle = |pool: &Pool| {
            let mut workers = pool.workers.iter().filter_map(|w| self.workers.get(w));
            pool.template.is_some() && pool.ready.is_empty() && workers.all(Worker::is_idle)
        };
        let oldest = self.pools.iter().filter(|(_, pool)| idle(pool));
        let oldest = oldest.min_by_key(|(number, pool)| (pool.used, **number));
        let Some(number) = oldest.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(pool) = self.pools.remove(&number) {
            self.by_key.remove(&pool.key);
            pool.workers.iter().for_each(|worker| {
                self.workers.remove(worker);
            });
        }
        true
    }

    /// Kills everything.
    pub(super) fn end_all(&mut self) {
        self.workers.clear();
        self.pools.clear();
        self.by_key.clear();
    }

    /// Whether any worker has something to do.
    pub(super) fn is_busy(&self) -> bool {
        self.workers.values().any(|worker| !worker.is_idle())
    }

    /// How many attempts run, and how many wait.
    pub(super) fn counts(&self, attempts: &HashMap<Token, Attempt>) -> (u32, u32) {
        let running = self
            .workers
            .values()
            .filter(|worker| !worker.queue.is_empty())
            .count();
        let all = attempts
            .values()
            .filter(|a| !matches!(a.stage, Stage::Finishing))
            .count();
        let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (cut(running), cut(all.saturating_sub(running)))
    }
}

/// A message in pieces, as the worker puts it together.
pub(super) fn pieces(head: &[u8], body: Vec<Bytes>) -> Vec<Bytes> {
    let mut whole = Vec::with_capacity(head.len() + body.iter().map(Bytes::len).sum::<usize>());
    whole.extend_from_slice(head);
    body.iter().for_each(|part| whole.extend_from_slice(part));
    let mut rest = Bytes::from(whole);
    let mut out = Vec::with_capacity(rest.len() / PIECE + 1);
    while rest.len() > PIECE {
        out.push(rest.split_to(PIECE));
    }
    out.push(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::worker::message::TaskHead;

    fn worker(events: &mpsc::Sender<Event>) -> Worker {
        let (link, _output) = Link::open(WorkerNumber(1), events).unwrap();
        Worker {
            pool: TemplateNumber(1),
            link,
            up: true,
            queue: VecDeque::new(),
            codes: HashSet::new(),
            done: 0,
            born: 0,
            idle_since: 0,
            cpus: 0,
            memory: 0,
            began: 0,
            doom: None,
            writer: None,
        }
    }

    fn task(token: u64) -> [u8; 72] {
        let head = TaskHead {
            flags: 0,
            code: 1,
            attempt: 1,
            blobs: 0,
            token,
            deadline_ms: 0,
            task: [0; 16],
            log_limit: 0,
            memory: 0,
        };
        head.encode(0)
    }

    #[tokio::test]
    async fn a_body_that_looks_like_a_task_gives_nobody_elses_task_back() {
        let (events, _kept) = mpsc::channel(16);
        let mut worker = worker(&events);
        worker.queue.extend([Token(7), Token(8)]);
        for token in [8, 9] {
            worker.link.socket.send(&task(token), &[]);
        }
        assert_eq!(worker.take_back(), [Token(8)]);
        assert_eq!(worker.queue, [Token(7)]);
        // Pieces of a large message: even its own token is not believed.
        worker.link.socket.send(&task(7), &[]);
        worker.writer = Some(tokio::spawn(std::future::pending()));
        assert!(worker.take_back().is_empty());
        assert_eq!(worker.queue, [Token(7)]);
    }
}
