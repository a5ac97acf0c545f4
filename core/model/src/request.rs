//! Where a task may run: rules over what a node is, has, and runs already.
//!
//! Owns the rules, their bounds, and which of them contradict each other. Leaves holding a node against them to
//! `farlane-plan`.

use farlane_units::{ByteCount, MilliGpu, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::{BadSpec, Device, DeviceKind, Digest, Glob, NodeId, PythonVersion, Tier, VersionRange};

/// Most region patterns, residency patterns, providers, nodes, and values of one rule. Source: choice; more
/// than there are regions on any map.
pub(crate) const MAX_LIST: usize = 64;
/// Most rules on labels. Source: a node has at most 64 labels.
pub(crate) const MAX_RULES: usize = 64;
/// Most values of all rules together, so that comparing each with each stays cheap where every server does it.
const MAX_VALUES: usize = 256;
/// Longest key of a label, name of a resource, and tag, bytes.
pub(crate) const MAX_NAME: usize = 64;
/// Longest value of a label, bytes. Source: what a certificate takes, dataplane/seal.
const MAX_VALUE: usize = 256;
/// Most GPU models. Source: choice; more than NVIDIA sells at a time.
const MAX_MODELS: usize = 16;
/// Most named resources of one task. Source: choice.
const MAX_AMOUNTS: usize = 16;
/// Most of one named resource, on a node and in a request. Source: choice; far from where sums wrap.
pub const MAX_AMOUNT: u32 = 1_000_000;
/// Most affinities of one task. Source: choice.
const MAX_AFFINITIES: usize = 16;
/// Most of any ceiling on carbon. Source: the dirtiest grid, all lignite, is at 1,200 g/kWh.
const MAX_CARBON: u32 = 100_000;
/// Most that a core-hour may cost. Source: choice; $1,000,000.
const MAX_PRICE: i64 = 1_000_000_000_000;

/// What one label of a node must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Demand {
    /// One of these; sorted, not empty.
    In(Vec<String>),
    /// None of these; a node without the label satisfies it. Sorted, not empty.
    NotIn(Vec<String>),
    /// There, whatever it says.
    Exists,
    /// Not there.
    Absent,
    /// There, a dotted version, and within the range.
    Version(VersionRange),
}

impl Demand {
    /// Whether a node whose label says this, or that has none, satisfies it.
    pub fn holds(&self, label: Option<&str>) -> bool {
        let among = |list: &[String], value: &str| list.iter().any(|one| one == value);
        match (self, label) {
            (Self::In(values), Some(value)) => among(values, value),
            (Self::NotIn(values), Some(value)) => !among(values, value),
            (Self::Version(range), Some(value)) => range.holds(value),
            (Self::Exists, label) => label.is_some(),
            (Self::Absent | Self::NotIn(_), None) => true,
            (Self::Absent, Some(_)) | (Self::In(_) | Self::Version(_), None) => false,
        }
    }

    fn values(&self) -> usize {
        match self {
            Self::In(values) | Self::NotIn(values) => values.len(),
            Self::Version(_) | Self::Exists | Self::Absent => 0,
        }
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::In(values) | Self::NotIn(values) => {
                !values.is_empty()
                    && values.len() <= MAX_LIST
                    && values.iter().all(|value| is_text(value, MAX_VALUE))
                    && is_sorted(values)
            }
            Self::Version(range) => range.as_str().len() <= MAX_VALUE,
            Self::Exists | Self::Absent => true,
        }
    }
}

/// A rule over one label: `disk=nvme`, `driver >=535`, `spot absent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelRule {
    /// Which label.
    pub key: String,
    /// What of it.
    pub demand: Demand,
}

impl LabelRule {
    /// The label must say exactly this.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            demand: Demand::In(vec![value.into()]),
        }
    }
}

impl std::fmt::Display for LabelRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.key;
        match &self.demand {
            Demand::In(values) => write!(f, "{key}={}", values.join(" or ")),
            Demand::NotIn(values) => write!(f, "{key} other than {}", values.join(" or ")),
            Demand::Exists => write!(f, "{key} present"),
            Demand::Absent => write!(f, "{key} absent"),
            Demand::Version(range) => write!(f, "{key} {range}"),
        }
    }
}

