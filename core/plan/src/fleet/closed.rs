//! Nodes on which something waited for longer than expected: nothing more is placed behind what runs there for a while.

use farlane_model::NodeId;
use farlane_units::{MilliCpu, Millis};

use super::Fleet;
use crate::tree::Free;

/// What has waited for less may yet find room by itself. Source: choice; a grant that does not come is given up after 2 s.
pub const PATIENCE: Millis = Millis(2_000);

/// A node behind whose work nothing is placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub until: Millis,
    /// What it would take behind it otherwise.
    credit: u32,
    /// Cores that nobody held when it was closed.
    idle: MilliCpu,
}

impl Fleet {
    /// What waited on a node waited for longer than expected: for as long as the youngest of what runs there has run
    /// nothing more is placed behind it, or until something ends. What has run for a while will run for as long again.
    ///
    /// *Shape*: `idle` are the cores that nobody holds there by now, as the state has them: more means that something ended,
    /// while a plan's own placements come and go before the state knows of them.
    pub fn close(&mut self, node: &NodeId, idle: MilliCpu, now: Millis, youngest: Option<Millis>) {
        let until = now.saturating_add(youngest.unwrap_or(PATIENCE).max(PATIENCE));
        let Some(free) = self.free_of(node) else {
            return;
        };
        let credit = free.credit;
        let fresh = Closed {
            until,
            credit,
            idle,
        };
        let closed = self.closed.entry(*node).or_insert(fresh);
        closed.until = closed.until.max(until);
        self.opens = self.opens.min(until);
        self.set_credit(node, 0);
    }

    /// A closed node keeps its credit to itself, until something ended there.
    pub(super) fn keep_closed(&mut self, node: &NodeId, free: &mut Free) {
        match self.closed.get_mut(node) {
            Some(closed) if free.cpus > closed.idle => drop(self.closed.remove(node)),
            Some(closed) => closed.credit = std::mem::take(&mut free.credit),
            None => {}
        }
    }

    /// Nodes whose time is over take work behind what runs there again.
    pub fn reopen(&mut self, now: Millis) {
        if self.opens > now {
            return;
        }
        let over = self.closed.extract_if(|_, closed| closed.until <= now);
        let over: Vec<_> = over.collect();
        for (node, closed) in over {
            self.set_credit(&node, closed.credit);
        }
        let next = self.closed.values().map(|closed| closed.until).min();
        self.opens = next.unwrap_or(Millis(u64::MAX));
    }

    fn free_of(&self, node: &NodeId) -> Option<Free> {
        let (class, place) = self.find(node)?;
        Some(self.class(class).free(place).clone())
    }

    fn set_credit(&mut self, node: &NodeId, credit: u32) {
        if let Some((class, place)) = self.find(node) {
            let class = &mut self.classes[class as usize];
            let free = Free {
                credit,
                ..class.free(place).clone()
            };
            class.renew(place, free, &mut self.room);
        }
    }
}
