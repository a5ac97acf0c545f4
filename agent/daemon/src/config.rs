//! What an agent is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use farlane_model::{Amount, TenantId, Tier};
use farlane_units::{ByteCount, MilliCpu, UsdMicros};

/// Everything an agent is told. What is `None` is measured or left at its default.
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// Identity, record, certificate, journal and caches lie here; made 0700 when missing.
    pub state_dir: PathBuf,
    /// Text of the join file; needed until the state folder holds a record.
    pub join_file: Option<String>,
    /// Name for people; the host's name by default.
    pub name: Option<String>,
    /// Cores offered; all by default.
    pub cpus: Option<MilliCpu>,
    /// Memory offered; nine tenths of the machine's by default.
    pub memory: Option<ByteCount>,
    /// Scratch offered; half of what is free beside the state folder by default.
    pub disk: Option<ByteCount>,
    /// Named resources offered; sorted by name.
    pub resources: Vec<Amount>,
    /// Price of one core for an hour; the join file's, else zero.
    pub price_usd_micros_core_hour: Option<UsdMicros>,
    /// Interpreters beside those that are found.
    pub interpreters: Vec<PathBuf>,
    /// Whose work may run here. `None`: of every tenant that the control plane admits.
    pub tenants: Option<Vec<TenantId>>,
    /// Whose work may run here without a sandbox (tier 0), where namespaces are refused.
    pub own_tenants: Vec<TenantId>,
    /// Held to at most this tier; for machines where the probe is too hopeful, and tests.
    pub strongest_tier: Option<Tier>,
    /// The `uv` that builds environments; else beside this binary, in `PATH`, or `python -m uv`.
    pub uv: Option<PathBuf>,
    /// Most bytes of built environments kept; 10 GiB by default.
    pub env_cache: Option<ByteCount>,
    /// Most bytes of fetched blobs kept; 2 GiB by default.
    pub blob_cache: Option<ByteCount>,
    /// Longest that a transfer stands still before it is tried again; 30 s by default.
    pub transfer_patience: Option<Duration>,
    /// How long it is without work before it measures this machine, where what it knows is old; 10 s by default.
    pub calibrate_after: Option<Duration>,
    /// The `farlane` program: `agent measure-gpus` of it measures accelerators, which without it are not measured.
    pub program: Option<PathBuf>,
}

impl AgentConfig {
    /// An agent that keeps its state in `state_dir` and measures the rest.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            ..Self::default()
        }
    }
}
