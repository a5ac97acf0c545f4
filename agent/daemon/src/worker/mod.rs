//! Workers and the templates that fork them.
//!
//! Owns their sockets, messages and processes. Leaves what they run, and when, to `engine`.

pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod room;
pub(crate) mod socket;
pub(crate) mod template;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

use message::{Assembler, Said};
use room::{Answers, SMALL};
use socket::{PIECE, Socket, watched};
use template::{TemplateNumber, WaitStatus};

/// Most bytes of one answer. Source: docs/design/spine.md leaves it to the agent; 1 GiB is what a node
/// of 4 GiB can hold four times (answer, sealed answer, and their copies on the way).
pub(crate) const MAX_ANSWER: usize = 1 << 30;
/// Messages that one turn reads from a worker before others get theirs.
const TURN: usize = 64;
/// And bytes. Source: four whole messages; a worker that floods is copied no faster than it is heard.
const TURN_BYTES: usize = 4 * PIECE;
/// Messages, and bytes, read of a worker that has ended: somebody it left behind may go on without end.
/// Source: what waits in a socket is bounded by its sender's buffer, 208 KiB and some hundred messages
/// unless the system was told otherwise.
const LAST_MESSAGES: usize = 4096;
const LAST_BYTES: usize = 16 << 20;

/// Names a worker within the agent's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerNumber(pub(crate) u32);

/// What happened to workers and templates.
#[derive(Debug)]
pub(crate) enum Event {
    /// It can fork.
    TemplateReady { template: TemplateNumber },
    /// It and all its workers are dead.
    TemplateGone {
        template: TemplateNumber,
        complaint: String,
    },
    /// A worker was forked that no control group counts: its process.
    WorkerForked {
        template: TemplateNumber,
        worker: WorkerNumber,
        process: process::Process,
    },
    /// A worker said this, in order.
    Said {
        worker: WorkerNumber,
        said: Vec<Said>,
    },
    /// It printed below Python's own streams; the output is there to be read.
    Printing { worker: WorkerNumber },
    /// It broke the protocol after it said this; it must be killed.
    Violated {
        worker: WorkerNumber,
        said: Vec<Said>,
    },
    /// Its template says that it has ended; absent status: it never began. A task that took its template
    /// over may name anybody's worker.
    WorkerEnded {
        template: TemplateNumber,
        worker: WorkerNumber,
        status: Option<WaitStatus>,
    },
}

/// A worker's socket with the tasks that read from it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Arc<Socket>,
    reader: tokio::task::JoinHandle<()>,
    printer: tokio::task::JoinHandle<()>,
    hearing: Arc<Hearing>,
    output: Arc<Output>,
}

/// How far a worker has been heard.
#[derive(Debug, Default)]
struct Hearing {
    assembler: parking_lot::Mutex<Assembler>,
    /// Its answer is large and waits for room.
    waits: AtomicBool,
}

/// What a worker prints below Python's own streams, read when its task is known.
#[derive(Debug)]
struct Output {
    pipe: AsyncFd<File>,
    /// Told after each look into the pipe.
    looked: Notify,
    /// What the last look found.
    found: AtomicU8,
}

/// What a look into a worker's pipe found.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Found {
    Nothing,
    More,
    End,
}

/// Bytes of one look. Source: a page.
const LOOK: usize = 4096;

impl Link {
    /// Makes the socket and pipe of a new worker; the returned file is its output's other end, to be
    /// passed on and dropped.
    ///
    /// *Errors*: no descriptors left.
    pub(crate) fn open(
        worker: WorkerNumber,
        events: &mpsc::Sender<Event>,
        answers: &Answers,
    ) -> std::io::Result<(Self, OwnedFd)> {
        let socket = Arc::new(Socket::pair()?);
        let (output, input) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(
            &output,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )?;
        let pipe = watched(File::from(output))?;
        let (looked, found) = (Notify::new(), AtomicU8::new(Found::Nothing as u8));
        let output = Arc::new(Output {
            pipe,
            looked,
            found,
        });
        let hearing = Arc::default();
        let reader = tokio::spawn(read(
            worker,
            socket.clone(),
            Arc::clone(&hearing),
            events.clone(),
            answers.clone(),
        ));
        let printer = tokio::spawn(print(worker, output.clone(), events.clone()));
        Ok((
            Self {
                socket,
                reader,
                printer,
                hearing,
                output,
            },
            input,
        ))
    }

    /// Whether it has an answer that waits, unread, for room: not a task that runs.
    pub(crate) fn waits(&self) -> bool {
        self.hearing.waits.load(Ordering::Relaxed)
    }

