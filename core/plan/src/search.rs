//! The search: the project whose share is smallest goes next, with its most urgent group, to the class where a
//! task now costs least.
//!
//! ```text
//! heap of projects by share ─▶ its most urgent group ─▶ heap of classes by cost ─▶ node ─▶ take its room
//!           ▲                                               │ changed since: look again
//!           └───────────── share after this task ◀──────────┘
//! ```
//! What is taken is journalled and given back at the end: planning changes nothing.

mod elsewhere;
mod gang;
mod reserve;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use farlane_model::{NodeId, ProjectId, Resources};
use farlane_units::Micros;

pub use self::elsewhere::{Elsewhere, elsewhere};
use self::reserve::Kept;
use crate::company::{Here, Presence};
use crate::cost::Traits;
use crate::fleet::{Fleet, Totals};
use crate::tree::Free;
use crate::units::NO_BOUND;
use crate::view::{Assignment, Group, Left, Plan, PlanInput, Report};

/// A wait behind others on a node that is always short enough. Source: choice; what a busy server takes to hear of
/// an end, plan and send the next task, many times over; a task of which nothing is known may have four before it.
const SOON: Micros = Micros(500_000);
/// A project's weight where nobody set one.
const WEIGHT: u32 = 1000;
/// A class that could take a group's next task, at this cost. Ordered by cost, then by its best node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub cost: f64,
    pub id: NodeId,
    pub class: u32,
    pub place: usize,
    pub ahead: u32,
    pub here: Here,
    /// For this node alone, rather than for its class.
    pub alone: bool,
    /// Of the class's room when it was looked at.
    pub version: u64,
    /// How often room was shown until then.
    pub shown: u32,
}
impl Eq for Offer {}
impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Offer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost
            .total_cmp(&other.cost)
            .then_with(|| self.id.cmp(&other.id))
    }
}

pub(crate) type Offers = BinaryHeap<Reverse<Offer>>;

/// A project on its turns.
struct Turn {
    weight: f64,
    cpus: f64,
    memory: f64,
    gpus: f64,
    left: Left,
    /// The most urgent last.
    groups: Vec<usize>,
    tie: u64,
}

/// A project's place in the heap: the smallest share first.
#[derive(PartialEq)]
struct Next {
    share: f64,
    tie: u64,
    project: usize,
}
impl Eq for Next {}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.share
            .total_cmp(&other.share)
            .then_with(|| self.tie.cmp(&other.tie))
            .then_with(|| self.project.cmp(&other.project))
    }
}

impl Turn {
    /// Its dominant share of what is online, by its weight.
    fn share(&self, totals: &Totals) -> f64 {
        let of = |used: f64, all: u64| used / (all.max(1)) as f64;
        let cores = of(self.cpus, totals.cpus).max(of(self.memory, totals.memory.0));
        cores.max(of(self.gpus, totals.gpus)) / self.weight
    }

    fn holds(&mut self, need: &Resources) {
        self.cpus += f64::from(need.cpus.0);
        self.memory += need.memory.0 as f64;
        self.gpus += f64::from(need.gpus.0);
    }
}

/// Mixes the seed with a project's id, so that equal ones do not always go in one order. Source: the finaliser
/// of splitmix64 (Steele, Lea, Flood 2014).
fn tie(seed: u64, id: &ProjectId) -> u64 {
    let mut head = [0u8; 8];
    head.copy_from_slice(&id.to_bytes()[8..]);
    let mut x = u64::from_le_bytes(head) ^ seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Places what it can. Deterministic: equal fleets and inputs give equal plans, in whatever order nodes and
/// groups were put in; the fleet is as before when it returns.
///
/// *Shape*: never over a node's capacity and credit as the fleet states them; a group's tasks are taken from
/// its head; a smaller budget gives a beginning of the same plan. *Cost*: O(groups × classes that fit +
/// placements × log nodes).
pub fn plan(fleet: &mut Fleet, groups: &[Group], input: &PlanInput) -> (Plan, Report) {
    fleet.freshen();
    let totals = fleet.totals();
    let mut turns = turns(groups, input);
    let mut heap: BinaryHeap<Reverse<Next>> = turns
        .iter()
        .enumerate()
        .map(|(project, turn)| Reverse(next(project, turn, &totals)))
        .collect();
    let mut round = Round::new(fleet, groups, input);
    round.keep_known();
    while round.budget > 0
        && let Some(Reverse(Next { project, .. })) = heap.pop()
    {
        let until = heap.peek().map(|Reverse(other)| (other.share, other.tie));
        if round.take_turn(&mut turns[project], &totals, until) {
            heap.push(Reverse(next(project, &turns[project], &totals)));
        }
    }
    round.report.cut_short |= round.budget == 0
        && round
            .wanted
            .iter()
            .zip(groups)
            .any(|(n, g)| *n > 0 && g.granter);
    round.give_back();
    let (plan, mut report) = (round.plan, round.report);
    report.reserved = round.kept.reserved;
    report.unfit.sort_unstable();
    report.unfit.dedup();
    (plan, report)
}

/// Whether a task may wait behind others on a node: only where it would begin within about a round trip, which
/// is what waiting there saves. For longer it waits in its queue, and goes wherever room is first; so does what was called
/// back from where it waited, and what runs once at most, for it could not be.
pub(crate) fn is_soon(there: &Traits, of: &Group, ahead: u32) -> bool {
    let near = there.round_trip.saturating_add(there.round_trip);
    let soon = || there.wait(of, ahead) <= near.max(SOON).0 as f64;
    ahead == 0 || !of.at_once && !of.spec.retry.at_most_once && soon()
}

fn next(project: usize, turn: &Turn, totals: &Totals) -> Next {
    Next {
        share: turn.share(totals),
        tie: turn.tie,
        project,
    }
}

/// Projects with groups that can be granted.
fn turns(groups: &[Group], input: &PlanInput) -> Vec<Turn> {
    let mut projects: BTreeMap<ProjectId, Vec<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        if group.granter && group.tasks > 0 {
            projects.entry(group.spec.project).or_default().push(index);
        }
    }
    let turn = |(id, mut of_it): (ProjectId, Vec<usize>)| {
        of_it.sort_by_key(|g| Reverse(groups[*g].rank()));
        let share = input.shares.iter().find(|s| s.project == id);
        Turn {
            weight: f64::from(share.map_or(WEIGHT, |s| s.weight).max(1)),
            cpus: share.map_or(0.0, |s| s.cpus as f64),
            memory: share.map_or(0.0, |s| s.memory.0 as f64),
            gpus: share.map_or(0.0, |s| s.gpus as f64),
            left: share.map_or(Left::ALL, |s| s.left),
            groups: of_it,
            tie: tie(input.seed, &id),
        }
    };
    projects.into_iter().map(turn).collect()
}

