//! What a network did, line by line: which calls came when, what they asked, where they ran and for how long.
//!
//! Owns the format, and reading it with every check. Leaves to others where the lines come from (the controller, which
//! hashes names) and what is made of them (`farlane-sim`, which replays them).
//!
//! ```text
//! {"trace":{"version":1,"ms":60000}}                          the first line
//! {"project":{"name":"lab"}}                                  what lines name stands above them
//! {"region":{"name":"eu-west","g_kwh":[[0,213]]}}
//! {"node":{"name":"rack-7","region":"eu-west","cores":8}}
//! {"kind":{"name":"train","project":"lab","cores":2}}
//! {"task":{"kind":"train","submitted_ms":5,"attempts":[{"node":"rack-7","started_ms":9,"ended_ms":2009}]}}
//! {"end":{"tasks":1}}                                         the last line: nothing was cut off
//! ```
//! docs/guide/simulating.md lists every key.

mod asked;
mod check;
mod fault;
mod line;
mod read;
mod salt;

pub use check::check;
pub use fault::{BadTrace, Fault};
pub use line::{
    Attempt, Demand, End, Gang, Gpu, Header, Kind, Line, Node, Outcome, Policy, Project, Region,
    Rule, Task,
};
pub use read::{Call, Run, Trace};
pub use salt::Salt;

/// Version of the format.
pub const VERSION: u32 = 1;
/// Longest line, bytes. Source: a gang of 256 with 20 attempts each, at 150 B an attempt.
pub const MAX_LINE: usize = 1 << 20;
/// Most tasks of one trace. Source: as many as SPEC.md promises queued; read, they take some 100 MB.
pub const MAX_TASKS: usize = 1_000_000;
/// Most attempts of them all. Source: two for each.
pub const MAX_ATTEMPTS: usize = 2 * MAX_TASKS;
/// Most attempts of one task. Source: farlane-model has retries up to 65,535; who ran a task a thousand times knows
/// what is wrong.
pub const MAX_TRIES: usize = 1000;
/// Most that one attempt is charged, billionths of a dollar, and emits, billionths of a gram. Source: choice; a million
/// dollars, and a tonne.
pub const MAX_CHARGE: u64 = 1_000_000_000_000_000;
/// Most nodes. Source: as many as a network has.
pub const MAX_NODES: usize = 100_000;
/// Most kinds of tasks. Source: as many as one session uses at most.
pub const MAX_KINDS: usize = 65_536;
/// Most projects. Source: as many as a network has.
pub const MAX_PROJECTS: usize = 1000;
/// Most regions. Source: as many as `farlane regions` shows.
pub const MAX_REGIONS: usize = 1000;
/// Longest span in which work was submitted, milliseconds. Source: 1000 hours, as a scenario's.
pub const MAX_SPAN_MS: u64 = 1000 * 3_600_000;
/// The latest moment, milliseconds. Source: ten times the longest span; who waits longer has gone.
pub const MAX_MS: u64 = 10 * MAX_SPAN_MS;
