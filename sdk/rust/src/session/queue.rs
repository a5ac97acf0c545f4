//! Between callers and the driver: calls in order, held to a window of bytes.
//!
//! Owns sequence numbers and the window. A caller that finds the window full waits until the
//! network has acknowledged enough; the driver is woken only while it could send.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farlane_model::TaskId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::options::TASK_OVERHEAD_BYTES;
use crate::{Call, Error};

/// A call with its place in the session.
pub(crate) struct Waiting {
    pub seq: u64,
    pub call: Call,
    /// Its rank in a gang, and how many that has: they leave in one batch.
    pub gang: Option<(u16, u16)>,
}

/// What callers ask of the driver beside submissions.
#[derive(Debug)]
pub(crate) enum Ask {
    Cancel { tasks: Vec<TaskId>, reason: String },
    Watch(TaskId),
}

/// What a window holds back.
pub(crate) enum Push<T = Box<Call>> {
    /// Queued under this sequence number; a gang's first.
    Queued(u64),
    /// The window is full; what was to be queued comes back.
    Full(T),
}

struct State {
    next_seq: u64,
    waiting: VecDeque<Waiting>,
    asks: Vec<Ask>,
    held: u64,
    limit: u64,
    unacknowledged: u64,
    closed: Option<Error>,
    /// Why what is not acknowledged fails when the caller ends the session.
    unanswered: Option<Error>,
    /// The driver could send: wake it at the next push.
    hungry: bool,
}

impl State {
    /// Takes so many bytes of the window; false where it is full.
    fn admit(&mut self, cost: u64) -> Result<bool, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.held > 0 && self.held + cost > self.limit {
            return Ok(false);
        }
        self.held += cost;
        Ok(true)
    }
}

/// Shared by every caller of a client and its driver.
pub(crate) struct Queue {
    state: Mutex<State>,
    room: Condvar,
    room_async: Notify,
    wake: Notify,
}

/// What a call counts in the window.
pub(crate) fn cost(call: &Call) -> u64 {
    call.arguments.len() as u64 + TASK_OVERHEAD_BYTES
}

impl Queue {
    pub fn new(limit: u64) -> Self {
        Self {
            state: Mutex::new(State {
                next_seq: 1,
                waiting: VecDeque::new(),
                asks: Vec::new(),
                held: 0,
                limit,
                unacknowledged: 0,
                closed: None,
                unanswered: None,
                hungry: true,
            }),
            room: Condvar::new(),
            room_async: Notify::new(),
            wake: Notify::new(),
        }
    }

    /// Queues a call, unless the window is full. A call larger than the whole window goes alone.
    ///
    /// *Errors*: the client was closed, or the connection was given up.
    pub fn push(&self, call: Call) -> Result<Push, Error> {
        let mut state = self.state.lock();
        self.push_locked(&mut state, call)
    }

    fn push_locked(&self, state: &mut State, call: Call) -> Result<Push, Error> {
        Ok(match state.admit(cost(&call))? {
            true => Push::Queued(self.put(state, call, None)),
            false => Push::Full(Box::new(call)),
        })
    }

    fn put(&self, state: &mut State, call: Call, gang: Option<(u16, u16)>) -> u64 {
        let seq = state.next_seq;
        state.next_seq += 1;
        state.unacknowledged += 1;
        state.waiting.push_back(Waiting { seq, call, gang });
        if std::mem::take(&mut state.hungry) {
            self.wake.notify_one();
        }
        seq
    }

    /// Queues a gang, whose calls get numbers in a row. One larger than the whole window goes alone.
    ///
    /// *Errors*: as [`Queue::push`].
    pub fn push_gang(&self, calls: Vec<Call>) -> Result<Push<Vec<Call>>, Error> {
        self.push_gang_locked(&mut self.state.lock(), calls)
    }

    fn push_gang_locked(
        &self,
        state: &mut State,
        calls: Vec<Call>,
    ) -> Result<Push<Vec<Call>>, Error> {
        let all = calls.iter().map(cost).sum();
        let size = u16::try_from(calls.len()).unwrap_or(u16::MAX);
        if !state.admit(all)? {
            return Ok(Push::Full(calls));
        }
        let first = state.next_seq;
        for (rank, call) in (0..).zip(calls) {
            self.put(state, call, Some((rank, size)));
        }
        Ok(Push::Queued(first))
    }

    /// Queues a gang, waiting for room at most `patience`.
    ///
    /// *Errors*: as [`Queue::push`].
    pub fn push_gang_within(
        &self,
        calls: Vec<Call>,
        patience: Duration,
    ) -> Result<Push<Vec<Call>>, Error> {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        let mut calls = calls;
        loop {
            match self.push_gang_locked(&mut state, calls)? {
                Push::Full(back) if Instant::now() < until => calls = back,
                done => return Ok(done),
            }
            self.room.wait_until(&mut state, until);
        }
    }

