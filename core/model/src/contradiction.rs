//! Rules that no node at all can satisfy together.
//!
//! Owns finding two that exclude each other, named both. What it lets pass may still fit no node that is there.

use crate::{BadSpec, Company, Demand, Direction, LabelRule, Scope, Strength};

/// Rules on one label must leave it something to be.
pub(crate) fn labels(rules: &[LabelRule]) -> Result<(), BadSpec> {
    let same_key = rules.chunk_by(|a, b| a.key == b.key);
    for rules in same_key {
        for (at, one) in rules.iter().enumerate() {
            let mut others = rules[at..].iter();
            if let Some(other) = others.find(|other| exclude(&one.demand, &other.demand)) {
                return Err(contradiction(one, other));
            }
        }
        nothing_left(rules)?;
    }
    Ok(())
}

fn contradiction(one: &LabelRule, other: &LabelRule) -> BadSpec {
    BadSpec::contradiction(format!("label {one}"), format!("label {other}"))
}

/// Whether no label, and no absence of one, satisfies both.
fn exclude(one: &Demand, other: &Demand) -> bool {
    let needs_one = |demand: &Demand| !demand.holds(None);
    match (one, other) {
        (Demand::Absent, demand) | (demand, Demand::Absent) => needs_one(demand),
        (Demand::In(values), demand) | (demand, Demand::In(values)) => {
            !values.iter().any(|value| demand.holds(Some(value)))
        }
        (Demand::Version(one), Demand::Version(other)) => one.excludes(other),
        _ => false,
    }
}

/// The values of the first list that pass every other rule; none is a contradiction of more than two rules.
fn nothing_left(rules: &[LabelRule]) -> Result<(), BadSpec> {
    let lists = |rule: &&LabelRule| matches!(rule.demand, Demand::In(_));
    let Some(first) = rules.iter().find(lists) else {
        return Ok(());
    };
    let Demand::In(values) = &first.demand else {
        return Ok(());
    };
    let passes = |value: &String| rules.iter().all(|rule| rule.demand.holds(Some(value)));
    if values.iter().any(passes) {
        return Ok(());
    }
    let others: Vec<String> = rules
        .iter()
        .filter(|rule| *rule != first)
        .map(|rule| format!("label {rule}"))
        .collect();
    Err(BadSpec::contradiction(
        format!("label {first}"),
        others.join(" with "),
    ))
}

/// Required affinities must leave a task somewhere to be.
pub(crate) fn company(company: &Company) -> Result<(), BadSpec> {
    let required = || {
        let all = company.affinities.iter();
        all.filter(|wish| wish.strength == Strength::Required)
    };
    for near in required().filter(|wish| wish.direction == Direction::Near) {
        // A node lies in its region: near on a node and apart in the region exclude each other too.
        let against = |apart: &&crate::Affinity| {
            apart.direction == Direction::Apart
                && apart.tag == near.tag
                && (apart.scope == near.scope || near.scope == Scope::Node)
        };
        if let Some(apart) = required().find(against) {
            return Err(BadSpec::contradiction(
                format!(
                    "affinity to {:?} in the same {}",
                    near.tag,
                    word(near.scope)
                ),
                format!(
                    "anti_affinity to {:?} in the same {}",
                    apart.tag,
                    word(apart.scope)
                ),
            ));
        }
        if company.spread == Some(near.scope) && company.tag.as_ref() == Some(&near.tag) {
            return Err(BadSpec::contradiction(
                format!("spread over {}s", word(near.scope)),
                format!(
                    "affinity to its own tag {:?} in the same {}",
                    near.tag,
                    word(near.scope)
                ),
            ));
        }
    }
    Ok(())
}

const fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Node => "node",
        Scope::Region => "region",
    }
}
