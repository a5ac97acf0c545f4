//! The planning loop: one task that owns the proposals of submissions and completions.
//!
//! Owns the order in which they enter the log, and the placements that go with them. Leaves which
//! node is best to `farlane-plan`, and whether a placement still holds to `farlane-state`.
//!
//! ```text
//! streams ─▶ intake ─▶ [SubmitBatch …, CompleteBatch …, Place] ─▶ propose (≤ 2 in flight)
//!                              ▲                                      │
//!            wake (requeued, node or granter changed) ─ plan ◀────────┴─▶ SubmitAck, CompleteAck
//! ```
//! A plan is made on applied state and an overlay of what is in flight. Never a timer: a lone call goes
//! at once, and under load batches form while two entries are on their way.

use std::sync::Arc;

use farlane_consensus::{ProposeError, Proposed};
use farlane_model::MAX_ENTRY_BYTES;
use farlane_state::{CompleteBatch, Order, Outcome, Place, Refusal, SubmitBatch};
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as ToClient;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use crate::Controller;
use crate::error::{ControlError, refusal_code};
use crate::link::{AgentLink, SessionLink};
use crate::overlay::{Flight, Overlay};

/// Entries on their way. Source: one is being synced while the next is made ready; measured with
/// openraft in 2026-11, more only lengthens the queue.
const IN_FLIGHT: usize = 2;
/// Bytes of batches in one entry; the rest of its bound is for placements.
const ENTRY_BYTES: usize = MAX_ENTRY_BYTES - 320 * 1024;
/// Batches waiting between streams and this loop. Source: two of each of a hundred busy streams.
pub(crate) const INTAKE: usize = 256;

/// What streams hand in.
pub(crate) enum Intake {
    /// Tasks, and what they took of their client's window.
    Submit {
        session: Arc<SessionLink>,
        order: SubmitBatch,
        tasks: u64,
        bytes: u64,
    },
    /// Attempts that ended.
    Complete {
        agent: Arc<AgentLink>,
        batch: u64,
        order: CompleteBatch,
        bytes: u64,
    },
    /// An order whose answer nobody waits for.
    Quiet(Order),
}

impl Intake {
    fn bytes(&self) -> usize {
        match self {
            Self::Submit { bytes, .. } | Self::Complete { bytes, .. } => *bytes as usize,
            Self::Quiet(order) => order.encode().body.len() + 64,
        }
    }
}

/// Who hears of an outcome.
pub(crate) enum Reply {
    Submit {
        session: Arc<SessionLink>,
        tasks: u64,
        bytes: u64,
    },
    Complete {
        agent: Arc<AgentLink>,
        batch: u64,
        items: u32,
    },
    Nobody,
}

