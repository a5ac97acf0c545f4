//! The lines, as they are written.
//!
//! *Units*: milliseconds from the beginning of the trace; what is not named by a key's end is a plain number.

use farlane_model::{PolicyName, PolicyPrices};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Trace(Header),
    /// A project, before its kinds.
    Project(Project),
    /// A region, before its nodes.
    Region(Region),
    /// A node, before what ran on it.
    Node(Box<Node>),
    /// What many tasks ask, before them.
    Kind(Box<Kind>),
    /// A task of its own, in the order of submission.
    Task(Task),
    /// Tasks that ran together, in the order of submission.
    Gang(Gang),
    /// The last.
    End(End),
}

/// What the file is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Of its beginning, since the Unix epoch; for people.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub begins_ms: u64,
    /// For so long work was submitted.
    pub ms: u64,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// By which kinds name it.
    pub name: String,
    /// Against others' in dominant shares; 1000 unless set.
    #[serde(default = "thousand")]
    pub weight: u32,
    /// What its tasks minimise where their kind names nothing.
    #[serde(default)]
    pub policy: Policy,
}

/// A policy by name, or a project's own prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy(pub PolicyPrices);

impl Default for Policy {
    fn default() -> Self {
        Self(PolicyName::default().prices())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    hour_usd_micros: i64,
    tonne_usd_micros: i64,
    risk_ppm: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Named(String),
    Own(Own),
}

impl Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let written = match self.0.name() {
            Some(name) => Written::Named(name.name().to_owned()),
            None => Written::Own(Own {
                hour_usd_micros: self.0.hour.0,
                tonne_usd_micros: self.0.tonne.0,
                risk_ppm: self.0.risk.0,
            }),
        };
        written.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use farlane_units::{Ppm, UsdMicros};
        use serde::de::Error;
        let prices = match Written::deserialize(from)? {
            Written::Named(name) => {
                let named: PolicyName = name.parse().map_err(D::Error::custom)?;
                return Ok(Self(named.prices()));
            }
            Written::Own(own) => PolicyPrices {
                hour: UsdMicros(own.hour_usd_micros),
                tonne: UsdMicros(own.tonne_usd_micros),
                risk: Ppm(own.risk_ppm),
            },
        };
        prices.check().map_err(D::Error::custom)?;
        Ok(Self(prices))
    }
}

/// A place with a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Which patterns are held against.
    pub name: String,
    /// From when on a kilowatt-hour emitted how many grams of CO2e; nothing where nobody knew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub g_kwh: Vec<(u64, u32)>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// By which attempts name it.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Whose it is; nobody's in particular unless set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Offered.
    pub cores: f64,
    /// Offered; 65,536 unless set.
    #[serde(default = "gib_64")]
    pub memory_mib: u64,
    /// Offered; 524,288 unless set.
    #[serde(default = "gib_512")]
    pub disk_mib: u64,
    /// One for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Measured, of one core, fp32; nothing where it was not measured: then it counts as a reference core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_ucu: Option<f64>,
    /// Of one core; from when on. Free unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core_hour_usd_micros: Vec<(u64, i64)>,
    /// At full load, cooling counted.
    #[serde(default)]
    pub core_watts: f64,
    /// Of one GPU, likewise.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub gpu_watts: f64,
    /// To the servers.
    #[serde(default)]
    pub round_trip_ms: f64,
    /// Attempts that may wait on it.
    #[serde(default = "four")]
    pub backlog: u32,
    /// Interpreters, as 3.11, which it has unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pythons: Vec<String>,
    /// Of its sandbox, 0 to 3.
    #[serde(default = "one")]
    pub tier: u8,
    /// Key and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// When it came; there from the beginning unless set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from_ms: u64,
    /// When it was removed; stays unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// One accelerator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// As its driver names it.
    pub model: String,
    /// Its own.
    pub memory_mib: u64,
    /// By its data sheet; 0 where that is not known.
    #[serde(default)]
    pub cuda_cores: u32,
}