/// Where it may run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRequest {
    /// Any of these; empty means any region.
    pub regions: Vec<Glob>,
    /// Where the task's data may lie, and so where it may run; empty means anywhere. Beside `regions`, so that an
    /// owner's rule about data stays when a call asks for a place.
    pub residency: Vec<Glob>,
    /// Fingerprints of the providers' roots that may run it; empty means any that the tenant pins. Sorted.
    pub providers: Vec<Digest>,
    /// Each must hold. Sorted.
    pub labels: Vec<LabelRule>,
    /// One of these nodes, where the data is that the task must stay with; empty means any. Sorted.
    pub keep_on: Vec<NodeId>,
    /// The interpreter's minor version.
    pub python: PythonVersion,
    /// At least this tier.
    pub tier: Tier,
    /// Most that one core may cost for an hour.
    pub max_price: Option<UsdMicros>,
    /// Most grams of CO2e a kWh of the region's grid; a region whose figure nobody knows does not satisfy it.
    pub max_carbon: Option<u32>,
}

impl NodeRequest {
    /// Any node with this interpreter, shut in as strongly as it can.
    pub fn any(python: PythonVersion) -> Self {
        Self {
            regions: Vec::new(),
            residency: Vec::new(),
            providers: Vec::new(),
            labels: Vec::new(),
            keep_on: Vec::new(),
            python,
            tier: Tier::Process,
            max_price: None,
            max_carbon: None,
        }
    }

    /// Whether a node in this region may have the task and its data.
    pub fn allows_region(&self, region: &str) -> bool {
        let within = |globs: &[Glob]| globs.is_empty() || globs.iter().any(|g| g.matches(region));
        within(&self.regions) && within(&self.residency)
    }

    /// Whether this provider's nodes may have it.
    pub fn allows_provider(&self, root: &Digest) -> bool {
        self.providers.is_empty() || self.providers.contains(root)
    }

    /// Whether this node may have it.
    pub fn allows_node(&self, node: &NodeId) -> bool {
        self.keep_on.is_empty() || self.keep_on.contains(node)
    }

    pub(crate) fn check(&self) -> Result<(), BadSpec> {
        let rule = |rule: &LabelRule| is_text(&rule.key, MAX_NAME) && rule.demand.is_bounded();
        let price = |price: UsdMicros| (0..=MAX_PRICE).contains(&price.0);
        let rules: [(bool, &'static str, &'static str); 8] = [
            (
                self.regions.len() <= MAX_LIST,
                "regions",
                "at most 64 patterns",
            ),
            (
                self.residency.len() <= MAX_LIST,
                "residency",
                "at most 64 patterns",
            ),
            (
                self.providers.len() <= MAX_LIST && is_sorted(&self.providers),
                "providers",
                "at most 64 fingerprints, sorted and each once",
            ),
            (
                self.keep_on.len() <= MAX_LIST && is_sorted(&self.keep_on),
                "keep_on",
                "at most 64 nodes, sorted and each once",
            ),
            (
                self.labels.len() <= MAX_RULES
                    && self.labels.iter().all(rule)
                    && self.labels.iter().map(|r| r.demand.values()).sum::<usize>() <= MAX_VALUES
                    && is_sorted(&self.labels),
                "labels",
                "at most 64 rules with 256 values in all, sorted, on keys of 1 to 64 bytes with 1 to 64 values of 1 to 256",
            ),
            (
                self.max_price.is_none_or(price),
                "max_price",
                "between $0 and $1,000,000 a core-hour",
            ),
            (
                self.max_carbon.is_none_or(|grams| grams <= MAX_CARBON),
                "max_carbon",
                "at most 100000 g/kWh",
            ),
            (self.python.major > 0, "python", "a version of Python"),
        ];
        bounded(&rules)?;
        self.regions_meet()?;
        crate::contradiction::labels(&self.labels)
    }

