//! Devices that compute, and what their data sheets make of them.
//!
//! Owns the nominal profile's formulas. Leaves finding devices to the agent.

use farlane_units::{ByteCount, MeasuredUcu, MilliCpu, NominalUcu};
use serde::{Deserialize, Serialize};

use crate::{REFERENCE, WorkKind};

/// Most accelerators of one node. Source: HGX A100 boards join 16; four times that.
pub const MAX_DEVICES: usize = 64;
/// Longest model name, bytes: an agent cuts at 64 letters. Source: the longest of NVIDIA's has 49.
const MAX_MODEL: usize = 4 * 64;
/// Longest id, bytes: an agent cuts at 64 letters. Source: a GPU's UUID is `GPU-` and 36 letters.
const MAX_ID: usize = 4 * 64;

/// Dense bf16 rates (fp16 where there is no bf16), TFLOPS, by words of the model. Source: NVIDIA's data sheets, without
/// sparsity.
const DENSE: [(&str, u64); 13] = [
    ("H200", 989),
    ("H100 PCIe", 756),
    ("H100", 989),
    ("A100", 312),
    ("A30", 165),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("V100", 125),
    ("T4", 65),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
];
/// The same for each core of a model that is not listed, GFLOPS. Source: the listed ones have 7 to 58; their middle.
const GFLOPS_A_CORE: u64 = 24;
/// Most that is believed of one accelerator, GFLOPS. Source: NVIDIA's and Google's newest are said to reach 2,500,000; a
/// claim beyond that would make every other device look so much slower.
const MOST_GFLOPS: u64 = 2_500_000;

/// A type of device that the nominal profile has a formula for. *Source*: docs/guide/machines.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceType {
    /// cores × clock_ghz ÷ 2
    Cpu,
    /// cuda_cores × 0.8 + mem_gb × 0.2
    Gpu,
    /// tflops × 1.2
    Tpu,
}

/// A type of device without a formula: it has no nominal UCU, and is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no nominal UCU is known for a device of type {name:?}; the known types are cpu, gpu, tpu")]
pub struct UnknownDeviceType {
    /// As it was named.
    pub name: String,
}

impl DeviceType {
    /// Its name, as in the formulas.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Tpu => "tpu",
        }
    }
}

impl std::str::FromStr for DeviceType {
    type Err = UnknownDeviceType;

    fn from_str(name: &str) -> Result<Self, UnknownDeviceType> {
        let known = [Self::Cpu, Self::Gpu, Self::Tpu].into_iter();
        known
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownDeviceType {
                name: name.chars().take(64).collect(),
            })
    }
}

/// What an accelerator is, with the figure of its data sheet that its formula takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// NVIDIA's.
    Gpu {
        /// Multiprocessors × cores of each.
        cuda_cores: u32,
    },
    /// Google's.
    Tpu {
        /// Peak rate at bf16, thousandths of a TFLOPS.
        gflops: u32,
    },
}

/// One accelerator of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// With its data sheet's figure.
    pub kind: DeviceKind,
    /// As its driver calls it; at most 64 letters.
    pub model: String,
    /// Its own memory.
    pub memory: ByteCount,
    /// Watts it is held to; 0 where that is not known.
    pub tdp_watts: u32,
    /// What its driver knows it by (a UUID, a PCI address); at most 64 letters.
    pub id: String,
    /// By the agent's calibration; `None` before the first one, and where its type cannot be measured.
    pub measured: Option<DeviceRate>,
}

/// What one accelerator sustains, measured on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceRate {
    /// Products of 32-bit floats, millions of operations a second.
    pub fp32: u64,
    /// Of bfloat16, likewise.
    pub bf16: u64,
    /// Of 8-bit integers, likewise.
    pub int8: u64,
    /// Read and written within its own memory.
    pub memory_mib_s: u64,
}

impl DeviceRate {
    /// Fastest believed of any kind. Source: 10 PFLOPS at bytes is what a B300 is said to reach; a hundred times that.
    const MOST: u64 = 1_000_000_000_000;

    /// What it sustains of a kind of work.
    ///
    /// *Units*: [`REFERENCE`]'s of this kind.
    pub const fn rate(&self, kind: WorkKind) -> u64 {
        match kind {
            WorkKind::Fp32 => self.fp32,
            WorkKind::Bf16 => self.bf16,
            WorkKind::Int8 => self.int8,
            WorkKind::Memory => self.memory_mib_s,
        }
    }

    /// Its figure for a kind of work: its rate over one core's of the reference node.
    pub const fn ucu(&self, kind: WorkKind) -> MeasuredUcu {
        match MeasuredUcu::of_rates(self.rate(kind), REFERENCE.rate(kind)) {
            Some(ucu) => ucu,
            None => panic!("no rate of the reference core is zero"),
        }
    }

