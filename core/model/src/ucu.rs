//! What a node's calibration measured, and how many cores of the reference node that is.
//!
//! Owns the vector of rates and the reference core's. Leaves measuring to the agent, and what a rate is
//! worth to the planner.

use farlane_units::{MeasuredUcu, MilliCpu, MilliUcu, Millis};
use serde::{Deserialize, Serialize};

use crate::NodeSpec;

/// A kind of work that cores do and a UCU figure exists for. Disk and network are no core's work: they have
/// rates, and no UCU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkKind {
    /// Dense matrix multiplication of 32-bit floats.
    Fp32,
    /// Of bfloat16, summed in 32-bit floats.
    Bf16,
    /// Of 8-bit integers, summed in 32-bit integers.
    Int8,
    /// Streaming through memory.
    Memory,
}

impl WorkKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Bf16, Self::Int8, Self::Memory];

    /// Reads [`WorkKind::name`] back; `None` for any other word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name, for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Memory => "memory",
        }
    }
}

/// What multiplied: the widest that the processor has for the type of number, and the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VectorUnit {
    /// Whatever the compiler made for every processor of the architecture.
    Portable,
    /// 128 bits, AArch64.
    Neon,
    /// 256 bits with fused multiply-add.
    Avx2,
    /// 512 bits.
    Avx512,
    /// 512 bits, products of bfloat16.
    Avx512Bf16,
    /// 512 bits, products of bytes.
    Avx512Vnni,
}

impl VectorUnit {
    /// Its name, as vendors write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "NEON",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Avx512Bf16 => "AVX512-BF16",
            Self::Avx512Vnni => "AVX512-VNNI",
        }
    }
}

/// How fast matrices of one type are multiplied. *Units*: millions of operations a second; a multiplication
/// and its addition are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatrixRate {
    /// By what.
    pub unit: VectorUnit,
    /// By one core while the others rest.
    pub one_core: u64,
    /// By all offered cores together.
    pub all_cores: u64,
}

/// The measured profile of one node. *Units*: matrices in millions of operations a second, the rest in MiB/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Measured {
    /// When, by the node's wall clock.
    pub at: Millis,
    /// How many cores "all" were.
    pub cores: u32,
    /// 32-bit floats.
    pub fp32: MatrixRate,
    /// bfloat16.
    pub bf16: MatrixRate,
    /// 8-bit integers.
    pub int8: MatrixRate,
    /// `a[i] = b[i] + s × c[i]` through more than the caches hold, by all cores; three words moved for each i.
    pub memory_mib_s: u64,
    /// Written beside the agent's state and synced; `None` where the disk refused.
    pub disk_write_mib_s: Option<u64>,
    /// Read back, past the page cache; `None` where the disk refused.
    pub disk_read_mib_s: Option<u64>,
    /// From the servers, as its transfers showed by then; `None` where nothing was timed.
    pub network_mib_s: Option<u64>,
}

impl Measured {
    /// Of so many cores that do so many millions of operations a second together, of every type alike; its memory is the
    /// reference node's, of disk and network nothing is known. For machines that are made up.
    pub fn even(cores: u32, millions: u64) -> Self {
        let rate = MatrixRate {
            unit: VectorUnit::Portable,
            one_core: millions / u64::from(cores.max(1)),
            all_cores: millions,
        };
        Self {
            at: Millis(1),
            cores,
            fp32: rate,
            bf16: rate,
            int8: rate,
            memory_mib_s: REFERENCE.memory_mib_s,
            disk_write_mib_s: None,
            disk_read_mib_s: None,
            network_mib_s: None,
        }
    }

    /// What all offered cores sustain together.
    ///
    /// *Units*: [`REFERENCE`]'s of this kind.
    pub const fn rate(&self, kind: WorkKind) -> u64 {
        match kind {
            WorkKind::Fp32 => self.fp32.all_cores,
            WorkKind::Bf16 => self.bf16.all_cores,
            WorkKind::Int8 => self.int8.all_cores,
            WorkKind::Memory => self.memory_mib_s,
        }
    }

    /// The whole node's figure for a kind of work: its rate over the reference core's.
    pub const fn ucu(&self, kind: WorkKind) -> MeasuredUcu {
        match MeasuredUcu::of_rates(self.rate(kind), REFERENCE.rate(kind)) {
            Some(ucu) => ucu,
            None => panic!("no rate of the reference core is zero"),
        }
    }
}