    /// Some region must lie in both lists.
    fn regions_meet(&self) -> Result<(), BadSpec> {
        let (regions, residency) = (&self.regions, &self.residency);
        let meet = regions.iter().any(|a| residency.iter().any(|b| a.meets(b)));
        match regions.is_empty() || residency.is_empty() || meet {
            true => Ok(()),
            false => Err(BadSpec::contradiction(
                format!("regions {}", written(regions)),
                format!("residency {}", written(residency)),
            )),
        }
    }
}

/// Which GPUs serve, and how many bytes each must have; how many is [`crate::Resources::gpus`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuRequest {
    /// Any of these, as words of the driver's name; empty means any model.
    pub models: Vec<String>,
    /// Least memory of each; `None`: any.
    pub memory: Option<ByteCount>,
}

impl GpuRequest {
    /// Whether this device serves: a GPU, of one of the models, with the memory.
    pub fn matches(&self, device: &Device) -> bool {
        matches!(device.kind, DeviceKind::Gpu { .. })
            && self.memory.is_none_or(|least| device.memory >= least)
            && self.is_model(&device.model)
    }

    /// Whether a driver's name is one of the models.
    pub fn is_model(&self, name: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| names(model, name))
    }

    pub(crate) fn check(&self, gpus: MilliGpu) -> Result<(), BadSpec> {
        let model = |m: &String| is_text(m, MAX_NAME) && words(m).next().is_some();
        let whole = gpus.0 < 1000 || gpus.0.is_multiple_of(1000);
        let rules: [(bool, &'static str, &'static str); 3] = [
            (
                gpus.0 <= 64_000 && whole,
                "num_gpus",
                "a fraction below 1, or a whole number up to 64",
            ),
            (
                self.models.len() <= MAX_MODELS && self.models.iter().all(model),
                "gpu",
                "at most 16 models with letters or digits, each up to 64 bytes",
            ),
            (
                self.memory.is_none_or(|memory| memory.0 <= 1 << 50),
                "gpu_memory",
                "at most 1 PiB",
            ),
        ];
        bounded(&rules)?;
        let count = || format!("num_gpus {}", Count(gpus));
        if self.memory == Some(ByteCount::ZERO) && gpus.0 > 0 {
            return Err(BadSpec::contradiction("gpu_memory 0".to_owned(), count()));
        }
        if gpus.0 == 0 && !self.models.is_empty() {
            let models = format!("gpu {}", self.models.join("|"));
            return Err(BadSpec::contradiction(models, count()));
        }
        match self.memory {
            Some(memory) if gpus.0 == 0 => Err(BadSpec::contradiction(
                format!("gpu_memory {memory}"),
                count(),
            )),
            _ => Ok(()),
        }
    }
}

/// GPUs as people write them: `2`, `0.5`.
pub struct Count(pub MilliGpu);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0.0 / 1000, self.0.0 % 1000);
        match rest {
            0 => write!(f, "{whole}"),
            _ => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

/// Runs of letters and digits, which is what drivers and people agree on.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Whether the words of `model` come in `name`, in their order: `A100 80GB` names `NVIDIA A100-SXM4-80GB`, and
/// `A10` does not.
pub(crate) fn names(model: &str, name: &str) -> bool {
    let mut rest = words(name);
    words(model).all(|word| rest.any(|other| other.eq_ignore_ascii_case(word)))
}

/// So much of a resource that a provider named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Amount {
    /// Letters, digits, `-`, `_` and `.`; at most 64.
    pub name: String,
    /// At least 1, at most [`MAX_AMOUNT`].
    pub amount: u32,
}

impl Amount {
    /// A named resource.
    ///
    /// *Errors*: another character in the name, or an amount out of its bounds.
    pub fn new(name: impl Into<String>, amount: u32) -> Result<Self, BadSpec> {
        let amount = Self {
            name: name.into(),
            amount,
        };
        match amount.is_bounded() {
            true => Ok(amount),
            false => Err(BadSpec::OutOfBounds {
                field: "resources",
                bound: AMOUNTS,
            }),
        }
    }

    fn is_bounded(&self) -> bool {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (1..=MAX_NAME).contains(&self.name.len())
            && self.name.chars().all(fine)
            && (1..=MAX_AMOUNT).contains(&self.amount)
    }

