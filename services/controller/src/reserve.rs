//! When nodes are expected to have room for a gang, by what the state has of them.
//!
//! Leaves which nodes are kept, and from one round to the next, to `farlane-plan`.

use std::collections::HashMap;

use farlane_model::{Digest, NodeId};
use farlane_plan::{Estimates, Fleet, Leased, Shape, Work, all_ended};
use farlane_state::{Node, State};
use farlane_units::Millis;

/// Leases of one look. Source: a few milliseconds; where there are more, the next look begins elsewhere.
const MAX_LEASES: usize = 65_536;

/// Looks at what nodes have, in turn.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// From which node on, of those that have something.
    from: usize,
}

impl Ends {
    /// When each node that has something is expected to have ended it, ascending by node.
    pub fn look(
        &mut self,
        state: &State,
        (estimates, fleet): (&mut Estimates, &Fleet),
        now: Millis,
    ) -> Vec<(NodeId, Millis)> {
        let busy: Vec<&Node> = state
            .nodes()
            .filter(|node| node.running() + node.waiting() > 0)
            .collect();
        let mut works = HashMap::new();
        let (mut ends, mut leases, mut looked) = (Vec::new(), 0, 0);
        let from = self.from.checked_rem(busy.len()).unwrap_or(0);
        for node in busy[from..].iter().chain(&busy[..from]) {
            if leases >= MAX_LEASES {
                break;
            }
            (leases, looked) = (leases + node.running() + node.waiting(), looked + 1);
            let view = (&mut *estimates, fleet);
            ends.extend(end_of(state, &node.id, view, &mut works, now));
        }
        self.from = match looked < busy.len() {
            true => from + looked,
            false => 0,
        };
        ends.sort_unstable();
        ends
    }
}

/// When one node is expected to have ended all that it has.
fn end_of(
    state: &State,
    node: &NodeId,
    (estimates, fleet): (&mut Estimates, &Fleet),
    works: &mut HashMap<Digest, Work>,
    now: Millis,
) -> Option<(NodeId, Millis)> {
    let (hardware, rates) = fleet.hardware(node)?;
    let leases = state.desired(node).filter_map(|live| {
        let (digest, spec) = (live.spec.digest, &live.spec.task);
        let work = works
            .entry(digest)
            .or_insert_with(|| estimates.work(&digest, Shape::of(spec)));
        let runs = Millis(work.on(hardware, &rates).0.div_ceil(1000));
        let lease = live.placed?.lease;
        Some(Leased {
            since: (!lease.backlog).then_some(lease.at),
            runs: spec.timing.timeout.map_or(runs, |most| runs.min(most)),
        })
    });
    Some((*node, all_ended(now, leases)))
}