/// What many tasks ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// By which tasks name it.
    pub name: String,
    /// Whose.
    pub project: String,
    /// What runs; kinds of one function may ask differently.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// Held while it runs; 1 unless set.
    #[serde(default = "one_core")]
    pub cores: f64,
    /// Held; 1024 unless set.
    #[serde(default = "one_gib")]
    pub memory_mib: u64,
    /// Held; 1024 unless set.
    #[serde(default = "one_gib")]
    pub scratch_mib: u64,
    /// Held: a part of one, or whole ones.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub gpus: f64,
    /// Any of these, as words of the driver's name; any model unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_models: Vec<String>,
    /// Of each, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mib: Option<u64>,
    /// Any of these patterns; anywhere unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Where its data may lie: any of these patterns as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residency: Vec<String>,
    /// Any of these; anybody's unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Each must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Rule>,
    /// As 3.11, which it is unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Of the sandbox, at least: 0 to 3.
    #[serde(default)]
    pub tier: u8,
    /// Most that a core may cost for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_core_hour_usd_micros: Option<i64>,
    /// Most that a kilowatt-hour of the region's grid may emit, grams of CO2e.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_g_kwh: Option<u32>,
    /// What its placement minimises; its project's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Higher first, −100 to 100, within its project.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub priority: i8,
    /// So many run together or not at all; 1 unless set: each on its own.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub gang: u16,
    /// Whether a gang may lie in several regions.
    #[serde(default, skip_serializing_if = "is_no")]
    pub gang_apart: bool,
}

/// A rule over one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which label.
    pub key: String,
    /// What of it.
    pub is: Demand,
}

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// One of these.
    In(Vec<String>),
    /// None of these; a node without the label satisfies it.
    NotIn(Vec<String>),
    /// There, whatever it says.
    Exists,
    /// Not there.
    Absent,
}

/// A task that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What it asked.
    pub kind: String,
    /// When it came.
    pub submitted_ms: u64,
    /// In their order; the task ended with the last.
    pub attempts: Vec<Attempt>,
}

/// Tasks that ran together, and ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gang {
    /// What each of them asked.
    pub kind: String,
    /// When they came.
    pub submitted_ms: u64,
    /// The attempts of each, by rank.
    pub members: Vec<Vec<Attempt>>,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Where.
    pub node: String,
    /// When its node took it up.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How.
    #[serde(default)]
    pub outcome: Outcome,
    /// What was charged, billionths of a dollar: a call of a millisecond costs some ten.
    #[serde(default)]
    pub usd_nanos: u64,
    /// CO2e, billionths of a gram; nothing where nobody knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub co2e_ng: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A result came back.
    #[default]
    Returned,
    /// An exception came back.
    Raised,
    /// The worker or the node went away, or it made way.
    Lost,
    /// Its time was up.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
    /// The environment, the agent or the control plane gave it up.
    Failed,
}

/// That nothing was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Above, members of gangs counted each.
    pub tasks: u64,
    /// Ended, and not above: what they asked or where they ran is not known any more.
    #[serde(default)]
    pub left_out: u64,
}

impl Line {
    /// As it is written, with the end of the line.
    pub fn to_json(&self) -> String {
        let mut out = serde_json::to_string(self).expect("a line has text keys and finite numbers");
        out.push('\n');
        out
    }
}

fn thousand() -> u32 {
    1000
}
fn four() -> u32 {
    4
}
fn one() -> u8 {
    1
}
fn alone() -> u16 {
    1
}
fn one_core() -> f64 {
    1.0
}
fn one_gib() -> u64 {
    1024
}
fn gib_64() -> u64 {
    64 << 10
}
fn gib_512() -> u64 {
    512 << 10
}
fn is_zero(number: &u64) -> bool {
    *number == 0
}
fn is_nothing(number: &f64) -> bool {
    *number == 0.0
}
fn is_usual(priority: &i8) -> bool {
    *priority == 0
}
fn is_alone(gang: &u16) -> bool {
    *gang == 1
}
fn is_no(flag: &bool) -> bool {
    !*flag
}
