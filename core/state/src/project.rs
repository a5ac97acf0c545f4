//! What a project is due and what it may hold: weight and quota, what its leases hold, what its month came to.
//!
//! Owns the arithmetic of quotas. Leaves when they are asked to the orders, who may set them to the use cases, and
//! how the weight counts to `farlane-plan`.

use farlane_model::{KeyId, PolicyName, PolicyPrices, ProjectId, Resources, TaskSpec};
use farlane_units::{ByteCount, MilliUcu, Millis, Month, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::State;
use crate::apply::Ctx;

/// A project's weight where nobody set one.
pub const DEFAULT_WEIGHT: u32 = 1000;
/// Most weight of a project. Source: choice; a thousand times the default, so that no share rounds to nothing.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// What is set of a project, and in force everywhere from its log entry on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSettings {
    /// Against other projects' when there is less than all want; 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What it may never pass.
    pub quota: Quota,
    /// What placing its calls minimises where they name no policy; `None`: `balanced`.
    pub policy: Option<PolicyPrices>,
}

impl Default for ProjectSettings {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            quota: Quota::default(),
            policy: None,
        }
    }
}

/// Bounds of a project; `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Leases at once: running, and waiting on nodes.
    pub tasks: Option<u64>,
    /// Thousandths of a core that they hold.
    pub cpus: Option<u64>,
    /// Thousandths of a GPU that they hold.
    pub gpus: Option<u64>,
    /// Thousandths of a unit of compute that their cores count for; see `NodeSpec::ucu_of`.
    pub ucu: Option<u64>,
    /// Charges of a calendar month, UTC, by cluster time. Once they reach it nothing more is placed until the next
    /// month; what runs by then ends and is charged, so that the month may pass it by that much and no more.
    pub budget: Option<UsdMicros>,
}

/// What the leases of a project hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Leases.
    pub tasks: u64,
    /// Thousandths of a core.
    pub cpus: u64,
    /// Bytes of memory. A node can claim as much as a number holds: so that what is given back is what was taken, the
    /// sum of many such is wider.
    pub memory: u128,
    /// Thousandths of an accelerator.
    pub gpus: u64,
    /// Thousandths of a unit of compute, each lease's as it was counted when it was placed; wide as `memory`.
    pub ucu: u128,
}

impl Holding {
    /// Its memory, held at the bound.
    pub fn bytes(&self) -> ByteCount {
        ByteCount(narrow(self.memory))
    }
    /// Its units, thousandths, held at the bound.
    pub fn units(&self) -> u64 {
        narrow(self.ucu)
    }
    pub(crate) fn add(&mut self, need: &Resources, ucu: MilliUcu) {
        self.tasks += 1;
        self.cpus += u64::from(need.cpus.0);
        self.memory += u128::from(need.memory.0);
        self.gpus += u64::from(need.gpus.0);
        self.ucu += u128::from(ucu.0);
    }
    pub(crate) fn sub(&mut self, need: &Resources, ucu: MilliUcu) {
        self.tasks = self.tasks.saturating_sub(1);
        self.cpus = self.cpus.saturating_sub(u64::from(need.cpus.0));
        self.memory = self.memory.saturating_sub(need.memory.0.into());
        self.gpus = self.gpus.saturating_sub(u64::from(need.gpus.0));
        self.ucu = self.ucu.saturating_sub(ucu.0.into());
    }
}

/// Held at the bound: no quota is larger.
fn narrow(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}

/// What a project was charged in a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The last month with a charge.
    pub month: Month,
    /// Its charges.
    pub usd: UsdMicros,
}

impl Spent {
    /// Charges of the month that `now` lies in.
    pub fn by(&self, now: Millis) -> UsdMicros {
        match self.month == Month::of(now) {
            true => self.usd,
            false => UsdMicros::ZERO,
        }
    }
}

/// Settings as they were set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSet {
    /// What holds.
    pub settings: ProjectSettings,
    /// Log index at which they were set: the next change must name it.
    pub revision: u64,
    /// Cluster time.
    pub at: Millis,
    /// By whom.
    pub by: KeyId,
}

/// Row of `Table::Projects`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRow {
    /// What was set; `None` until somebody does.
    pub set: Option<ProjectSet>,
    /// What the month came to.
    pub spent: Spent,
}

/// What a project holds, and what is set of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProjectLoad {
    pub live: u64,
    pub kept: u64,
    pub held: Holding,
    pub row: ProjectRow,
}

