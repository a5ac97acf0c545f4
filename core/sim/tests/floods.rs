//! What many tasks, many projects and work that nobody can run do to the others.
#![allow(clippy::unwrap_used)]

use farlane_sim::{Figures, Machines, PolicyName, Project, Scenario, Simulation};

fn project(name: &str, tasks_per_hour: f64) -> Project {
    Project {
        name: name.to_owned(),
        copies: 1,
        weight: 1000,
        policy: PolicyName::Balanced,
        tasks_per_hour,
        diurnal: 0.0,
        median_seconds: 1.0,
        sigma: 0.3,
        cores: vec![1.0],
        memory_mib: 64,
        gpus: 0.0,
        regions: Vec::new(),
        gang: 1,
    }
}

/// 36 s of arrivals on a handful of nodes, and what the projects had got when they ended.
fn run(nodes: usize, projects: Vec<Project>) -> Figures {
    let mut simulation = Simulation::new(Scenario {
        seed: 3,
        hours: 0.01,
        regions: 2,
        nodes,
        failures_per_node_day: 0.0,
        machines: Machines::Mixed,
        round_trip_ms: [1.0, 20.0],
        carbon_swing: 0.0,
        projects,
    })
    .unwrap();
    while simulation.progress().0 < simulation.progress().1 && simulation.step() {}
    simulation.figures()
}

#[test]
fn work_that_nobody_can_run_delays_no_other() {
    let tiny = || project("tiny", 72_000.0);
    let alone = run(4, vec![tiny()]);
    let flood = Project {
        // 100,000 tasks; `cargo xtask bench scheduler` has the million.
        regions: vec!["nowhere-*".to_owned()],
        ..project("flood", 1e7)
    };
    let beside = run(4, vec![flood, tiny()]);
    let (before, after) = (&alone.projects[0], &beside.projects[1]);
    assert_eq!(before.started, after.started);
    assert!(
        after.wait_ms_p99 <= 2 * before.wait_ms_p99,
        "{} {}",
        before.wait_ms_p99,
        after.wait_ms_p99
    );
}

#[test]
fn work_that_waits_for_room_delays_a_small_project_by_one_task_at_most() {
    let flood = project("flood", 1e7);
    let figures = run(4, vec![flood, project("tiny", 7_200.0)]);
    let tiny = &figures.projects[1];
    assert!(tiny.started >= 65, "{}", tiny.started);
    // A second is what one task takes; cores fall free all the time.
    assert!(tiny.wait_ms_p99 <= 1_000, "{}", tiny.wait_ms_p99);
}

#[test]
fn three_hundred_busy_projects_all_get_their_turn() {
    // Twice what four nodes can do, each project alike; more queues than a round looks at.
    let some = Project {
        copies: 300,
        median_seconds: 0.5,
        sigma: 0.0,
        ..project("one-of-many", 6_000.0)
    };
    let figures = run(4, vec![some]);
    let started: Vec<usize> = figures.projects.iter().map(|p| p.started).collect();
    let (least, most) = (started.iter().min().unwrap(), started.iter().max().unwrap());
    println!("from {least} to {most} tasks each");
    // Twenty-odd each: with fewer cores than projects, equal shares are told apart by lot.
    assert!(least * 4 >= *most, "{least} {most}");
}
