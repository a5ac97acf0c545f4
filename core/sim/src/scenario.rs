//! What is simulated, as people write it.

use farlane_model::MAX_GANG;
use farlane_plan::Policy;
use serde::{Deserialize, Serialize};

use crate::machine::Machines;

/// A made-up network and what is asked of it. Unknown keys are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The same seed gives the same history.
    #[serde(default)]
    pub seed: u64,
    /// For so long work arrives; what is there then is finished.
    pub hours: f64,
    /// How many.
    pub regions: usize,
    /// How many in all.
    pub nodes: usize,
    /// How often a node falls silent, for a minute.
    #[serde(default)]
    pub failures_per_node_day: f64,
    /// Which kinds there are.
    #[serde(default)]
    pub machines: Machines,
    /// Of the nearest region and of the farthest one.
    #[serde(default = "round_trip_ms")]
    pub round_trip_ms: [f64; 2],
    /// How much more a grid emits at its day's height, and less at its depth: 0 to 1. Regions' days are shifted.
    #[serde(default)]
    pub carbon_swing: f64,
    /// At least one.
    #[serde(rename = "project")]
    pub projects: Vec<Project>,
}

/// One project's work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// For people.
    pub name: String,
    /// How many projects like this.
    #[serde(default = "one")]
    pub copies: u32,
    /// Against others' in dominant shares.
    #[serde(default = "weight")]
    pub weight: u32,
    /// `balanced`, `fast`, `cheap`, `green`.
    #[serde(default)]
    pub policy: PolicyName,
    /// On average.
    pub tasks_per_hour: f64,
    /// So much more at the day's height and less at its depth: 0 to 1.
    #[serde(default)]
    pub diurnal: f64,
    /// Half of the tasks run shorter.
    pub median_seconds: f64,
    /// Of the logarithm: 0 for all alike, 1.5 for a heavy tail.
    #[serde(default)]
    pub sigma: f64,
    /// Each task takes one of these.
    #[serde(default = "cores")]
    pub cores: Vec<f64>,
    /// Of a task.
    #[serde(default = "memory")]
    pub memory_mib: u64,
    /// Of a task; a fraction is part of one.
    #[serde(default)]
    pub gpus: f64,
    /// Any of these; empty for anywhere.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Tasks that run together or not at all.
    #[serde(default = "one")]
    pub gang: u32,
}

fn one() -> u32 {
    1
}
fn weight() -> u32 {
    1000
}
fn cores() -> Vec<f64> {
    vec![1.0]
}
fn round_trip_ms() -> [f64; 2] {
    [1.0, 251.0]
}
fn memory() -> u64 {
    1024
}

/// A policy by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// The default.
    #[default]
    Balanced,
    /// Time before money.
    Fast,
    /// Money before time.
    Cheap,
    /// Carbon before both.
    Green,
}

impl PolicyName {
    /// What it stands for.
    pub fn policy(self) -> Policy {
        match self {
            Self::Balanced => Policy::BALANCED,
            Self::Fast => Policy::FAST,
            Self::Cheap => Policy::CHEAP,
            Self::Green => Policy::GREEN,
        }
    }
}

/// Whether a figure is fine, which it is, and what it must be.
type Rule = (bool, String, &'static str);

fn within(x: f64, least: f64, most: f64) -> bool {
    // Never true of what is no number.
    x >= least && x <= most
}

impl Project {
    fn rules(&self) -> Vec<Rule> {
        let named = |field: &str| format!("project {:?}: {field}", self.name);
        vec![
            (
                (1..=1000).contains(&self.copies),
                named("copies"),
                "between 1 and 1000",
            ),
            (
                (1..=1_000_000).contains(&self.weight),
                named("weight"),
                "between 1 and 1000000",
            ),
            (
                within(self.tasks_per_hour, 0.0, 1e8),
                named("tasks_per_hour"),
                "between 0 and 100 million",
            ),
            (
                within(self.diurnal, 0.0, 1.0),
                named("diurnal"),
                "between 0 and 1",
            ),
            (
                within(self.median_seconds, 0.001, 1e6),
                named("median_seconds"),
                "between 0.001 and 1 million",
            ),
            (
                within(self.sigma, 0.0, 4.0),
                named("sigma"),
                "between 0 and 4",
            ),
            (
                (1..=16).contains(&self.cores.len())
                    && self.cores.iter().all(|c| within(*c, 0.001, 1024.0)),
                named("cores"),
                "1 to 16 numbers between 0.001 and 1024",
            ),
            (
                (1..=1 << 30).contains(&self.memory_mib),
                named("memory_mib"),
                "between 1 and 2^30",
            ),
            (
                within(self.gpus, 0.0, 64.0) && (self.gpus < 1.0 || self.gpus % 1.0 == 0.0),
                named("gpus"),
                "a part of one, or a whole number up to 64",
            ),
            (
                (1..=u32::from(MAX_GANG)).contains(&self.gang),
                named("gang"),
                "between 1 and 256",
            ),
            (
                self.regions.len() <= 64
                    && self
                        .regions
                        .iter()
                        .all(|r| farlane_model::Glob::new(r.as_str()).is_ok()),
                named("regions"),
                "at most 64 region patterns",
            ),
        ]
    }
}

/// A scenario that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} must be {bound}")]
pub struct BadScenario {
    /// Which.
    pub field: String,
    /// What it must be.
    pub bound: &'static str,
}

impl Scenario {
    /// Holds every field against its bounds.
    ///
    /// *Errors*: the first that is out of them; NaN always is.
    pub fn check(&self) -> Result<(), BadScenario> {
        let mut rules: Vec<Rule> = vec![
            (
                within(self.hours, 0.001, 1000.0),
                "hours".to_owned(),
                "between 0.001 and 1000",
            ),
            (
                (1..=200).contains(&self.regions),
                "regions".to_owned(),
                "between 1 and 200",
            ),
            (
                (1..=100_000).contains(&self.nodes),
                "nodes".to_owned(),
                "between 1 and 100000",
            ),
            (
                within(self.failures_per_node_day, 0.0, 1000.0),
                "failures_per_node_day".to_owned(),
                "between 0 and 1000",
            ),
            (
                self.round_trip_ms
                    .iter()
                    .all(|ms| within(*ms, 0.0, 10_000.0))
                    && self.round_trip_ms[0] <= self.round_trip_ms[1],
                "round_trip_ms".to_owned(),
                "two numbers between 0 and 10000, the smaller first",
            ),
            (
                within(self.carbon_swing, 0.0, 1.0),
                "carbon_swing".to_owned(),
                "between 0 and 1",
            ),
            (
                (1..=1000).contains(&self.projects.len()),
                "project".to_owned(),
                "given between 1 and 1000 times",
            ),
        ];
        for project in &self.projects {
            rules.extend(project.rules());
        }
        match rules.into_iter().find(|(fine, ..)| !fine) {
            Some((_, field, bound)) => Err(BadScenario { field, bound }),
            None => Ok(()),
        }
    }
}
