//! The handle that callers hold: submit, cancel, attach, close.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{BadSpec, Digest, NodeId, PythonVersion, SessionId, TaskId, TaskSpec};
use farlane_seal::identity::Identity;
use farlane_seal::{SessionKey, StreamContext, StreamKind, TaskKey, random, stream, vault};
use farlane_wire::v1;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::blobs::{refused, start_upload, too_large};
use crate::call::{Argument, Call, Code, Environment, Spec, Template, Upload};
use crate::granter::Granting;
use crate::logs::Logs;
use crate::network::{Network, SHORTEST_TRY};
use crate::options::{ConnectOptions, MAX_BLOB_BYTES};
use crate::outcome::Sink;
use crate::session::Shared;
use crate::session::driver::Driver;
use crate::session::intake::{self, Work};
use crate::session::live::Phase;
use crate::session::queue::{Ask, Push, Queue};
use crate::{Error, attach};

/// Large arguments remembered, so that one that many calls share is sent once.
const MAX_REMEMBERED: usize = 64;

/// One session with a network. Cheap to clone; the session ends with the last clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    intake: Sender<Work>,
    arguments: Mutex<Remembered>,
    environments: Mutex<HashMap<Digest, Environment>>,
}

#[derive(Default)]
struct Remembered {
    by_content: HashMap<Digest, Argument>,
    oldest: VecDeque<Digest>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What waits is failed by the driver.
        self.shared.queue.end();
    }
}

/// What is known of an awaited task.
#[derive(Debug, Clone, Copy)]
pub struct TaskState {
    /// Where it is in its life.
    pub phase: Phase,
    /// Newest attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Which node holds it.
    pub node: Option<NodeId>,
}

impl Client {
    /// Opens a session; `sink` gets every result, in batches, from one thread.
    ///
    /// *Errors*: no server answers in time, or the identity is not accepted.
    pub async fn connect(
        identity: Identity,
        options: ConnectOptions,
        sink: Sink,
    ) -> Result<Self, Error> {
        let granting = Granting::session(&options.memory_of(identity.tenant()));
        Self::connect_as(identity, options, sink, granting).await
    }

    pub(crate) async fn connect_as(
        identity: Identity,
        options: ConnectOptions,
        sink: Sink,
        granting: Granting,
    ) -> Result<Self, Error> {
        let queue = Queue::new(options.window.get());
        let network = Network::new(identity, options);
        let session = SessionId::new(network.cluster_now().get(), random::bytes());
        let session_key = SessionKey::generate();
        let vault = network.identity().vault.public();
        let wrapped = vault::seal_session(&vault, session, &session_key)
            .map_err(|e| Error::BadIdentity(e.to_string()))?;
        let runtime = tokio::runtime::Handle::current();
        let shared = Shared::new(network, runtime, session, session_key, queue);
        let intake = intake::start(shared.clone(), sink).map_err(|e| Error::File {
            path: "delivery thread".to_owned(),
            reason: e.to_string(),
        })?;
        let driver = Driver::new(
            shared.clone(),
            granting,
            intake.clone(),
            Bytes::from(wrapped),
        );
        let (tell, first) = oneshot::channel();
        tokio::spawn(driver.run(tell));
        let inner = Inner {
            shared,
            intake,
            arguments: Mutex::default(),
            environments: Mutex::default(),
        };
        let client = Self(Arc::new(inner));
        first.await.map_err(|_| Error::Closed)??;
        Ok(client)
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.0.shared.session
    }

    /// The task that submission `seq` is: an earlier one where the network has acknowledged it as such.
    pub fn task(&self, seq: u64) -> TaskId {
        let earlier = self.0.shared.earlier.lock().get(&seq).copied();
        earlier.unwrap_or_else(|| self.session().task(seq))
    }

    /// The task to ask the network for: of this session's own, once it is acknowledged.
    ///
    /// *Errors*: nothing is acknowledged in `connect_timeout`; the client was closed, or the connection was
    /// given up, before.
    async fn known(&self, task: TaskId) -> Result<TaskId, Error> {
        if task.session() != self.session() {
            return Ok(task);
        }
        let patience = self.network().options().connect_timeout.max(SHORTEST_TRY);
        self.0.shared.acknowledged(task.seq(), patience).await?;
        Ok(self.task(task.seq()))
    }

    /// One task's view, waiting for the acknowledgement of one's own.
    ///
    /// *Errors*: no such task, no connection, or the server refuses.
    pub async fn view(&self, task: TaskId) -> Result<v1::TaskView, Error> {
        let task = self.known(task).await?;
        self.network().task(task).await
    }

