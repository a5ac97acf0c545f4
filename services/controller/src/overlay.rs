//! What is proposed and not yet seen applied.
//!
//! Owns the list of placements and completions in flight, so that no plan places a task twice or
//! gives away room that is taken. Once the state shows an effect, the overlay no longer counts it.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::{AttemptRef, NodeId, Resources, TaskId, TaskSpec, TenantId};
use farlane_plan::Group;
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
}

impl Placing {
    pub fn placement(&self) -> Placement {
        Placement {
            task: self.task,
            node: self.node,
            generation: self.generation,
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
