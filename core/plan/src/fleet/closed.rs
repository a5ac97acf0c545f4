//! Nodes on which something waited for longer than expected: nothing more is placed behind what runs there for a while.

use farlane_model::NodeId;
use farlane_units::Millis;

use super::Fleet;
use crate::tree::Free;

/// What has waited for less may yet find room by itself. Source: choice; a grant that does not come is given up after 2 s.
pub const PATIENCE: Millis = Millis(2_000);

impl Fleet {
    /// What waited on a node waited for longer than expected: for as long as the youngest of what runs there has run
    /// nothing more is placed behind it, or until something ends. What has run for a while will run for as long again.
    pub fn close(&mut self, node: &NodeId, now: Millis, youngest: Option<Millis>) {
        let until = now.saturating_add(youngest.unwrap_or(PATIENCE).max(PATIENCE));
        let Some(free) = self.free_of(node) else {
            return;
        };
        let closed = self.closed.entry(*node).or_insert((until, free.credit));
        closed.0 = closed.0.max(until);
        self.opens = self.opens.min(until);
        self.set_credit(node, 0);
    }

    /// A closed node keeps its credit to itself, until something ended there.
    pub(super) fn keep_closed(&mut self, node: &NodeId, free: &mut Free) {
        if self.closed.is_empty() {
            return;
        }
        let was = self.free_of(node);
        if was.is_some_and(|was| free.cpus > was.cpus) {
            self.closed.remove(node);
        } else if let Some((_, credit)) = self.closed.get_mut(node) {
            *credit = std::mem::take(&mut free.credit);
        }
    }

    /// Nodes whose time is over take work behind what runs there again.
    pub fn reopen(&mut self, now: Millis) {
        if self.opens > now {
            return;
        }
        let over = self.closed.extract_if(|_, (until, _)| *until <= now);
        let over: Vec<_> = over.collect();
        for (node, (_, credit)) in over {
            self.set_credit(&node, credit);
        }
        let next = self.closed.values().map(|(until, _)| *until).min();
        self.opens = next.unwrap_or(Millis(u64::MAX));
    }

    fn free_of(&self, node: &NodeId) -> Option<Free> {
        let (class, place) = self.find(node)?;
        Some(*self.class(class).free(place))
    }

    fn set_credit(&mut self, node: &NodeId, credit: u32) {
        if let Some((class, place)) = self.find(node) {
            let class = &mut self.classes[class as usize];
            let free = Free {
                credit,
                ..*class.free(place)
            };
            class.renew(place, free, &mut self.room);
        }
    }
}
