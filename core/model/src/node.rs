//! A machine as the scheduler knows it.

use std::sync::Arc;

use farlane_units::{ByteCount, MilliCpu, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::{Amount, Device, MAX_DEVICES, Measured};

/// Most named resources of one node. Source: as many as labels.
pub const MAX_NODE_RESOURCES: usize = 64;

/// Python's minor version, which pickled code and bytecode depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PythonVersion {
    /// 3
    pub major: u8,
    /// 11 in 3.11
    pub minor: u8,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One interpreter found on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interpreter {
    /// Matched at placement.
    pub version: PythonVersion,
    /// `3.11.7`, for people.
    pub full: String,
}

/// How strongly a task is shut in; higher is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Process limits only: own tenant only.
    Process,
    /// Namespaces, seccomp, limits (bubblewrap): the default.
    Namespaces,
    /// gVisor.
    UserKernel,
    /// A microVM.
    MicroVm,
}

/// What an agent measured and was told about its machine. Region comes from the enrolment
/// certificate, never from here. What machines of one kind have in common can be shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// For people; at most 64 bytes.
    pub name: String,
    /// Brand string of the processor.
    pub cpu_model: Arc<str>,
    /// Cores offered.
    pub cpus: MilliCpu,
    /// Clock, thousandths of a GHz.
    pub clock_mhz: u32,
    /// Memory offered.
    pub memory: ByteCount,
    /// Scratch offered.
    pub disk: ByteCount,
    /// Every interpreter that a task can run on, newest first.
    pub interpreters: Arc<[Interpreter]>,
    /// Strongest tier that a probe has shown to work.
    pub tier: Tier,
    /// What of the sandbox is enforced here ("seccomp", "cgroup-memory", …), for people.
    pub enforced: Arc<[String]>,
    /// Sorted by key, keys unique; at most 64.
    pub labels: Arc<[(String, String)]>,
    /// Price of one core for an hour.
    pub price_usd_micros_core_hour: UsdMicros,
    /// Attempts that may be leased here beyond those that run; see docs/design/spine.md, "core/state".
    pub backlog_credit: u32,
    /// `linux`, `macos`.
    pub os: Arc<str>,
    /// `x86_64`, `aarch64`.
    pub arch: Arc<str>,
    /// Version of the agent.
    pub agent: Arc<str>,
    /// Accelerators, in the driver's order; at most [`MAX_DEVICES`].
    pub devices: Vec<Device>,
    /// By the agent's calibration; `None` before the first one.
    pub measured: Option<Measured>,
    /// What else its provider says there is, by name ("license": 2). Sorted by name; at most
    /// [`MAX_NODE_RESOURCES`].
    pub resources: Vec<Amount>,
}

/// Version of the canonical bytes. Source: 2 added devices, measurements and named resources, before anything was shipped.
const VERSION: u8 = 2;

impl NodeSpec {
    /// Canonical bytes: version 2, postcard.
    pub fn to_canonical(&self) -> Vec<u8> {
        crate::task::canonical(VERSION, self)
    }
    /// From canonical bytes.
    ///
    /// *Errors*: `None` where they are not a node spec of a known version, or something in it is out of its
    /// bounds.
    pub fn from_canonical(bytes: &[u8]) -> Option<Self> {
        let spec: Self = crate::task::from_canonical(VERSION, bytes)?;
        spec.is_bounded().then_some(spec)
    }

    /// Whether every list and text is as short as an agent makes it. A letter counts four bytes, where the
    /// agent cuts by letters.
    fn is_bounded(&self) -> bool {
        let texts = [
            (self.name.as_str(), 4 * 64),
            (&self.cpu_model, 4 * 128),
            (&self.os, 64),
            (&self.arch, 64),
            (&self.agent, 64),
        ];
        texts.iter().all(|(text, most)| text.len() <= *most)
            && self.interpreters.len() <= 64
            && self.interpreters.iter().all(|i| i.full.len() <= 4 * 32)
            && self.enforced.len() <= 64
            && self.enforced.iter().all(|name| name.len() <= 64)
            && self.labels.len() <= 64
            && self.devices.len() <= MAX_DEVICES
            && self.devices.iter().all(Device::is_bounded)
            && Amount::are_bounded(&self.resources, MAX_NODE_RESOURCES)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::DeviceKind;

    pub(crate) fn spec() -> NodeSpec {
        NodeSpec {
            name: "rack-7".into(),
            cpu_model: "a processor".into(),
            cpus: MilliCpu(8000),
            clock_mhz: 3000,
            memory: ByteCount::gib(64),
            disk: ByteCount::gib(100),
            interpreters: [].into(),
            tier: Tier::Namespaces,
            enforced: ["seccomp".into()].into(),
            labels: [].into(),
            price_usd_micros_core_hour: UsdMicros(40_000),
            backlog_credit: 8,
            os: "linux".into(),
            arch: "x86_64".into(),
            agent: "0.1.0".into(),
            devices: vec![Device {
                kind: DeviceKind::Gpu { cuda_cores: 6912 },
                model: "NVIDIA A100-SXM4-40GB".into(),
                memory: ByteCount(40_000_000_000),
                tdp_watts: 400,
                id: "GPU-5d5ba0d6".into(),
                measured: None,
            }],
            measured: None,
            resources: vec![Amount::new("license", 2).unwrap()],
        }
    }

    #[test]
    fn canonical_bytes_come_back_and_another_version_does_not() {
        let spec = spec();
        let bytes = spec.to_canonical();
        assert_eq!(NodeSpec::from_canonical(&bytes), Some(spec));
        let mut old = bytes;
        old[0] = 1;
        assert_eq!(NodeSpec::from_canonical(&old), None);
    }

    #[test]
    fn what_is_longer_than_an_agent_makes_it_is_refused() {
        let changes: [fn(&mut NodeSpec); 8] = [
            |spec| spec.resources = vec![spec.resources[0].clone(); 2],
            |spec| spec.resources[0].amount = 0,
            |spec| spec.name = "x".repeat(257),
            |spec| spec.cpu_model = "x".repeat(513).into(),
            |spec| spec.enforced = vec![String::new(); 65].into(),
            |spec| spec.devices = vec![spec.devices[0].clone(); MAX_DEVICES + 1],
            |spec| spec.devices[0].model = "x".repeat(257),
            |spec| spec.devices[0].id = "x".repeat(257),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut spec = spec();
            change(&mut spec);
            let read = NodeSpec::from_canonical(&spec.to_canonical());
            assert_eq!(read, None, "change {index}");
        }
        let mut full = spec();
        full.devices = vec![full.devices[0].clone(); MAX_DEVICES];
        assert!(NodeSpec::from_canonical(&full.to_canonical()).is_some());
    }
}