    /// Why a task is where it is, waiting for the acknowledgement of one's own.
    ///
    /// *Errors*: no such task, no connection, or the server refuses.
    pub async fn explain(&self, task: TaskId) -> Result<v1::ExplainReply, Error> {
        let task = self.known(task).await?;
        let request = v1::ExplainRequest {
            task: Bytes::copy_from_slice(&task.to_bytes()),
            ..Default::default()
        };
        self.network().explain(request).await
    }

    /// Output of a task's attempt, as [`Network::logs`], waiting for the acknowledgement of one's own.
    ///
    /// *Errors*: no such task, no key for it, or no connection.
    pub async fn logs(&self, task: TaskId, attempt: u32, follow: bool) -> Result<Logs, Error> {
        let task = self.known(task).await?;
        self.network().logs(task, attempt, follow).await
    }

    /// The network, for single questions.
    pub fn network(&self) -> &Network {
        &self.0.shared.network
    }

    fn upload(&self, kind: StreamKind, plain: &[u8]) -> Upload {
        let shared = &self.0.shared;
        let key = TaskKey::generate();
        let context = StreamContext::blob(kind, shared.network.tenant());
        // A node opens no more, however small it is sealed.
        if let Some(error) = too_large(plain.len(), MAX_BLOB_BYTES) {
            return refused(key, plain.len(), error);
        }
        let frame = farlane_codec::compress(plain);
        let sealed = stream::seal_padded_parts(&key, &context, &frame.parts());
        start_upload(
            &shared.runtime,
            shared.network.clone(),
            key,
            Bytes::from(sealed),
        )
    }

    /// Seals a pickled function and starts to put it.
    pub fn code(&self, pickled: &[u8]) -> Code {
        Code(self.upload(StreamKind::Code, pickled))
    }

    /// Seals a hashed lock and starts to put it; the same lock is put once.
    pub fn environment(&self, lock: &str, python: PythonVersion) -> Environment {
        let id = self.network().keyed_digest(&[
            b"environment",
            lock.as_bytes(),
            &[python.major, python.minor],
        ]);
        let mut known = self.0.environments.lock();
        let make = || Environment {
            id,
            upload: self.upload(StreamKind::Lock, lock.as_bytes()),
        };
        known.entry(id).or_insert_with(make).clone()
    }

    /// Waits while too much ciphertext is on its way to the blob store, at most `patience`; `false`
    /// where it still is. Callers of [`Client::argument`] ask first.
    pub fn wait_upload_room(&self, patience: Duration) -> bool {
        self.network().wait_upload_room(patience)
    }

    /// Seals a large buffer and starts to put it; the same bytes are put once.
    pub fn argument(&self, plain: &[u8]) -> Argument {
        let content = Digest::of(plain);
        if let Some(known) = self.0.arguments.lock().by_content.get(&content)
            && known.0.failure().is_none()
        {
            return known.clone();
        }
        let argument = Argument(self.upload(StreamKind::Argument, plain));
        let mut known = self.0.arguments.lock();
        if known.by_content.insert(content, argument.clone()).is_none() {
            known.oldest.push_back(content);
        }
        if known.oldest.len() > MAX_REMEMBERED {
            let oldest = known.oldest.pop_front();
            oldest.map(|oldest| known.by_content.remove(&oldest));
        }
        argument
    }

    /// Puts what calls share together.
    ///
    /// *Errors*: a field out of its bounds.
    pub fn spec(
        &self,
        template: Template,
        code: &Code,
        environment: Option<&Environment>,
    ) -> Result<Spec, Error> {
        Spec::build(
            self.network().identity().project,
            template,
            code,
            environment,
        )
    }

    /// Submits, waiting without end for room in the window.
    ///
    /// *Errors*: the client is closed, or the connection was given up.
    pub async fn submit(&self, call: Call) -> Result<TaskId, Error> {
        let seq = self.0.shared.queue.push_async(call).await?;
        Ok(self.session().task(seq))
    }

    /// Submits, waiting for room at most `patience`, which may be zero; the call comes back where
    /// there was none.
    ///
    /// *Errors*: the client is closed, or the connection was given up.
    pub fn submit_within(
        &self,
        call: Call,
        patience: Duration,
    ) -> Result<Result<TaskId, Box<Call>>, Error> {
        let queue = &self.0.shared.queue;
        let pushed = match patience.is_zero() {
            true => queue.push(call)?,
            false => queue.push_within(call, patience)?,
        };
        Ok(match pushed {
            Push::Queued(seq) => Ok(self.session().task(seq)),
            Push::Full(call) => Err(call),
        })
    }

