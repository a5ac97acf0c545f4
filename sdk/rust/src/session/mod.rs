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

pub(crate) mod batcher;
pub(crate) mod driver;
pub(crate) mod intake;
pub(crate) mod live;
pub(crate) mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use farlane_model::{SessionId, TaskId};
use farlane_seal::SessionKey;
use farlane_wire::v1;
use parking_lot::Mutex;

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
            me: me.clone(),
        })
    }

    /// A counted handle on itself.
    pub fn me(&self) -> Arc<Self> {
        self.me
            .upgrade()
            .expect("self is borrowed, so its count is above zero")
    }
}
