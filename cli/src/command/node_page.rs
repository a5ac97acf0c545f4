//! `farlane nodes show` and `farlane nodes pardon`: one machine, and what audits found of it.

use farlane::v1;
use farlane_model::NodeSpec;
use farlane_units::UsdMicros;
use serde_json::{Value, json};

use super::nodes::{as_json, find, short, state, tier};
use crate::capacity;
use crate::connect::Target;
use crate::owner::hex;
use crate::problem::Problem;
use crate::show::{self, Form};

/// Everything that the network knows of one machine.
pub async fn show(target: Target, form: Form, wanted: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    let nodes = network.list_nodes(v1::ListNodesRequest {}).await?.nodes;
    let node = find(&nodes, &wanted)?;
    if form.json {
        return show::json(&as_json(node));
    }
    let row = |what: &str, is: String| show::line(&format!("{what:<14}{is}"));
    let (name, digits) = (show::name(&node.name), short(&node.node));
    row("machine", format!("{name} ({digits}), {}", state(node)))?;
    row("region", show::name(&node.region))?;
    for (what, is) in standing(node.standing.as_ref()) {
        row(what, is)?;
    }
    if let Some(is) = heat(node) {
        row("heat", is)?;
    }
    let price = show::money(UsdMicros(node.core_hour_usd_micros));
    row("price", format!("{price} a core-hour"))?;
    row(
        "work",
        format!("{} running, {} leased", node.running, node.leased),
    )?;
    if node.round_trip_micros > 0 {
        let ms = node.round_trip_micros as f64 / 1000.0;
        row("round trip", format!("{ms:.1} ms"))?;
    }
    let Some(spec) = NodeSpec::from_canonical(&node.spec_bytes) else {
        return row("spec", "of another version of Farlane".to_owned());
    };
    let pythons = spec.interpreters.iter().map(|i| i.full.as_str());
    row(
        "interpreters",
        format!("Python {}", pythons.collect::<Vec<_>>().join(", ")),
    )?;
    row(
        "sandbox",
        format!("{}: {}", tier(spec.tier), spec.enforced.join(", ")),
    )?;
    let labels = spec
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    row("labels", labels.collect::<Vec<_>>().join(" "))?;
    show::line("\nBy the data sheet (profile nominal)")?;
    capacity::nominal_table(&spec, &[]).print("")?;
    match &spec.measured {
        Some(measured) => {
            show::line("\nBy calibration (profile measured)")?;
            capacity::measured_table(measured).print("")?;
            capacity::devices_table(&spec).map_or(Ok(()), |table| table.print(""))
        }
        None => show::line("\nNot measured yet: its agent does so when it is idle"),
    }
}

/// What its heat is expected to cost; `None` where it is cool, or says nothing.
fn heat(node: &v1::NodeView) -> Option<String> {
    let of = |what: &str, ppm: u32| {
        (ppm > 0).then(|| format!("{what} expected to be {:.1} % slower", f64::from(ppm) / 1e4))
    };
    let both = [
        of("processors", node.cores_heat_ppm),
        of("accelerators", node.gpus_heat_ppm),
    ];
    let told: Vec<String> = both.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// What audits found, in rows.
fn standing(standing: Option<&v1::NodeStanding>) -> Vec<(&'static str, String)> {
    let Some(now) = standing else {
        return Vec::new();
    };
    let follows = match (now.name.as_str(), now.lifts) {
        ("marked", _) => format!(
            ": counts as {:.1} times slower than it claims",
            f64::from(now.slowdown_milli) / 1000.0
        ),
        ("quarantined", true) => ": gets no work until it passes three audits in a row".to_owned(),
        ("quarantined", false) => {
            ": gets no work; `farlane nodes pardon` gives it its good standing again".to_owned()
        }
        _ => String::new(),
    };
    let mut rows = vec![("standing", format!("{}{follows}", now.name))];
    if !now.reason.is_empty() {
        rows.push(("", now.reason.clone()));
    }
    if now.challenges > 0 {
        let last = match now.last_share_milli {
            0 => "the last without answer".to_owned(),
            share => format!("the last at {} % of the speed that it claims", share / 10),
        };
        let (passed, all) = (now.passed, now.challenges);
        rows.push(("audits", format!("{passed} of {all} passed, {last}")));
    }
    rows
}

/// The same for programs.
pub fn standing_json(now: &v1::NodeStanding) -> Value {
    json!({
        "name": now.name,
        "reason": (!now.reason.is_empty()).then_some(&now.reason),
        "slowdown_milli": now.slowdown_milli,
        "lifts": now.lifts,
        "challenges": now.challenges,
        "passed": now.passed,
        "last_share_milli": (now.challenges > 0).then_some(now.last_share_milli),
        "last_ms": (now.last_ms > 0).then_some(now.last_ms),
    })
}

/// Gives a machine its good standing again.
pub async fn pardon(target: Target, form: Form, wanted: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    let nodes = network.list_nodes(v1::ListNodesRequest {}).await?.nodes;
    let node = find(&nodes, &wanted)?;
    let request = v1::PardonNodeRequest {
        node: node.node.clone(),
    };
    network.pardon_node(request).await?;
    let was = node.standing.as_ref().map_or("", |s| s.name.as_str());
    if form.json {
        return show::json(&json!({"node": hex(&node.node), "name": node.name, "was": was}));
    }
    let name = show::name(&node.name);
    show::line(&format!(
        "{name} ({}) was {was}, and is in good standing",
        short(&node.node)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_says_what_follows_why_and_how_it_ends() {
        let now = |name: &str, lifts, slowdown_milli| v1::NodeStanding {
            name: name.into(),
            reason: "because".into(),
            slowdown_milli,
            lifts,
            challenges: 3,
            passed: 1,
            last_share_milli: 412,
            last_ms: 5,
        };
        let rows = standing(Some(&now("marked", false, 2400)));
        let words: Vec<&str> = rows.iter().map(|(_, is)| is.as_str()).collect();
        let wanted = [
            "marked: counts as 2.4 times slower than it claims",
            "because",
            "1 of 3 passed, the last at 41 % of the speed that it claims",
        ];
        assert_eq!(words, wanted);
        let first = |standing: &v1::NodeStanding| super::standing(Some(standing)).remove(0).1;
        assert!(first(&now("quarantined", false, 1000)).contains("pardon"));
        assert!(first(&now("quarantined", true, 1000)).contains("three audits"));
        assert_eq!(super::standing(None), vec![]);
    }
}
