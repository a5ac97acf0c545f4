//! What is proposed and not yet seen applied.
//!
//! Owns the list of placements and completions in flight, so that no plan places a task twice or
//! gives away room that is taken. Once the state shows an effect, the overlay no longer counts it.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::{Amount, AttemptRef, NodeId, Resources, TaskId, TaskSpec, TenantId};
use farlane_plan::{Group, NodeView};
use farlane_state::{Placement, State};
use farlane_units::MilliUcu;

use crate::planner::Reply;

/// A task on its way to a node.
#[derive(Debug, Clone)]
pub(crate) struct Placing {
    pub task: TaskId,
    pub node: NodeId,
    pub generation: u32,
    pub need: Resources,
    /// What it takes of its project's quota there.
    pub ucu: MilliUcu,
    /// Of what asks for accelerators or named resources.
    pub special: Option<Arc<Special>>,
}

/// What a task is expected to take of a node besides cores, memory and scratch.
#[derive(Debug)]
pub(crate) struct Special {
    pub spec: Arc<TaskSpec>,
    /// Accelerators, as a set of places, and whose they are then.
    pub devices: u64,
    pub tenant: TenantId,
}

impl Special {
    /// Of a task of this group; `None` where it takes no such thing.
    pub fn of(group: &Group, devices: u64) -> Option<Arc<Self>> {
        let spec = &group.spec;
        let any = spec.resources.gpus.0 > 0 || !spec.amounts.is_empty();
        any.then(|| {
            Arc::new(Self {
                spec: spec.clone(),
                devices,
                tenant: group.tenant,
            })
        })
    }

    /// Whether all of it is free.
    fn is_there(&self, node: &NodeView) -> bool {
        let spec = &self.spec;
        let mut named = spec.amounts.iter();
        (spec.resources.gpus.0 == 0 || self.devices != 0)
            && named.all(|one| one.amount <= Amount::of(&node.free_amounts, &one.name))
    }
}

impl Placing {
    pub fn placement(&self) -> Placement {
        Placement {
            task: self.task,
            node: self.node,
            generation: self.generation,
        }
    }

    /// Takes the room that it will have.
    pub fn take(&self, node: &mut NodeView) {
        let need = &self.need;
        let runs = node.backlog == 0
            && need.cpus <= node.free_cpus
            && need.memory <= node.free_memory
            && need.scratch <= node.free_scratch
            && self.special.as_ref().is_none_or(|s| s.is_there(node));
        if runs {
            if let Some(special) = &self.special {
                let (set, share) = (special.devices, need.share());
                node.devices.take(set, share, special.tenant);
                for free in &mut node.free_amounts {
                    let taken = Amount::of(&special.spec.amounts, &free.name);
                    free.amount = free.amount.saturating_sub(taken);
                }
            }
            node.free_cpus = node.free_cpus.saturating_sub(need.cpus);
            node.free_memory = node.free_memory.saturating_sub(need.memory);
            node.free_scratch = node.free_scratch.saturating_sub(need.scratch);
        } else {
            node.free_backlog = node.free_backlog.saturating_sub(1);
            node.backlog += 1;
        }
    }
}

/// An attempt whose end is on its way: the room that this frees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freeing {
    pub attempt: AttemptRef,
    pub node: NodeId,
    pub need: Resources,
    /// The accelerators that it holds.
    pub devices: u64,
    pub ucu: MilliUcu,
    pub backlog: bool,
}

impl Freeing {
    /// Gives back the room that it had.
    pub fn give(&self, node: &mut NodeView) {
        // Where some wait, the next of them takes the room at once.
        if self.backlog || node.backlog > 0 {
            node.backlog = node.backlog.saturating_sub(1);
            node.free_backlog += 1;
        } else {
            node.free_cpus = node.free_cpus.saturating_add(self.need.cpus);
            node.free_memory = node.free_memory.saturating_add(self.need.memory);
            node.free_scratch = node.free_scratch.saturating_add(self.need.scratch);
            node.devices.give_back(self.devices, self.need.share());
        }
    }
}

