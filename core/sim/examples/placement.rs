//! What placing costs over the least that it could cost, by scenario and policy, for this network's planner and
//! for others' rules; prints a line of JSON for each. `cargo xtask bench placement` builds and runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use farlane_sim::{Chooser, PolicyName, Scenario, Simulation};
use serde_json::json;

const SCENARIOS: [(&str, &str); 5] = [
    ("prices", include_str!("../../../examples/sim/prices.toml")),
    (
        "carbon by hour",
        include_str!("../../../examples/sim/carbon-by-hour.toml"),
    ),
    (
        "heavy tails",
        include_str!("../../../examples/sim/heavy-tails.toml"),
    ),
    ("gpus", include_str!("../../../examples/sim/gpus.toml")),
    (
        "far gangs",
        include_str!("../../../examples/sim/far-gangs.toml"),
    ),
];
const POLICIES: [(&str, PolicyName); 4] = [
    ("balanced", PolicyName::Balanced),
    ("fast", PolicyName::Fast),
    ("cheap", PolicyName::Cheap),
    ("green", PolicyName::Green),
];
/// How often the charges of the bound are improved. Source: past this the bounds rise by less than 1 %.
const IMPROVED: usize = 200;

fn main() {
    let only = std::env::args().nth(1);
    for (name, text) in SCENARIOS {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        for (policy_name, policy) in POLICIES {
            let mut scenario: Scenario = toml::from_str(text).unwrap();
            scenario.projects.iter_mut().for_each(|p| p.policy = policy);
            let mut costs = serde_json::Map::new();
            let (mut bound, mut foreseen) = (0.0, 0.0);
            let (mut utilisation, mut tasks) = (0.0, 0);
            for chooser in Chooser::ALL {
                let mut simulation = Simulation::chosen_by(chooser, scenario.clone()).unwrap();
                while simulation.step() {}
                let instance = simulation.instance().unwrap();
                let figures = simulation.figures();
                if chooser == Chooser::Farlane {
                    (bound, foreseen) = instance.bounds(figures.objective_usd * 1e6, IMPROVED);
                    // What a chooser reached, one who knows all reaches, too.
                    foreseen = foreseen.min(figures.objective_usd * 1e6) / 1e6;
                    bound /= 1e6;
                    (utilisation, tasks) = (figures.utilisation, figures.ended);
                }
                costs.insert(
                    chooser.name().to_owned(),
                    (figures.objective_usd / bound).into(),
                );
            }
            let line = json!({
                "scenario": name, "policy": policy_name, "bound_usd": bound, "over_bound": costs,
                "foreseen_over_bound": foreseen / bound, "tasks": tasks, "utilisation": utilisation,
            });
            println!("{line}");
        }
    }
}
