//! The scheduler: which waiting tasks go to which nodes, and why.
//!
//! Owns the search: `plan` is a pure function of its arguments. Leaves whether a placement still
//! holds to `farlane-state`, and when to plan to the controller.
//!
//! ```text
//! ClusterView ─▶ constraints ─▶ cost of each fitting node, in money ─▶ cheapest takes one task ─▶ Plan
//!                    └▶ why not, by class of node ─────────────────────────────▶ Explanation
//! ```
//! The cost of a node is an expected bill: run time × price + value of time × (queue + round trip +
//! run time). Floats use + − × ÷ only, so that a plan is the same on every machine.

mod constraint;
mod cost;
mod explain;
mod search;
mod view;

pub use constraint::{Lack, lacks};
pub use cost::{Term, VALUE_OF_TIME_USD_MICROS_HOUR};
pub use explain::{ClassReason, Explanation, explain, feasible};
pub use search::plan;
pub use view::{Assignment, ClusterView, Group, NodeView, Plan, PlanInput, Report};
