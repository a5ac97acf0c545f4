//! What happens because time passed, or because this server came to lead.
//!
//! Owns the ticks: expired leases, grants that did not come, results of a restarted agent that did not
//! come, deadlines, retention. Everything is proposed and judged like any other order; only a leader
//! proposes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use farlane_consensus::Leadership;
use farlane_model::{AttemptRef, KeyId, LostCause, NodeId, SessionId};
use farlane_state::{Order, Return, ReturnReason, expired};
use farlane_units::Micros;

use crate::enrol::enrolment_ended;
use crate::lease::LEASE;
use crate::{ControlError, Controller};

/// How often clocks are looked at. Source: a fortieth of a lease; deadlines are held this closely.
const TICK: Duration = Duration::from_millis(250);
/// Items of one order of this room. Source: farlane-state takes up to 8192.
const PAGE: usize = 2048;
/// Every so many ticks: keys and enrolments that have ended and infeasible tasks, what lies between regions,
/// retention of results, idle sessions and old output.
const EACH_SECOND: u64 = 4;
const EACH_FIVE_SECONDS: u64 = 20;
const EACH_TEN_SECONDS: u64 = 40;
const EACH_HOUR: u64 = 4 * 3600;
/// Output is kept as long as results, and an hour more. Source: farlane-state, `RETENTION`.
const LOG_LIFE: Duration = Duration::from_secs(25 * 3600);

/// Attempts of earlier boots whose results were announced: given a lease's term to come.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    expected: VecDeque<(Micros, Vec<AttemptRef>)>,
}

impl Restarts {
    pub fn expect(&mut self, attempts: Vec<AttemptRef>, now: Micros) {
        if !attempts.is_empty() {
            let until = now.saturating_add(Micros(LEASE.0 * 1000));
            self.expected.push_back((until, attempts));
        }
    }
    fn take_overdue(&mut self, now: Micros) -> Vec<AttemptRef> {
        let mut overdue = Vec::new();
        while self
            .expected
            .front()
            .is_some_and(|(until, _)| *until <= now)
        {
            overdue.extend(
                self.expected
                    .pop_front()
                    .map(|(_, a)| a)
                    .unwrap_or_default(),
            );
        }
        overdue
    }
}

/// The term that this server leads, if it does.
#[derive(Debug, Default)]
struct Reign(Option<u64>);

/// What a change of leadership means here; first what ceased, then what began.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    ceased: bool,
    began: bool,
}

impl Reign {
    fn turn(&mut self, now: &Leadership) -> Turn {
        let leads = now.mine.then_some(now.term);
        let led = std::mem::replace(&mut self.0, leads);
        // Also where only the term is another: somebody else may have led in between.
        let changed = led != leads;
        Turn {
            ceased: changed && led.is_some(),
            began: changed && leads.is_some(),
        }
    }
}

/// One lost attempt each.
fn lost(attempts: Vec<AttemptRef>, cause: LostCause) -> Vec<Order> {
    let of = |some: &[AttemptRef]| {
        let reason = ReturnReason::Lost(cause);
        Order::Return(Return {
            attempts: some.iter().map(|a| (*a, reason)).collect(),
        })
    };
    attempts.chunks(PAGE).map(of).collect()
}