/// Which bound of a quota is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaLimit {
    /// Leases at once.
    Tasks,
    /// Cores at once.
    Cpus,
    /// GPUs at once.
    Gpus,
    /// Units of compute at once.
    Ucu,
    /// Charges of the month.
    Budget,
}

/// A bound that one more task would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReached {
    /// Which.
    pub limit: QuotaLimit,
    /// The bound: tasks, thousandths of a core, GPU or unit, micro-dollars.
    pub most: u64,
    /// What of it is held, or was charged.
    pub held: u64,
}

impl QuotaLimit {
    /// An amount of what it bounds, for people: "2.500 cores".
    pub fn words(self, amount: u64) -> String {
        let whole = |unit: &str| match amount % 1000 {
            0 => format!("{} {unit}", amount / 1000),
            part => format!("{}.{part:03} {unit}", amount / 1000),
        };
        match self {
            Self::Tasks => format!("{amount} tasks"),
            Self::Cpus => whole("cores"),
            Self::Gpus => whole("GPUs"),
            Self::Ucu => whole("UCU"),
            Self::Budget => UsdMicros(i64::try_from(amount).unwrap_or(i64::MAX)).to_string(),
        }
    }
}

impl std::fmt::Display for QuotaReached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (most, held) = (self.limit.words(self.most), self.limit.words(self.held));
        match self.limit {
            QuotaLimit::Budget => write!(f, "a budget of {most} a month (UTC), {held} charged"),
            _ => write!(f, "{most} at once, {held} held"),
        }
    }
}

/// A bound that is less than what a task, or a gang, would hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// Which.
    pub limit: QuotaLimit,
    /// The bound, as in [`QuotaReached`].
    pub most: u64,
    /// What one task would hold of it.
    pub each: u64,
}

/// What a quota leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLeft {
    /// Leases; 0 where the month's budget is reached.
    pub tasks: u64,
    /// Thousandths of a core.
    pub cpus: u64,
    /// Thousandths of a GPU.
    pub gpus: u64,
    /// Thousandths of a unit of compute.
    pub ucu: u64,
}

/// A project, seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct ProjectView<'a> {
    load: Option<&'a ProjectLoad>,
}

