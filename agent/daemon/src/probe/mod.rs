//! What this machine has: cores, memory, disk, accelerators, interpreters.

mod cuda;
pub(crate) mod device;
mod gpu;
pub(crate) mod heat;
pub(crate) mod machine;
pub(crate) mod nvml;
pub(crate) mod python;
mod tpu;

pub(crate) use cuda::gpu_id;
#[cfg(test)]
pub(crate) use gpu::tests::library;
pub(crate) use gpu::{Unread, open};
