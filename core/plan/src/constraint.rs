//! Hard constraints: what a node must have before its cost matters.
//!
//! Owns holding one node against a request, and the words for what it lacks. Leaves what depends on other tasks
//! (spread, affinity) to the search, by `Company::allows`.

use farlane_model::{
    Amount, Digest, LabelRule, NodeId, NodeRequest, NodeSpec, PythonVersion, TaskSpec,
};
use farlane_units::UsdMicros;

pub use crate::lack::{GpuLack, Lack};

/// What constraints look at of a node, or of a class of nodes that are alike.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// What its agent measured.
    pub spec: &'a NodeSpec,
    /// From its certificate.
    pub region: &'a str,
    /// Which; `None` for a class of nodes, whose members are asked one by one.
    pub node: Option<&'a NodeId>,
    /// Fingerprint of its provider's root; `None` where it is not known here, and left to the task's granter.
    pub provider: Option<&'a Digest>,
    /// Price in force of one core for an hour.
    pub price: UsdMicros,
    /// What its region's grid emits now, grams of CO2e a kWh; `None` where nobody knows.
    pub carbon: Option<u32>,
}

impl<'a> Site<'a> {
    /// A node of which only this is known; its price is the one it says itself.
    pub const fn of(spec: &'a NodeSpec, region: &'a str) -> Self {
        Self {
            spec,
            region,
            node: None,
            provider: None,
            price: spec.price_usd_micros_core_hour,
            carbon: None,
        }
    }

    fn label(&self, key: &str) -> Option<&'a str> {
        let found = self.spec.labels.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether nothing lacks, without saying what and without allocation: for the search.
    pub fn fits(&self, task: &TaskSpec) -> bool {
        let (need, wanted, node) = (&task.resources, &task.node, self.spec);
        node.cpus >= need.cpus
            && node.memory >= need.memory
            && node.disk >= need.scratch
            && node.tier >= wanted.tier
            && node.interpreters.iter().any(|i| i.version == wanted.python)
            && wanted.allows_region(self.region)
            && wanted
                .labels
                .iter()
                .all(|rule| rule.demand.holds(self.label(&rule.key)))
            && self.gpus_for(task) >= need.devices()
            && task
                .amounts
                .iter()
                .all(|one| Amount::of(&node.resources, &one.name) >= one.amount)
            && self.is_within(wanted)
    }

    /// The node's own name, owner and ceilings.
    fn is_within(&self, wanted: &NodeRequest) -> bool {
        self.node.is_none_or(|node| wanted.allows_node(node))
            && self
                .provider
                .is_none_or(|root| wanted.allows_provider(root))
            && wanted.max_price.is_none_or(|most| self.price <= most)
            && wanted
                .max_carbon
                .is_none_or(|most| self.carbon.is_some_and(|is| is <= most))
    }

    /// GPUs of the empty node that serve.
    fn gpus_for(&self, task: &TaskSpec) -> u32 {
        let serve = self.spec.devices.iter().filter(|d| task.gpu.matches(d));
        serve.count() as u32
    }

    /// Everything that the node lacks for the task even when empty. Empty: it fits.
    pub fn lacks(&self, task: &TaskSpec) -> Vec<Lack> {
        let mut out = Vec::new();
        self.hardware(task, &mut out);
        self.place(&task.node, &mut out);
        let labels = task
            .node
            .labels
            .iter()
            .filter_map(|rule| self.label_lack(rule));
        out.extend(labels);
        self.kind(&task.node, &mut out);
        self.ceilings(&task.node, &mut out);
        out
    }

