//! Among whom a task would be at a node: those it wants near, those it wants far, and its own kind.
//!
//! Owns the counts that a round begins with and adds to. Leaves what they are worth to the cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::{Direction, Kin, NodeId, Scope, Strength};
use farlane_units::{ByteCount, Micros};

use crate::view::Group;

/// Where tasks lie that others want to be near, or that spread.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    at: BTreeMap<Kin, Counts>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    nodes: BTreeMap<NodeId, u32>,
    regions: BTreeMap<Arc<str>, u32>,
}

impl Counts {
    fn there(&self, node: &NodeId, region: &str, scope: Scope) -> u32 {
        let found = match scope {
            Scope::Node => self.nodes.get(node),
            Scope::Region => self.regions.get(region),
        };
        found.copied().unwrap_or(0)
    }
}

/// What a place is worth to a task, besides its class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// The environment is ready.
    pub warm: bool,
    /// Bytes that the node holds already.
    pub held: ByteCount,
    /// Of its own kind that are there already, where it is to be spread.
    pub crowd: u32,
    /// Wishes that are not met.
    pub unmet: u32,
    /// The slowest round trip between two of its gang.
    pub link: Micros,
}

impl Presence {
    /// Nobody anywhere.
    pub const fn new() -> Self {
        Self {
            at: BTreeMap::new(),
        }
    }

    /// So many of these are on a node.
    pub fn note(&mut self, kin: Kin, node: NodeId, region: &Arc<str>, count: u32) {
        let counts = self.at.entry(kin).or_default();
        *counts.nodes.entry(node).or_default() += count;
        *counts.regions.entry(region.clone()).or_default() += count;
    }

    /// One more of a group is on a node.
    pub(crate) fn add(&mut self, group: &Group, node: NodeId, region: &Arc<str>) {
        for kin in group.spec.kin(&group.digest) {
            self.note(kin, node, region, 1);
        }
    }

    /// Among whom one more of the group would be there; `None` where that is not what it requires.
    pub(crate) fn here(&self, group: &Group, node: &NodeId, region: &str) -> Option<Here> {
        let company = &group.spec.company;
        let near = |tag: &str, scope| {
            match self.at.get(&Kin::Tag(group.spec.project, tag.to_owned())) {
                Some(counts) => counts.there(node, region, scope) > 0,
                // The first of those that want to be together is alone wherever it goes.
                None => company.is_first_of(tag),
            }
        };
        if !company.allows(near) {
            return None;
        }
        let wishes = company.affinities.iter();
        let unmet = wishes.filter(|wish| {
            wish.strength == Strength::Preferred
                && near(&wish.tag, wish.scope) != (wish.direction == Direction::Near)
        });
        let crowd = company.spread.and_then(|scope| {
            let kin = self.at.get(&Kin::Spec(group.digest))?;
            Some(kin.there(node, region, scope))
        });
        Some(Here {
            warm: group.warm.contains(node),
            held: group.held(node),
            crowd: crowd.unwrap_or(0),
            unmet: unmet.count() as u32,
            link: Micros::ZERO,
        })
    }
}
