//! The outgoing half of a stream, and what is remembered of it.
//!
//! Owns queues towards agents and clients: bounded, never waited on. Whoever cannot keep up is cut
//! off, or brought up to date from the state later; nothing here needs to be replayed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use farlane_model::{BootId, Digest, KeyId, NodeId, ProjectId, SessionId, TaskId};
use farlane_state::Cursor;
use farlane_store::Scopes;
use farlane_units::Millis;
use farlane_wire::v1;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ControlError;
use crate::ahead::Ahead;

/// Frames waiting towards one peer. Source: with frames of at most 256 KiB, 64 MiB for a peer that
/// reads nothing; a usual frame holds a few KiB.
const QUEUE: usize = 256;
/// Results are sent only while this many places are free, so that answers always find one.
pub(crate) const RESULT_RESERVE: usize = 128;
/// Likewise for grant requests, which are asked for again.
pub(crate) const GRANT_RESERVE: usize = 32;

/// Sends frames to one peer.
#[derive(Debug)]
pub(crate) struct Link<F> {
    pub id: u64,
    out: mpsc::Sender<F>,
    ended: CancellationToken,
}

impl<F> Link<F> {
    /// A link and the stream that a transport sends on.
    pub fn new() -> (Self, Outbound<F>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (out, frames) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        let gone = Box::pin(ended.clone().cancelled_owned());
        (
            Self {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                out,
                ended,
            },
            Outbound { frames, gone },
        )
    }
    /// Queues a frame; a peer that has not read the last few hundred is cut off.
    pub fn send(&self, frame: F) -> bool {
        let sent = self.out.try_send(frame).is_ok();
        if !sent {
            self.ended.cancel();
        }
        sent
    }
    /// Queues a frame that may be lost.
    pub fn offer(&self, frame: F, reserve: usize) -> bool {
        self.out.capacity() > reserve && self.out.try_send(frame).is_ok()
    }
    /// Places free.
    pub fn room(&self) -> usize {
        self.out.capacity()
    }
    /// Ends the stream after what is queued.
    pub fn end(&self) {
        self.ended.cancel();
    }
    /// Whether it should.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }
    /// Resolves when the stream should end.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }
}

/// The frames towards one peer, for its transport.
///
/// *Shape*: ends after the frames that were queued when the stream was ended.
#[derive(Debug)]
pub struct Outbound<F> {
    frames: mpsc::Receiver<F>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<F> Stream for Outbound<F> {
    type Item = F;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F>> {
        match self.frames.poll_recv(cx) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => self.gone.as_mut().poll(cx).map(|()| None),
        }
    }
}

/// A connected agent.
#[derive(Debug)]
pub(crate) struct AgentLink {
    pub link: Link<v1::ControlFrame>,
    pub node: NodeId,
    pub boot: BootId,
    /// Wall time until which its provider stands for the node.
    pub stands_until: Millis,
    pub push: Mutex<AgentPush>,
}

/// What an agent has been sent.
#[derive(Debug, Default)]
pub(crate) struct AgentPush {
    /// Everything up to this index has been sent as desired.
    pub since: u64,
    /// Specs that this stream carried.
    specs: HashSet<Digest>,
    /// A frame was left out: everything must be sent again.
    pub behind: bool,
}

/// Specs that an agent is taken to know; beyond it they are told again. Source: an agent remembers the last
/// 2048 that it was told (farlane-daemon, `GENERATION`).
const MAX_SPECS_TOLD: usize = 1024;

impl AgentPush {
    /// Whether the agent must be told this spec's bytes now.
    pub fn tell_spec(&mut self, spec: Digest) -> bool {
        tell(&mut self.specs, spec, MAX_SPECS_TOLD)
    }
}

/// Takes note that a peer is told something; true when it must be. Nothing is taken to be known any more
/// once there is `most` of it.
fn tell<T: Eq + Hash>(told: &mut HashSet<T>, what: T, most: usize) -> bool {
    if told.len() >= most && !told.contains(&what) {
        told.clear();
    }
    told.insert(what)
}

