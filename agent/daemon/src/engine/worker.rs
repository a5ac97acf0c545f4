//! One worker, as dispatch sees it: what it was sent, what it may hold, what it used.
//!
//! What a worker says of its own time may be made up, so times are taken here: a task begins when the one
//! before it ended, or when it was sent to an idle worker, and ends when its answer is here. Only within
//! [`BELIEVED`] is a worker asked how tasks that were answered together share that time.

use std::collections::{HashSet, VecDeque};
use std::sync::LazyLock;

use farlane_model::{Exit, Resources};
use tokio::task::JoinHandle;

use super::attempt::Token;
use crate::clock::monotonic_nanos;
use crate::sandbox::Group;
use crate::worker::Link;
use crate::worker::message::{Answer, TakenBack, taken_back};
use crate::worker::process::Process;
use crate::worker::socket::PIECE;
use crate::worker::template::TemplateNumber;

/// A worker serves this many tasks. Source: docs/design/worker-recycling.md.
const TASKS_A_WORKER: u32 = 10_000;
/// And this long. Source: likewise.
const LIFE_MS: u64 = 600_000;
/// How long before its answer is here a task may have ended, in microseconds. Source: as much as is sent
/// ahead (`dispatch`, AHEAD), which is then answered together.
const BELIEVED: u64 = 5_000;
/// Tasks above this are metered, in microseconds. Source: a look takes 15 µs; usage is charged by the
/// millisecond.
const METERED: u64 = 1_000;

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
    /// Of each of its pool's GPUs, thousandths; 0 where it has none.
    pub(super) gpus: u32,
    /// When the first of the queue became the first, in microseconds.
    pub(super) began: u64,
    pub(super) doom: Option<Doom>,
    /// Writes a message too large for one piece; nothing else is sent meanwhile.
    pub(super) writer: Option<JoinHandle<()>>,
    pub(super) meter: Meter,
}

/// When a task ran, on the steady clock in microseconds, and what it used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) cpu_micros: u64,
    /// Bytes.
    pub(super) peak: u64,
}

impl Worker {
    pub(super) fn new(pool: TemplateNumber, link: Link, now: u64) -> Self {
        Self {
            pool,
            link,
            up: false,
            queue: VecDeque::new(),
            codes: HashSet::new(),
            done: 0,
            born: now,
            idle_since: now,
            cpus: 0,
            memory: 0,
            gpus: 0,
            began: 0,
            doom: None,
            writer: None,
            meter: Meter::default(),
        }
    }

    /// What its first task may hold.
    pub(super) fn hold(&mut self, need: &Resources) {
        (self.cpus, self.memory, self.gpus) = (need.cpus.0, need.memory.0, need.share());
    }

    pub(super) fn is_idle(&self) -> bool {
        self.up && self.queue.is_empty() && self.doom.is_none() && self.writer.is_none()
    }

    pub(super) fn is_worn(&self, now: u64) -> bool {
        // What a task leaves in a GPU's memory goes with its process only.
        let most = if self.gpus > 0 { 1 } else { TASKS_A_WORKER };
        self.done >= most || now.saturating_sub(self.born) > LIFE_MS
    }

    /// The first of its queue was answered at `now`: how long that took, and what it used.
    pub(super) fn measure(&mut self, answer: &Answer, now: u64) -> Measured {
        let ago = monotonic_nanos().saturating_sub(answer.end) / 1000;
        let said = now.saturating_sub(ago).max(self.began);
        let ended = match now.saturating_sub(said) <= BELIEVED {
            true => said,
            false => now,
        };
        let word = (u64::from(answer.cpu_us), u64::from(answer.peak_kib) * 1024);
        self.count(ended, Some(word))
    }

    /// It died at `now` with the first of its queue.
    pub(super) fn measure_death(&mut self, now: u64) -> Measured {
        self.count(now, None)
    }

