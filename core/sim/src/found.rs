//! The beginning of a history: nodes register, projects open their sessions.

use bytes::Bytes;
use farlane_model::{BootId, Digest, KeyId, TenantId};
use farlane_state::{AttachGranter, Genesis, OpenSession, RegisterNode, StockPrekeys, UpdateNode};

use crate::machine::{HOUR, Machine};
use crate::run::{Simulation, What};

/// Whose all work is. Source: choice.
pub(crate) const TENANT: TenantId = TenantId([7; 32]);

impl Simulation {
    pub(crate) fn found(&mut self, machines: Vec<Machine>) {
        self.order(Genesis {
            network: Digest::of(b"a made-up network"),
            epoch: 1,
            cluster_version: 1,
        });
        for machine in machines {
            self.join(machine);
        }
        for at in 0..self.clients.len() {
            let (session, project) = (self.clients[at].session, self.clients[at].project);
            self.order(OpenSession {
                session,
                project,
                tenant: TENANT,
                key: KeyId::new(1, [8; 10]),
                wrapped_session_key: Bytes::new(),
                device: Bytes::new(),
            });
            self.order(AttachGranter {
                granter: session,
                project,
                standing: false,
                device: Bytes::new(),
            });
        }
        if self.replay.is_some() {
            return self.found_replay();
        }
        self.event(0, What::Arrivals);
        if self.nodes.values().any(|node| node.grid.swing > 0.0) {
            self.event(HOUR, What::Hour);
        }
    }

    fn join(&mut self, machine: Machine) {
        let node = &machine.view;
        let (id, boot) = (node.id, BootId([1; 16]));
        let spec: Bytes = node.spec.to_canonical().into();
        self.order(RegisterNode {
            node: id,
            record: Bytes::new(),
            spec: spec.clone(),
            region: node.region.to_string(),
            provider: node.provider,
        });
        self.order(UpdateNode {
            node: id,
            boot,
            spec,
        });
        self.order(StockPrekeys {
            node: id,
            boot,
            daily: Some(Bytes::from_static(b"daily")),
            one_time: Vec::new(),
        });
        self.nodes.insert(id, machine);
        self.silence_later(id);
    }
}
