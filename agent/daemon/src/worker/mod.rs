//! Workers and the templates that fork them.
//!
//! Owns their sockets, messages and processes. Leaves what they run, and when, to `engine`.

pub(crate) mod message;
pub(crate) mod socket;
pub(crate) mod template;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use message::{Assembler, Said};
use socket::{PIECE, Socket, watched};
use template::{TemplateNumber, WaitStatus};

/// Most bytes of one answer. Source: docs/design/spine.md leaves it to the agent; 1 GiB is what a node
/// of 4 GiB can hold four times (answer, sealed answer, and their copies on the way).
pub(crate) const MAX_ANSWER: usize = 1 << 30;
/// Messages that one turn reads from a worker before others get theirs.
const TURN: usize = 64;

/// Names a worker within the agent's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerNumber(pub(crate) u32);

/// What happened to workers and templates.
#[derive(Debug)]
pub(crate) enum Event {
    /// It can fork.
    TemplateReady { template: TemplateNumber },
    /// It and all its workers are dead.
    TemplateGone { template: TemplateNumber, complaint: String },
    /// A worker said this, in order.
    Said { worker: WorkerNumber, said: Vec<Said> },
    /// It printed this below Python's own streams.
    Printed { worker: WorkerNumber, data: Bytes },
    /// It broke the protocol after it said this; it must be killed.
    Violated { worker: WorkerNumber, said: Vec<Said> },
    /// It has ended; absent status: it never began.
    WorkerEnded { worker: WorkerNumber, status: Option<WaitStatus> },
}

/// A worker's socket with the tasks that read from it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Arc<Socket>,
    reader: tokio::task::JoinHandle<()>,
    assembler: Arc<parking_lot::Mutex<Assembler>>,
}

impl Link {
    /// Makes the socket and pipe of a new worker; the returned file is its output's other end, to be
    /// passed on and dropped.
    ///
    /// *Errors*: no descriptors left.
    pub(crate) fn open(
        worker: WorkerNumber,
        events: &mpsc::Sender<Event>,
    ) -> std::io::Result<(Self, OwnedFd)> {
        let socket = Arc::new(Socket::pair()?);
        let (output, input) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(
            &output,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )?;
        let output = watched(File::from(output))?;
        let assembler = Arc::default();
        let reader =
            tokio::spawn(read(worker, socket.clone(), Arc::clone(&assembler), events.clone()));
        tokio::spawn(print(worker, output, events.clone()));
        Ok((Self { socket, reader, assembler }, input))
    }

    /// What the worker said before it ended and nobody has read yet.
    pub(crate) fn last_words(&self) -> Vec<Said> {
        self.reader.abort();
        let mut assembler = self.assembler.lock();
        let mut buffer = vec![0; PIECE];
        let mut said = Vec::new();
        while let Some(n) = self.socket.receive_now(&mut buffer) {
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
        // The printer ends by itself when the last holder of the pipe is gone.
        self.reader.abort();
    }
}

async fn read(
    worker: WorkerNumber,
    socket: Arc<Socket>,
    assembler: Arc<parking_lot::Mutex<Assembler>>,
    events: mpsc::Sender<Event>,
) {
    let mut buffer = vec![0; PIECE];
    // Room first: what was received is never held across an await, so `last_words` misses nothing.
    while let Ok(room) = events.reserve().await {
        let Some(first) = socket.receive(&mut buffer).await else { return };
        let mut said = Vec::new();
        let mut next = Some(first);
        let mut assembler = assembler.lock();
        while let Some(n) = next {
            match assembler.take(&buffer[..n], MAX_ANSWER) {
                Ok(one) => said.extend(one),
                Err(_) => return room.send(Event::Violated { worker, said }),
            }
            next = if said.len() < TURN { socket.receive_now(&mut buffer) } else { None };
        }
        if !said.is_empty() {
            room.send(Event::Said { worker, said });
        }
    }
}

async fn print(worker: WorkerNumber, output: AsyncFd<File>, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(mut guard) = output.readable().await else { return };
        match guard.try_io(|file| file.get_ref().read(&mut buffer)) {
            Ok(Ok(0)) => return,
            Ok(Ok(n)) => {
                let data = Bytes::copy_from_slice(&buffer[..n]);
                if events.send(Event::Printed { worker, data }).await.is_err() {
                    return;
                }
                // Endless output must not starve the others on this thread.
                tokio::task::yield_now().await;
            }
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

/// The raw descriptor of a pipe's end.
pub(crate) fn raw(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