    /// Each rate changed alike.
    pub fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            fp32: change(self.fp32),
            bf16: change(self.bf16),
            int8: change(self.int8),
            memory_mib_s: change(self.memory_mib_s),
        }
    }

    /// Whether every rate can be one.
    pub fn is_bounded(&self) -> bool {
        WorkKind::ALL
            .into_iter()
            .all(|kind| (1..=Self::MOST).contains(&self.rate(kind)))
    }
}

impl Device {
    /// Its type.
    pub const fn device_type(&self) -> DeviceType {
        match self.kind {
            DeviceKind::Gpu { .. } => DeviceType::Gpu,
            DeviceKind::Tpu { .. } => DeviceType::Tpu,
        }
    }

    /// By its data sheet. Exact but for one rounding, to the nearest thousandth, halves up; a GB is 10^9 bytes.
    pub const fn nominal(&self) -> NominalUcu {
        let thousandths = match self.kind {
            // cores × 0.8 and bytes ÷ 10^9 × 0.2, times 1000: together at most 2^43.
            DeviceKind::Gpu { cuda_cores } => {
                cuda_cores as u64 * 800 + nearest(self.memory.0 as u128, 5_000_000)
            }
            // gflops ÷ 1000 × 1.2, times 1000.
            DeviceKind::Tpu { gflops } => nearest(gflops as u128 * 6, 5),
        };
        NominalUcu::from_thousandths(thousandths)
    }

    /// What it sustains at most of dense bf16 products, thousands of millions of operations a second: as measured, else
    /// by its data sheet, else by its cores; what is claimed beyond its sheet, or all that is sold, is not believed. For
    /// planning, before runs are seen on it; it never prices or bills.
    pub fn dense_gflops(&self) -> u64 {
        let known = |&&(model, _): &&(&str, u64)| crate::request::names(model, &self.model);
        let (sheet, most) = match self.kind {
            DeviceKind::Tpu { gflops } => (u64::from(gflops), MOST_GFLOPS),
            DeviceKind::Gpu { cuda_cores } => match DENSE.iter().find(known) {
                Some((_, tflops)) => (tflops * 1000, tflops * 1000),
                None => (u64::from(cuda_cores) * GFLOPS_A_CORE, MOST_GFLOPS),
            },
        };
        let measured = self.measured.map(|rate| (rate.bf16 / 1000).max(1));
        measured.unwrap_or(sheet).min(most)
    }

    /// Whether its texts are as short as an agent makes them, and its rates can be ones.
    pub(crate) fn is_bounded(&self) -> bool {
        self.model.len() <= MAX_MODEL
            && self.id.len() <= MAX_ID
            && self.measured.is_none_or(|rate| rate.is_bounded())
    }
}

/// Cores by their data sheet: cores × clock_ghz ÷ 2, rounded to the nearest thousandth, halves up.
pub const fn nominal_cpu(cores: MilliCpu, clock_mhz: u32) -> NominalUcu {
    NominalUcu::from_thousandths(nearest(cores.0 as u128 * clock_mhz as u128, 2000))
}

