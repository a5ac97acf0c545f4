//! What holds of every history, and what SPEC.md promises of some.
#![allow(clippy::unwrap_used)]

use farlane_sim::{Figures, Machines, PolicyName, Project, Scenario, Simulation};

fn project(name: &str) -> Project {
    Project {
        name: name.to_owned(),
        copies: 1,
        weight: 1000,
        policy: PolicyName::Balanced,
        tasks_per_hour: 10_000.0,
        diurnal: 0.0,
        median_seconds: 2.0,
        sigma: 1.0,
        cores: vec![1.0],
        memory_mib: 512,
        gpus: 0.0,
        regions: Vec::new(),
        gang: 1,
    }
}

fn scenario(hours: f64, nodes: usize, projects: Vec<Project>) -> Scenario {
    Scenario {
        seed: 7,
        hours,
        regions: 3,
        nodes,
        failures_per_node_day: 0.0,
        machines: Machines::Mixed,
        round_trip_ms: [1.0, 251.0],
        carbon_swing: 0.0,
        projects,
    }
}

fn run(scenario: Scenario) -> Figures {
    let mut simulation = Simulation::new(scenario).unwrap();
    while simulation.step() {}
    simulation.figures()
}

#[test]
fn a_history_ends_though_some_of_its_work_fits_nowhere() {
    let unfit = Project {
        gpus: 1.0,
        tasks_per_hour: 100.0,
        ..project("unfit")
    };
    let scenario = Scenario {
        carbon_swing: 0.5,
        ..scenario(0.2, 12, vec![project("calls"), unfit])
    };
    let figures = run(scenario);
    assert!(figures.ended > 1_000 && figures.ended < figures.submitted);
}

#[test]
fn everything_taken_in_ends_also_where_nodes_fall_silent() {
    let gang = Project {
        gang: 4,
        tasks_per_hour: 8_000.0,
        ..project("gangs")
    };
    let scenario = Scenario {
        failures_per_node_day: 1_000.0,
        ..scenario(0.2, 12, vec![project("calls"), gang])
    };
    let figures = run(scenario.clone());
    assert!(
        figures.submitted > 2_000 && figures.not_taken == 0,
        "{figures:?}"
    );
    assert_eq!(figures.ended, figures.submitted);
    assert!(figures.lost > 0, "nodes fell silent with work on them");
    assert!(figures.utilisation > 0.0 && figures.utilisation <= 1.0);
    let again = run(scenario);
    assert_eq!(
        format!("{figures:?}"),
        format!("{again:?}"),
        "one seed, one history"
    );
}

#[test]
fn a_policy_gets_what_it_asks_for() {
    let of = |policy| {
        let of_policy = Project {
            policy,
            ..project("calls")
        };
        let scenario = scenario(0.02, 60, vec![of_policy]);
        run(Scenario {
            regions: 12,
            ..scenario
        })
    };
    let (cheap, green, fast) = (
        of(PolicyName::Cheap),
        of(PolicyName::Green),
        of(PolicyName::Fast),
    );
    assert!(cheap.usd < fast.usd, "{} {}", cheap.usd, fast.usd);
    assert!(green.grams_co2e < cheap.grams_co2e.min(fast.grams_co2e));
    let wait = |figures: &Figures| figures.projects[0].wait_ms_p50;
    assert!(wait(&fast) <= wait(&cheap));
}

#[test]
fn fifty_projects_share_by_weight_within_three_in_a_hundred() {
    let busy = |name: &str, weight, cores: Vec<f64>| Project {
        copies: 25,
        weight,
        cores,
        // Twice what they are due.
        tasks_per_hour: 350_000.0,
        median_seconds: 2.0,
        ..project(name)
    };
    let projects = vec![
        busy("light", 1000, vec![0.25]),
        busy("heavy", 2000, vec![0.25, 0.5]),
    ];
    let mut simulation = Simulation::new(scenario(0.01, 40, projects)).unwrap();
    // What is left then need not be waited for.
    while simulation.progress().0 < simulation.progress().1 && simulation.step() {}
    let figures = simulation.figures();
    assert!(figures.share_windows >= 2, "{}", figures.share_windows);
    let error = figures.share_error.unwrap();
    println!(
        "largest share error {error:.4} over {} windows",
        figures.share_windows
    );
    assert!(error <= 0.03, "{error}");
}

#[test]
fn the_first_minute_of_every_example_ends() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sim");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let whole: Scenario = toml::from_str(&text).unwrap();
            let figures = run(Scenario {
                hours: 1.0 / 60.0,
                ..whole
            });
            assert!(figures.ended > 0, "{}", path.display());
            let taken = figures.submitted - figures.not_taken;
            assert_eq!(figures.ended, taken, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count}");
}