    fn count(&mut self, ended: u64, word: Option<(u64, u64)>) -> Measured {
        let began = std::mem::replace(&mut self.began, ended);
        let ran = ended.saturating_sub(began);
        let used = match ran > METERED {
            true => self.meter.read().or(word),
            false => None,
        };
        let (cpu_micros, peak) = used.unwrap_or_default();
        Measured {
            began,
            ended,
            // What shorter tasks before it used is counted too, and not more than could be.
            cpu_micros: cpu_micros.min(ran.saturating_mul(*CORES)),
            peak,
        }
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

/// Asked once: the answer takes 40 us, for it is read from the files of control groups.
static CORES: LazyLock<u64> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));

/// What the kernel says a worker used: by its control group, else by its process.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) group: Option<Group>,
    pub(super) process: Option<Process>,
    /// Microseconds that are accounted for.
    cpu_before: u64,
    /// Deaths for memory that are accounted for.
    oom_before: u64,
}

impl Meter {
    /// Processor time since this was last asked, in microseconds, and the most bytes held. `None` where
    /// the kernel does not tell.
    pub(super) fn read(&mut self) -> Option<(u64, u64)> {
        let (cpu, peak) = match (&self.group, &self.process) {
            (Some(group), _) => {
                self.oom_before = group.oom_kills();
                (group.cpu_micros()?, group.peak())
            }
            (None, Some(process)) => (process.cpu_micros()?, process.peak()),
            (None, None) => return None,
        };
        let spent = cpu.saturating_sub(self.cpu_before);
        self.cpu_before = cpu;
        Some((spent, peak.unwrap_or(0)))
    }

    /// Whether something in it was killed for memory since it was last read.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let kills = self.group.as_ref().map_or(0, Group::oom_kills);
        kills > self.oom_before
    }

    /// Bounds what its worker and all that descends from it may hold together. False where they hold more
    /// already.
    pub(super) fn hold_to(&mut self, memory: u64) -> bool {
        self.group
            .as_mut()
            .is_none_or(|group| group.hold_to(memory))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::worker::message::{Outcome, TaskHead};
    use crate::worker::room::Answers;
    use crate::worker::{Event, WorkerNumber};
    use bytes::Bytes;
    use tokio::sync::mpsc;

    fn worker(events: &mpsc::Sender<Event>) -> Worker {
        let (link, _output) = Link::open(WorkerNumber(1), events, &Answers::default()).unwrap();
        Worker::new(TemplateNumber(1), link, 0)
    }

    fn task(token: u64) -> [u8; 76] {
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
            gang: (0, 0),
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

    /// An answer that says it ended so many microseconds ago.
    fn answer(ago: u64) -> Answer {
        Answer {
            token: 1,
            outcome: Outcome::Returned,
            cpu_us: 77_000,
            peak_kib: 1,
            last: false,
            begin: 0,
            end: monotonic_nanos() - ago * 1000,
            body: Bytes::new(),
            room: None,
        }
    }

    #[tokio::test]
    async fn a_workers_word_moves_its_times_by_milliseconds_only() {
        let (events, _kept) = mpsc::channel(16);
        let mut worker = worker(&events);
        let now = 100_000_000;
        worker.began = now - 2_000_000;
        // It says that it ended a second ago; it ended when its answer came.
        let lied = worker.measure(&answer(1_000_000), now);
        assert_eq!((lied.began, lied.ended), (now - 2_000_000, now));
        // Answered together: the first ended a little earlier, the second began then.
        let now = now + 4_000;
        let first = worker.measure(&answer(3_000), now);
        let second = worker.measure(&answer(0), now);
        assert!(
            (now - 3_500..=now - 2_500).contains(&first.ended),
            "{first:?}"
        );
        assert_eq!((first.began, second.began), (now - 4_000, first.ended));
        // Nobody ends before beginning, or in the future.
        let third = worker.measure(&answer(4_000), second.ended);
        assert_eq!((third.began, third.ended), (second.ended, second.ended));
        assert_eq!(third.cpu_micros, 0);
        // Without anything that counts, its word is cut to what can be.
        assert_eq!(lied.cpu_micros, 77_000);
        worker.began = now;
        let short = worker.measure(&answer(0), now + 2_000);
        assert!(short.cpu_micros <= 2_000 * *CORES);
    }
}
