//! The accelerators of one node, as a plan counts them: by model, and by whose they are.
//!
//! Owns what a round takes of them. Leaves the choice to `DeviceLoads`, by which the state machine judges.

use std::sync::Arc;

use farlane_model::{DeviceLoads, NodeSpec, TaskSpec, TenantId};
use farlane_units::MilliGpu;

/// What one task asks of a node's room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'a> {
    pub task: &'a TaskSpec,
    /// Whose task it is.
    pub tenant: &'a TenantId,
}

impl Need<'_> {
    pub fn gpus(&self) -> MilliGpu {
        self.task.resources.gpus
    }
}

/// Of a node that has any. Cheap to clone: what was taken since is what differs.
#[derive(Debug, Clone)]
pub(crate) struct Devices(Arc<Held>);

#[derive(Debug, Clone)]
struct Held {
    spec: Arc<NodeSpec>,
    loads: DeviceLoads,
    /// Those that nobody holds, and the most that is left of one held in part.
    most: (MilliGpu, MilliGpu),
}

impl Devices {
    /// `None` where the node has none.
    pub fn of(spec: &Arc<NodeSpec>, loads: &DeviceLoads) -> Option<Self> {
        let held = || Held {
            spec: spec.clone(),
            loads: loads.clone(),
            most: loads.free(spec.devices.len()),
        };
        (!spec.devices.is_empty()).then(|| Self(Arc::new(held())))
    }

    /// A bound on what one task gets of free ones, and of one in part.
    pub fn most(&self) -> (MilliGpu, MilliGpu) {
        self.0.most
    }

    /// Those that one more task would hold.
    pub fn choose(&self, need: Need) -> Option<u64> {
        let held = &*self.0;
        let (gpus, part) = held.most;
        let may = need.gpus() <= gpus.max(part);
        let found = || {
            held.loads
                .choose(&held.spec.devices, need.task, need.tenant)
        };
        may.then(found).flatten()
    }

    pub fn take(&mut self, set: u64, need: Need) {
        let held = Arc::make_mut(&mut self.0);
        held.loads
            .take(set, need.task.resources.share(), *need.tenant);
        held.most = held.loads.free(held.spec.devices.len());
    }
}
