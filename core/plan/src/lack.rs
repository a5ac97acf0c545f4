//! What a node lacks for a task, in words, and the smallest change to the request that would do without it.

use std::fmt;

use farlane_model::{
    Count, Demand, Device, DeviceKind, Digest, GpuRequest, LabelRule, NodeId, PythonVersion,
    TaskSpec, Tier,
};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, UsdMicros};

/// What a class of nodes lacks, with the difference named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Fewer cores in all than one attempt needs.
    Cpus { has: MilliCpu, needs: MilliCpu },
    /// Less memory in all.
    Memory { has: ByteCount, needs: ByteCount },
    /// Less scratch in all.
    Scratch { has: ByteCount, needs: ByteCount },
    /// Fewer GPUs that serve.
    Gpus(Box<GpuLack>),
    /// Less of a resource that its provider named.
    Resource { name: String, has: u32, needs: u32 },
    /// None of the regions asked for.
    Region { is: String, wants: Vec<String> },
    /// None of the places where the data may lie.
    Residency { is: String, wants: Vec<String> },
    /// None of the nodes that the task must stay on.
    Elsewhere { wants: Vec<NodeId> },
    /// Another provider's.
    Provider { is: Digest, wants: Vec<Digest> },
    /// A rule on a label does not hold.
    Label {
        rule: LabelRule,
        has: Option<String>,
    },
    /// No interpreter of that minor version.
    Python {
        has: Vec<PythonVersion>,
        needs: PythonVersion,
    },
    /// A weaker sandbox.
    Tier { has: Tier, needs: Tier },
    /// A core costs more.
    Price { is: UsdMicros, most: UsdMicros },
    /// Its region's grid emits more, or nobody knows how much.
    Carbon {
        region: String,
        is: Option<u32>,
        most: u32,
    },
    /// It would fit, but is away.
    Offline,
    /// Audits found that it is not what it says; it gets no work.
    Quarantined,
}

/// GPUs that a node has, and what was asked of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuLack {
    /// How many of each kind, by the driver's name and memory; sorted.
    pub has: Vec<(String, ByteCount, u32)>,
    /// How many are needed; a fraction, or whole ones.
    pub needs: MilliGpu,
    /// Of which kind.
    pub wants: GpuRequest,
}

impl GpuLack {
    pub(crate) fn of(devices: &[Device], task: &TaskSpec) -> Self {
        let gpus = devices
            .iter()
            .filter(|d| matches!(d.kind, DeviceKind::Gpu { .. }));
        let mut all: Vec<(String, ByteCount)> = gpus.map(|d| (d.model.clone(), d.memory)).collect();
        all.sort_unstable();
        let has = all
            .chunk_by(|a, b| a == b)
            .map(|same| (same[0].0.clone(), same[0].1, same.len() as u32))
            .collect();
        Self {
            has,
            needs: task.resources.gpus,
            wants: task.gpu.clone(),
        }
    }

    fn devices(&self) -> u32 {
        self.needs.0.div_ceil(1000)
    }

    /// The least that would have to be asked otherwise: less memory, else fewer, else another model, else none.
    fn change(&self) -> String {
        let of_model = || {
            let all = self.has.iter();
            all.filter(|(model, ..)| self.wants.is_model(model))
        };
        let least = self.wants.memory.unwrap_or_default();
        let enough: u32 = of_model()
            .filter(|(_, m, _)| *m >= least)
            .map(|(.., n)| n)
            .sum();
        let mut sizes: Vec<(ByteCount, u32)> = of_model().map(|(_, m, n)| (*m, *n)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut found = 0;
        for (memory, count) in sizes {
            found += count;
            if found >= self.devices() {
                return format!("gpu_memory {least} → {memory}");
            }
        }
        if enough > 0 {
            return format!("num_gpus {} → {enough}", Count(self.needs));
        }
        let serves = |(_, memory, count): &&(String, ByteCount, u32)| {
            *memory >= least && *count >= self.devices()
        };
        match self.has.iter().find(serves) {
            Some((model, ..)) => format!("gpu {} → {model}", self.wants.models.join("|")),
            None => format!("num_gpus {} → 0", Count(self.needs)),
        }
    }
}

impl fmt::Display for GpuLack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has ")?;
        if self.has.is_empty() {
            f.write_str("no GPU")?;
        }
        for (at, (model, memory, count)) in self.has.iter().enumerate() {
            let and = if at > 0 { " and " } else { "" };
            write!(f, "{and}{count} {model}")?;
            if self.wants.memory.is_some() {
                write!(f, " with {memory}")?;
            }
        }
        write!(f, ", the task needs {}", Count(self.needs))?;
        match self.wants.models.is_empty() {
            true if self.needs.0 == 1000 => f.write_str(" GPU")?,
            true if self.needs.0 > 1000 => f.write_str(" GPUs")?,
            true => f.write_str(" of a GPU")?,
            false => write!(f, " of {}", self.wants.models.join(" or "))?,
        }
        match self.wants.memory {
            Some(memory) => write!(f, " with at least {memory}"),
            None => Ok(()),
        }
    }
}

struct Cores(MilliCpu);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Count(MilliGpu(self.0.0)).fmt(f)
    }
}

fn versions(list: &[PythonVersion]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    list.join(" and ")
}

