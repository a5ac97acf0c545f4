//! Why a task runs where it does, waits, or never can: by class of node.

use std::collections::{BTreeMap, BTreeSet};

use farlane_model::{NodeId, TaskSpec, nearest};

use crate::company::Here;
use crate::constraint::{Lack, unknown_labels};
use crate::cost::Term;
use crate::fleet::{Class, Fleet};
use crate::kept;
use crate::view::Group;

/// Nodes that lack the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassReason {
    /// "us-west: 2 cores, 8 GiB, Python 3.11"
    pub class: String,
    /// How many are alike.
    pub nodes: u32,
    /// What they lack; empty when they fit.
    pub lacks: Vec<Lack>,
}

/// The answer for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Fitting classes first, then by what they lack.
    pub classes: Vec<ClassReason>,
    /// Cheapest node online now, if any, and the terms of its cost.
    pub best: Option<(NodeId, Vec<Term>)>,
    /// The best node of the next best class, and its cost in micro-dollars.
    pub runner_up: Option<(NodeId, f64)>,
}

fn class_of(class: &Class) -> String {
    let spec = &class.spec;
    let mut pythons: Vec<_> = spec.interpreters.iter().map(|i| i.version).collect();
    pythons.sort_unstable();
    pythons.dedup();
    let pythons: Vec<String> = pythons.iter().map(ToString::to_string).collect();
    format!(
        "{}: {} cores, {}, Python {}",
        class.region(),
        f64::from(spec.cpus.0) / 1000.0,
        spec.memory,
        if pythons.is_empty() {
            "none".to_owned()
        } else {
            pythons.join(" ")
        }
    )
}

/// The place that would take one task of the group now, or next.
struct Best<'a> {
    class: &'a Class,
    place: usize,
    /// Would wait behind so many; `None` where it takes none at all now.
    ahead: Option<u32>,
}

impl<'a> Best<'a> {
    fn name(&self, fleet: &'a Fleet) -> &'a str {
        let spec = fleet.spec(&self.class.id(self.place));
        spec.map_or("a node", |spec| &spec.name)
    }

    /// Whether its environment is ready there, and what it holds.
    fn here(&self, group: &Group) -> Here {
        let node = self.class.id(self.place);
        Here {
            warm: group.warm.contains(&node),
            held: group.held(&node),
            ..Here::default()
        }
    }

    /// What counts of a place that is full: those that wait there, and this one.
    fn behind(&self) -> u32 {
        let backlog = self.class.free(self.place).backlog;
        self.ahead.unwrap_or_else(|| backlog.saturating_add(1))
    }
}

/// The best two classes, the better first.
fn best<'a>(fleet: &'a Fleet, group: &Group) -> (Option<Best<'a>>, Option<(NodeId, f64)>) {
    let online = fleet.classes().filter(|c| c.is_online());
    let fitting =
        online.filter(|c| c.open(&group.spec, &group.not_on) > 0 && c.site().fits(&group.spec));
    let cost = |b: &Best| {
        b.class
            .traits
            .bill(group, b.behind(), &b.here(group))
            .total()
    };
    let places = fitting.map(|class| {
        let found = class.best_for(group);
        let first = || (0..class.len()).find(|place| group.is_open(&class.id(*place)));
        let (place, ahead) = match found {
            Some((place, ahead)) => (place, Some(ahead)),
            None => (first().unwrap_or(0), None),
        };
        let first = Best {
            class,
            place,
            ahead,
        };
        // One that is ready, or holds what it takes with it, may be cheaper than its class's first.
        let known = group.lies.iter().flat_map(|part| part.nodes.iter());
        let known = group
            .warm
            .iter()
            .chain(known)
            .filter(|id| group.is_open(id));
        let others = known.filter_map(|id| {
            let place = class.place_of(id).ok()?;
            let ahead = Some(class.free(place).ahead(group.need())?);
            Some(Best {
                class,
                place,
                ahead,
            })
        });
        others.fold(first, |best, other| match cost(&other) < cost(&best) {
            true => other,
            false => best,
        })
    });
    let before = |a: &Best, b: &Best| {
        let ids = || a.class.id(a.place).cmp(&b.class.id(b.place));
        cost(a).total_cmp(&cost(b)).then_with(ids).is_lt()
    };
    let (mut first, mut second): (Option<Best>, Option<Best>) = (None, None);
    for place in places {
        if first.as_ref().is_none_or(|first| before(&place, first)) {
            second = first.replace(place);
        } else if second.as_ref().is_none_or(|second| before(&place, second)) {
            second = Some(place);
        }
    }
    let runner_up = second.map(|b| (b.class.id(b.place), cost(&b)));
    (first, runner_up)
}

