//! What a process takes from its surroundings: time, randomness, the wish to stop, and telemetry.
//!
//! Owns the ports [`Clock`] and [`Entropy`], each real and simulated, [`Shutdown`], what of a
//! transfer is timed ([`Pace`], [`Throughput`]), and the start of tracing. Leaves policy (how long a lease lasts, what is logged) to its callers.

mod clock;
mod entropy;
mod pace;
mod shutdown;
pub mod telemetry;

pub use clock::{Clock, SimulatedClock, SystemClock};
pub use entropy::{Entropy, SimulatedEntropy, SystemEntropy};
pub use pace::{LEAST_TIMED, Pace, Throughput};
pub use shutdown::{Guard, Shutdown};