impl<'a> ProjectView<'a> {
    /// What its leases hold.
    pub fn held(&self) -> Holding {
        self.load.map_or_else(Holding::default, |load| load.held)
    }
    /// What was set; `None` where nobody did.
    pub fn set(&self) -> Option<&'a ProjectSet> {
        self.load.and_then(|load| load.row.set.as_ref())
    }
    /// Against other projects'.
    pub fn weight(&self) -> u32 {
        self.set()
            .map_or(DEFAULT_WEIGHT, |set| set.settings.weight.max(1))
    }
    /// What it may never pass.
    pub fn quota(&self) -> Quota {
        self.set().map_or_else(Quota::default, |s| s.settings.quota)
    }
    /// What it has set for calls that name no policy.
    pub fn own_policy(&self) -> Option<PolicyPrices> {
        self.set().and_then(|set| set.settings.policy)
    }
    /// What placing a call of it minimises.
    pub fn policy(&self, spec: &TaskSpec) -> PolicyPrices {
        let named = spec.policy.map(PolicyName::prices);
        named
            .or(self.own_policy())
            .unwrap_or(PolicyName::Balanced.prices())
    }
    /// Charges of the month that `now` lies in.
    pub fn spent(&self, now: Millis) -> UsdMicros {
        let spent = self.load.map_or_else(Spent::default, |load| load.row.spent);
        spent.by(now)
    }

    /// What its quota leaves; `None` where it has none.
    pub fn left(&self, now: Millis) -> Option<QuotaLeft> {
        let (quota, held) = (self.quota(), self.held());
        if quota == Quota::default() {
            return None;
        }
        let left = |most: Option<u64>, held: u64| most.map_or(u64::MAX, |m| m.saturating_sub(held));
        let paid = quota.budget.is_none_or(|most| self.spent(now) < most);
        Some(QuotaLeft {
            tasks: if paid {
                left(quota.tasks, held.tasks)
            } else {
                0
            },
            cpus: left(quota.cpus, held.cpus),
            gpus: left(quota.gpus, held.gpus),
            ucu: left(quota.ucu, held.units()),
        })
    }

    /// The bound that so many more tasks of this size would pass, the cores of each of which count for so much.
    pub fn reached(
        &self,
        need: &Resources,
        ucu: MilliUcu,
        count: u32,
        now: Millis,
    ) -> Option<QuotaReached> {
        let (quota, held, count) = (self.quota(), self.held(), u64::from(count));
        if quota == Quota::default() {
            return None;
        }
        let passed = |limit, most: Option<u64>, held: u64, more: u64| {
            let with = held.saturating_add(more.saturating_mul(count));
            most.filter(|most| with > *most)
                .map(|most| QuotaReached { limit, most, held })
        };
        let (cpus, gpus) = (u64::from(need.cpus.0), u64::from(need.gpus.0));
        let spent = self.spent(now);
        let budget = quota.budget.filter(|most| spent >= *most);
        budget
            .map(|most| QuotaReached {
                limit: QuotaLimit::Budget,
                most: u64::try_from(most.0).unwrap_or(0),
                held: u64::try_from(spent.0).unwrap_or(0),
            })
            .or_else(|| passed(QuotaLimit::Tasks, quota.tasks, held.tasks, 1))
            .or_else(|| passed(QuotaLimit::Cpus, quota.cpus, held.cpus, cpus))
            // What asks for no GPU takes none, however many are held.
            .or_else(|| {
                let most = quota.gpus.filter(|_| gpus > 0);
                passed(QuotaLimit::Gpus, most, held.gpus, gpus)
            })
            .or_else(|| passed(QuotaLimit::Ucu, quota.ucu, held.units(), ucu.0))
    }

    /// The bound that so many tasks would pass though nothing else of the project were held: as long as it stands they
    /// never run at once. A bound of nothing pauses a project, so what it stops waits.
    pub fn too_small(&self, need: &Resources, ucu: MilliUcu, count: u32) -> Option<TooSmall> {
        let (quota, count) = (self.quota(), u64::from(count));
        let bounds = [
            (QuotaLimit::Tasks, quota.tasks, 1),
            (QuotaLimit::Cpus, quota.cpus, need.cpus.0.into()),
            (QuotaLimit::Gpus, quota.gpus, need.gpus.0.into()),
            (QuotaLimit::Ucu, quota.ucu, ucu.0),
        ];
        bounds.into_iter().find_map(|(limit, most, each)| {
            let most = most.filter(|most| *most > 0 && each.saturating_mul(count) > *most)?;
            Some(TooSmall { limit, most, each })
        })
    }
}

impl State {
    /// One project; one that nobody used or set holds nothing and has no bound.
    pub fn project(&self, id: &ProjectId) -> ProjectView<'_> {
        ProjectView {
            load: self.projects.get(id),
        }
    }
    /// Projects that hold something or of which something is set, by id.
    pub fn projects(&self) -> impl Iterator<Item = (ProjectId, ProjectView<'_>)> {
        let known = self.projects.iter();
        let known = known.filter(|(_, l)| l.held != Holding::default() || l.row.set.is_some());
        known.map(|(id, load)| (*id, ProjectView { load: Some(load) }))
    }
}

impl Ctx<'_> {
    /// Adds a charge to the project's month. Its row is written once, when the order ends.
    pub fn charge(&mut self, project: ProjectId, cost: UsdMicros) {
        if cost <= UsdMicros::ZERO {
            return;
        }
        let now = self.stamp.now;
        let spent = &mut self.state.projects.entry(project).or_default().row.spent;
        *spent = Spent {
            month: Month::of(now),
            usd: spent.by(now).saturating_add(cost),
        };
        self.put_project(project);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_units::{MilliCpu, MilliGpu};

    #[test]
    fn what_is_given_back_is_what_was_taken_however_absurd_it_is() {
        let need = Resources {
            cpus: MilliCpu::MAX,
            memory: ByteCount(1 << 50),
            scratch: ByteCount::ZERO,
            gpus: MilliGpu::MAX,
        };
        let (mut lived, mut loaded) = (Holding::default(), Holding::default());
        (0..20_000).for_each(|_| lived.add(&need, MilliUcu::MAX));
        (1..20_000).for_each(|_| lived.sub(&need, MilliUcu::MAX));
        // As a server counts that reads the one that is left.
        loaded.add(&need, MilliUcu::MAX);
        assert_eq!(lived, loaded);
    }
}