    fn hardware(&self, task: &TaskSpec, out: &mut Vec<Lack>) {
        let (need, node) = (&task.resources, self.spec);
        if node.cpus < need.cpus {
            let (has, needs) = (node.cpus, need.cpus);
            out.push(Lack::Cpus { has, needs });
        }
        if node.memory < need.memory {
            let (has, needs) = (node.memory, need.memory);
            out.push(Lack::Memory { has, needs });
        }
        if node.disk < need.scratch {
            let (has, needs) = (node.disk, need.scratch);
            out.push(Lack::Scratch { has, needs });
        }
        if self.gpus_for(task) < need.devices() {
            let lack = GpuLack::of(&node.devices, task);
            out.push(Lack::Gpus(Box::new(lack)));
        }
        for one in &task.amounts {
            let has = Amount::of(&node.resources, &one.name);
            if has < one.amount {
                let (name, needs) = (one.name.clone(), one.amount);
                out.push(Lack::Resource { name, has, needs });
            }
        }
    }

    fn place(&self, wanted: &NodeRequest, out: &mut Vec<Lack>) {
        let outside = |globs: &[farlane_model::Glob]| {
            !globs.is_empty() && !globs.iter().any(|glob| glob.matches(self.region))
        };
        let texts = |globs: &[farlane_model::Glob]| {
            globs.iter().map(|glob| glob.as_str().to_owned()).collect()
        };
        let is = self.region.to_owned();
        if outside(&wanted.regions) {
            let (is, wants) = (is.clone(), texts(&wanted.regions));
            out.push(Lack::Region { is, wants });
        }
        if outside(&wanted.residency) {
            let wants = texts(&wanted.residency);
            out.push(Lack::Residency { is, wants });
        }
        if let Some(node) = self.node
            && !wanted.allows_node(node)
        {
            let wants = wanted.keep_on.clone();
            out.push(Lack::Elsewhere { wants });
        }
        if let Some(is) = self.provider
            && !wanted.allows_provider(is)
        {
            let (is, wants) = (*is, wanted.providers.clone());
            out.push(Lack::Provider { is, wants });
        }
    }

    fn label_lack(&self, rule: &LabelRule) -> Option<Lack> {
        let has = self.label(&rule.key);
        (!rule.demand.holds(has)).then(|| Lack::Label {
            rule: rule.clone(),
            has: has.map(str::to_owned),
        })
    }

    fn kind(&self, wanted: &NodeRequest, out: &mut Vec<Lack>) {
        let node = self.spec;
        if !node.interpreters.iter().any(|i| i.version == wanted.python) {
            let mut has: Vec<PythonVersion> = node.interpreters.iter().map(|i| i.version).collect();
            has.sort_unstable();
            has.dedup();
            let needs = wanted.python;
            out.push(Lack::Python { has, needs });
        }
        if node.tier < wanted.tier {
            let (has, needs) = (node.tier, wanted.tier);
            out.push(Lack::Tier { has, needs });
        }
    }

    fn ceilings(&self, wanted: &NodeRequest, out: &mut Vec<Lack>) {
        if let Some(most) = wanted.max_price
            && self.price > most
        {
            out.push(Lack::Price {
                is: self.price,
                most,
            });
        }
        if let Some(most) = wanted.max_carbon
            && self.carbon.is_none_or(|is| is > most)
        {
            let region = self.region.to_owned();
            let is = self.carbon;
            out.push(Lack::Carbon { region, is, most });
        }
    }
}

/// Keys that the task's rules need a label for and that none of the nodes has: mistyped, or not given yet.
///
/// *Shape*: sorted, each once; empty where there are no nodes at all.
pub fn unknown_labels<'a>(
    nodes: impl Iterator<Item = &'a NodeSpec>,
    task: &TaskSpec,
) -> Vec<String> {
    let needs_one = |rule: &&LabelRule| !rule.demand.holds(None);
    let rules = task.node.labels.iter().filter(needs_one);
    let mut unknown: Vec<String> = rules.map(|rule| rule.key.clone()).collect();
    unknown.dedup();
    let mut any = false;
    for node in nodes {
        any = true;
        unknown.retain(|key| !node.labels.iter().any(|(k, _)| k == key));
        if unknown.is_empty() {
            break;
        }
    }
    if !any {
        unknown.clear();
    }
    unknown
}
