//! What this machine has: cores, memory, disk, accelerators, interpreters.

mod cuda;
pub(crate) mod device;
mod gpu;
pub(crate) mod machine;
mod nvml;
pub(crate) mod python;
mod tpu;
