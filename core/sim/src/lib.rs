//! A network that is made up: nodes, regions, prices and work, the same for the same seed.
//!
//! Owns the made-up world and what happens in it. Leaves every decision to the real `farlane-plan`.

mod random;
mod world;

pub use random::Random;
pub use world::{Mix, World};
