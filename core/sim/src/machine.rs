//! Kinds of machines, how fast each truly is, and what its grid emits by the hour.

use std::sync::Arc;

use farlane_model::{
    Device, DeviceKind, DeviceLoads, Digest, Interpreter, Measured, NodeId, NodeSpec,
    PythonVersion, REFERENCE, TaskSpec, Tier, WorkKind,
};
use farlane_plan::{Egress, Heat, NodeView};
use farlane_units::{ByteCount, Micros, MilliCpu, Ppm, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::Random;
use crate::work::wave;

/// A core for an hour on demand, micro-dollars. Source: common list prices of 2025.
const CORE_HOUR: i64 = 45_000;
/// Leases ahead of capacity that each node takes.
const CREDIT: u32 = 4;
/// An hour, milliseconds: a grid's figure holds for so long.
pub(crate) const HOUR: u64 = 3_600_000;

/// Which kinds of machines there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machines {
    /// Sizes that clouds offer, all alike a core.
    #[default]
    Mixed,
    /// Cores of four speeds, of which the fast ones cost more.
    Uneven,
    /// With GPUs of three models, each a price and a speed of its own.
    Gpus,
}

impl Machines {
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Mixed => &MIXED,
            Self::Uneven => &UNEVEN,
            Self::Gpus => &GPUS,
        }
    }
}

/// A kind of machine.
#[derive(Debug)]
pub(crate) struct Kind {
    cores: u32,
    gib: u64,
    labels: &'static [(&'static str, &'static str)],
    /// Thousandths of the usual price of a core.
    price: i64,
    /// Chance that an attempt is lost.
    pub risk: Ppm,
    /// Of one core, thousandths of the reference core's; 0 where it was not measured.
    speed: u64,
    gpus: Option<(u32, &'static Gpu)>,
}

const fn kind(cores: u32, gib: u64, labels: &'static [(&str, &str)], price: i64) -> Kind {
    Kind {
        cores,
        gib,
        labels,
        price,
        risk: Ppm(500),
        speed: 0,
        gpus: None,
    }
}

/// Source: sizes that clouds offer most, and what people have at home; the last is lent out cheaply and taken
/// back now and then.
const MIXED: [Kind; 8] = [
    kind(4, 8, &[("disk", "ssd")], 1000),
    kind(8, 16, &[("disk", "ssd")], 1000),
    kind(8, 64, &[("disk", "nvme")], 1150),
    kind(16, 64, &[("disk", "nvme")], 1050),
    kind(32, 128, &[("disk", "nvme")], 1000),
    kind(64, 256, &[("disk", "nvme"), ("net", "25g")], 1000),
    kind(96, 768, &[("disk", "nvme"), ("net", "100g")], 1200),
    Kind {
        risk: Ppm(20_000),
        ..kind(16, 32, &[("disk", "ssd"), ("spot", "yes")], 350)
    },
];

/// Source: choice; a core of today is some three times one of ten years ago, and costs more than in proportion.
const UNEVEN: [Kind; 4] = [
    Kind {
        speed: 600,
        ..kind(8, 16, &[], 450)
    },
    Kind {
        speed: 1000,
        ..kind(16, 64, &[], 1000)
    },
    Kind {
        speed: 1500,
        ..kind(16, 64, &[], 1600)
    },
    Kind {
        speed: 2200,
        ..kind(32, 128, &[], 2900)
    },
];

/// A model of GPU.
#[derive(Debug)]
struct Gpu {
    model: &'static str,
    cuda_cores: u32,
    gib: u64,
    watts: u32,
    /// Thousandths of an A100's. Source: dense bf16 rates of NVIDIA's data sheets: 121, 312 and 989 TFLOPS.
    speed: u64,
    /// For an hour, micro-dollars. Source: list prices of large clouds in 2025, rounded.
    hour: i64,
}

const L4: Gpu = Gpu {
    model: "NVIDIA L4",
    cuda_cores: 7_424,
    gib: 24,
    watts: 72,
    speed: 388,
    hour: 710_000,
};
const A100: Gpu = Gpu {
    model: "NVIDIA A100-SXM4-80GB",
    cuda_cores: 6_912,
    gib: 80,
    watts: 400,
    speed: 1000,
    hour: 3_670_000,
};
const H100: Gpu = Gpu {
    model: "NVIDIA H100 80GB HBM3",
    cuda_cores: 16_896,
    gib: 80,
    watts: 700,
    speed: 3170,
    hour: 9_800_000,
};
/// Cores sold with each GPU: its price is theirs. Source: choice, near what clouds do.
const CORES_A_GPU: u32 = 8;

const fn gpus(count: u32, of: &'static Gpu) -> Kind {
    Kind {
        gpus: Some((count, of)),
        ..kind(CORES_A_GPU * count, 64 * count as u64, &[], 0)
    }
}

const GPUS: [Kind; 4] = [gpus(1, &L4), gpus(4, &L4), gpus(4, &A100), gpus(8, &H100)];

impl Kind {
    /// What a core costs for an hour, micro-dollars.
    pub fn core_hour(&self) -> i64 {
        match self.gpus {
            Some((_, gpu)) => gpu.hour / i64::from(CORES_A_GPU),
            None => CORE_HOUR * self.price / 1000,
        }
    }

    /// What a busy core draws, its share of a GPU counted.
    pub fn milliwatts_core(&self) -> u32 {
        6_000
            + self
                .gpus
                .map_or(0, |(_, gpu)| gpu.watts * 1000 / CORES_A_GPU)
    }

