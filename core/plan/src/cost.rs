//! The expected bill of a node, term by term.

use crate::view::{Group, NodeView};

/// What an hour of waiting is worth under policy `balanced`. Source: design.md, "Placement" leaves
/// it to the policy; half a dollar is ten core-hours at a common spot price of $0.05.
pub const VALUE_OF_TIME_USD_MICROS_HOUR: f64 = 500_000.0;

const MICROS_AN_HOUR: f64 = 3_600_000_000.0;

/// One term of a cost, as people read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// `run`, `queue`, `round trip`, `price`.
    pub name: &'static str,
    /// Micro-dollars.
    pub usd_micros: f64,
    /// With its units: "0.120 s × 1 core × $0.050000 an hour".
    pub detail: String,
}

/// Microseconds a task would wait here before it runs, with so many already ahead of it.
fn queue_micros(node: &NodeView, group: &Group, backlog: u32) -> f64 {
    let each = f64::from(group.spec.resources.cpus.0.max(1));
    let slots = (f64::from(node.spec.cpus.0) / each).max(1.0);
    group.run_time.0 as f64 * f64::from(backlog) / slots
}

/// Bill of the run itself, micro-dollars.
fn price_usd(node: &NodeView, group: &Group) -> f64 {
    let hours = group.run_time.0 as f64 / MICROS_AN_HOUR;
    let cores = f64::from(group.spec.resources.cpus.0) / 1000.0;
    hours * cores * node.spec.price_usd_micros_core_hour.0 as f64
}

fn time_usd(micros: f64) -> f64 {
    micros / MICROS_AN_HOUR * VALUE_OF_TIME_USD_MICROS_HOUR
}

/// Expected cost of one more task here; `ahead` are those that wait here already.
pub(crate) fn cost(node: &NodeView, group: &Group, ahead: u32) -> f64 {
    let wait =
        queue_micros(node, group, ahead) + node.round_trip.0 as f64 + group.run_time.0 as f64;
    price_usd(node, group) + time_usd(wait)
}

/// The same, spelled out.
pub(crate) fn terms(node: &NodeView, group: &Group, ahead: u32) -> Vec<Term> {
    let seconds = |micros: f64| micros / 1_000_000.0;
    let queue = queue_micros(node, group, ahead);
    let (trip, run) = (node.round_trip.0 as f64, group.run_time.0 as f64);
    let time = |name, micros: f64| Term {
        name,
        usd_micros: time_usd(micros),
        detail: format!(
            "{:.6} s × ${:.2} an hour of waiting",
            seconds(micros),
            VALUE_OF_TIME_USD_MICROS_HOUR / 1e6
        ),
    };
    vec![
        Term {
            name: "price",
            usd_micros: price_usd(node, group),
            detail: format!(
                "{:.6} s × {:.3} cores × {} a core-hour",
                seconds(run),
                f64::from(group.spec.resources.cpus.0) / 1000.0,
                node.spec.price_usd_micros_core_hour
            ),
        },
        time("run", run),
        time("queue", queue),
        time("round trip", trip),
    ]
}
