//! What a queued task costs, with every index, at the size that is promised.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod world;

use farlane_model::SessionId;
use farlane_state::*;
use farlane_units::Millis;
use world::*;

const TASKS: u64 = 1_000_000;
/// Source: SPEC.md, "The scheduler".
const MOST_BYTES: u64 = 350;

/// Resident bytes of this process; the test runs alone in its binary.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_million_queued_tasks_stay_within_their_bytes() {
    let mut w = World::new();
    let mut spec = task_spec("f");
    // With a deadline, so that the index of deadlines is counted too.
    spec.timing.deadline = Some(Millis(3_600_000));
    let mut order = w.submit_order('A', 1, 500, &spec);
    let before = resident();
    let stamp = |index| Stamp {
        index,
        term: 1,
        now: Millis(2_000_000),
    };
    let mut first = 1;
    while first <= TASKS {
        order.first_seq = first;
        let applied = apply(&mut w.state, stamp(100 + first), 0, order.clone().into());
        assert!(matches!(applied.outcome, Outcome::Submitted { .. }));
        first += 500;
    }
    let session: SessionId = session('A');
    assert_eq!(w.state.counts().queued as u64, TASKS);
    assert!(w.state.task(session.task(TASKS)).is_some());
    let each = (resident() - before) / TASKS;
    println!("{each} bytes a queued task");
    assert!(each > 50, "{each} bytes are too few to be true");
    assert!(each <= MOST_BYTES, "{each} bytes a queued task");
}
