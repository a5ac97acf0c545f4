//! A network that is made up: nodes, regions, prices and work, the same for the same seed.
//!
//! Owns the made-up world and what happens in it. Leaves every decision to the real `farlane-plan`, and every
//! judgement to the real `farlane-state`.

mod plot;
mod random;
mod report;
mod run;
mod scenario;
mod work;
mod world;

pub use random::Random;
pub use report::{Figures, Point, ProjectFigures};
pub use run::Simulation;
pub use scenario::{BadScenario, PolicyName, Project, Scenario};
pub use world::{Mix, World};