impl Controller {
    /// Looks at the clocks until the server stops.
    pub(crate) async fn timer_loop(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        let (mut count, mut retention_from) = (0u64, None);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = tick.tick() => count += 1,
            }
            if count.is_multiple_of(EACH_HOUR) {
                // Output lies where it came in, also on a server that no longer leads.
                self.sweep_logs();
            }
            if self.check_leads().is_err() {
                continue;
            }
            if self.consensus.read(|s| s.counts().queued) > 0 {
                self.planner_wake.notify_one();
            }
            let mut orders = self.due_now();
            if count.is_multiple_of(EACH_SECOND) {
                self.end_what_expired();
                orders.extend(self.infeasible());
                orders.extend(self.mend_granters());
                orders.extend(self.preemptions());
                orders.extend(self.refused_everywhere());
            }
            if count.is_multiple_of(EACH_FIVE_SECONDS) {
                self.survey();
            }
            if count.is_multiple_of(EACH_TEN_SECONDS) {
                orders.extend(self.due_seldom(&mut retention_from));
            }
            if count.is_multiple_of(EACH_HOUR) {
                self.shutdown.spawn(self.clone().sweep_blobs());
            }
            for order in orders {
                if let Err(error) = self.order(vec![order]).await {
                    tracing::debug!(%error, "what time made due waits for the next tick");
                }
            }
        }
    }

    fn due_now(&self) -> Vec<Order> {
        let steady = self.clock.steady();
        let mut orders = Vec::new();
        let expired = self.leases.lock().take_expired(steady);
        self.paths.lock().forget(&expired);
        self.heats.lock().forget(&expired);
        for node in expired {
            orders.extend(self.lease_expired(node));
        }
        if let Some(order) = self.overdue_grants() {
            orders.push(order.into());
        }
        let overdue = self.restarts.lock().take_overdue(steady);
        orders.extend(lost(overdue, LostCause::NodeRestarted));
        let now = self.now();
        if let Some(order) = self.consensus.read(|s| s.due(now, PAGE)) {
            orders.push(order.into());
        }
        orders
    }

    /// What the node held is lost, and its stream, if there is one, must begin again.
    fn lease_expired(&self, node: NodeId) -> Vec<Order> {
        tracing::info!(%node, "the node's lease has expired");
        if let Some(agent) = self.links.agent(node) {
            agent.link.end();
        }
        self.planner_wake.notify_one();
        let held = self
            .consensus
            .read(|s| s.desired(&node).map(|t| t.attempt_ref()).collect());
        lost(held, LostCause::LeaseExpired)
    }

    fn due_seldom(&self, from: &mut Option<SessionId>) -> Vec<Order> {
        let (now, rows) = (self.now(), self.consensus.rows());
        let (results, next) = self.consensus.read(|s| expired(s, &rows, now, PAGE, *from));
        *from = next;
        let sessions = self.consensus.read(|s| s.idle_sessions(now, PAGE));
        results
            .into_iter()
            .chain(sessions)
            .map(Order::from)
            .collect()
    }

    fn sweep_logs(&self) {
        let logs = self.logs.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = logs.sweep(LOG_LIFE) {
                tracing::warn!(%error, "old output could not be removed");
            }
        });
    }

    /// Follows who leads, until the server stops.
    pub(crate) async fn lead_loop(self: Arc<Self>) {
        let mut leadership = self.consensus.leadership();
        let mut reign = Reign::default();
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        loop {
            let now = leadership.borrow_and_update().clone();
            let turn = reign.turn(&now);
            if turn.ceased {
                self.cease_to_lead();
            }
            if turn.began {
                self.begin_to_lead();
            }
            tokio::select! {
                () = &mut stop => break,
                changed = leadership.changed() => if changed.is_err() { break },
            }
        }
        self.links.end_all(&ControlError::Unavailable {
            why: "this server is stopping".into(),
        });
    }

    /// Every node gets a full term. So does every granter that the state says is attached: it counts
    /// from when this server first looks for it.
    fn begin_to_lead(&self) {
        let now = self.clock.steady();
        let nodes: Vec<NodeId> = self.consensus.read(|s| {
            let holding = s
                .nodes()
                .filter(|n| n.running() + n.waiting() > 0)
                .map(|n| n.id);
            holding.collect()
        });
        tracing::info!(nodes = nodes.len(), "this server leads");
        {
            let mut leases = self.leases.lock();
            nodes.into_iter().for_each(|node| leases.inherit(node, now));
        }
        self.planner_wake.notify_one();
    }

    fn cease_to_lead(&self) {
        let leader = self.check_leads().err();
        self.leases.lock().clear();
        self.paths.lock().clear();
        self.heats.lock().clear();
        *self.moving.lock() = Default::default();
        self.took.lock().clear();
        self.view.lock().cease();
        *self.between.lock() = Arc::default();
        self.ungranted.lock().clear();
        self.absent.lock().clear();
        self.refusals.lock().clear();
        self.audits.lock().clear();
        *self.restarts.lock() = Restarts::default();
        self.links
            .end_all(&leader.unwrap_or(ControlError::NotLeader {
                leader: String::new(),
            }));
    }

    /// Ends the sessions whose keys, and the streams of nodes whose enrolments have ended.
    fn end_what_expired(&self) {
        let wall = self.wall();
        for session in self.links.sessions() {
            if session.expires <= wall {
                session.refuse(&ControlError::KeyExpired);
            }
        }
        for agent in self.links.agents() {
            if agent.stands_until <= wall {
                agent.refuse(&enrolment_ended());
            }
        }
    }

    /// Ends the sessions of a key that was revoked.
    pub(crate) fn end_sessions_of(&self, key: KeyId) {
        for session in self.links.sessions() {
            if session.key == key {
                session.refuse(&ControlError::KeyRevoked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_elected_again_begins_anew() {
        let leadership = |term, mine| Leadership {
            term,
            leader: None,
            mine,
        };
        let turn = |ceased, began| Turn { ceased, began };
        let mut reign = Reign::default();
        assert_eq!(reign.turn(&leadership(1, false)), turn(false, false));
        assert_eq!(reign.turn(&leadership(2, true)), turn(false, true));
        assert_eq!(reign.turn(&leadership(2, true)), turn(false, false));
        // What was seen of the terms between is chance: leases of the second are not those of the fourth.
        assert_eq!(reign.turn(&leadership(4, true)), turn(true, true));
        assert_eq!(reign.turn(&leadership(5, false)), turn(true, false));
        assert_eq!(reign.turn(&leadership(6, true)), turn(false, true));
    }
}