impl AgentLink {
    /// Says why, and ends the stream.
    pub fn refuse(&self, error: &ControlError) {
        self.frame(v1::control_frame::Body::Refused(error.refusal()));
        self.link.end();
    }
    pub fn frame(&self, body: v1::control_frame::Body) -> bool {
        self.link.send(v1::ControlFrame { body: Some(body) })
    }
    /// Asks for an answer; one that is not sent counts as one that is late.
    pub fn ping(&self, nonce: u64) {
        let nonce = crate::push::bytes_of(&nonce.to_le_bytes());
        let body = v1::control_frame::Body::Ping(v1::Ping { nonce });
        self.link
            .offer(v1::ControlFrame { body: Some(body) }, GRANT_RESERVE);
    }
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct SessionLink {
    pub link: Link<v1::SessionFrame>,
    pub session: SessionId,
    pub project: ProjectId,
    pub key: KeyId,
    pub scopes: Scopes,
    pub expires: Millis,
    pub granter: v1::GranterKind,
    pub push: Mutex<SessionPush>,
    pub window: Window,
    pub ahead: Mutex<Ahead>,
}

/// What a client has been sent.
#[derive(Debug, Default)]
pub(crate) struct SessionPush {
    /// The last result sent.
    pub cursor: Cursor,
    /// Contexts whose record and prekey this stream carried.
    contexts: HashSet<(NodeId, u64)>,
    /// Sessions whose wrapped key this stream carried.
    sessions: HashSet<SessionId>,
    /// Specs whose canonical bytes this stream carried, for a standing granter.
    specs: HashSet<Digest>,
    /// Nodes whose record this stream carried with results.
    signers: HashSet<NodeId>,
    /// Tasks that it watches, until their result is sent.
    pub watched: HashSet<TaskId>,
    /// Those of them to be looked at: their result may be there.
    pub due: VecDeque<TaskId>,
    /// The queue was short: results wait in the state.
    pub behind: bool,
}

impl From<Cursor> for SessionPush {
    /// Of a stream that has been sent everything up to here, and nothing else.
    fn from(cursor: Cursor) -> Self {
        Self {
            cursor,
            ..Self::default()
        }
    }
}

/// Sessions, specs, contexts and records of nodes that a stream is taken to know; beyond it they are told
/// again. Source: a granter remembers at least 32,768 of each.
const MAX_TOLD: usize = 8192;

impl SessionPush {
    /// Whether a granter must be told this session's wrapped key now.
    pub fn tell_session(&mut self, session: SessionId) -> bool {
        tell(&mut self.sessions, session, MAX_TOLD)
    }
    /// Whether a granter must be told this spec's bytes now.
    pub fn tell_spec(&mut self, spec: Digest) -> bool {
        tell(&mut self.specs, spec, MAX_TOLD)
    }
    /// Whether a granter knows this context's record and prekey.
    pub fn knows_context(&self, node: NodeId, context: u64) -> bool {
        self.contexts.contains(&(node, context))
    }
    /// A granter was told this context's record and prekey.
    pub fn told_context(&mut self, node: NodeId, context: u64) {
        tell(&mut self.contexts, (node, context), MAX_TOLD);
    }
    /// What it knows of a node's contexts is told again.
    pub fn forget_contexts(&mut self, node: NodeId) {
        self.contexts.retain(|(known, _)| *known != node);
    }
    /// Whether a client must be told this node's record now.
    pub fn tell_signer(&mut self, node: NodeId) -> bool {
        tell(&mut self.signers, node, MAX_TOLD)
    }
    /// What a lost request would have told goes with the next one.
    pub fn forget_told(&mut self) {
        self.sessions.clear();
        self.specs.clear();
    }
}

impl SessionLink {
    pub fn frame(&self, body: v1::session_frame::Body) -> bool {
        self.link.send(v1::SessionFrame { body: Some(body) })
    }
    /// Says why, and ends the stream.
    pub fn refuse(&self, error: &ControlError) {
        self.frame(v1::session_frame::Body::Refused(error.refusal()));
        self.link.end();
    }
}

/// What a client has submitted and not had acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Window {
    tasks: AtomicU64,
    bytes: AtomicU64,
}

