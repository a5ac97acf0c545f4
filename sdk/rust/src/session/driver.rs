//! The one task that owns a session's stream.
//!
//! ```text
//! connect ─▶ open ─▶ resend ─▶ serve ─┬─ stream lost ─▶ wait, connect (until given up)
//!                                     ├─ refused for good ─▶ fail everything
//!                                     └─ closed by the caller ─▶ end
//! ```

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::{AttemptRef, NodeId, TaskId};
use farlane_wire::v1;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Streaming;
use v1::client_frame::Body as Out;
use v1::session_frame::Body as In;

use super::Shared;
use super::backoff::Backoff;
use super::batcher::Batcher;
use super::intake::Work;
use super::live::take_news;
use super::queue::Ask;
use crate::granter::Granting;
use crate::options::MAX_BATCH_TASKS;
use crate::outcome::{Delivered, Outcome, Receipt};
use crate::{Error, attach};

/// Results are acknowledged this long after they came: rarely enough to cost nothing, often enough
/// that the server's retention is honest. Source: retention is 1 h after acknowledgement.
const ACK_AFTER: Duration = Duration::from_millis(250);

/// Why serving a stream ended.
enum End {
    /// The stream broke; connect again.
    Lost(Error),
    /// Another server leads.
    Moved(String),
    /// Not to be tried again.
    Refused(Error),
    /// The caller closed the client.
    Closed,
}

/// A session's stream and what is under way on it.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    batcher: Batcher,
    granting: Granting,
    intake: Sender<Work>,
    /// Cursor of the last results received.
    cursor: Option<v1::Cursor>,
    acked: Option<v1::Cursor>,
    ack_at: Option<Instant>,
    wrapped_session_key: Bytes,
    epoch: u64,
    opened_once: bool,
    /// Whether the stream has brought anything since it was opened.
    used: bool,
    /// Asked and not yet sent.
    asks: Vec<Ask>,
}

struct Link {
    tx: mpsc::UnboundedSender<v1::ClientFrame>,
    rx: Streaming<v1::SessionFrame>,
}

impl Link {
    /// Queues a frame; a broken stream shows at the reading end.
    fn send(&self, body: Out) {
        let _ = self.tx.send(v1::ClientFrame { body: Some(body) });
    }
}

impl Driver {
    pub fn new(
        shared: Arc<Shared>,
        granting: Granting,
        intake: Sender<Work>,
        wrapped_session_key: Bytes,
    ) -> Self {
        Self {
            shared,
            batcher: Batcher::default(),
            granting,
            intake,
            cursor: None,
            acked: None,
            ack_at: None,
            wrapped_session_key,
            epoch: 0,
            opened_once: false,
            used: false,
            asks: Vec::new(),
        }
    }

