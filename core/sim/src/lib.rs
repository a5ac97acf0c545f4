//! A network that is made up: nodes, regions, prices and work, the same for the same seed.
//!
//! Owns the made-up world and what happens in it. Leaves every decision to the real `farlane-plan`, and every
//! judgement to the real `farlane-state`.

mod bound;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod exact;
mod foresight;
mod found;
mod instance;
mod machine;
mod peers;
mod plot;
mod random;
mod recorded;
mod replay;
mod report;
mod reserve;
mod round;
mod run;
pub mod same_plan;
mod scenario;
mod silence;
mod stuck;
mod work;
mod world;

pub use instance::Instance;
pub use machine::Machines;
pub use peers::Chooser;
pub use random::Random;
pub use recorded::{RecordedFigures, RecordedProject};
pub use replay::{BadReplay, WhatIf};
pub use report::{Figures, Point, ProjectFigures};
pub use run::Simulation;
pub use scenario::{BadScenario, PolicyName, Project, Scenario};
pub use world::{Mix, World};