    fn devices(&self) -> Vec<Device> {
        let Some((count, gpu)) = self.gpus else {
            return Vec::new();
        };
        let device = |at: u32| Device {
            kind: DeviceKind::Gpu {
                cuda_cores: gpu.cuda_cores,
            },
            model: gpu.model.to_owned(),
            memory: ByteCount::gib(gpu.gib),
            tdp_watts: gpu.watts,
            id: format!("GPU-{at}"),
            measured: None,
        };
        (0..count).map(device).collect()
    }
}

/// What an agent on a core of this speed would have measured.
pub(crate) fn measured(cores: u32, speed: u64) -> Measured {
    let even = |reference: u64| {
        let each = reference * speed / 1000;
        Measured::even(cores, each * u64::from(cores))
    };
    Measured {
        int8: even(REFERENCE.int8).int8,
        ..even(REFERENCE.fp32)
    }
}

pub(crate) fn spec_of(kind: &Kind) -> NodeSpec {
    let interpreter = |minor| Interpreter {
        version: PythonVersion { major: 3, minor },
        full: format!("3.{minor}.2"),
    };
    NodeSpec {
        name: format!("{}-core", kind.cores),
        cpu_model: "made up".into(),
        cpus: MilliCpu(kind.cores * 1000),
        clock_mhz: 3000,
        memory: ByteCount::gib(kind.gib),
        disk: ByteCount::gib(500),
        interpreters: [interpreter(12), interpreter(11)].into(),
        tier: Tier::Namespaces,
        enforced: [].into(),
        labels: kind
            .labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        price_usd_micros_core_hour: UsdMicros(kind.core_hour()),
        backlog_credit: CREDIT,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: kind.devices(),
        measured: (kind.speed > 0).then(|| measured(kind.cores, kind.speed)),
        resources: Vec::new(),
    }
}

/// How fast a task truly runs on a node, thousandths of a reference core, or of an A100 where it asks for GPUs.
pub(crate) fn speed(node: &NodeSpec, task: &TaskSpec) -> u64 {
    if task.resources.gpus.0 > 0 {
        let device = node.devices.iter().find(|d| task.gpu.matches(d));
        let known = [&L4, &A100, &H100].into_iter();
        let model = device.and_then(|d| known.into_iter().find(|gpu| gpu.model == d.model));
        return model.map_or(1000, |gpu| gpu.speed);
    }
    let Some(measured) = &node.measured else {
        return 1000;
    };
    let all = measured.ucu(WorkKind::Fp32).thousandths();
    (all / u64::from(measured.cores.max(1))).max(1)
}

/// A node of such a spec on which nothing runs, the `number`th of its world.
pub(crate) fn idle(number: u64, region: Arc<str>, spec: Arc<NodeSpec>) -> NodeView {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&Random::new(number).bits().to_be_bytes());
    id[8..16].copy_from_slice(&number.to_be_bytes());
    NodeView {
        id: NodeId(id),
        generation: 1,
        region,
        provider: Digest::default(),
        online: true,
        free_cpus: spec.cpus,
        free_memory: spec.memory,
        free_scratch: spec.disk,
        devices: DeviceLoads::default(),
        free_amounts: Vec::new(),
        free_backlog: spec.backlog_credit,
        backlog: 0,
        round_trip: Micros::ZERO,
        bandwidth: None,
        egress: Egress::default(),
        price: UsdMicros(0),
        carbon: None,
        milliwatts_core: 0,
        milliwatts_gpu: 0,
        risk: Ppm(0),
        slowdown_milli: 1000,
        heat: Heat::default(),
        quarantined: false,
        spec,
    }
}

/// What a grid emits, by the hour.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Grid {
    /// On average, g CO2e a kWh.
    pub grams: u32,
    /// So much more at the day's height and less at its depth: 0 to 1.
    pub swing: f64,
    /// Part of its day that is over when the history begins: 0 to 1.
    pub turn: f64,
}

impl Grid {
    /// In the hour of this moment, milliseconds from the beginning.
    pub fn at(&self, now: u64) -> u32 {
        let hours = (now / HOUR) as f64 / 24.0 + self.turn;
        let turn = hours - (hours as u64) as f64;
        (f64::from(self.grams) * (1.0 + self.swing * wave(turn))) as u32
    }
}

/// One node of a history.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub view: NodeView,
    pub grid: Grid,
    /// In the place of its grid, where it was recorded.
    pub course: Option<Arc<Course>>,
}

impl Machine {
    /// What its grid emits at a moment; nothing where nobody knew.
    pub fn carbon_at(&self, now: u64) -> u32 {
        match &self.course {
            Some(course) => course.carbon(now).unwrap_or(0),
            None => self.grid.at(now),
        }
    }
}

/// What a core cost and its grid emitted, in dated steps.
#[derive(Debug)]
pub(crate) struct Course {
    prices: Vec<(u64, i64)>,
    grams: Arc<[(u64, u32)]>,
}

/// The figure of a moment.
fn at<T: Copy>(steps: &[(u64, T)], now: u64) -> Option<T> {
    let past = steps.partition_point(|(since, _)| *since <= now);
    Some(steps[past.checked_sub(1)?].1)
}

impl Course {
    /// Steps rise; an empty list is a price of nothing, and a grid that nobody knows.
    pub fn new(prices: Vec<(u64, i64)>, grams: Arc<[(u64, u32)]>) -> Self {
        Self { prices, grams }
    }
    /// Of a core, for an hour.
    pub fn price(&self, now: u64) -> UsdMicros {
        UsdMicros(at(&self.prices, now).unwrap_or(0))
    }
    /// Grams a kWh; `None` where nobody knew.
    pub fn carbon(&self, now: u64) -> Option<u32> {
        at(&self.grams, now)
    }
    /// When one of them changes.
    pub fn turns(&self) -> impl Iterator<Item = u64> {
        let prices = self.prices.iter().map(|(at, _)| *at);
        prices.chain(self.grams.iter().map(|(at, _)| *at))
    }
}