/// The work of one plan.
pub(crate) struct Round<'a> {
    pub fleet: &'a mut Fleet,
    pub groups: &'a [Group],
    /// How often room was taken in each class.
    pub versions: Vec<u64>,
    /// Tasks of each group still to be placed.
    pub wanted: Vec<u32>,
    /// Classes by cost, once a group had its turn.
    pub offers: Vec<Option<Offers>>,
    /// What was free before.
    pub journal: Vec<(u32, usize, Free)>,
    pub budget: u32,
    pub plan: Plan,
    pub report: Report,
    /// With what this round has placed.
    pub presence: Presence,
    /// Named resources that this round has taken.
    pub taken: HashMap<(NodeId, String), u32>,
    /// How often room came back that was kept for a gang.
    pub shown: u32,
    /// Single nodes looked at.
    pub looked: usize,
    /// Units of compute that the quota of the project whose turn it is leaves.
    pub ucu: u64,
    pub input: &'a PlanInput,
    /// Nodes that gangs wait for.
    kept: Kept,
}

impl<'a> Round<'a> {
    fn new(fleet: &'a mut Fleet, groups: &'a [Group], input: &'a PlanInput) -> Self {
        Self {
            versions: Vec::new(),
            fleet,
            groups,
            wanted: groups.iter().map(|g| g.tasks).collect(),
            offers: groups.iter().map(|_| None).collect(),
            journal: Vec::new(),
            budget: input.budget,
            plan: Plan::default(),
            report: Report::default(),
            presence: input.presence.clone(),
            taken: HashMap::new(),
            shown: 0,
            looked: 0,
            ucu: NO_BOUND,
            input,
            kept: Kept::default(),
        }
    }

    /// Places tasks of a project until its share is no longer the smallest. False when it has nothing left that
    /// could be placed.
    fn take_turn(&mut self, turn: &mut Turn, totals: &Totals, until: Option<(f64, u64)>) -> bool {
        self.ucu = turn.left.ucu;
        while let Some(&group) = turn.groups.last() {
            if self.budget == 0 {
                return true;
            }
            let size = self.groups[group].gang.max(1);
            let need = &self.groups[group].spec.resources;
            let placed = match self.groups[group].is_gang() {
                _ if !turn.left.holds(need, size) => false,
                false => self.place_one(group),
                true => self.place_gang(group),
            };
            if !placed {
                turn.groups.pop();
                continue;
            }
            let need = &self.groups[group].spec.resources;
            turn.left.take(need, size);
            turn.left.ucu = self.ucu;
            (0..size).for_each(|_| turn.holds(need));
            if self.wanted[group] == 0 {
                turn.groups.pop();
            }
            if until.is_some_and(|other| (turn.share(totals), turn.tie) > other) {
                return !turn.groups.is_empty();
            }
        }
        false
    }