/// One entry on its way.
#[derive(Default)]
pub(crate) struct Flight {
    pub replies: Vec<Reply>,
    pub placed: Vec<Placing>,
    pub freed: Vec<Freeing>,
}

/// All entries on their way.
#[derive(Default)]
pub(crate) struct Overlay {
    placed: HashMap<TaskId, Placing>,
    freed: HashMap<AttemptRef, Freeing>,
}

impl Overlay {
    /// An entry was proposed.
    pub fn take_off(&mut self, flight: &Flight) {
        self.placed
            .extend(flight.placed.iter().map(|p| (p.task, p.clone())));
        self.freed
            .extend(flight.freed.iter().map(|f| (f.attempt, *f)));
    }
    /// An entry was applied, or refused.
    pub fn land(&mut self, flight: &Flight) {
        for placed in &flight.placed {
            self.placed.remove(&placed.task);
        }
        for freed in &flight.freed {
            self.freed.remove(&freed.attempt);
        }
    }
    /// Whether a placement of this task is on its way.
    pub fn places(&self, task: &TaskId) -> bool {
        self.placed.contains_key(task)
    }
    /// Whether the end of this attempt is on its way.
    pub fn frees(&self, attempt: &AttemptRef) -> bool {
        self.freed.contains_key(attempt)
    }
    /// Placements that the state does not show yet.
    pub fn placing<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Placing> {
        self.placed
            .values()
            .filter(|p| state.task(p.task).is_none_or(|t| t.placed.is_none()))
    }
    /// Completions that the state does not show yet.
    pub fn freeing<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Freeing> {
        self.freed.values().filter(|f| state.is_current(&f.attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::{BlobRef, Digest, ProjectId, PythonVersion, SessionId};
    use farlane_units::{ByteCount, MilliCpu, MilliGpu, MilliUcu};

    #[test]
    fn what_is_on_its_way_holds_its_accelerators_and_named_resources() {
        let license = |amount| {
            vec![Amount {
                name: "license".to_owned(),
                amount,
            }]
        };
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut spec = TaskSpec::new(ProjectId::new(0, [1; 10]), code, python);
        spec.resources.gpus = MilliGpu(500);
        spec.resources.memory = ByteCount(0);
        spec.resources.scratch = ByteCount(0);
        spec.amounts = license(2);
        let (task, tenant) = (SessionId::new(1, [1; 5]).task(1), TenantId([1; 32]));
        let need = spec.resources;
        let spec = Arc::new(spec);
        let placing = |devices| Placing {
            task,
            node: NodeId([1; 32]),
            generation: 1,
            need,
            ucu: MilliUcu(1),
            special: Some(Arc::new(Special {
                spec: spec.clone(),
                devices,
                tenant,
            })),
        };
        let machine = crate::preempt::tests::spec();
        let mut node = crate::preempt::tests::view(1, &Arc::new(machine));
        (node.free_cpus, node.free_backlog) = (MilliCpu(4000), 2);
        node.free_amounts = license(3);
        placing(0b10).take(&mut node);
        let load = node.devices.at(1);
        assert_eq!((load.held, load.tenant), (500, Some(tenant)));
        assert_eq!((node.backlog, &node.free_amounts), (0, &license(1)));
        let freeing = Freeing {
            attempt: AttemptRef {
                task,
                attempt: 1,
                epoch: 1,
            },
            node: node.id,
            need,
            devices: 0b10,
            ucu: MilliUcu(1),
            backlog: false,
        };
        let before = node.clone();
        freeing.give(&mut node);
        assert_eq!(node.devices.as_slice(), &[]);
        // With one license left it waits; so does what was promised no GPU.
        let mut node = before;
        placing(0b10).take(&mut node);
        assert_eq!((node.backlog, node.devices.at(1).held), (1, 500));
    }
}
