//! Identities and validated nouns: what a task, a node and an exit are.
//!
//! Owns their canonical bytes, which are what gets digested and signed. Leaves behaviour to the
//! rooms above; a value of these types is valid by construction.

mod contradiction;
mod device;
mod exit;
mod gang;
mod glob;
mod id;
mod kin;
mod load;
mod node;
mod policy;
mod quote;
mod request;
mod standing;
mod task;
mod term;
mod ucu;
mod version;
mod word;
mod work;

pub use device::{
    Device, DeviceKind, DeviceRate, DeviceType, MAX_DEVICES, UnknownDeviceType, nominal_cpu,
};
pub use exit::{Exit, ExitKind, LostCause, MAX_EXIT_MESSAGE};
pub use gang::{Gang, GangRegions, MAX_GANG};
pub use glob::{BadGlob, Glob, is_region};
pub use id::{BadId, BootId, Digest, KeyId, NodeId, ProjectId, SessionId, TaskId, TenantId};
pub use kin::Kin;
pub use load::{DeviceLoad, DeviceLoads, places};
pub use node::{Interpreter, MAX_NODE_RESOURCES, NodeSpec, PythonVersion, Tier};
pub use policy::{BadPrices, MAX_WORTH, PolicyName, PolicyPrices, UnknownPolicy};
pub use quote::{MAX_QUOTE_BYTES, Quote, RunnerUp};
pub use request::{
    Affinity, Amount, Company, Count, Demand, Direction, GpuRequest, LabelRule, MAX_AMOUNT,
    NodeRequest, Scope, Strength,
};
pub use standing::{MAX_REASON, Standing};
pub use task::{
    AttemptRef, BadSpec, BlobRef, EnvRef, ForwardSecrecy, GRACE, LOG_LIMIT, MAX_ENTRY_BYTES,
    MAX_GRACE, MAX_ROW_BYTES, Resources, Retry, Sealed, TaskPhase, TaskSpec, Timing,
};
pub use term::TermKind;
pub use ucu::{MatrixRate, Measured, REFERENCE, Reference, VectorUnit, WorkKind};
pub use version::{BadRange, VersionRange};
pub use word::nearest;
pub use work::Declared;