    /// Whether a list is sorted by name, each once, and within its bounds.
    pub(crate) fn are_bounded(list: &[Self], most: usize) -> bool {
        list.len() <= most
            && list.iter().all(Self::is_bounded)
            && list.windows(2).all(|pair| pair[0].name < pair[1].name)
    }

    pub(crate) fn check(list: &[Self]) -> Result<(), BadSpec> {
        bounded(&[(Self::are_bounded(list, MAX_AMOUNTS), "resources", AMOUNTS)])
    }

    /// How much of a resource a list has; 0 where it is not in it.
    pub fn of(list: &[Self], name: &str) -> u32 {
        let found = list.iter().find(|one| one.name == name);
        found.map_or(0, |one| one.amount)
    }
}

const AMOUNTS: &str = "at most 16 names of 1 to 64 letters, digits, '-', '_' or '.', sorted and each once, with whole \
                       amounts from 1 to 1000000";

/// How far two tasks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// The same machine.
    Node,
    /// The same region.
    Region,
}

/// Towards others, or away from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// Where one of them runs.
    Near,
    /// Where none of them runs.
    Apart,
}

/// What becomes of a task that cannot have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strength {
    /// It waits.
    Required,
    /// It runs elsewhere.
    Preferred,
}

/// A wish about where others of the project run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affinity {
    /// Of the others; at most 64 bytes.
    pub tag: String,
    /// Towards them, or away.
    pub direction: Direction,
    /// How near, or how far.
    pub scope: Scope,
    /// Whether it may be passed over.
    pub strength: Strength,
}

/// A task among others of its project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Company {
    /// What others call it by; at most 64 bytes.
    pub tag: Option<String>,
    /// Tasks of this spec over as many of these as there are.
    pub spread: Option<Scope>,
    /// Towards and away from others. Sorted.
    pub affinities: Vec<Affinity>,
}

impl Company {
    /// Whether the required affinities hold at a node, where `runs(tag, scope)` says whether a task of the project
    /// with that tag is placed on the node, or in its region.
    pub fn allows(&self, mut runs: impl FnMut(&str, Scope) -> bool) -> bool {
        self.affinities
            .iter()
            .filter(|wish| wish.strength == Strength::Required)
            .all(|wish| runs(&wish.tag, wish.scope) == (wish.direction == Direction::Near))
    }

    /// Whether it requires to be near its own tag: then the first of them goes anywhere.
    pub fn is_first_of(&self, tag: &str) -> bool {
        let near = |wish: &Affinity| wish.tag == tag && wish.direction == Direction::Near;
        self.tag.as_deref() == Some(tag) && self.affinities.iter().any(near)
    }

    /// Whether anything depends on where others are.
    pub fn is_any(&self) -> bool {
        self.spread.is_some() || !self.affinities.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), BadSpec> {
        let tag = |tag: &String| is_text(tag, MAX_NAME);
        bounded(&[
            (
                self.tag.as_ref().is_none_or(tag),
                "tag",
                "a text of 1 to 64 bytes",
            ),
            (
                self.affinities.len() <= MAX_AFFINITIES
                    && self.affinities.iter().all(|wish| tag(&wish.tag))
                    && is_sorted(&self.affinities),
                "affinity",
                "at most 16 tags of 1 to 64 bytes, sorted and each once",
            ),
        ])?;
        crate::contradiction::company(self)
    }
}

/// Patterns as people write them.
pub(crate) fn written(globs: &[Glob]) -> String {
    globs
        .iter()
        .map(Glob::as_str)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// A text that can be shown: neither empty nor longer than `most` bytes, without control characters.
pub(crate) fn is_text(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

/// Sorted, and each once: so that one request has one encoding.
fn is_sorted<T: Ord>(list: &[T]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}

/// The first rule that does not hold.
pub(crate) fn bounded(rules: &[(bool, &'static str, &'static str)]) -> Result<(), BadSpec> {
    match rules.iter().find(|(fine, ..)| !fine) {
        Some((_, field, bound)) => Err(BadSpec::OutOfBounds { field, bound }),
        None => Ok(()),
    }
}
