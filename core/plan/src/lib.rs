//! The scheduler: which waiting tasks go to which nodes, and why.
//!
//! Owns the search: `plan` is a pure function of its arguments. Leaves whether a placement still
//! holds to `farlane-state`, and when to plan to the controller.
//!
//! ```text
//! Fleet of nodes by class ─▶ constraints ─▶ cost of each class that fits, in money ─▶ cheapest takes one task ─▶ Plan
//!                               └▶ why not, by class of node ──────────────────────────▶ Explanation
//! ```
//! The cost of a place is an expected bill: run time × price + egress + value of time × (queue + round trip +
//! transfer + run time) + carbon + risk. Floats use + − × ÷ √ only, so that a plan is the same on every machine.

mod alike;
mod alone;
mod company;
mod constraint;
mod coordinate;
mod cost;
mod devices;
mod estimate;
mod estimator;
mod explain;
mod fleet;
mod gang;
mod kept;
mod lack;
mod links;
mod preempt;
mod quote;
mod reserved;
mod search;
mod sizes;
mod step;
mod tree;
mod units;
mod view;

pub use company::Presence;
pub use constraint::{GpuLack, Lack, Site, unknown_labels};
pub use cost::{Bill, Policy, Term};
pub use estimate::{Estimates, Rates, Shape, UNKNOWN, Work};
pub use estimator::{BySize, Case, Comparison, Estimator, Shadow};
pub use explain::{ClassReason, Explanation, explain};
pub use fleet::{Fleet, PATIENCE, Totals};
pub use links::{Basis, Link, Links, Survey};
pub use preempt::{Holder, Occupied, Preemption, Stands, make_room, make_way, preempt};
pub use reserved::{Leased, Reserved, all_ended};
pub use search::{Elsewhere, elsewhere, plan};
pub use sizes::Sizes;
pub use view::{
    AGEING, Assignment, Egress, Gangs, Group, Heat, Left, Lies, MAX_WARM, NodeView, Plan,
    PlanInput, Report, Reservation, Share,
};
