//! Who is attached as a granter, held against who is connected.
//!
//! Owns what mends the log's word on it. A stream that ends detaches its granter and one that opens
//! attaches it, but those orders can pass each other when a client comes back at once, and a client that
//! dies while it opens leaves nobody to detach it. Work would then wait for a granter who is here, or be
//! placed again and again under one who is not.

use std::collections::{BTreeSet, HashMap};

use farlane_model::SessionId;
use farlane_state::{AttachGranter, DetachGranter, Order};
use farlane_units::Micros;
use farlane_wire::v1;

use crate::Controller;
use crate::lease::LEASE;

/// Granters that the state holds for attached and that have no stream here, and since when.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    since: HashMap<SessionId, Micros>,
}

impl Absent {
    /// Those who have been away for a full term, given who is away now.
    fn overdue(&mut self, away: &BTreeSet<SessionId>, now: Micros) -> Vec<SessionId> {
        self.since.retain(|granter, _| away.contains(granter));
        let over = |granter: &&SessionId| {
            let since = self.since.entry(**granter).or_insert(now);
            since.saturating_add(Micros(LEASE.0 * 1000)) <= now
        };
        away.iter().filter(over).copied().collect()
    }
    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.since.clear();
    }
}

impl Controller {
    /// Orders that attach who is connected and not attached, and detach who has been away for a term.
    pub(crate) fn mend_granters(&self) -> Vec<Order> {
        let connected: HashMap<SessionId, v1::GranterKind> = self
            .links
            .sessions()
            .into_iter()
            .filter(|link| link.granter != v1::GranterKind::None && !link.link.has_ended())
            .map(|link| (link.session, link.granter))
            .collect();
        let (attach, away) = self.consensus.read(|state| {
            let missing = connected
                .iter()
                .filter(|(id, _)| state.granter(id).is_none());
            let attach: Vec<Order> = missing
                .filter_map(|(id, kind)| {
                    let session = state.session(id)?;
                    let order = AttachGranter {
                        granter: *id,
                        project: session.project,
                        standing: *kind == v1::GranterKind::Standing,
                        device: session.device.clone(),
                    };
                    Some(order.into())
                })
                .collect();
            let away: BTreeSet<SessionId> = state
                .granters()
                .map(|(id, _)| *id)
                .filter(|id| !connected.contains_key(id))
                .collect();
            (attach, away)
        });
        let overdue = self.absent.lock().overdue(&away, self.clock.steady());
        let detach = overdue
            .into_iter()
            .map(|granter| DetachGranter { granter }.into());
        attach.into_iter().chain(detach).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_away_for_a_whole_term_is_detached() {
        let granter = |n| SessionId::new(n, [0; 5]);
        let at = |seconds: u64| Micros(seconds * 1_000_000);
        let (one, two) = (granter(1), granter(2));
        let mut absent = Absent::default();
        assert!(absent.overdue(&[one, two].into(), at(0)).is_empty());
        // The second was back in between.
        assert!(absent.overdue(&[one].into(), at(5)).is_empty());
        assert_eq!(absent.overdue(&[one, two].into(), at(10)), [one]);
        assert_eq!(absent.overdue(&[two].into(), at(20)), [two]);
    }
}