impl NodeSpec {
    /// What so many of this node's cores count for in a project's quota: their part of what all of them were measured
    /// to sustain at fp32, which is what an `ucu_hour` prices too. Cores that were not measured, or at nothing, count
    /// as the reference node's, as in estimates of run times.
    ///
    /// *Shape*: rounded up to a thousandth, so that no number of small parts is less than what they hold together; held
    /// at the bound.
    pub fn ucu_of(&self, cpus: MilliCpu) -> MilliUcu {
        let cpus = u64::from(cpus.0);
        match &self.measured {
            Some(measured) if measured.fp32.all_cores > 0 => {
                let cores = u64::from(measured.cores.max(1));
                let rate = measured.fp32.all_cores.saturating_mul(cpus);
                MilliUcu(rate.div_ceil(REFERENCE.fp32 * cores))
            }
            _ => MilliUcu(cpus),
        }
    }
}

/// What one core of the reference node sustains while its other core works too: 1 UCU of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Millions of operations a second.
    pub fp32: u64,
    /// Millions of operations a second.
    pub bf16: u64,
    /// Millions of operations a second.
    pub int8: u64,
    /// MiB/s.
    pub memory_mib_s: u64,
}

impl Reference {
    /// Of one kind.
    pub const fn rate(&self, kind: WorkKind) -> u64 {
        match kind {
            WorkKind::Fp32 => self.fp32,
            WorkKind::Bf16 => self.bf16,
            WorkKind::Int8 => self.int8,
            WorkKind::Memory => self.memory_mib_s,
        }
    }
}

/// The reference core. *Source*: docs/design/reference-node.md, measured there on 2026-11-22: half of what its two
/// cores sustain together, to three digits.
pub const REFERENCE: Reference = Reference {
    fp32: 135_000,
    bf16: 135_000,
    int8: 605_000,
    memory_mib_s: 11_900,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(times: u64) -> Measured {
        let rate = |all: u64| MatrixRate {
            unit: VectorUnit::Avx2,
            one_core: all / 2,
            all_cores: all,
        };
        Measured {
            at: Millis(1),
            cores: 2,
            fp32: rate(REFERENCE.fp32 * times),
            bf16: rate(REFERENCE.bf16 * times),
            int8: rate(REFERENCE.int8 * times),
            memory_mib_s: REFERENCE.memory_mib_s * times,
            disk_write_mib_s: None,
            disk_read_mib_s: Some(0),
            network_mib_s: None,
        }
    }

    #[test]
    fn the_note_on_the_reference_node_says_the_same() {
        let note = include_str!("../../../docs/design/reference-node.md");
        for kind in WorkKind::ALL {
            let row = format!("| {} | {} |", kind.name(), REFERENCE.rate(kind));
            assert!(
                note.contains(&row),
                "docs/design/reference-node.md lacks {row:?}"
            );
        }
    }

    #[test]
    fn a_core_of_the_reference_node_is_one_unit_of_every_kind() {
        for kind in WorkKind::ALL {
            assert_eq!(measured(1).ucu(kind).to_string(), "1.000 UCU (measured)");
            assert_eq!(measured(3).ucu(kind).thousandths(), 3000);
            assert_eq!(measured(0).ucu(kind).thousandths(), 0, "{}", kind.name());
        }
    }

    #[test]
    fn cores_count_by_what_they_were_measured_to_be() {
        let mut node = crate::node::tests::spec();
        let of = |node: &NodeSpec, cpus| node.ucu_of(MilliCpu(cpus)).0;
        assert_eq!(
            (of(&node, 1000), of(&node, 2500)),
            (1000, 2500),
            "not measured"
        );
        // Two cores of a reference node each three times as fast.
        node.measured = Some(Measured {
            fp32: MatrixRate {
                all_cores: REFERENCE.fp32 * 6,
                ..measured(1).fp32
            },
            ..measured(1)
        });
        assert_eq!((of(&node, 1000), of(&node, 8000)), (3000, 24_000));
        assert_eq!(of(&node, 1), 3);
        // Rounded up: ten tenths of a core count for no less than the core.
        node.measured = Some(Measured {
            cores: 7,
            ..measured(1)
        });
        assert_eq!((of(&node, 1000), of(&node, 100)), (143, 15));
        node.measured = Some(measured(0));
        assert_eq!(of(&node, 1000), 1000, "a rate of nothing is none");
        node.measured = Some(measured(u64::MAX / REFERENCE.int8));
        assert!(of(&node, u32::MAX) > 0, "held at the bound");
    }
}