/// The first letters of a fingerprint or an id, enough to tell which.
fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

fn any_of<T: ToString>(list: &[T]) -> String {
    list.iter().map(short).collect::<Vec<_>>().join(" or ")
}

const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Process => "process",
        Tier::Namespaces => "namespaces",
        Tier::UserKernel => "gvisor",
        Tier::MicroVm => "microvm",
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus { has, needs } => {
                let (has, needs) = (Cores(*has), Cores(*needs));
                write!(f, "has {has} cores, the task needs {needs}")
            }
            Self::Memory { has, needs } => write!(f, "has {has} of memory, the task needs {needs}"),
            Self::Scratch { has, needs } => {
                write!(f, "has {has} of scratch, the task needs {needs}")
            }
            Self::Gpus(lack) => lack.fmt(f),
            Self::Resource {
                name,
                has: 0,
                needs,
            } => {
                write!(f, "has no {name}, the task needs {needs}")
            }
            Self::Resource { name, has, needs } => {
                write!(f, "has {has} of {name}, the task needs {needs}")
            }
            Self::Region { is, wants } => {
                write!(f, "is in {is}, the task wants {}", wants.join(" or "))
            }
            Self::Residency { is, wants } => {
                let wants = wants.join(" or ");
                write!(f, "is in {is}, the task's data may lie in {wants} only")
            }
            Self::Elsewhere { wants } => {
                write!(f, "is not the node to stay on, {}", any_of(wants))
            }
            Self::Provider { is, wants } => {
                let (is, wants) = (short(is), any_of(wants));
                write!(f, "is provider {is}'s, the task allows {wants}")
            }
            Self::Label { rule, has } => match has {
                Some(has) => write!(f, "has label {}={has}, the task wants {rule}", rule.key),
                None => write!(f, "has no label {}, the task wants {rule}", rule.key),
            },
            Self::Python { has, needs } if has.is_empty() => {
                write!(f, "has no Python, the task needs {needs}")
            }
            Self::Python { has, needs } => {
                write!(f, "has Python {}, the task needs {needs}", versions(has))
            }
            Self::Tier { has, needs } => {
                let (has, needs) = (*has as u8, *needs as u8);
                write!(f, "enforces sandbox tier {has}, the task needs {needs}")
            }
            Self::Price { is, most } => {
                write!(f, "costs {is} a core-hour, the task pays at most {most}")
            }
            Self::Carbon { region, is, most } => match is {
                Some(is) => write!(f, "emits {is} g/kWh in {region}, the task allows {most}"),
                None => write!(
                    f,
                    "what the grid of {region} emits is not known, the task allows {most} g/kWh"
                ),
            },
            Self::Offline => f.write_str("would fit, but is offline"),
            Self::Quarantined => f.write_str("is in quarantine"),
        }
    }
}

impl Lack {
    /// The smallest change to the request that would make do: `memory 64 GiB → 32 GiB`. `None` where it is for the
    /// node to change.
    pub fn change(&self) -> Option<String> {
        Some(match self {
            Self::Cpus { has, .. } if has.0 == 0 => return None,
            Self::Cpus { has, needs } => format!("num_cpus {} → {}", Cores(*needs), Cores(*has)),
            Self::Memory { has, needs } => format!("memory {needs} → {has}"),
            Self::Scratch { has, needs } => format!("scratch {needs} → {has}"),
            Self::Gpus(lack) => lack.change(),
            Self::Resource { name, has, needs } => format!("resources {name} {needs} → {has}"),
            Self::Region { is, wants } => format!("regions {} → or {is}", wants.join(" or ")),
            Self::Residency { is, wants } => format!("residency {} → or {is}", wants.join(" or ")),
            Self::Elsewhere { .. } => "keep_on → anywhere".to_owned(),
            Self::Provider { is, .. } => format!("providers → or {is}"),
            Self::Label { rule, has } => label_change(rule, has.as_deref()),
            Self::Python { has, .. } if has.is_empty() => return None,
            Self::Python { has, needs } => format!("Python {needs} → {}", nearest(has, *needs)),
            Self::Tier { has, needs } => format!("sandbox {} → {}", tier(*needs), tier(*has)),
            Self::Price { is, most } => format!("max_price {most} → {is}"),
            Self::Carbon {
                is: Some(is), most, ..
            } => format!("max_carbon {most} → {is}"),
            Self::Carbon { .. } => "max_carbon → none".to_owned(),
            Self::Offline | Self::Quarantined => return None,
        })
    }
}

/// The version that is nearest to the one asked for.
fn nearest(has: &[PythonVersion], needs: PythonVersion) -> PythonVersion {
    let far = |v: &PythonVersion| (v.major.abs_diff(needs.major), v.minor.abs_diff(needs.minor));
    has.iter().copied().min_by_key(far).unwrap_or(needs)
}

/// A list takes one more value, or loses one; every other rule goes.
fn label_change(rule: &LabelRule, has: Option<&str>) -> String {
    match (&rule.demand, has) {
        (Demand::In(_), Some(has)) => format!("labels {rule} → or {has}"),
        (Demand::NotIn(_), Some(has)) => format!("not_labels {} → without {has}", rule.key),
        _ => format!("labels {rule} → without it"),
    }
}
