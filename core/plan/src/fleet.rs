//! Every registered node, by class, so that a plan need not look at each.
//!
//! Owns the classes, and the trees of what is free in each. Leaves which nodes are alike to `alike`. What lies between
//! regions is kept beside, for whoever places several nodes.
//!
//! ```text
//! put(node) ─▶ hardware (spec without names) ─▶ class (hardware, region, provider, price, steps …) ─▶ place in its tree
//! ```
//! Places follow node ids, so that a plan does not depend on who joined first.

mod closed;

pub use self::closed::PATIENCE;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use farlane_model::{Amount, Digest, NodeId, NodeSpec, TaskSpec};
use farlane_units::{ByteCount, Millis};

use crate::alike::{Key, hardware, key, rates, traits};
use crate::constraint::Site;
use crate::cost::Traits;
use crate::devices::{Devices, Need};
use crate::estimate::Rates;
use crate::links::Links;
use crate::tree::{Free, Tree};
use crate::view::NodeView;

/// Specs whose fitting classes are remembered; beyond it all are forgotten.
const MAX_MATCHES: usize = 16_384;

/// Nodes that are alike but for what is free on them.
#[derive(Debug)]
pub(crate) struct Class {
    key: Key,
    /// Of one of them, with the most memory and disk that any of them ever had.
    pub spec: Arc<NodeSpec>,
    pub traits: Traits,
    /// Sorted by id.
    members: Vec<Member>,
    tree: Tree,
    /// Who came or went since the tree was made.
    stale: bool,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    id: NodeId,
    generation: u32,
}

impl Class {
    pub fn region(&self) -> &Arc<str> {
        &self.key.region
    }
    /// What constraints look at; which node is left to the task's granter.
    pub fn site(&self) -> Site<'_> {
        Site {
            spec: &self.spec,
            region: &self.key.region,
            node: None,
            provider: Some(&self.key.provider),
            price: self.key.price,
            carbon: self.key.carbon,
        }
    }
    /// Whether it may get work now.
    pub fn is_online(&self) -> bool {
        self.key.online
    }
    pub fn is_quarantined(&self) -> bool {
        self.key.quarantined
    }
    pub fn len(&self) -> usize {
        self.members.len()
    }
    /// How many it has but these.
    pub fn but(&self, not_on: &[NodeId]) -> usize {
        let named = not_on.iter().filter(|id| self.place_of(id).is_ok());
        self.len() - named.count()
    }
    pub fn id(&self, place: usize) -> NodeId {
        self.members[place].id
    }
    pub fn generation(&self, place: usize) -> u32 {
        self.members[place].generation
    }
    pub fn free(&self, place: usize) -> &Free {
        self.tree.free(place)
    }

    /// The place where one more task costs least, and how many would be ahead of it; it runs nowhere before `from`.
    pub fn best(&self, need: Need, not_on: &[NodeId], mut from: usize) -> Option<(usize, u32)> {
        let open = |place: &usize| !not_on.contains(&self.members[*place].id);
        while let Some(place) = self.tree.first_with_room(need, from) {
            if open(&place) {
                return Some((place, 0));
            }
            from = place + 1;
        }
        let place = self.tree.shortest_backlog(0)?;
        if open(&place) {
            return Some((place, self.tree.free(place).ahead(need)?));
        }
        let waiting = (0..self.len()).filter(open);
        let ahead = waiting.filter_map(|place| Some((place, self.tree.free(place).ahead(need)?)));
        ahead.min_by_key(|(place, ahead)| (*ahead, *place))
    }

    pub fn set(&mut self, place: usize, free: Free) {
        self.tree.set(place, free);
    }

    pub fn place_of(&self, id: &NodeId) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.id.cmp(id))
    }

    /// Whether this member has more memory or disk than any before.
    fn grow(&mut self, spec: &NodeSpec) -> bool {
        let (memory, disk) = (self.spec.memory, self.spec.disk);
        let grows = spec.memory > memory || spec.disk > disk;
        if grows {
            self.spec = Arc::new(NodeSpec {
                memory: spec.memory.max(memory),
                disk: spec.disk.max(disk),
                ..NodeSpec::clone(&self.spec)
            });
        }
        grows
    }

    /// A member's room is another; so is the room of all.
    fn renew(&mut self, place: usize, free: Free, room: &mut u64) {
        if self.is_online() {
            *room = *room + free.room() - self.tree.free(place).room();
        }
        match self.stale {
            true => self.tree.note(place, free),
            false => self.tree.set(place, free),
        }
    }

    fn freshen(&mut self) {
        if self.stale {
            self.tree.build();
            self.stale = false;
        }
    }
}

/// Classes that fit a spec.
#[derive(Debug, Default)]
struct Match {
    fitting: Vec<u32>,
    /// Classes looked at.
    seen: usize,
}

