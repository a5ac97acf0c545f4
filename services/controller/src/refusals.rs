//! What granters refused: which nodes a task is not to be tried on again, and why.
//!
//! Owns the memory of it, in the leader's process alone. A new leader asks again and is refused again:
//! that costs a round trip, never a wrong placement.
//!
//! ```text
//! GrantRefusal ─▶ attempt returns free ─▶ planned without that node ─▶ another node
//!                                                └─ none left ─▶ the task ends, with the reason
//! ```

use std::collections::{HashMap, VecDeque};

use farlane_model::{NodeId, SessionId, TaskId};

/// Tasks remembered; beyond it the oldest are forgotten, and asked for again. Source: 16 MiB at most.
const MAX_TASKS: usize = 16_384;
/// Nodes tried for one task. Source: a reason that holds for so many is the task's, not theirs.
pub(crate) const MAX_NODES: usize = 16;

/// What was refused of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// By whom: another granter may think otherwise.
    pub granter: SessionId,
    /// Ascending.
    pub nodes: Vec<NodeId>,
    /// The last reason, for people.
    pub reason: String,
}

/// Refusals by task.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    tasks: HashMap<TaskId, Refused>,
    /// In order of the first refusal; may name tasks forgotten since.
    oldest: VecDeque<TaskId>,
}

impl Refusals {
    /// `granter` refuses `task` on `node`.
    pub fn note(&mut self, task: TaskId, granter: SessionId, node: NodeId, reason: &str) {
        if !self.tasks.contains_key(&task) {
            self.make_room();
            self.oldest.push_back(task);
        }
        let fresh = || Refused {
            granter,
            nodes: Vec::new(),
            reason: String::new(),
        };
        let refused = self.tasks.entry(task).or_insert_with(fresh);
        if refused.granter != granter {
            *refused = fresh();
        }
        refused.reason = reason.to_owned();
        if let Err(at) = refused.nodes.binary_search(&node)
            && refused.nodes.len() < MAX_NODES
        {
            refused.nodes.insert(at, node);
        }
    }

    fn make_room(&mut self) {
        if self.oldest.len() >= 2 * MAX_TASKS {
            self.oldest.retain(|task| self.tasks.contains_key(task));
        }
        while self.tasks.len() >= MAX_TASKS
            && let Some(task) = self.oldest.pop_front()
        {
            self.tasks.remove(&task);
        }
    }

    /// What `granter` refused of `task`, if anything.
    pub fn of(&self, task: TaskId, granter: SessionId) -> Option<&Refused> {
        self.tasks.get(&task).filter(|r| r.granter == granter)
    }
    /// What was refused of `task` last, by whomever.
    pub fn last(&self, task: TaskId) -> Option<Refused> {
        self.tasks.get(&task).cloned()
    }
    /// All of it.
    pub fn all(&self) -> Vec<(TaskId, Refused)> {
        self.tasks
            .iter()
            .map(|(task, r)| (*task, r.clone()))
            .collect()
    }
    /// Nothing at all: what the path of a usual call finds.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
    /// The task has ended.
    pub fn forget(&mut self, task: &TaskId) {
        self.tasks.remove(task);
        if self.tasks.is_empty() {
            self.oldest.clear();
        }
    }
    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.oldest.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nodes_gather_by_task_and_another_granter_begins_anew() {
        let (ours, standing) = (SessionId::new(1, [0; 5]), SessionId::new(2, [0; 5]));
        let task = ours.task(1);
        let mut refusals = Refusals::default();
        for n in [3, 1, 3] {
            refusals.note(task, ours, NodeId([n; 32]), "elsewhere");
        }
        let refused = refusals.of(task, ours).unwrap();
        assert_eq!(refused.nodes, [NodeId([1; 32]), NodeId([3; 32])]);
        assert!(refusals.of(task, standing).is_none() && refusals.of(ours.task(2), ours).is_none());
        refusals.note(task, standing, NodeId([9; 32]), "used up");
        assert!(refusals.of(task, ours).is_none());
        assert_eq!(refusals.of(task, standing).unwrap().reason, "used up");
        refusals.forget(&task);
        assert!(refusals.is_empty());
    }

    #[test]
    fn tasks_and_nodes_are_bounded_and_the_oldest_go() {
        let session = SessionId::new(1, [0; 5]);
        let mut refusals = Refusals::default();
        let count = MAX_TASKS as u64 + 10;
        for seq in 1..=count {
            refusals.note(session.task(seq), session, NodeId([1; 32]), "no");
        }
        assert_eq!(refusals.all().len(), MAX_TASKS);
        assert!(refusals.of(session.task(10), session).is_none());
        assert!(refusals.of(session.task(11), session).is_some());
        for n in 0..100 {
            refusals.note(session.task(count), session, NodeId([n; 32]), "no");
        }
        let refused = refusals.of(session.task(count), session).unwrap();
        assert_eq!(refused.nodes.len(), MAX_NODES);
    }
}
