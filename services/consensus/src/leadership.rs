//! Who leads, and since when this server may act as the leader.

use std::sync::Arc;

use openraft::ServerState;
use tokio::sync::watch;

use crate::machine::Replica;
use crate::raft::Raft;

/// Who leads, as far as this server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Of the vote this server follows.
    pub term: u64,
    /// (id, URL), where known.
    pub leader: Option<(u64, String)>,
    /// Whether it is this server, and its state holds all that was acknowledged before.
    pub mine: bool,
}

/// Follows openraft's metrics until it ends.
pub(crate) async fn follow(
    raft: Raft,
    replica: Arc<Replica>,
    id: u64,
    seen: watch::Sender<Leadership>,
) {
    let (mut metrics, data) = (raft.server_metrics(), raft.data_metrics());
    let mut applied = replica.applied.subscribe();
    // Both must end when their users let go of them, so this task may not hold them.
    let weak = Arc::downgrade(&replica);
    drop((raft, replica));
    // The term led, and the index to be applied before acting on it.
    let mut led: Option<(u64, u64)> = None;
    loop {
        let now = {
            let current = metrics.borrow_and_update();
            let nodes = current.membership_config.membership();
            let leader = current
                .current_leader
                .and_then(|leader| Some((leader, nodes.get_node(&leader)?.addr.clone())));
            let leads = current.state == ServerState::Leader && current.current_leader == Some(id);
            (current.vote.leader_id().term, leader, leads)
        };
        let (term, leader, leads) = now;
        let before = led.map(|(known, _)| known);
        if !leads {
            led = None;
        } else if before != Some(term) {
            led = Some((term, data.borrow().last_log.map_or(0, |id| id.index)));
        }
        if before.is_some()
            && before != led.map(|(known, _)| known)
            && let Some(replica) = weak.upgrade()
        {
            replica.give_up_proposals();
        }
        let reached = *applied.borrow_and_update();
        let mine = led.is_some_and(|(_, until)| reached >= until);
        let next = Leadership { term, leader, mine };
        seen.send_if_modified(|known| {
            let changed = *known != next;
            *known = next;
            changed
        });
        let waiting = led.is_some() && !mine;
        tokio::select! {
            changed = metrics.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            changed = applied.changed(), if waiting => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    seen.send_modify(|known| known.mine = false);
    if let Some(replica) = weak.upgrade() {
        replica.fail("the Raft core has ended".to_owned());
    }
}