    /// Submits calls that run at once or not at all, waiting without end for room in the window; see
    /// [`Template::gang`]. Their ids, in the order of their ranks.
    ///
    /// *Errors*: not as many calls as their one spec's gang has, or of several specs; the client is closed, or the
    /// connection was given up.
    pub async fn submit_gang(&self, calls: Vec<Call>) -> Result<Vec<TaskId>, Error> {
        let size = whole_gang(&calls)?;
        let first = self.0.shared.queue.push_gang_async(calls).await?;
        Ok(self.tasks_from(first, size))
    }

    /// The same, waiting for room at most `patience`, which may be zero; the calls come back where there was none.
    ///
    /// *Errors*: as [`Client::submit_gang`].
    pub fn submit_gang_within(
        &self,
        calls: Vec<Call>,
        patience: Duration,
    ) -> Result<Result<Vec<TaskId>, Vec<Call>>, Error> {
        let size = whole_gang(&calls)?;
        Ok(
            match self.0.shared.queue.push_gang_within(calls, patience)? {
                Push::Queued(first) => Ok(self.tasks_from(first, size)),
                Push::Full(calls) => Err(calls),
            },
        )
    }

    fn tasks_from(&self, first: u64, size: u16) -> Vec<TaskId> {
        let seqs = first..first + u64::from(size);
        seqs.map(|seq| self.session().task(seq)).collect()
    }

    /// Asks for tasks to be cancelled; their results say whether that came in time.
    pub fn cancel(&self, tasks: Vec<TaskId>, reason: &str) {
        self.0.shared.queue.ask(Ask::Cancel {
            tasks,
            reason: reason.to_owned(),
        });
    }

    /// Makes the result of any task of the project come to the sink under `token`; answers its
    /// spec, where this version can read it.
    ///
    /// *Errors*: no such task, no key for it, no connection.
    pub async fn attach(&self, task: TaskId, token: u64) -> Result<Option<TaskSpec>, Error> {
        let task = self.known(task).await?;
        attach::attach(&self.0.shared, &self.0.intake, task, token).await
    }

    /// What is known of an awaited task; `None` once delivered, or not yet sealed.
    pub fn standing(&self, task: TaskId) -> Option<TaskState> {
        let live = self.0.shared.live.lock();
        live.get(&task).map(|l| TaskState {
            phase: l.phase,
            attempt: l.attempt,
            node: l.node,
        })
    }

    /// Tasks awaited, submitted or attached.
    pub fn awaited(&self) -> usize {
        self.0.shared.live.lock().len()
    }

    /// Submitted and not yet durable.
    pub fn unacknowledged(&self) -> u64 {
        self.0.shared.queue.unacknowledged()
    }

    /// Waits until all that was submitted is durable; `false` where it was not in time.
    pub fn wait_acknowledged(&self, patience: Duration) -> bool {
        self.0.shared.queue.wait_acknowledged(patience)
    }

    /// Waits until all that was submitted is durable, as long as anything moves and then `patience`. Where
    /// that was in vain, [`Client::close`] ends what is not acknowledged with the same error.
    ///
    /// *Errors*: nothing has moved for so long; the client was closed, or the connection was given up.
    pub async fn settle(&self, patience: Duration) -> Result<(), Error> {
        let shared = &self.0.shared;
        let last = shared.queue.next_seq() - 1;
        let end = shared.acknowledged(last, patience).await;
        if let Err(error) = &end {
            shared.queue.unanswered(error.clone());
        }
        end
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.0.shared.queue.is_closed()
    }

    /// Ends the session. What is not delivered fails here with [`Error::Closed`], and goes on over
    /// there, unless it never got there: see [`Client::settle`].
    pub fn close(&self) {
        self.0.shared.queue.end();
    }
}

/// How many calls a gang has.
///
/// *Errors*: not as many as their one spec's gang, or of several specs.
fn whole_gang(calls: &[Call]) -> Result<u16, Error> {
    let spec = calls.first().map(|call| &call.spec);
    let gang = spec.and_then(|spec| spec.0.gang);
    let one_spec = calls
        .windows(2)
        .all(|two| two[0].spec.digest() == two[1].spec.digest());
    match gang.filter(|gang| usize::from(gang.size) == calls.len() && one_spec) {
        Some(gang) => Ok(gang.size),
        None => Err(Error::Spec(BadSpec::OutOfBounds {
            field: "gang",
            bound: "as many calls as the spec's gang has, all of that spec",
        })),
    }
}
