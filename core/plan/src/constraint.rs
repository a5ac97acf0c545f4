//! Hard constraints: what a node must have before its cost matters.

use std::fmt;

use farlane_model::{NodeSpec, PythonVersion, TaskSpec, Tier};
use farlane_units::{ByteCount, MilliCpu};

/// What a class of nodes lacks, with the difference named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Fewer cores in all than one attempt needs.
    Cpus { has: MilliCpu, needs: MilliCpu },
    /// Less memory in all.
    Memory { has: ByteCount, needs: ByteCount },
    /// Less scratch in all.
    Scratch { has: ByteCount, needs: ByteCount },
    /// None of the regions asked for.
    Region { is: String, wants: Vec<String> },
    /// A label is absent or different.
    Label {
        key: String,
        has: Option<String>,
        wants: String,
    },
    /// No interpreter of that minor version.
    Python {
        has: Vec<PythonVersion>,
        needs: PythonVersion,
    },
    /// A weaker sandbox.
    Tier { has: Tier, needs: Tier },
    /// It would fit, but is away.
    Offline,
}

struct Cores(MilliCpu);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.0 / 1000, self.0.0 % 1000);
        match rest {
            0 => write!(f, "{whole}"),
            _ => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus { has, needs } => {
                write!(
                    f,
                    "has {} cores, the task needs {}",
                    Cores(*has),
                    Cores(*needs)
                )
            }
            Self::Memory { has, needs } => write!(f, "has {has} of memory, the task needs {needs}"),
            Self::Scratch { has, needs } => {
                write!(f, "has {has} of scratch, the task needs {needs}")
            }
            Self::Region { is, wants } => {
                write!(f, "is in {is}, the task wants {}", wants.join(" or "))
            }
            Self::Label {
                key,
                has: Some(has),
                wants,
            } => {
                write!(f, "has label {key}={has}, the task wants {key}={wants}")
            }
            Self::Label {
                key,
                has: None,
                wants,
            } => {
                write!(f, "has no label {key}, the task wants {key}={wants}")
            }
            Self::Python { has, needs } if has.is_empty() => {
                write!(f, "has no Python, the task needs {needs}")
            }
            Self::Python { has, needs } => {
                let has: Vec<String> = has.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "has Python {}, the task needs {needs}",
                    has.join(" and ")
                )
            }
            Self::Tier { has, needs } => {
                write!(
                    f,
                    "enforces sandbox tier {}, the task needs {}",
                    *has as u8, *needs as u8
                )
            }
            Self::Offline => f.write_str("would fit, but is offline"),
        }
    }
}

/// Everything that an empty node of this kind lacks for the task. Empty: it fits.
pub fn lacks(node: &NodeSpec, region: &str, task: &TaskSpec) -> Vec<Lack> {
    let mut out = Vec::new();
    let need = &task.resources;
    if node.cpus < need.cpus {
        out.push(Lack::Cpus {
            has: node.cpus,
            needs: need.cpus,
        });
    }
    if node.memory < need.memory {
        out.push(Lack::Memory {
            has: node.memory,
            needs: need.memory,
        });
    }
    if node.disk < need.scratch {
        out.push(Lack::Scratch {
            has: node.disk,
            needs: need.scratch,
        });
    }
    let wanted = &task.node;
    if !wanted.regions.is_empty() && !wanted.regions.iter().any(|g| g.matches(region)) {
        let wants = wanted
            .regions
            .iter()
            .map(|g| g.as_str().to_owned())
            .collect();
        out.push(Lack::Region {
            is: region.to_owned(),
            wants,
        });
    }
    for (key, value) in &wanted.labels {
        let has = node.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        if has != Some(value) {
            out.push(Lack::Label {
                key: key.clone(),
                has: has.cloned(),
                wants: value.clone(),
            });
        }
    }
    if !node.interpreters.iter().any(|i| i.version == wanted.python) {
        let mut has: Vec<PythonVersion> = node.interpreters.iter().map(|i| i.version).collect();
        has.sort_unstable();
        has.dedup();
        out.push(Lack::Python {
            has,
            needs: wanted.python,
        });
    }
    if node.tier < wanted.tier {
        out.push(Lack::Tier {
            has: node.tier,
            needs: wanted.tier,
        });
    }
    out
}

/// Whether nothing lacks, without saying what: for the search.
pub(crate) fn fits(node: &NodeSpec, region: &str, task: &TaskSpec) -> bool {
    let need = &task.resources;
    let wanted = &task.node;
    node.cpus >= need.cpus
        && node.memory >= need.memory
        && node.disk >= need.scratch
        && node.tier >= wanted.tier
        && node.interpreters.iter().any(|i| i.version == wanted.python)
        && (wanted.regions.is_empty() || wanted.regions.iter().any(|g| g.matches(region)))
        && wanted.labels.iter().all(|want| node.labels.contains(want))
}