    /// Queues a gang, waiting for room.
    ///
    /// *Errors*: as [`Queue::push`].
    pub async fn push_gang_async(&self, calls: Vec<Call>) -> Result<u64, Error> {
        let mut calls = calls;
        loop {
            let room = self.room_async.notified();
            match self.push_gang(calls)? {
                Push::Queued(first) => return Ok(first),
                Push::Full(back) => calls = back,
            }
            room.await;
        }
    }

    /// Queues a call, waiting for room at most `patience`.
    ///
    /// *Errors*: as [`Queue::push`].
    pub fn push_within(&self, call: Call, patience: Duration) -> Result<Push, Error> {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        let mut call = call;
        loop {
            match self.push_locked(&mut state, call)? {
                Push::Full(back) if Instant::now() < until => call = *back,
                done => return Ok(done),
            }
            self.room.wait_until(&mut state, until);
        }
    }

    /// Queues a call, waiting for room.
    ///
    /// *Errors*: as [`Queue::push`].
    pub async fn push_async(&self, call: Call) -> Result<u64, Error> {
        let mut call = call;
        loop {
            let room = self.room_async.notified();
            match self.push(call)? {
                Push::Queued(seq) => return Ok(seq),
                Push::Full(back) => call = *back,
            }
            room.await;
        }
    }

    /// Hands an ask to the driver; dropped once closed.
    pub fn ask(&self, ask: Ask) {
        self.state.lock().asks.push(ask);
        self.wake.notify_one();
    }

    /// Takes up to `most` calls into `out`; where none are left the next push wakes the driver.
    pub fn take(&self, most: usize, out: &mut VecDeque<Waiting>) {
        let mut state = self.state.lock();
        let n = most.min(state.waiting.len());
        out.extend(state.waiting.drain(..n));
        state.hungry = state.waiting.is_empty() && most > 0;
    }

    pub fn take_asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.state.lock().asks)
    }

    /// Gives an acknowledged call's bytes back to the window.
    pub fn release(&self, bytes: u64, tasks: u64) {
        let mut state = self.state.lock();
        state.held = state.held.saturating_sub(bytes);
        state.unacknowledged = state.unacknowledged.saturating_sub(tasks);
        drop(state);
        self.room.notify_all();
        self.room_async.notify_waiters();
    }

    /// The server's window, where it is smaller than ours.
    pub fn limit_to(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.limit = state.limit.min(bytes.max(1));
    }

    /// Submitted and not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.state.lock().unacknowledged
    }

    /// Waits until everything submitted is acknowledged, at most `patience`; `false` where it is
    /// not.
    pub fn wait_acknowledged(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.unacknowledged > 0 && state.closed.is_none() {
            if self.room.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.unacknowledged == 0
    }

    /// Waits until the network has acknowledged this submission; at once for what was never
    /// submitted.
    ///
    /// *Errors*: the client was closed, or the connection was given up, before.
    pub async fn durable(&self, seq: u64) -> Result<(), Error> {
        loop {
            let progress = self.room_async.notified();
            {
                let state = self.state.lock();
                // Acknowledgements come in order.
                let through = (state.next_seq - 1).saturating_sub(state.unacknowledged);
                if seq <= through || seq >= state.next_seq {
                    return Ok(());
                }
                if let Some(error) = &state.closed {
                    return Err(error.clone());
                }
            }
            progress.await;
        }
    }

    /// Refuses every later push with `error` and hands back what was not taken.
    pub fn close(&self, error: Error) -> Vec<Waiting> {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(error);
        }
        let left = state.waiting.drain(..).collect();
        drop(state);
        self.room.notify_all();
        self.room_async.notify_waiters();
        self.wake.notify_one();
        left
    }

    /// Refuses every later push and has the driver end the session.
    pub fn end(&self) {
        let mut state = self.state.lock();
        let error = state.unanswered.take().unwrap_or(Error::Closed);
        state.closed.get_or_insert(error);
        drop(state);
        self.room.notify_all();
        self.room_async.notify_waiters();
        self.wake.notify_one();
    }

    /// The session is about to end without the acknowledgements that were waited for.
    pub fn unanswered(&self, error: Error) {
        self.state.lock().unanswered = Some(error);
    }

    /// Why the queue was closed.
    pub fn end_reason(&self) -> Error {
        self.state.lock().closed.clone().unwrap_or(Error::Closed)
    }

    /// The number that the next call will get.
    pub fn next_seq(&self) -> u64 {
        self.state.lock().next_seq
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Waits for a push while hungry, an ask, or the end.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Wakes the driver.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }
}