    /// What it has printed and nobody has read yet; at most so much at once that endless output does not
    /// hold up the others.
    pub(crate) fn printed(&self) -> Vec<u8> {
        let mut buffer = [0; LOOK];
        let read = self.output.pipe.get_ref().read(&mut buffer);
        let found = match &read {
            Ok(0) => Found::End,
            Ok(_) => Found::More,
            Err(_) => Found::Nothing,
        };
        self.output.found.store(found as u8, Ordering::Relaxed);
        self.output.looked.notify_one();
        buffer[..read.unwrap_or(0)].to_vec()
    }

    /// What the worker said before it ended and nobody has read yet.
    pub(crate) fn last_words(&self) -> Vec<Said> {
        self.reader.abort();
        let mut assembler = self.hearing.assembler.lock();
        let mut buffer = vec![0; PIECE];
        let (mut said, mut bytes) = (Vec::new(), 0);
        for _ in 0..LAST_MESSAGES {
            let Some(n) = self.socket.receive_now(&mut buffer) else {
                break;
            };
            bytes += n;
            if bytes > LAST_BYTES {
                break;
            }
            match assembler.take(&buffer[..n], MAX_ANSWER) {
                Ok(Some(one)) => said.push(one),
                Ok(None) => {}
                Err(_) => break,
            }
        }
        said
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
        self.printer.abort();
    }
}

async fn read(
    worker: WorkerNumber,
    socket: Arc<Socket>,
    hearing: Arc<Hearing>,
    events: mpsc::Sender<Event>,
    answers: Answers,
) {
    let mut buffer = vec![0; PIECE];
    let mut until = None;
    // Room first: what was received is never held across an await, so `last_words` misses nothing.
    while let Ok(room) = events.reserve().await {
        let Ok(first) = receive(&socket, &mut buffer, until).await else {
            let said = Vec::new();
            return room.send(Event::Violated { worker, said });
        };
        let Some(first) = first else { return };
        let (mut said, mut messages, mut bytes) = (Vec::new(), 0, 0);
        let mut next = Some(first);
        let mut begun = None;
        {
            let mut assembler = hearing.assembler.lock();
            while let Some(n) = next {
                match assembler.take(&buffer[..n], MAX_ANSWER) {
                    Ok(one) => said.extend(one),
                    Err(_) => return room.send(Event::Violated { worker, said }),
                }
                (messages, bytes) = (messages + 1, bytes + n);
                begun = assembler.begun().filter(|total| *total > SMALL);
                if begun.is_none() {
                    until = None;
                }
                let wants_room = begun.is_some() && until.is_none();
                next = match messages < TURN && bytes < TURN_BYTES && !wants_room {
                    true => socket.receive_now(&mut buffer),
                    false => None,
                };
            }
        }
        if !said.is_empty() {
            room.send(Event::Said { worker, said });
        }
        if let (Some(total), None) = (begun, until) {
            hearing.waits.store(true, Ordering::Relaxed);
            let Some(room) = answers.room(total).await else {
                return;
            };
            hearing.assembler.lock().give(room);
            hearing.waits.store(false, Ordering::Relaxed);
            until = Some(tokio::time::Instant::now() + answers.patience(total));
        }
        if bytes >= TURN_BYTES {
            tokio::task::yield_now().await;
        }
    }
}

/// Waits for a message, as long as it may take.
async fn receive(
    socket: &Socket,
    buffer: &mut [u8],
    until: Option<tokio::time::Instant>,
) -> Result<Option<usize>, tokio::time::error::Elapsed> {
    match until {
        Some(until) => tokio::time::timeout_at(until, socket.receive(buffer)).await,
        None => Ok(socket.receive(buffer).await),
    }
}

/// Tells when there is output, and waits each time until somebody has looked.
async fn print(worker: WorkerNumber, output: Arc<Output>, events: mpsc::Sender<Event>) {
    loop {
        let Ok(mut guard) = output.pipe.readable().await else {
            return;
        };
        if events.send(Event::Printing { worker }).await.is_err() {
            return;
        }
        output.looked.notified().await;
        match output.found.load(Ordering::Relaxed) {
            // Cleared only if nothing came since the guard was made.
            found if found == Found::Nothing as u8 => guard.clear_ready(),
            found if found == Found::End as u8 => return,
            _ => {}
        }
    }
}

/// The raw descriptor of a pipe's end.
pub(crate) fn raw(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_last_words_of_a_worker_end_though_somebody_goes_on_talking() {
        let (events, _kept) = mpsc::channel(1);
        let (link, _output) = Link::open(WorkerNumber(1), &events, &Answers::default()).unwrap();
        let far = link.socket.far_clone().unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let talking = std::thread::spawn({
            let enough = enough.clone();
            move || {
                let mut line = [0; 64];
                line[0] = 3;
                let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
                while !enough.load(Ordering::Relaxed) {
                    let _ = nix::sys::socket::send(far.as_raw_fd(), &line, flags);
                }
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let said = link.last_words();
        enough.store(true, Ordering::Relaxed);
        assert!(!said.is_empty() && said.len() <= LAST_MESSAGES);
        talking.join().unwrap();
    }
}
