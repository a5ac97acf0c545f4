//! A machine as the scheduler knows it.

use farlane_units::{ByteCount, MilliCpu, UsdMicros};
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
/// certificate, never from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// For people; at most 64 bytes.
    pub name: String,
    /// Brand string of the processor.
    pub cpu_model: String,
    /// Cores offered.
    pub cpus: MilliCpu,
    /// Clock, thousandths of a GHz.
    pub clock_mhz: u32,
    /// Memory offered.
    pub memory: ByteCount,
    /// Scratch offered.
    pub disk: ByteCount,
    /// Every interpreter that a task can run on, newest first.
    pub interpreters: Vec<Interpreter>,
    /// Strongest tier that a probe has shown to work.
    pub tier: Tier,
    /// What of the sandbox is enforced here ("seccomp", "cgroup-memory", …), for people.
    pub enforced: Vec<String>,
    /// Sorted by key, keys unique; at most 64.
    pub labels: Vec<(String, String)>,
    /// Price of one core for an hour.
    pub price_usd_micros_core_hour: UsdMicros,
    /// Attempts that may be leased here beyond those that run; see design.md, "Flow".
    pub backlog_credit: u32,
    /// `linux`, `macos`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Version of the agent.
    pub agent: String,
}

impl NodeSpec {
    /// Canonical bytes: version 1, postcard.
    pub fn to_canonical(&self) -> Vec<u8> {
        crate::task::canonical(1, self)
    }
    /// From canonical bytes.
    ///
    /// *Errors*: `None` where they are not a node spec of a known version.
    pub fn from_canonical(bytes: &[u8]) -> Option<Self> {
        crate::task::from_canonical(1, bytes)
    }
}
