//! What changes without any task: nodes fall silent and come back, grids change by the hour.

use farlane_model::{AttemptRef, LostCause, NodeId};
use farlane_state::{Return, ReturnReason};

use crate::machine::HOUR;
use crate::run::{BATCH, Simulation, What};

/// How long a silent node stays away, milliseconds.
const AWAY: u64 = 60_000;

impl Simulation {
    pub(crate) fn silence_later(&mut self, node: NodeId) {
        let rate = self.scenario.failures_per_node_day;
        if rate > 0.0 {
            // Evenly between none and twice the mean: what matters is how often, not how it is spread.
            let days = 2.0 * self.random.unit() / rate;
            self.event(
                self.now + (days * (24 * HOUR) as f64) as u64 + 1,
                What::Silent(node),
            );
        }
    }

    pub(crate) fn silent(&mut self, node: NodeId) {
        if self.now >= self.arrive_until() {
            return;
        }
        self.online(node, false);
        self.lose(node);
        self.event(self.now + AWAY, What::Back(node));
    }

    pub(crate) fn back(&mut self, node: NodeId) {
        self.online(node, true);
        self.silence_later(node);
    }

    /// All that a node holds comes back.
    pub(crate) fn lose(&mut self, node: NodeId) {
        let held: Vec<AttemptRef> = self.state.desired(&node).map(|t| t.attempt_ref()).collect();
        self.tally.lost += held.len() as u64;
        let lost = |attempt| (attempt, ReturnReason::Lost(LostCause::LeaseExpired));
        for some in held.chunks(BATCH) {
            let attempts = some.iter().copied().map(lost).collect();
            self.order(Return { attempts });
        }
        // With it others of its gangs.
        self.running
            .retain(|attempt, _| self.state.is_current(attempt));
        self.busy = self.running.values().map(|held| u64::from(*held)).sum();
    }

    pub(crate) fn online(&mut self, node: NodeId, online: bool) {
        if let Some(machine) = self.nodes.get_mut(&node) {
            machine.view.online = online;
        }
        // All of it: who is online is nothing that the state knows.
        self.mark = None;
    }

    /// Grids emit what they emit in this hour.
    pub(crate) fn hour(&mut self) {
        let now = self.now;
        for machine in self.nodes.values_mut() {
            machine.view.carbon = Some(machine.grid.at(now));
        }
        self.mark = None;
        // Where nothing else is to come, a day of every hour has shown whether what waits ever fits.
        self.still_hours = if self.awaits() {
            0
        } else {
            self.still_hours + 1
        };
        let may_fit = self.counts_live() > 0 && self.still_hours < 24;
        if now < self.arrive_until() || may_fit {
            self.event(now + HOUR, What::Hour);
        }
    }
}