/// What all online nodes have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Thousandths of a core.
    pub cpus: u64,
    /// Memory.
    pub memory: ByteCount,
    /// Thousandths of an accelerator.
    pub gpus: u64,
    /// How many.
    pub nodes: u32,
}

/// Every registered node that is not revoked.
#[derive(Debug, Default)]
pub struct Fleet {
    classes: Vec<Class>,
    /// How many of them have no nodes.
    empty: usize,
    by_key: HashMap<Key, u32>,
    /// Where each node is, and the spec that its hardware was read from.
    nodes: HashMap<NodeId, (u32, Arc<NodeSpec>)>,
    matches: HashMap<Digest, Match>,
    /// Free named resources of nodes that have any.
    amounts: HashMap<NodeId, Vec<Amount>>,
    /// Nodes behind whose work nothing waits: until when, and the credit that they have.
    closed: HashMap<NodeId, closed::Closed>,
    /// None of them opens before.
    opens: Millis,
    totals: Totals,
    links: Arc<Links>,
    /// Bound on the tasks that online nodes take before they are full.
    room: u64,
}

impl Fleet {
    /// One without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes, offline ones counted.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none has joined.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What a node's agent measured.
    pub fn spec(&self, node: &NodeId) -> Option<&Arc<NodeSpec>> {
        Some(&self.nodes.get(node)?.1)
    }

    /// What lies between regions, as it was told last.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Takes over what lies between regions.
    pub fn set_links(&mut self, links: Arc<Links>) {
        self.links = links;
    }

    /// Where a node is.
    pub fn region(&self, node: &NodeId) -> Option<&Arc<str>> {
        let (class, _) = self.nodes.get(node)?;
        Some(self.classes[*class as usize].region())
    }

    /// What of a named resource is free on a node.
    pub(crate) fn free_amount(&self, node: &NodeId, name: &str) -> u32 {
        let known = self.amounts.get(node);
        known.map_or(0, |amounts| Amount::of(amounts, name))
    }

    /// Its class, and its place there.
    pub(crate) fn find(&self, node: &NodeId) -> Option<(u32, usize)> {
        let (class, _) = self.nodes.get(node)?;
        let place = self.classes[*class as usize].place_of(node).ok()?;
        Some((*class, place))
    }

    /// Capacity of what is online.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// More tasks than this cannot be placed before room is freed; nothing fits where it is 0.
    pub fn room(&self) -> usize {
        self.room as usize
    }

    /// Whether any registered node but these, offline ones counted, could ever run it.
    ///
    /// *Cost*: each class once a spec, however often it is asked.
    pub fn feasible(&mut self, digest: &Digest, spec: &TaskSpec, but: &[NodeId]) -> bool {
        if !spec.node.keep_on.is_empty() {
            let mut kept = self.kept(spec);
            return kept.any(|(class, place)| !but.contains(&self.class(class).id(place)));
        }
        let fitting = self.fitting(digest, spec).to_vec();
        fitting.into_iter().any(|at| self.class(at).but(but) > 0)
    }

    /// How many classes its nodes are of, empty ones counted.
    pub fn kinds(&self) -> usize {
        self.classes.len()
    }

    /// Classes that [`Fleet::feasible`] would have to look at for a spec.
    pub fn unseen(&self, digest: &Digest) -> usize {
        let known = self.matches.get(digest);
        self.classes.len() - known.map_or(0, |known| known.seen)
    }

    /// What estimates of run times know a node's kind by, and the rates of its cores.
    pub fn hardware(&self, node: &NodeId) -> Option<(u64, Rates)> {
        let (class, _) = self.nodes.get(node)?;
        let traits = &self.classes[*class as usize].traits;
        Some((traits.hardware, traits.rates))
    }

    /// Adds a node, or what has changed about it.
    ///
    /// *Cost*: logarithmic where only its room changed; a class that gains or loses a node is counted anew with
    /// the next plan.
    pub fn put(&mut self, node: NodeView) {
        let mut free = Free {
            cpus: node.free_cpus,
            memory: node.free_memory,
            scratch: node.free_scratch,
            devices: None,
            credit: node.free_backlog,
            backlog: node.backlog,
        };
        self.keep_closed(&node.id, &mut free);
        match node.free_amounts.is_empty() {
            true => self.amounts.remove(&node.id),
            false => self.amounts.insert(node.id, node.free_amounts.clone()),
        };
        let known = self.nodes.get(&node.id);
        let hardware = match known {
            Some((class, spec)) if Arc::ptr_eq(spec, &node.spec) => {
                self.classes[*class as usize].key.hardware
            }
            _ => hardware(&node.spec),
        };
        let key = key(&node, hardware);
        if let Some((class, _)) = known {
            let class = &mut self.classes[*class as usize];
            if class.key == key
                && let Ok(place) = class.place_of(&node.id)
            {
                if class.traits.gpus.0 > 0 {
                    free.devices = Devices::of(&node.spec, &node.devices);
                }
                class.members[place].generation = node.generation;
                class.renew(place, free, &mut self.room);
                return;
            }
            self.take_out(&node.id);
        }
        free.devices = Devices::of(&node.spec, &node.devices);
        self.insert(node, key, free);
    }