    /// Serves until closed or given up. `first` is told how the first opening went.
    pub async fn run(mut self, first: oneshot::Sender<Result<(), Error>>) {
        let mut first = Some(first);
        let mut lost_at = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = self.patience().saturating_sub(lost_at.elapsed());
            let end = match self.open_within(left).await {
                Ok(link) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    let opened_at = Instant::now();
                    let end = self.serve(link).await;
                    lost_at = Instant::now();
                    backoff.ended(self.used, lost_at - opened_at);
                    end
                }
                Err(end) => end,
            };
            let error = match end {
                End::Closed => break self.end(),
                End::Refused(error) => error,
                End::Moved(url) => {
                    self.shared.network.prefer(&url);
                    continue;
                }
                End::Lost(error) => {
                    tracing::debug!(%error, "session stream lost");
                    if let Error::Connection { reason, .. } = &error {
                        *self.shared.lost.lock() = Some(reason.clone());
                    }
                    let patience = self.patience();
                    if self.shared.queue.is_closed() {
                        break self.end();
                    }
                    if lost_at.elapsed() < patience {
                        // The last wait ends with the patience, not after it.
                        let left = patience.saturating_sub(lost_at.elapsed());
                        self.pause(backoff.wait().min(left)).await;
                        continue;
                    }
                    self.shared.network.unreachable(lost_at.elapsed(), &error)
                }
            };
            if let Some(first) = first.take() {
                let _ = first.send(Err(error.clone()));
            }
            break self.give_up(error.clone(), error);
        }
    }

    async fn pause(&self, backoff: Duration) {
        let wait = self.shared.network.jittered(backoff);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.closed() => {}
        }
    }

    async fn closed(&self) {
        while !self.shared.queue.is_closed() {
            self.shared.queue.woken().await;
        }
    }

    /// How long it is tried to connect.
    fn patience(&self) -> Duration {
        let options = self.shared.network.options();
        match self.opened_once {
            true => options.reconnect_for,
            false => options.connect_timeout,
        }
    }

    async fn open_within(&mut self, left: Duration) -> Result<Link, End> {
        let network = self.shared.network.clone();
        let open = async { Ok(self.open().await) };
        let opened = network.within(left, open).await;
        opened.unwrap_or_else(|late| Err(End::Lost(late)))
    }

    /// Connects, says hello and waits for the answer.
    async fn open(&mut self) -> Result<Link, End> {
        let network = self.shared.network.clone();
        network.dial().await.map_err(End::Lost)?;
        let (tx, rx) = mpsc::unbounded_channel();
        let open = v1::OpenSession {
            hello: Some(network.hello()),
            session: Bytes::copy_from_slice(&self.shared.session.to_bytes()),
            resume: self.cursor,
            wrapped_session_key: self.wrapped_session_key.clone(),
            granter: self.granting.kind() as i32,
            device_bytes: network.device_bytes(),
            next_seq: self
                .batcher
                .next_seq()
                .unwrap_or_else(|| self.shared.queue.next_seq()),
        };
        // Unbounded, yet bounded: two submit batches, and one grant batch for each request read.
        let _ = tx.send(v1::ClientFrame {
            body: Some(Out::Open(open)),
        });
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(rx);
        let reply = network.client().session(network.request(frames)).await;
        let mut rx = reply.map_err(|s| ended(network.refused(s)))?.into_inner();
        match rx.message().await {
            Ok(Some(v1::SessionFrame {
                body: Some(In::Opened(opened)),
            })) => {
                if !opened.leader.is_empty() {
                    return Err(End::Moved(opened.leader));
                }
                let link = Link { tx, rx };
                self.opened(opened, &link)?;
                Ok(link)
            }
            Ok(Some(v1::SessionFrame {
                body: Some(In::Refused(refusal)),
            })) => Err(ended(network.refusal(refusal))),
            Ok(_) => Err(End::Lost(
                network.unexpected("the server did not open the session"),
            )),
            Err(status) => Err(ended(network.refused(status))),
        }
    }

    /// Takes the server's answer and sends again what it may not have.
    fn opened(&mut self, opened: v1::SessionOpened, link: &Link) -> Result<(), End> {
        let shared = self.shared.clone();
        shared.network.check_opened(&opened).map_err(End::Refused)?;
        self.epoch = opened.epoch;
        self.opened_once = true;
        *shared.lost.lock() = None;
        let limits = opened.hello.and_then(|hello| hello.limits);
        if let Some(limits) = limits.filter(|limits| limits.window_bytes > 0) {
            shared.queue.limit_to(limits.window_bytes);
        }
        self.used = self.batcher.acknowledge(&shared, opened.acknowledged_seq);
        for batch in self.batcher.unacknowledged() {
            link.send(Out::Submit(batch));
        }
        let watched = {
            let (mut watched, live) = (shared.watched.lock(), shared.live.lock());
            watched.retain(|task| live.contains_key(task));
            watched.clone()
        };
        if !watched.is_empty() {
            link.send(Out::Watch(v1::Watch {
                tasks: watched.iter().map(id_bytes).collect(),
            }));
        }
        self.acked = None;
        Ok(())
    }

    async fn serve(&mut self, mut link: Link) -> End {
        loop {
            if let Err(end) = self.pump(&link) {
                return end;
            }
            let shared = self.shared.clone();
            let ack_at = self.ack_at;
            let ack_due = async move {
                match ack_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                frame = link.rx.message() => {
                    if let Err(end) = self.frames(frame, &mut link) {
                        return end;
                    }
                }
                () = shared.queue.woken() => {}
                () = ack_due => self.acknowledge(&link),
            }
        }
    }

    /// Handles a frame and every other that has arrived already.
    fn frames(
        &mut self,
        first: Result<Option<v1::SessionFrame>, tonic::Status>,
        link: &mut Link,
    ) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(frame) = next {
            let frame = frame.map_err(|s| ended(self.shared.network.refused(s)))?;
            let Some(frame) = frame else {
                return Err(End::Lost(
                    self.shared
                        .network
                        .unexpected("the server ended the stream"),
                ));
            };
            self.frame(frame, link)?;
            next = link.rx.message().now_or_never();
        }
        Ok(())
    }

    fn frame(&mut self, frame: v1::SessionFrame, link: &Link) -> Result<(), End> {
        self.used |= matches!(
            frame.body,
            Some(In::Submitted(_) | In::GrantsWanted(_) | In::Results(_) | In::News(_))
        );
        match frame.body {
            Some(In::Submitted(ack)) => self.submitted(ack),
            Some(In::GrantsWanted(request)) => {
                let now = self.shared.network.cluster_now();
                let frames = self.granting.answer(&self.shared, &request, now);
                frames.into_iter().for_each(|frame| link.send(frame));
            }
            Some(In::Results(batch)) => {
                if batch.cursor.is_some() {
                    self.cursor = batch.cursor;
                    self.ack_at
                        .get_or_insert_with(|| Instant::now() + ACK_AFTER);
                }
                let tasks = batch.results.iter().filter_map(|r| r.attempt.as_ref());
                let tasks = tasks.filter_map(|a| TaskId::from_slice(&a.task).ok());
                let node = NodeId::from_slice(&batch.node).ok();
                self.granting.finished(&self.shared, node, tasks);
                // The delivery thread ends only after this task.
                let _ = self.intake.send(Work::Batch(batch));
            }
            Some(In::News(news)) => take_news(&mut self.shared.live.lock(), news),
            Some(In::Refused(refusal)) => return Err(ended(self.shared.network.refusal(refusal))),
            Some(In::Opened(opened)) if !opened.leader.is_empty() => {
                return Err(End::Moved(opened.leader));
            }
            Some(In::Opened(_) | In::Cancelled(_)) | None => {}
        }
        Ok(())
    }

    fn submitted(&mut self, ack: v1::SubmitAck) {
        // None of these will have a result of its own: what was granted of them ahead is forgotten.
        let session = self.shared.session;
        let refused = ack.refused.iter().map(|refusal| refusal.seq);
        let settled: Vec<TaskId> = refused
            .chain(ack.duplicates.iter().map(|duplicate| duplicate.seq))
            .map(|seq| session.task(seq))
            .collect();
        for refusal in ack.refused {
            let refused = v1::Refusal {
                code: refusal.code,
                message: refusal.message,
            };
            let error = self.shared.network.refusal(refused);
            self.fail(refusal.seq, error);
        }
        for duplicate in ack.duplicates {
            let Ok(earlier) = TaskId::from_slice(&duplicate.task) else {
                continue;
            };
            let ours = self.shared.session.task(duplicate.seq);
            self.shared.earlier.lock().insert(duplicate.seq, earlier);
            let live = self.shared.live.lock().remove(&ours);
            if let Some(live) = live {
                let (shared, intake) = (self.shared.clone(), self.intake.clone());
                self.shared.runtime.spawn(async move {
                    attach::follow(shared, intake, earlier, live.token).await;
                });
            }
        }
        self.granting
            .finished(&self.shared, None, settled.into_iter());
        // Last: who waits for it then asks for the earlier task, where it is one.
        self.batcher.acknowledge(&self.shared, ack.through_seq);
    }

    /// Sends what may be sent now.
    fn pump(&mut self, link: &Link) -> Result<(), End> {
        let shared = self.shared.clone();
        self.asks.extend(shared.queue.take_asks());
        for refused in self.batcher.failed_uploads() {
            self.fail(refused.seq, refused.error);
            // It goes out all the same, so that the sequence has no gap.
            let tasks = vec![self.shared.session.task(refused.seq)];
            let reason = "its upload failed".to_owned();
            self.asks.push(Ask::Cancel { tasks, reason });
        }
        while let Some(mut batch) = self.batcher.next(&shared) {
            let now = shared.network.cluster_now();
            batch.ahead = self.granting.ahead(&shared, &batch, self.epoch, now);
            link.send(Out::Submit(batch));
        }
        self.pass_asks_on(link);
        if shared.queue.is_closed() {
            self.acknowledge(link);
            return Err(End::Closed);
        }
        Ok(())
    }

    /// Sends what was asked; a cancellation only once the network knows the task.
    fn pass_asks_on(&mut self, link: &Link) {
        let session = self.shared.session;
        for ask in std::mem::take(&mut self.asks) {
            match ask {
                Ask::Watch(task) => {
                    let tasks = vec![id_bytes(&task)];
                    link.send(Out::Watch(v1::Watch { tasks }));
                }
                Ask::Cancel { tasks, reason } => {
                    let known =
                        |t: &TaskId| t.session() != session || self.batcher.is_durable(t.seq());
                    let (now, later): (Vec<_>, Vec<_>) = tasks.into_iter().partition(known);
                    if !later.is_empty() {
                        let reason = reason.clone();
                        self.asks.push(Ask::Cancel {
                            tasks: later,
                            reason,
                        });
                    }
                    for some in now.chunks(MAX_BATCH_TASKS) {
                        let tasks = some.iter().map(id_bytes).collect();
                        let reason = reason.clone();
                        link.send(Out::Cancel(v1::CancelBatch { tasks, reason }));
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, link: &Link) {
        let delivered = *self.shared.delivered.lock();
        if delivered.is_some() && delivered != self.acked {
            self.acked = delivered;
            link.send(Out::Ack(v1::AckResults { through: delivered }));
        }
        let behind = self.cursor.is_some() && self.acked != self.cursor;
        self.ack_at = behind.then(|| Instant::now() + ACK_AFTER);
    }

    fn fail(&self, seq: u64, error: Error) {
        let task = self.shared.session.task(seq);
        let Some(live) = self.shared.live.lock().remove(&task) else {
            return;
        };
        let failed = failed(live.token, task, self.epoch, error);
        let _ = self.intake.send(Work::Local(vec![failed]));
    }

    /// Ends what the caller closed: what the network has goes on there.
    fn end(&mut self) {
        let unanswered = self.shared.queue.end_reason();
        self.give_up(unanswered, Error::Closed);
    }

    /// Refuses what comes, fails what waits, `durable` or not yet, ends the delivery thread.
    fn give_up(&mut self, error: Error, durable: Error) {
        let shared = self.shared.clone();
        let mut left: Vec<Delivered> = Vec::new();
        let waiting = shared.queue.close(error.clone());
        for waiting in waiting.into_iter().chain(self.batcher.drain_raw()) {
            let task = shared.session.task(waiting.seq);
            left.push(failed(waiting.call.token, task, self.epoch, error.clone()));
        }
        for (task, live) in shared.live.lock().drain() {
            let own = task.session() == shared.session;
            let error = match own && !self.batcher.is_durable(task.seq()) {
                true => &error,
                false => &durable,
            };
            left.push(failed(live.token, task, self.epoch, error.clone()));
        }
        let _ = self.intake.send(Work::Local(left));
        let _ = self.intake.send(Work::Stop);
    }
}

/// A task that this side ends.
pub(crate) fn failed(token: u64, task: TaskId, epoch: u64, error: Error) -> Delivered {
    let attempt = AttemptRef {
        task,
        attempt: 0,
        epoch,
    };
    Delivered {
        token,
        attempt,
        outcome: Outcome::Failed(error),
        receipt: Receipt::default(),
    }
}

pub(crate) fn id_bytes(task: &TaskId) -> Bytes {
    Bytes::copy_from_slice(&task.to_bytes())
}

/// Whether an error ends the session or only the stream.
fn ended(error: Error) -> End {
    match error {
        Error::Connection { .. } => End::Lost(error),
        _ => End::Refused(error),
    }
}
