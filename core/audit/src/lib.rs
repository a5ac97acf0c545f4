//! Whether nodes are what they say they are.
//!
//! Owns what an audit asks and how an answer is checked, what follows from answers, how a node's run times are held
//! against those of others, and what the speed of light says of a claimed place. Leaves whom to ask and when to the
//! controller, the work itself to agents, and what a standing does to `farlane-state` and `farlane-plan`.
//!
//! ```text
//! challenge ─▶ answer, in time? right? ─┐
//! run times, beside others' ────────────┼─▶ Record ─▶ Standing: good ⇄ marked (slower) ⇄ quarantined
//! least round trip, beside the distance ┘
//! ```
//! docs/design/audit.md says why it is so.

mod challenge;
mod light;
mod pace;
mod record;

pub use challenge::{Challenge, LINK_BYTES, LONGEST, Lanes, Link, ROUND_OPS, SIDE, fill};
pub use light::{Place, impossible};
pub use pace::{Pace, Slow};
pub use record::{Found, Record, Verdict};