    fn insert(&mut self, node: NodeView, key: Key, free: Free) {
        let rates = rates(&node.spec);
        if key.online {
            self.totals.cpus += u64::from(node.spec.cpus.0);
            self.totals.memory = self.totals.memory.saturating_add(node.spec.memory);
            self.totals.gpus += 1000 * node.spec.devices.len() as u64;
            self.totals.nodes += 1;
            self.room += free.room();
        }
        let at = match self.by_key.entry(key) {
            Entry::Occupied(at) => {
                let at = *at.get();
                self.empty -= usize::from(self.classes[at as usize].members.is_empty());
                at
            }
            Entry::Vacant(vacant) => {
                let at = self.classes.len() as u32;
                self.classes.push(Class {
                    traits: traits(vacant.key(), &node, rates),
                    key: vacant.key().clone(),
                    spec: node.spec.clone(),
                    members: Vec::new(),
                    tree: Tree::new(Vec::new()),
                    stale: false,
                });
                *vacant.insert(at)
            }
        };
        let class = &mut self.classes[at as usize];
        if class.grow(&node.spec) {
            // What did not fit before may now.
            self.matches.clear();
        }
        if let Err(place) = class.place_of(&node.id) {
            let member = Member {
                id: node.id,
                generation: node.generation,
            };
            class.members.insert(place, member);
            class.tree.insert(place, free);
            class.stale = true;
        }
        self.nodes.insert(node.id, (at, node.spec));
    }

    /// Takes out those that are no more.
    pub fn retain(&mut self, is_there: impl Fn(&NodeId) -> bool) {
        let gone = self.nodes.keys().filter(|id| !is_there(id));
        let gone: Vec<NodeId> = gone.copied().collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: &NodeId) {
        self.amounts.remove(id);
        self.closed.remove(id);
        self.take_out(id);
    }

    fn take_out(&mut self, id: &NodeId) {
        let Some((at, spec)) = self.nodes.remove(id) else {
            return;
        };
        let class = &mut self.classes[at as usize];
        if let Ok(place) = class.place_of(id) {
            class.members.remove(place);
            let free = class.tree.remove(place);
            class.stale = true;
            if class.key.online {
                self.room -= free.room();
            }
        }
        if class.key.online {
            self.totals.cpus -= u64::from(spec.cpus.0);
            self.totals.memory = self.totals.memory.saturating_sub(spec.memory);
            self.totals.gpus -= 1000 * spec.devices.len() as u64;
            self.totals.nodes -= 1;
        }
        if class.members.is_empty() {
            self.empty += 1;
            self.forget_empty();
        }
    }

    /// Once half of the classes are empty they go, and with them what was known of them.
    fn forget_empty(&mut self) {
        if self.empty < 64 || self.empty * 2 < self.classes.len() {
            return;
        }
        self.classes.retain(|class| !class.members.is_empty());
        self.empty = 0;
        self.by_key.clear();
        self.matches.clear();
        for (at, class) in (0u32..).zip(&self.classes) {
            self.by_key.insert(class.key.clone(), at);
            for member in &class.members {
                if let Some(node) = self.nodes.get_mut(&member.id) {
                    node.0 = at;
                }
            }
        }
    }

    /// Makes every tree agree with its members.
    pub(crate) fn freshen(&mut self) {
        self.classes.iter_mut().for_each(Class::freshen);
    }

    pub(crate) fn class(&self, at: u32) -> &Class {
        &self.classes[at as usize]
    }

    /// The class that a node is of.
    pub(crate) fn class_of(&self, node: &NodeId) -> Option<u32> {
        self.nodes.get(node).map(|(class, _)| *class)
    }
    pub(crate) fn class_mut(&mut self, at: u32) -> &mut Class {
        &mut self.classes[at as usize]
    }

    /// Classes with nodes.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|class| class.len() > 0)
    }

    /// Classes that fit a spec, offline and empty ones among them.
    ///
    /// *Cost*: each class once a spec, however often it is asked.
    pub(crate) fn fitting(&mut self, digest: &Digest, spec: &TaskSpec) -> &[u32] {
        if self.matches.len() >= MAX_MATCHES && !self.matches.contains_key(digest) {
            self.matches.clear();
        }
        let known = self.matches.entry(*digest).or_default();
        let unseen = self.classes.iter().enumerate().skip(known.seen);
        let fit = unseen.filter(|(_, class)| class.site().fits(spec));
        known.fitting.extend(fit.map(|(at, _)| at as u32));
        known.seen = self.classes.len();
        &known.fitting
    }
}
