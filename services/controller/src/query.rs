//! How the network is: status, nodes, what was revoked.
//!
//! Owns these views. Every one is read from applied state; nothing is kept for them.

use bytes::Bytes;
use farlane_state::{MAX_OUTBOX, Node};
use farlane_wire::{id, v1};

use crate::Controller;

impl Controller {
    /// How the network is.
    pub fn status(&self, project: &str) -> v1::StatusReply {
        let steady = self.clock.steady();
        let leadership = self.consensus.leadership().borrow().clone();
        let (counts, epoch, online) = self.consensus.read(|state| {
            let leases = self.leases.lock();
            let online = state
                .nodes()
                .filter(|n| leases.is_online(n.id, steady))
                .count();
            (state.counts(), state.epoch(), online)
        });
        v1::StatusReply {
            network: self.network(),
            server: self.name.clone(),
            leader: leadership.leader.map(|(_, url)| url).unwrap_or_default(),
            epoch,
            applied_index: self.consensus.applied_index(),
            cluster_time_ms: self.now().0,
            queued: counts.queued as u64,
            placed: counts.placed as u64,
            nodes_online: online as u64,
            nodes: counts.nodes as u64,
            voters: self.voters.clone(),
            project: project.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outbox: counts.outbox,
            outbox_limit: MAX_OUTBOX,
            estimators: self.estimators(),
        }
    }

    /// How the estimators of run times did; none where nothing ran yet, or another server leads.
    fn estimators(&self) -> Vec<v1::EstimatorView> {
        let cache = self.view.lock();
        let Some(both) = cache.shadow.compare(&cache.estimates) else {
            return Vec::new();
        };
        let view = |name: &str, error: f64| v1::EstimatorView {
            name: name.to_owned(),
            runs: both.runs,
            error_ppm: (error * 1e6) as u32,
        };
        vec![
            view(both.used, both.used_error),
            view(both.shadow, both.shadow_error),
        ]
    }

    /// Every registered node.
    pub fn list_nodes(&self) -> Vec<v1::NodeView> {
        let steady = self.clock.steady();
        let now = self.now();
        let view = |node: &Node| {
            let lease = self.leases.lock().get(node.id);
            let path = self.paths.lock().of(node.id);
            let heat = self.heats.lock().of(&node.id);
            v1::NodeView {
                node: id::node_bytes(&node.id),
                name: node.spec.name.clone(),
                region: node.region.to_string(),
                online: lease.is_some_and(|l| l.attached && l.ends > steady),
                last_seen_ms: lease.map_or(0, |l| l.seen.0),
                spec_bytes: node.spec.to_canonical().into(),
                running: node.running() as u32,
                leased: (node.running() + node.waiting()) as u32,
                revoked: node.revoked,
                round_trip_micros: path.round_trip.0,
                least_round_trip_micros: path.least.0,
                bandwidth_bytes_s: path.bandwidth.map_or(0, |rate| rate.0),
                provider: id::digest_bytes(&node.provider),
                core_hour_usd_micros: node.price_at(now).0,
                cores_heat_ppm: heat.cores.0,
                gpus_heat_ppm: heat.gpus.0,
                standing: Some(self.standing(node)),
            }
        };
        self.consensus
            .read(|state| state.nodes().map(view).collect())
    }

    /// Each provider's newest list of revoked nodes.
    pub fn revocations(&self) -> Vec<Bytes> {
        self.consensus.read(|state| {
            state
                .all_revocations()
                .map(|row| row.list.clone())
                .collect()
        })
    }
}
