//! A template process: forks workers inside its sandbox, kills them, and tells how they ended.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::mpsc;

use super::process::Process;
use super::socket::{PIECE, send_with_fds, seqpacket, watched};
use super::{Event, MAX_ANSWER, WorkerNumber};
use crate::sandbox::{Cgroups, Group, Private, Sandbox, SandboxError};

/// Bytes of what a failing template says that are kept.
const COMPLAINT: u64 = 2048;

/// Names a template within the agent's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TemplateNumber(pub(crate) u32);

/// How a worker ended: a wait status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitStatus(pub(crate) i32);

impl WaitStatus {
    /// The signal that killed it.
    pub(crate) fn signal(self) -> Option<i32> {
        std::process::ExitStatus::from_raw(self.0).signal()
    }
    /// The code that it left with.
    pub(crate) fn code(self) -> Option<i32> {
        std::process::ExitStatus::from_raw(self.0).code()
    }
}

/// What the template is told first.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    root: String,
    environment: Option<String>,
    scratch: String,
    node: &'a str,
    region: &'a str,
    limits: Limits,
    /// Most bytes of one answer.
    answer: usize,
    private: Option<Private>,
}

/// Resource limits by their names, see setrlimit(2).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    #[serde(rename = "CORE")]
    pub(crate) core: u64,
    #[serde(rename = "NOFILE")]
    pub(crate) files: u64,
    /// Of all workers together.
    #[serde(rename = "NPROC", skip_serializing_if = "Option::is_none")]
    pub(crate) processes: Option<u64>,
    /// Of one worker, where control groups can be made.
    #[serde(skip)]
    pub(crate) processes_a_worker: u64,
    #[serde(rename = "FSIZE")]
    pub(crate) file_size: u64,
    #[serde(rename = "DATA")]
    pub(crate) data: u64,
}

/// A control group of its own, where one can be made.
fn group(cgroups: Option<&Cgroups>, memory: u64, processes: u64) -> Option<Group> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("farlane-{}-{count}", std::process::id());
    let made = cgroups?.make(&name, memory, processes);
    made.inspect_err(|error| tracing::warn!(%error, "no control group for a sandbox"))
        .ok()
}

/// Who the node is, for `context()`.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) region: String,
}