/// A quotient to the nearest integer, halves up. Fits where the caller's dividend is below 2^64 × divisor.
const fn nearest(dividend: u128, divisor: u128) -> u64 {
    ((dividend + divisor / 2) / divisor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: DeviceKind, memory: u64) -> Device {
        Device {
            kind,
            model: "any".into(),
            memory: ByteCount(memory),
            tdp_watts: 0,
            id: String::new(),
            measured: None,
        }
    }

    fn gpu(cuda_cores: u32, memory: u64) -> u64 {
        let gpu = device(DeviceKind::Gpu { cuda_cores }, memory);
        gpu.nominal().thousandths()
    }

    fn tpu(gflops: u32) -> u64 {
        let tpu = device(DeviceKind::Tpu { gflops }, 0);
        tpu.nominal().thousandths()
    }

    fn cpu(millis: u32, mhz: u32) -> u64 {
        nominal_cpu(MilliCpu(millis), mhz).thousandths()
    }

    #[test]
    fn graphics_processors_by_their_data_sheets() {
        // A100 40 GB: 6912 × 0.8 + 40 × 0.2 = 5529.6 + 8 = 5537.6.
        assert_eq!(gpu(6912, 40_000_000_000), 5_537_600);
        // A100 80 GB: 5529.6 + 16.
        assert_eq!(gpu(6912, 80_000_000_000), 5_545_600);
        // H100 SXM: 16896 × 0.8 + 80 × 0.2 = 13516.8 + 16.
        assert_eq!(gpu(16_896, 80_000_000_000), 13_532_800);
        // T4 as its driver says its memory, 15 GiB = 16.10612736 GB: 2560 × 0.8 + 3.221225472.
        assert_eq!(gpu(2560, 15 << 30), 2_051_221);
        let a100 = device(DeviceKind::Gpu { cuda_cores: 6912 }, 40_000_000_000);
        assert_eq!(a100.nominal().to_string(), "5537.600 UCU (nominal)");
    }

    #[test]
    fn tensor_processors_by_their_data_sheets() {
        // v4: 275 × 1.2 = 330; v5e: 197 × 1.2 = 236.4; v5p: 459 × 1.2 = 550.8.
        assert_eq!(tpu(275_000), 330_000);
        assert_eq!(tpu(197_000), 236_400);
        assert_eq!(tpu(459_000), 550_800);
        // A thousandth of a TFLOPS is 0.0012 UCU, to the nearest thousandth 0.001; two are 0.0024, three 0.0036.
        assert_eq!([tpu(1), tpu(2), tpu(3)], [1, 2, 4]);
    }

    #[test]
    fn processors_by_their_data_sheets() {
        // EPYC 7763: 64 × 2.45 ÷ 2 = 78.4. Raspberry Pi 4: 4 × 1.5 ÷ 2 = 3. Half a core at 3 GHz: 0.75.
        assert_eq!(cpu(64_000, 2450), 78_400);
        assert_eq!(cpu(4000, 1500), 3000);
        assert_eq!(cpu(500, 3000), 750);
        // The reference node: 2 × 2.0 ÷ 2.
        assert_eq!(
            nominal_cpu(MilliCpu(2000), 2000).to_string(),
            "2.000 UCU (nominal)"
        );
        // A half is rounded up: 0.001 cores at 1 GHz are 0.0005.
        assert_eq!([cpu(1, 999), cpu(1, 1000)], [0, 1]);
    }

    #[test]
    fn nothing_is_worth_nothing_and_the_largest_does_not_wrap() {
        assert_eq!([gpu(0, 0), tpu(0), cpu(0, 0), cpu(8000, 0)], [0; 4]);
        assert_eq!(
            gpu(u32::MAX, u64::MAX),
            4_294_967_295 * 800 + 3_689_348_814_742
        );
        assert_eq!(tpu(u32::MAX), 5_153_960_754);
        assert_eq!(cpu(u32::MAX, u32::MAX), 9_223_372_032_559_809);
    }

    #[test]
    fn other_types_are_refused_by_name() {
        assert_eq!("GPU".parse(), Ok(DeviceType::Gpu));
        assert_eq!("tpu".parse(), Ok(DeviceType::Tpu));
        assert_eq!("cpu".parse(), Ok(DeviceType::Cpu));
        for name in ["fpga", "", "habanalabs", "gpu "] {
            let refused = name
                .parse::<DeviceType>()
                .map_err(|error| error.to_string());
            let said = format!(
                "no nominal UCU is known for a device of type {name:?}; the known types are cpu, gpu, tpu"
            );
            assert_eq!(refused, Err(said));
        }
    }

    #[test]
    fn a_model_is_known_by_its_words_and_others_by_their_cores() {
        let gpu = |model: &str| {
            let device = Device {
                model: model.into(),
                ..device(DeviceKind::Gpu { cuda_cores: 1000 }, 1)
            };
            device.dense_gflops()
        };
        assert_eq!(gpu("NVIDIA A100-SXM4-80GB"), 312_000);
        assert_eq!(gpu("NVIDIA H100 PCIe"), 756_000);
        assert_eq!(gpu("NVIDIA H100 80GB HBM3"), 989_000);
        assert_eq!((gpu("NVIDIA L4"), gpu("Tesla T4")), (121_000, 65_000));
        assert_eq!(gpu("made up"), 24_000);
        let tpu = device(DeviceKind::Tpu { gflops: 197_000 }, 1);
        assert_eq!(tpu.dense_gflops(), 197_000);
        let measured = DeviceRate {
            fp32: 1,
            bf16: 300_000_000,
            int8: 1,
            memory_mib_s: 1,
        };
        let known = Device {
            measured: Some(measured),
            ..tpu
        };
        assert_eq!(known.dense_gflops(), 300_000);
        // No device is faster than its sheet, and none than all that are sold.
        let claims = |model: &str| Device {
            model: model.into(),
            measured: Some(measured.map(|_| 1_000_000_000_000)),
            ..device(
                DeviceKind::Gpu {
                    cuda_cores: u32::MAX,
                },
                1,
            )
        };
        assert_eq!(claims("Tesla T4").dense_gflops(), 65_000);
        assert_eq!(claims("made up").dense_gflops(), MOST_GFLOPS);
        let cores = Device {
            measured: None,
            ..claims("made up")
        };
        assert_eq!(cores.dense_gflops(), MOST_GFLOPS);
    }
}
