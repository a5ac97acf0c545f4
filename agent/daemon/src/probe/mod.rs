//! What this machine has: cores, memory, disk, accelerators, interpreters.

mod cuda;
pub(crate) mod device;
mod gpu;
pub(crate) mod heat;
pub(crate) mod machine;
pub(crate) mod nvml;
pub(crate) mod python;
mod tpu;