/// A running template. Dropping it kills its sandbox and everything in it.
#[derive(Debug)]
pub(crate) struct Template {
    control: OwnedFd,
    group: Option<Group>,
    cgroups: Option<Cgroups>,
    limits: Limits,
    /// Held so that it dies with the agent's interest in it.
    _reaper: tokio::task::JoinHandle<()>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Template {
    /// Starts one; `Event::TemplateReady` or `Event::TemplateGone` follows.
    ///
    /// *Errors*: it could not be started at all.
    pub(crate) fn start(
        number: TemplateNumber,
        sandbox: &Sandbox,
        place: &Place,
        limits: &Limits,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, SandboxError> {
        let io = |what: &'static str| move |source| SandboxError::Io { what, source };
        let (near, far) = seqpacket(libc::SOCK_NONBLOCK).map_err(io("a template's socket"))?;
        let inside = sandbox.inside();
        let program = format!("{}/lib/farlane_template.py", inside.root);
        let fd = far.as_raw_fd().to_string();
        let arguments = ["-I", "-S", "-B", &program, &fd].map(Into::into);
        let cgroups = sandbox.cgroups.clone();
        let processes = limits.processes.unwrap_or(limits.files);
        let group = group(cgroups.as_ref(), limits.data, processes);
        let mut command = sandbox.command(&arguments, &[far.as_raw_fd()])?;
        if let Some(group) = &group {
            crate::sandbox::enter(&mut command, group).map_err(io("entering a control group"))?;
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(io("starting the sandbox"))?;
        drop(far);
        let settings = Settings {
            root: inside.root,
            environment: inside.environment,
            scratch: inside.scratch,
            node: &place.node,
            region: &place.region,
            limits: limits.clone(),
            answer: MAX_ANSWER,
            private: sandbox.private()?,
        };
        let settings = serde_json::to_vec(&settings)
            .map_err(|e| io("the template's settings")(io::Error::other(e)))?;
        match send_with_fds(near.as_raw_fd(), &settings, &[]) {
            // It has ended already: what it said of that is told with its end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            told => told.map_err(io("telling the template"))?,
        }
        let listen = near.try_clone().map_err(io("a descriptor"))?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let reaper = tokio::spawn(watch(number, child, listen, ended, events));
        Ok(Self {
            control: near,
            group,
            cgroups,
            limits: limits.clone(),
            _reaper: reaper,
            end: Some(end),
        })
    }

    /// A control group for one worker, held to nothing less than the whole sandbox yet.
    pub(crate) fn worker_group(&self) -> Option<Group> {
        let processes = self.limits.processes_a_worker;
        group(self.cgroups.as_ref(), self.limits.data, processes)
    }

    /// Asks for a worker that speaks over `far`, prints to `output`, and lives in `group`. Without one
    /// `Event::WorkerForked` follows.
    ///
    /// *Errors*: the template is gone or does not read.
    pub(crate) fn fork(
        &self,
        worker: WorkerNumber,
        far: RawFd,
        output: RawFd,
        group: Option<&Group>,
    ) -> io::Result<()> {
        let entries = group.map_or(&[][..], |group| &group.entries);
        let entries = entries.iter().map(AsRawFd::as_raw_fd);
        let fds: Vec<RawFd> = [far, output].into_iter().chain(entries).collect();
        self.tell(b'F', worker, &fds)
    }

    /// Kills a worker, its process group, and what descends from it.
    ///
    /// *Errors*: the template is gone or does not read; then drop it, which kills all.
    pub(crate) fn kill(&self, worker: WorkerNumber) -> io::Result<()> {
        self.tell(b'K', worker, &[])
    }

    fn tell(&self, what: u8, worker: WorkerNumber, fds: &[i32]) -> io::Result<()> {
        let number = worker.0.to_le_bytes();
        let message = [what, number[0], number[1], number[2], number[3]];
        send_with_fds(self.control.as_raw_fd(), &message, fds)
    }
}

impl Template {
    /// How many of its processes were killed for memory so far.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.group.as_ref().map_or(0, Group::oom_kills)
    }

    /// Kills the sandbox; `Event::TemplateGone` follows.
    pub(crate) fn end(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads what the template says until it ends or is dropped; then sees to it that it is dead.
async fn watch(
    number: TemplateNumber,
    mut child: Child,
    control: OwnedFd,
    mut ended: tokio::sync::oneshot::Receiver<()>,
    events: mpsc::Sender<Event>,
) {
    let mut stderr = child.stderr.take();
    let listening = async {
        let Ok(control) = watched(control) else {
            return;
        };
        let mut buffer = [0; 512];
        while let Some((n, passed)) = next(&control, &mut buffer).await {
            if let Some(event) = read(number, &buffer[..n], passed)
                && events.send(event).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = listening => {}
        _ = &mut ended => {}
    }
    let _ = child.start_kill();
    let mut complaint = Vec::new();
    if let Some(pipe) = stderr.take() {
        let mut pipe = pipe.take(COMPLAINT);
        let reading = pipe.read_to_end(&mut complaint);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), reading).await;
    }
    let _ = child.wait().await;
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    let _ = events
        .send(Event::TemplateGone {
            template: number,
            complaint,
        })
        .await;
}

/// One message, and the descriptor that came with it.
async fn next(control: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<(usize, Option<OwnedFd>)> {
    loop {
        let mut guard = control.readable().await.ok()?;
        match guard.try_io(|fd| receive(fd.as_raw_fd(), buffer)) {
            Ok(Ok((0, _))) | Ok(Err(_)) => return None,
            Ok(Ok(got)) => return Some(got),
            Err(_) => continue,
        }
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut room = nix::cmsg_space!([RawFd; 2]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(fd, &mut parts, Some(&mut room), flags)?;
    let mut passed = Vec::new();
    for message in got.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            // SAFETY: the kernel has just made these for this process; nobody else knows of them.
            #[allow(unsafe_code)]
            passed.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((got.bytes, passed.pop()))
}

fn read(template: TemplateNumber, message: &[u8], passed: Option<OwnedFd>) -> Option<Event> {
    debug_assert!(message.len() <= PIECE);
    let number = |at: usize| {
        let bytes = message.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    match message.first()? {
        b'R' => Some(Event::TemplateReady { template }),
        b'X' => Some(Event::WorkerEnded {
            template,
            worker: WorkerNumber(number(1)?),
            status: Some(WaitStatus(i32::from_ne_bytes(number(5)?.to_ne_bytes()))),
        }),
        b'P' => Some(Event::WorkerForked {
            template,
            worker: WorkerNumber(number(1)?),
            process: Process::new(passed?),
        }),
        b'E' => Some(Event::WorkerEnded {
            template,
            worker: WorkerNumber(number(1)?),
            status: None,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_template_says_it_says_for_itself() {
        let me = TemplateNumber(3);
        let mut message = vec![b'X'];
        message.extend_from_slice(&9u32.to_le_bytes());
        message.extend_from_slice(&11u32.to_le_bytes());
        let Some(Event::WorkerEnded {
            template,
            worker,
            status,
        }) = read(me, &message, None)
        else {
            panic!("it was read")
        };
        assert_eq!((template, worker), (me, WorkerNumber(9)));
        assert_eq!(status.and_then(WaitStatus::signal), Some(11));
        for cut in [
            &b"X"[..],
            &message[..8],
            &b"E\x01"[..],
            b"?",
            b"",
            b"P\x01\0\0\0",
        ] {
            assert!(read(me, cut, None).is_none(), "{cut:?}");
        }
    }
}
