//! One client's conversation with the network.
//!
//! Owns the stream's life: open, submit, grant, take results, acknowledge, resume. Leaves dialling
//! to [`crate::network`], policy of grants to [`crate::granter`].
//!
//! ```text
//! callers ─ Queue ─▶ Driver ─ Batcher ─ SubmitBatch ─▶ server
//!                     │  ▲                               │
//!                     │  └── SubmitAck, GrantRequest ────┤
//!                     │        └▶ Contexts ─ GrantBatch ▶│
//! sink ◀─ Intake ◀────┴───────── ResultBatch ────────────┘
//!          │ (own thread: verify, open)
//!          └─ cursor ─▶ Driver ─ AckResults ─▶ server
//! ```
//!
//! A lost stream is opened again with the cursor of the last results taken and the first sequence
//! number not acknowledged; what is unacknowledged is sent again, and the server knows it by number.

pub(crate) mod backoff;
pub(crate) mod batcher;
pub(crate) mod driver;
pub(crate) mod intake;
pub(crate) mod live;
pub(crate) mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use farlane_model::{SessionId, TaskId};
use farlane_seal::SessionKey;
use farlane_wire::v1;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Error;
use crate::network::Network;
use live::LiveMap;
use queue::Queue;

/// What callers, driver and delivery thread share.
pub(crate) struct Shared {
    pub network: Network,
    pub runtime: tokio::runtime::Handle,
    pub session: SessionId,
    pub session_key: SessionKey,
    pub queue: Queue,
    pub live: Mutex<LiveMap>,
    /// Cursor of the last results handed to the sink.
    pub delivered: Mutex<Option<v1::Cursor>>,
    /// Tasks of other sessions that every new stream watches again.
    pub watched: Mutex<Vec<TaskId>>,
    /// Submissions that turned out to be earlier tasks, by their sequence number.
    pub earlier: Mutex<HashMap<u64, TaskId>>,
    /// Why the stream was lost, until it is open again.
    pub lost: Mutex<Option<String>>,
    me: Weak<Shared>,
}

impl Shared {
    pub fn new(
        network: Network,
        runtime: tokio::runtime::Handle,
        session: SessionId,
        session_key: SessionKey,
        queue: Queue,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            network,
            runtime,
            session,
            session_key,
            queue,
            live: Mutex::default(),
            delivered: Mutex::default(),
            watched: Mutex::default(),
            earlier: Mutex::default(),
            lost: Mutex::default(),
            me: me.clone(),
        })
    }

    /// Waits for the acknowledgement of a submission as long as anything moves, and then `patience`.
    ///
    /// *Errors*: nothing has moved for so long; the client was closed, or the connection was given up.
    pub async fn acknowledged(&self, seq: u64, patience: Duration) -> Result<(), Error> {
        loop {
            let (begun, before) = (Instant::now(), self.network.moved());
            match tokio::time::timeout(patience, self.queue.durable(seq)).await {
                Ok(end) => return end,
                Err(_) if self.network.moved() != before => {}
                Err(_) => return Err(self.unanswered(begun.elapsed())),
            }
        }
    }

    /// What is said to those who waited `tried` for acknowledgements.
    fn unanswered(&self, tried: Duration) -> Error {
        let mut reason = match self.queue.unacknowledged() {
            1 => "1 call is not acknowledged".to_owned(),
            n => format!("{n} calls are not acknowledged"),
        };
        if let Some(lost) = &*self.lost.lock() {
            reason = format!("{reason}: {lost}");
        }
        let error = self.network.unexpected(&reason);
        self.network.unreachable(tried, &error)
    }

    /// A counted handle on itself.
    pub fn me(&self) -> Arc<Self> {
        self.me
            .upgrade()
            .expect("self is borrowed, so its count is above zero")
    }
}
