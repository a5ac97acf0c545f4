//! The same plan, bit for bit, whatever built it. `cargo xtask test` runs this in a debug build, and
//! `cargo xtask bench scheduler` holds a release build against the same digest before it measures.
#![allow(clippy::unwrap_used)]

#[test]
fn a_large_plan_with_every_term_is_the_one_that_is_written_down() {
    let is = farlane_sim::same_plan::digest();
    assert_eq!(
        is.to_string(),
        farlane_sim::same_plan::DIGEST,
        "plans have changed; if they were meant to, write this digest down in core/sim/src/same_plan.rs"
    );
}