/// Explains what a group asks against the network as it is.
///
/// *Cost*: one look at each class.
pub fn explain(fleet: &mut Fleet, group: &Group) -> Explanation {
    fleet.freshen();
    let fleet = &*fleet;
    let mut classes: BTreeMap<(usize, String, String), ClassReason> = BTreeMap::new();
    for there in fleet.classes() {
        let open = there.open(&group.spec, &group.not_on);
        let elsewhere = there.but(&group.not_on) - open;
        for (nodes, is_open) in [(open, true), (elsewhere, false)] {
            if nodes == 0 {
                continue;
            }
            let lacking = lacking(there, &group.spec, is_open);
            let words: Vec<String> = lacking.iter().map(ToString::to_string).collect();
            let class = class_of(there);
            let entry = classes
                .entry((lacking.len(), words.join("; "), class.clone()))
                .or_insert(ClassReason {
                    class,
                    nodes: 0,
                    lacks: lacking,
                });
            entry.nodes += nodes as u32;
        }
    }
    let (best, runner_up) = best(fleet, group);
    Explanation {
        summary: summary(fleet, group, best.as_ref()) + &kept::summary(fleet, &group.spec),
        classes: classes.into_values().collect(),
        best: best.map(|b| {
            let terms = b.class.traits.terms(group, b.behind(), &b.here(group));
            (b.class.id(b.place), terms)
        }),
        runner_up,
    }
}

/// What a class's nodes lack: those that the task may go to, or those that it must not leave others for.
fn lacking(there: &Class, spec: &TaskSpec, is_open: bool) -> Vec<Lack> {
    let mut lacking = there.site().lacks(spec);
    if !is_open {
        let wants = spec.node.keep_on.clone();
        lacking.push(Lack::Elsewhere { wants });
    }
    if there.is_quarantined() {
        lacking.push(Lack::Quarantined);
    } else if lacking.is_empty() && !there.is_online() {
        lacking.push(Lack::Offline);
    }
    lacking
}

fn feasible(fleet: &Fleet, group: &Group) -> bool {
    let mut left = fleet
        .classes()
        .filter(|c| c.open(&group.spec, &group.not_on) > 0);
    left.any(|c| c.site().fits(&group.spec))
}

fn quarantined(fleet: &Fleet) -> bool {
    fleet.classes().any(Class::is_quarantined)
}

fn summary(fleet: &Fleet, group: &Group, best: Option<&Best>) -> String {
    let gang = || crate::gang::summary(fleet, group).filter(|_| group.is_gang());
    match best {
        _ if fleet.is_empty() => {
            "no node has joined yet; add one with `farlane tokens create`".to_owned()
        }
        Some(_) if !group.granter => {
            "nobody who can grant it is attached; keep the client running or start `farlane granter`".to_owned()
        }
        _ if let Some(said) = gang() => said,
        Some(best) if best.ahead == Some(0) => {
            format!("{} in {} fits and has room", best.name(fleet), best.class.region())
        }
        Some(best) => format!(
            "waits for room: {} in {} fits and is busy ({} waiting there)",
            best.name(fleet),
            best.class.region(),
            best.class.free(best.place).backlog
        ),
        None if feasible(fleet, group) && quarantined(fleet) => {
            "every node that fits is offline or in quarantine".to_owned()
        }
        None if feasible(fleet, group) => "every node that fits is offline".to_owned(),
        None => {
            let mut text = format!("none of the {} registered nodes can ever run it", fleet.len());
            labels(fleet, group, &mut text);
            text
        }
    }
}

/// Names the labels that no node has: they are mistyped, or were not given yet.
fn labels(fleet: &Fleet, group: &Group, text: &mut String) {
    let specs = || fleet.classes().map(|class| &*class.spec);
    let keys: BTreeSet<&str> = specs()
        .flat_map(|spec| spec.labels.iter().map(|(key, _)| key.as_str()))
        .collect();
    for key in unknown_labels(specs(), &group.spec) {
        text.push_str(&format!("; no node has a label `{key}`"));
        if let Some(near) = nearest(&key, keys.iter().copied()) {
            text.push_str(&format!("; did you mean `{near}`?"));
        }
    }
}