    /// Places the group's next task where it now costs least. False where there is no room for it.
    fn place_one(&mut self, group: usize) -> bool {
        self.look(group);
        let offer = self.cheapest(group);
        // What would wait elsewhere runs at once where a gang waits for longer.
        if offer.as_ref().is_none_or(|o| o.ahead > 0) && self.backfill(group) {
            let offers = self.offers[group].iter_mut();
            offers
                .zip(offer)
                .for_each(|(offers, offer)| offers.push(Reverse(offer)));
            return true;
        }
        let Some(offer) = offer else {
            return false;
        };
        let other = self.runner_up(group, &offer);
        self.take(group, &offer, other);
        if let Some(fresh) = self.again(group, &offer)
            && let Some(offers) = &mut self.offers[group]
        {
            offers.push(Reverse(fresh));
        }
        true
    }

    /// Makes the group's offers, the first time.
    fn look(&mut self, group: usize) {
        if self.offers[group].is_some() {
            return;
        }
        let of = &self.groups[group];
        if !of.spec.node.keep_on.is_empty() {
            return self.look_at_kept(group);
        }
        let fitting = self.fleet.fitting(&of.digest, &of.spec).to_vec();
        if self.is_particular(group) {
            return self.look_at_nodes(group, &fitting);
        }
        let mut any = false;
        let mut offers = Vec::with_capacity(fitting.len());
        for &class in &fitting {
            let there = self.fleet.class(class);
            if !there.is_online() || there.len() == 0 {
                continue;
            }
            any |=
                of.not_on.is_empty() || (0..there.len()).any(|p| !of.not_on.contains(&there.id(p)));
            offers.extend(self.offer(group, class, 0).map(Reverse));
        }
        offers.extend(self.warm(group, &fitting));
        if !any {
            self.report.unfit.push(group);
        }
        self.offers[group] = Some(offers.into());
    }

    /// What a class would cost for the group's next task now, of whose nodes none before `from` runs it.
    pub fn offer(&self, group: usize, class: u32, from: usize) -> Option<Offer> {
        let of = &self.groups[group];
        let there = self.fleet.class(class);
        let best = self.best_of(group, class, from);
        let (place, ahead) = best.filter(|(_, ahead)| is_soon(&there.traits, of, *ahead))?;
        let here = Here::default();
        Some(Offer {
            cost: there.traits.bill(of, ahead, &here).total(),
            id: there.id(place),
            class,
            place,
            ahead,
            here,
            alone: false,
            version: self.version(class),
            shown: self.shown,
        })
    }

    pub fn version(&self, class: u32) -> u64 {
        self.versions.get(class as usize).copied().unwrap_or(0)
    }

    /// Takes out the cheapest offer that still holds: what others took since only makes a class dearer, and leaves less
    /// of the quota.
    fn cheapest(&mut self, group: usize) -> Option<Offer> {
        loop {
            let Reverse(offer) = self.offers[group].as_mut()?.pop()?;
            if offer.version == self.version(offer.class) && self.affords(group, &offer.id) {
                return Some(offer);
            }
            if let Some(fresh) = self.again(group, &offer)
                && let Some(offers) = &mut self.offers[group]
            {
                offers.push(Reverse(fresh));
            }
        }
    }

    /// Takes the room of one task, and notes where it goes.
    fn take(&mut self, group: usize, offer: &Offer, other: Option<(NodeId, f64)>) {
        let groups = self.groups;
        let of = &groups[group];
        let class = self.fleet.class_mut(offer.class);
        let mut free = class.free(offer.place).clone();
        self.journal.push((offer.class, offer.place, free.clone()));
        let devices = match offer.ahead {
            0 => free.take(of.need()),
            _ => {
                free.wait();
                0
            }
        };
        class.set(offer.place, free);
        let generation = class.generation(offer.place);
        if self.is_particular(group) {
            self.note(group, offer.id);
        }
        self.changed(offer.class);
        self.assign(group, (generation, devices), offer, other);
    }

    /// What offers say of a class holds no more.
    fn changed(&mut self, class: u32) {
        if self.versions.len() <= class as usize {
            self.versions.resize(class as usize + 1, 0);
        }
        self.versions[class as usize] += 1;
    }

    /// Notes where one task goes.
    fn assign(
        &mut self,
        group: usize,
        (generation, devices): (u32, u64),
        offer: &Offer,
        runner_up: Option<(NodeId, f64)>,
    ) {
        let (of, traits) = (&self.groups[group], &self.fleet.class(offer.class).traits);
        let plain = of.spec.resources.gpus.0 == 0;
        self.wanted[group] -= 1;
        self.budget -= 1;
        self.report.placed += 1;
        match self.plan.assignments.last_mut() {
            Some(last) if plain && last.group == group && last.node == offer.id => last.tasks += 1,
            _ => self.plan.assignments.push(Assignment {
                group,
                node: offer.id,
                generation,
                tasks: 1,
                devices,
                bill: traits.bill(of, offer.ahead, &offer.here),
                run: traits.run(of),
                emits: traits.emits(of),
                runner_up,
            }),
        }
        self.spend(group, &offer.id);
    }

    fn undo_to(&mut self, mark: usize) {
        for (class, place, free) in self.journal.drain(mark..).rev() {
            self.fleet.class_mut(class).set(place, free);
        }
    }

    fn give_back(&mut self) {
        self.undo_to(0);
    }
}
