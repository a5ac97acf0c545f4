//! Where tasks lie that others want to be near, or that spread: derived from leases.
//!
//! Owns the counts and the judgement of required affinities. Leaves wishes to `farlane-plan`.

use std::collections::BTreeMap;

use farlane_model::{Kin, Scope, TaskSpec};

use crate::{Node, Spec, State};

/// Leases by whom they are counted among, and by node number. Nothing is kept of specs that have no tag and do not
/// spread.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Companies {
    at: BTreeMap<Kin, BTreeMap<u32, u32>>,
}

impl Companies {
    pub fn add(&mut self, spec: &Spec, node: u32) {
        for kin in spec.task.kin(&spec.digest) {
            *self.at.entry(kin).or_default().entry(node).or_default() += 1;
        }
    }

    pub fn remove(&mut self, spec: &Spec, node: u32) {
        for kin in spec.task.kin(&spec.digest) {
            let Some(nodes) = self.at.get_mut(&kin) else {
                continue;
            };
            if let Some(count) = nodes.get_mut(&node) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.at.remove(&kin);
            }
        }
    }
}

impl State {
    /// Nodes on which such tasks are placed, and how many.
    pub fn whereabouts(&self, kin: &Kin) -> impl Iterator<Item = (&Node, u32)> {
        let nodes = self.companies.at.get(kin).into_iter().flatten();
        nodes.filter_map(|(number, count)| Some((self.node_by_number(*number)?, *count)))
    }

    /// Whether what a task requires of its company holds at a node.
    pub(crate) fn company_allows(&self, task: &TaskSpec, node: &Node) -> bool {
        let kin = |tag: &str| Kin::Tag(task.project, tag.to_owned());
        let company = &task.company;
        company.affinities.is_empty()
            || company.allows(|tag, scope| {
                let kin = kin(tag);
                let mut there = self.whereabouts(&kin).peekable();
                // The first of those that want to be together is alone wherever it goes.
                if there.peek().is_none() {
                    return company.is_first_of(tag);
                }
                there.any(|(other, _)| match scope {
                    Scope::Node => other.number == node.number,
                    Scope::Region => other.region == node.region,
                })
            })
    }
}