impl Controller {
    /// Runs until the server stops.
    pub(crate) async fn plan_loop(self: Arc<Self>, mut intake: mpsc::Receiver<Intake>) {
        let mut flights = FuturesUnordered::new();
        let mut overlay = Overlay::default();
        let mut waiting: Option<Intake> = None;
        let mut plan_wanted = true;
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        loop {
            if flights.len() < IN_FLIGHT {
                let taken = take(&mut waiting, &mut intake);
                if (!taken.is_empty() || plan_wanted)
                    && let Some((orders, flight)) =
                        self.prepare(taken, &mut overlay, &mut plan_wanted)
                {
                    let commands = orders.iter().map(Order::encode).collect();
                    let consensus = self.consensus.clone();
                    flights.push(async move { (flight, consensus.propose(commands).await) });
                }
            }
            let ready = flights.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some((flight, done)) = flights.next(), if !flights.is_empty() => {
                    overlay.land(&flight);
                    plan_wanted |= self.settle(flight, done);
                }
                some = intake.recv(), if ready && waiting.is_none() => match some {
                    Some(item) => waiting = Some(item),
                    None => break,
                },
                () = self.planner_wake.notified(), if !plan_wanted => plan_wanted = true,
            }
        }
        // What was proposed is answered, so that clients need not guess.
        while let Some((flight, done)) = flights.next().await {
            self.settle(flight, done);
        }
    }

    /// Orders of one entry with the placements that their effects allow.
    fn prepare(
        &self,
        taken: Vec<Intake>,
        overlay: &mut Overlay,
        plan_wanted: &mut bool,
    ) -> Option<(Vec<Order>, Flight)> {
        let mut orders = Vec::with_capacity(taken.len() + 1);
        let mut replies = Vec::with_capacity(taken.len() + 1);
        for item in taken {
            match item {
                Intake::Submit {
                    session,
                    order,
                    tasks,
                    bytes,
                } => {
                    orders.push(Order::SubmitBatch(order));
                    replies.push(Reply::Submit {
                        session,
                        tasks,
                        bytes,
                    });
                }
                Intake::Complete {
                    agent,
                    batch,
                    order,
                    ..
                } => {
                    let items = order.items.len() as u32;
                    orders.push(Order::CompleteBatch(order));
                    replies.push(Reply::Complete {
                        agent,
                        batch,
                        items,
                    });
                }
                Intake::Quiet(order) => {
                    orders.push(order);
                    replies.push(Reply::Nobody);
                }
            }
        }
        let planned = self.plan_round(&orders, overlay);
        *plan_wanted = planned.more;
        let mut flight = Flight {
            replies,
            placed: planned.placements,
            freed: planned.freed,
        };
        if !flight.placed.is_empty() {
            let placements = flight.placed.iter().map(|p| p.placement()).collect();
            orders.push(Order::Place(Place {
                based_on: planned.based_on,
                placements,
                quotes: planned.quotes,
            }));
            flight.replies.push(Reply::Nobody);
        }
        if orders.is_empty() {
            return None;
        }
        overlay.take_off(&flight);
        Some((orders, flight))
    }

    /// Answers everyone in an entry. True when planning again may place more.
    fn settle(&self, flight: Flight, done: Result<Proposed, ProposeError>) -> bool {
        let proposed = match done {
            Ok(proposed) => proposed,
            Err(error) => {
                let error = ControlError::from(error);
                flight
                    .replies
                    .into_iter()
                    .for_each(|reply| fail(reply, &error));
                return false;
            }
        };
        let mut again = false;
        for (reply, outcome) in flight.replies.into_iter().zip(proposed.outcomes) {
            match reply {
                Reply::Submit {
                    session,
                    tasks,
                    bytes,
                } => {
                    session.window.give_back(tasks, bytes);
                    acknowledge_submit(&session, outcome);
                }
                Reply::Complete {
                    agent,
                    batch,
                    items,
                } => {
                    again = true;
                    acknowledge_complete(&agent, batch, items, proposed.index, outcome);
                }
                Reply::Nobody => {
                    if let Outcome::Placed { placed, refused } = outcome {
                        // A round that placed nothing waits for a change, or for the next tick.
                        again |= placed > 0 && !refused.is_empty();
                        for (task, why) in refused.iter().take(3) {
                            tracing::debug!(%task, %why, "a placement no longer held");
                        }
                    }
                }
            }
        }
        again
    }
}

/// What is there now, up to the bound of an entry.
fn take(waiting: &mut Option<Intake>, intake: &mut mpsc::Receiver<Intake>) -> Vec<Intake> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(item) = waiting.take().or_else(|| intake.try_recv().ok()) {
        bytes += item.bytes();
        if bytes > ENTRY_BYTES && !taken.is_empty() {
            *waiting = Some(item);
            break;
        }
        taken.push(item);
    }
    taken
}

fn fail(reply: Reply, error: &ControlError) {
    match reply {
        Reply::Submit { session, .. } => session.refuse(error),
        Reply::Complete { agent, .. } => {
            agent.frame(ToAgent::Refused(error.refusal()));
            agent.link.end();
        }
        Reply::Nobody => {}
    }
}

fn acknowledge_submit(session: &SessionLink, outcome: Outcome) {
    let ack = match outcome {
        Outcome::Submitted {
            through,
            refused,
            duplicates,
        } => v1::SubmitAck {
            through_seq: through,
            refused: refused
                .iter()
                .map(|(seq, why)| refused_submission(*seq, why))
                .collect(),
            duplicates: duplicates
                .iter()
                .map(|(seq, task)| v1::Duplicate {
                    seq: *seq,
                    task: crate::push::bytes_of(&task.to_bytes()),
                })
                .collect(),
        },
        Outcome::Refused(why) => return session.refuse(&why.into()),
        other => return session.refuse(&unexpected(&other)),
    };
    session.frame(ToClient::Submitted(ack));
}

fn refused_submission(seq: u64, why: &Refusal) -> v1::SubmitRefusal {
    v1::SubmitRefusal {
        seq,
        code: refusal_code(why).as_str().to_owned(),
        message: why.to_string(),
    }
}

fn acknowledge_complete(agent: &AgentLink, batch: u64, items: u32, index: u64, outcome: Outcome) {
    let stale = match outcome {
        Outcome::Completed { stale } => stale,
        // Nothing of it counts: the agent may forget it.
        Outcome::Refused(why) => {
            tracing::warn!(node = %agent.node, batch, %why, "a batch of completions was refused");
            (0..items).collect()
        }
        other => {
            tracing::error!(?other, "an outcome does not fit its order");
            return agent.link.end();
        }
    };
    agent.frame(ToAgent::Completed(v1::CompleteAck {
        batch,
        index,
        stale,
    }));
}

pub(crate) fn unexpected(outcome: &Outcome) -> ControlError {
    ControlError::Internal {
        detail: format!("an outcome does not fit its order: {outcome:?}"),
    }
}
