//! The node's daemon: joins, probes, runs attempts in sandboxed workers, answers with sealed results.
//!
//! Owns processes, the sandbox, caches, the journal of unacknowledged results and the node's keys.
//! Leaves placement to the control plane and every reading of Python objects to the workers: the
//! agent never unpickles.
//!
//! ```text
//! link ──Assign, Grant──▶ engine ──frames──▶ worker (forked by a template inside the sandbox)
//!   ▲                       │  ▲               │
//!   └──CompleteBatch────────┘  └──results──────┘
//! ```
//!
//! One thread runs it all; what takes longer than a fraction of a millisecond goes to blocking threads.

mod agent;
mod blobs;
mod calibrate;
mod clock;
mod config;
mod engine;
mod enrolled;
mod environment;
mod error;
mod files;
mod folder;
mod heat;
mod join;
mod link;
mod probe;
mod progress;
mod sandbox;
mod survey;
mod user;
mod way;
mod worker;

pub use agent::Agent;
pub use calibrate::gpu::measure_gpus;
pub use config::AgentConfig;
pub use enrolled::{enrolled, forget};
pub use error::{AgentError, StartError};
pub use sandbox::{bubblewrap_line, namespaces_line};
pub use survey::{Calibrate, Effort, Survey, SurveyError};
pub use user::{User, drop_privileges};
