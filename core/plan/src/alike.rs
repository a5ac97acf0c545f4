//! Which nodes are alike: what a class of a fleet is.
//!
//! A class is all that constraints and cost look at and no lease changes; round trips, bandwidths and risks count in
//! steps, so that nodes whose figures differ by little are alike.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use farlane_model::{Device, Digest, NodeSpec};
use farlane_units::{ByteCount, ByteRate, Micros, MilliGpu, Ppm, UsdMicros};

use crate::cost::Traits;
use crate::estimate::Rates;
use crate::step::{middle, step};
use crate::view::{Egress, Heat, NodeView};

/// What nodes of one class share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub hardware: u64,
    pub region: Arc<str>,
    pub provider: Digest,
    pub online: bool,
    pub price: UsdMicros,
    pub trip: u32,
    pub bandwidth: Option<u32>,
    pub egress: Egress,
    pub risk: u32,
    pub carbon: Option<u32>,
    pub milliwatts_core: u32,
    pub milliwatts_gpu: u32,
    pub slowdown_milli: u32,
    pub heat: Heat,
    pub quarantined: bool,
}

/// Names what tasks can tell apart of a machine; its name and its agent's version they cannot. Memory counts by its
/// step and the disk's free space not at all, for machines of one kind differ in both: each node's room says what
/// it has, its class what the best of them have.
pub(crate) fn hardware(spec: &NodeSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    let devices = spec.devices.iter().map(|device| Device {
        id: String::new(),
        // By its step, as what was measured of cores.
        measured: device
            .measured
            .map(|rate| rate.map(|one| middle(step(one)))),
        ..device.clone()
    });
    let like = NodeSpec {
        name: String::new(),
        agent: "".into(),
        enforced: [].into(),
        backlog_credit: 0,
        memory: ByteCount(u64::from(step(spec.memory.0))),
        disk: ByteCount::ZERO,
        // Read while it runs, on many machines.
        clock_mhz: step(u64::from(spec.clock_mhz)),
        // What was measured counts by its step, below.
        measured: None,
        devices: devices.collect(),
        ..spec.clone()
    };
    (like.to_canonical(), rates(spec)).hash(&mut hasher);
    hasher.finish()
}

/// Rates of one core, in steps, so that nodes alike are of one class; a reference core's where
/// the node was not measured.
pub(crate) fn rates(spec: &NodeSpec) -> Rates {
    let cores = match &spec.measured {
        // From a thousandth of a reference core to a thousand of them: what no core is outside of.
        Some(measured) => Rates::of(measured).map(|one| middle(step(one.clamp(1, 1_000_000)))),
        None => Rates::REFERENCE,
    };
    // The slowest of them stands for all.
    let gpus = spec.devices.iter().map(Device::dense_gflops).min();
    cores.with_gpus(gpus.map_or(0, |gflops| middle(step(gflops))))
}

pub(crate) fn key(node: &NodeView, hardware: u64) -> Key {
    Key {
        hardware,
        region: node.region.clone(),
        provider: node.provider,
        online: node.online && !node.quarantined,
        price: node.price,
        trip: step(node.round_trip.0),
        bandwidth: node.bandwidth.map(|rate| step(rate.0)),
        egress: node.egress,
        risk: step(u64::from(node.risk.0)),
        carbon: node.carbon,
        milliwatts_core: node.milliwatts_core,
        milliwatts_gpu: node.milliwatts_gpu,
        slowdown_milli: node.slowdown_milli,
        heat: node.heat,
        quarantined: node.quarantined,
    }
}

pub(crate) fn traits(key: &Key, node: &NodeView, rates: Rates) -> Traits {
    Traits {
        hardware: key.hardware,
        cpus: node.spec.cpus,
        gpus: MilliGpu(1000 * node.spec.devices.len() as u32),
        rates,
        slowdown_milli: key.slowdown_milli,
        heat: key.heat,
        price: key.price,
        round_trip: Micros(middle(key.trip)),
        bandwidth: key.bandwidth.map(|rate| ByteRate(middle(rate))),
        egress: key.egress,
        carbon: key.carbon,
        milliwatts_core: key.milliwatts_core,
        milliwatts_gpu: key.milliwatts_gpu,
        risk: Ppm(u32::try_from(middle(key.risk)).unwrap_or(u32::MAX)),
    }
}
