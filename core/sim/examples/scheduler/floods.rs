//! What a million tasks of one project do to the waits of a small one.

use farlane_sim::{Scenario, Simulation};

/// 36 s of arrivals on twenty nodes: a small project, and beside it what `flood` says.
fn p99_wait_ms(flood: &str) -> u32 {
    let text = format!(
        "seed = 3\nhours = 0.01\nregions = 2\nnodes = 20\nround_trip_ms = [1, 20]\n\
         [[project]]\nname = \"small\"\ntasks_per_hour = 36000\nmedian_seconds = 1.0\nsigma = 0.3\n{flood}"
    );
    let scenario: Scenario = toml::from_str(&text).unwrap();
    let mut simulation = Simulation::new(scenario).unwrap();
    while simulation.progress().0 < simulation.progress().1 && simulation.step() {}
    simulation.figures().projects[0].wait_ms_p99
}

/// p99 wait of the small project, milliseconds: alone, beside a million tasks that no node can run, and beside a
/// million that wait for room.
pub fn waits() -> (u32, u32, u32) {
    let flood = "[[project]]\nname = \"flood\"\ntasks_per_hour = 1e8\nmedian_seconds = 1.0\n";
    (
        p99_wait_ms(""),
        p99_wait_ms(&format!("{flood}regions = [\"nowhere-*\"]\n")),
        p99_wait_ms(flood),
    )
}
