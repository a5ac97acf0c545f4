//! Templates and their workers, as dispatch sees them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{Device, NodeSpec, Resources, Tier};
use farlane_units::ByteCount;
use tokio::sync::mpsc;

use super::attempt::{Attempt, PoolKey, Stage, Token, places};
use super::prepare::Preparer;
use super::worker::Worker;
use crate::clock::ClusterClock;
use crate::environment::Environment;
use crate::sandbox::{Gpus, Sandbox, SandboxError};
use crate::worker::room::Answers;
use crate::worker::socket::PIECE;
use crate::worker::template::{Limits, Place, Template, TemplateNumber};
use crate::worker::{Event, Link, WorkerNumber, raw};

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
/// Processes and threads of one task, beyond those for each core. Source: joblib, OpenBLAS and
/// Arrow together start about 3 threads a core.
const PROCESSES: u64 = 128;
const PROCESSES_A_CORE: u64 = 64;
/// Of all tasks of one sandbox, as often, where each task is bounded by itself. Source: so many fork bombs
/// at once leave the others of their project without processes.
const BOMBS: u64 = 4;
/// A worker's memory beyond what its task asked for. Source: what an interpreter writes of its template's
/// pages (11 MiB), a call and its answer on the way (16 MiB each before blobs), and their pages in the kernel.
const WORKER_MEMORY: u64 = 48 << 20;
/// Open files of a worker. Source: the usual soft limit, four times.
const FILES: u64 = 4096;

/// One template and what waits for it.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) key: PoolKey,
    pub(super) template: Option<Template>,
    /// What its template shows, kept from removal.
    pub(super) environment: Option<Arc<Environment>>,
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
    /// As the node's spec lists them.
    devices: Vec<Device>,
    next: u32,
    base: Sandbox,
    place: Place,
    preparer: Arc<Preparer>,
    events: mpsc::Sender<Event>,
    /// Bounds what workers answer, all together.
    answers: Answers,
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
            devices: spec.devices.clone(),
            next: 1,
            base,
            place,
            preparer,
            events,
            answers: Answers::default(),
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
                    environment: None,
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
        environment: Option<Arc<Environment>>,
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
        let ids = places(key.devices).filter_map(|at| self.devices.get(at));
        let gpus = Gpus::find(ids.map(|device| device.id.clone()).collect())?;
        let sandbox = Sandbox {
            gpus,
            tier: key.tier,
            python: python.clone(),
            environment: environment.as_deref().map(|e| e.path().to_owned()),
            scratch: ByteCount(scratch),
            threads: key.threads,
            ..self.base.clone()
        };
        let cores = u64::from(self.cpus.div_ceil(1000));
        let processes = PROCESSES + PROCESSES_A_CORE * cores;
        let together = match sandbox.cgroups {
            Some(_) => BOMBS * processes,
            None => processes,
        };
        let limits = Limits {
            core: 0,
            files: FILES,
            // Counted inside the sandbox's own user namespace; without one it would be the user's.
            processes: (key.tier != Tier::Process).then_some(together),
            processes_a_worker: processes,
            // One page more, so that a full file system says so first.
            file_size: scratch + 4096,
            data: self.memory,
        };
        let template =
            Template::start(number, &sandbox, &self.place, &limits, self.events.clone())?;
        pool.template = Some(template);
        pool.environment = environment;
        pool.oom_kills = 0;
        pool.up = false;
        Ok(())
    }

    /// Asks a template for a worker that will hold so much.
    ///
    /// *Errors*: no descriptors, or the template does not read.
    pub(super) fn fork(&mut self, number: TemplateNumber, need: &Resources) -> std::io::Result<()> {
        let worker = WorkerNumber(self.number());
        let Some(pool) = self.pools.get_mut(&number) else {
            return Ok(());
        };
        let Some(template) = &pool.template else {
            return Ok(());
        };
        let (link, output) = Link::open(worker, &self.events, &self.answers)?;
        let group = template.worker_group();
        template.fork(worker, link.socket.far(), raw(&output), group.as_ref())?;
        pool.workers.push(worker);
        let mut forked = Worker::new(number, link, ClusterClock::steady());
        forked.hold(need);
        forked.meter.group = group;
        self.workers.insert(worker, forked);
        Ok(())
    }

    /// Bounds an idle worker to what its next task may hold; false where it holds more already.
    pub(super) fn hold_to(&mut self, number: WorkerNumber, memory: u64, scratch: u64) -> bool {
        let node = self.memory;
        let Some(worker) = self.workers.get_mut(&number) else {
            return false;
        };
        let bound = match memory {
            0 => node,
            // Files in its scratch lie in memory too.
            asked => asked
                .saturating_add(scratch)
                .saturating_add(WORKER_MEMORY)
                .min(node),
        };
        worker.meter.hold_to(bound)
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
    pub(super) fn fits(&self, need: &Resources, pool: TemplateNumber) -> bool {
        let (cpus, memory) = (need.cpus.0, need.memory.0);
        let (c, m) = self.held();
        let fits = (c == 0 && m == 0)
            || (c.saturating_add(cpus) <= self.cpus && m.saturating_add(memory) <= self.memory);
        let key = self.pools.get(&pool).map(|pool| &pool.key);
        let gpus =
            |key: &PoolKey| places(key.devices).all(|at| self.gpu_has(at, need.share(), key));
        fits && key.is_none_or(gpus)
    }

    /// Whether a GPU has this much left, and nobody else's work on it: whatever the control plane says.
    fn gpu_has(&self, at: usize, share: u32, key: &PoolKey) -> bool {
        let mut held = share;
        for worker in self.workers.values().filter(|worker| !worker.is_idle()) {
            let Some(pool) = self.pools.get(&worker.pool) else {
                continue;
            };
            if pool.key.devices & 1 << at == 0 {
                continue;
            }
            if pool.key.tenant != key.tenant {
                return false;
            }
            held = held.saturating_add(worker.gpus);
        }
        held <= 1000
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
