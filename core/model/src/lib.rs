//! Identities and validated nouns: what a task, a node and an exit are.
//!
//! Owns their canonical bytes, which are what gets digested and signed. Leaves behaviour to the
//! rooms above; a value of these types is valid by construction.

mod device;
mod exit;
mod glob;
mod id;
mod node;
mod task;
mod ucu;

pub use device::{Device, DeviceKind, DeviceType, MAX_DEVICES, UnknownDeviceType, nominal_cpu};
pub use exit::{Exit, ExitKind, LostCause, MAX_EXIT_MESSAGE};
pub use glob::{BadGlob, Glob};
pub use id::{BadId, BootId, Digest, KeyId, NodeId, ProjectId, SessionId, TaskId, TenantId};
pub use node::{Interpreter, NodeSpec, PythonVersion, Tier};
pub use task::{
    AttemptRef, BadSpec, BlobRef, EnvRef, ForwardSecrecy, LOG_LIMIT, MAX_ENTRY_BYTES,
    MAX_ROW_BYTES, NodeRequest, Resources, Retry, Sealed, TaskPhase, TaskSpec, Timing,
};
pub use ucu::{MatrixRate, Measured, REFERENCE, Reference, VectorUnit, WorkKind};