impl Window {
    /// *Errors*: more than the bounds allow.
    pub fn take(&self, tasks: u64, bytes: u64, most: (u64, u64)) -> Result<(), ControlError> {
        let tasks = self.tasks.fetch_add(tasks, Ordering::Relaxed) + tasks;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match () {
            () if tasks > most.0 => Err(ControlError::WindowExceeded {
                most: most.0,
                unit: "tasks",
            }),
            () if bytes > most.1 => Err(ControlError::WindowExceeded {
                most: most.1,
                unit: "bytes",
            }),
            () => Ok(()),
        }
    }
    pub fn give_back(&self, tasks: u64, bytes: u64) {
        self.tasks.fetch_sub(tasks, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Everyone connected to this server.
#[derive(Debug, Default)]
pub(crate) struct Links {
    agents: RwLock<HashMap<NodeId, Arc<AgentLink>>>,
    sessions: RwLock<HashMap<SessionId, Arc<SessionLink>>>,
    /// Task → who watches it from another session.
    watchers: RwLock<HashMap<TaskId, Vec<Arc<SessionLink>>>>,
}

/// Most tasks that one stream may watch. Source: a page of a listing, ten times.
pub(crate) const MAX_WATCHED: usize = 10_000;

impl Links {
    pub fn agent(&self, node: NodeId) -> Option<Arc<AgentLink>> {
        self.agents.read().get(&node).cloned()
    }
    pub fn agents(&self) -> Vec<Arc<AgentLink>> {
        self.agents.read().values().cloned().collect()
    }
    pub fn session(&self, session: SessionId) -> Option<Arc<SessionLink>> {
        self.sessions.read().get(&session).cloned()
    }
    pub fn sessions(&self) -> Vec<Arc<SessionLink>> {
        self.sessions.read().values().cloned().collect()
    }
    /// Adds an agent; an earlier stream of the same node ends.
    pub fn add_agent(&self, agent: Arc<AgentLink>) {
        if let Some(earlier) = self.agents.write().insert(agent.node, agent) {
            earlier.link.end();
        }
    }
    /// Takes an agent out unless a later stream has replaced it. True when it did.
    pub fn remove_agent(&self, agent: &AgentLink) -> bool {
        let mut agents = self.agents.write();
        let current = agents
            .get(&agent.node)
            .is_some_and(|a| a.link.id == agent.link.id);
        current && agents.remove(&agent.node).is_some()
    }
    /// Adds a client; an earlier stream of the same session ends.
    pub fn add_session(&self, session: Arc<SessionLink>) {
        let earlier = self.sessions.write().insert(session.session, session);
        if let Some(earlier) = earlier {
            self.unwatch(&earlier);
            earlier.link.end();
        }
    }
    /// Takes a client out unless a later stream has replaced it. True when it did.
    pub fn remove_session(&self, session: &SessionLink) -> bool {
        self.unwatch(session);
        let mut sessions = self.sessions.write();
        let current = sessions
            .get(&session.session)
            .is_some_and(|s| s.link.id == session.link.id);
        current && sessions.remove(&session.session).is_some()
    }

    /// Those that it does not watch yet are to be looked at.
    ///
    /// *Errors*: the stream watches too many.
    pub fn watch(&self, session: &Arc<SessionLink>, tasks: &[TaskId]) -> Result<(), ControlError> {
        let mut push = session.push.lock();
        let mut watchers = self.watchers.write();
        for task in tasks {
            if push.watched.contains(task) {
                continue;
            }
            if push.watched.len() >= MAX_WATCHED {
                let what = format!("a stream watches at most {MAX_WATCHED} tasks");
                return Err(ControlError::invalid(what));
            }
            push.watched.insert(*task);
            push.due.push_back(*task);
            watchers.entry(*task).or_default().push(session.clone());
        }
        Ok(())
    }
    /// The stream, whose `push` this is, has the result of a task that it watched.
    pub fn watched(&self, session: &SessionLink, push: &mut SessionPush, task: TaskId) {
        if push.watched.remove(&task) {
            forget_watcher(&mut self.watchers.write(), task, session.link.id);
        }
    }
    fn unwatch(&self, session: &SessionLink) {
        let mut push = session.push.lock();
        push.due = VecDeque::new();
        let watched = std::mem::take(&mut push.watched);
        let mut watchers = self.watchers.write();
        for task in watched {
            forget_watcher(&mut watchers, task, session.link.id);
        }
    }
    pub fn anybody_watches(&self) -> bool {
        !self.watchers.read().is_empty()
    }
    pub fn watchers(&self, task: TaskId) -> Vec<Arc<SessionLink>> {
        self.watchers.read().get(&task).cloned().unwrap_or_default()
    }

    /// Ends every stream, when leadership is lost or the server stops.
    pub fn end_all(&self, error: &ControlError) {
        for agent in self.agents() {
            agent.frame(v1::control_frame::Body::Refused(error.refusal()));
            agent.link.end();
        }
        for session in self.sessions() {
            session.refuse(error);
        }
    }
}

fn forget_watcher(watchers: &mut HashMap<TaskId, Vec<Arc<SessionLink>>>, task: TaskId, link: u64) {
    if let Some(links) = watchers.get_mut(&task) {
        links.retain(|l| l.link.id != link);
        if links.is_empty() {
            watchers.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio_stream::StreamExt;

    #[test]
    fn a_window_holds_tasks_and_bytes() {
        let window = Window::default();
        let most = (10, 1000);
        window.take(6, 500, most).unwrap();
        assert!(matches!(
            window.take(5, 1, most),
            Err(ControlError::WindowExceeded { unit: "tasks", .. })
        ));
        window.give_back(5, 1);
        assert!(matches!(
            window.take(1, 501, most),
            Err(ControlError::WindowExceeded { unit: "bytes", .. })
        ));
        window.give_back(7, 1001);
        window.take(10, 1000, most).unwrap();
    }

    #[tokio::test]
    async fn a_stream_ends_after_what_is_queued_and_a_full_one_at_once() {
        let (link, mut outbound) = Link::new();
        assert!(link.send(1) && link.send(2));
        link.end();
        assert_eq!(
            (
                outbound.next().await,
                outbound.next().await,
                outbound.next().await
            ),
            (Some(1), Some(2), None)
        );

        let (link, _outbound) = Link::new();
        while link.offer(0, RESULT_RESERVE) {}
        assert_eq!(link.room(), RESULT_RESERVE);
        for _ in 0..RESULT_RESERVE {
            assert!(link.send(0));
        }
        assert!(!link.send(0) && link.has_ended());
    }

    #[test]
    fn what_peers_are_taken_to_know_is_bounded_and_told_again() {
        let digest = |n: usize| Digest::of(&n.to_be_bytes());
        let mut push = AgentPush::default();
        assert!((0..MAX_SPECS_TOLD).all(|n| push.tell_spec(digest(n))));
        assert!((0..MAX_SPECS_TOLD).all(|n| !push.tell_spec(digest(n))));
        assert!(push.tell_spec(digest(MAX_SPECS_TOLD)));
        assert!(push.tell_spec(digest(0)) && push.specs.len() == 2);

        let node = |n: usize| NodeId(digest(n).0);
        let mut push = SessionPush::default();
        for n in 0..3 * MAX_TOLD + 1 {
            assert!(push.tell_signer(node(n)) && !push.tell_signer(node(n)));
            push.told_context(node(n), 7);
            assert!(push.knows_context(node(n), 7) && !push.knows_context(node(n), 8));
            assert!(push.signers.len().max(push.contexts.len()) <= MAX_TOLD);
        }
        push.forget_contexts(node(3 * MAX_TOLD));
        assert!(push.contexts.is_empty());
    }

    #[test]
    fn a_stream_watches_a_task_until_it_has_its_result() {
        let (link, _outbound) = Link::new();
        let id = SessionId::new(1, [0; 5]);
        let session = Arc::new(SessionLink {
            link,
            session: id,
            project: ProjectId::new(1, [0; 10]),
            key: KeyId::new(1, [0; 10]),
            scopes: Scopes::default(),
            expires: Millis::MAX,
            granter: v1::GranterKind::None,
            push: Default::default(),
            window: Default::default(),
            ahead: Default::default(),
        });
        let links = Links::default();
        let tasks: Vec<TaskId> = (1..=MAX_WATCHED as u64).map(|n| id.task(n)).collect();
        links.watch(&session, &tasks).unwrap();
        // Again the same ones: nothing more to look at.
        links.watch(&session, &tasks[..10]).unwrap();
        assert_eq!(session.push.lock().due.len(), MAX_WATCHED);
        let one_more = [id.task(MAX_WATCHED as u64 + 1)];
        assert!(links.watch(&session, &one_more).is_err());
        links.watched(&session, &mut session.push.lock(), tasks[0]);
        assert!(links.watchers(tasks[0]).is_empty() && links.watchers(tasks[1]).len() == 1);
        links.watch(&session, &one_more).unwrap();
        links.remove_session(&session);
        assert!(!links.anybody_watches() && session.push.lock().due.is_empty());
    }
}
