//! What this machine has: cores, memory, disk, interpreters.

pub(crate) mod machine;
pub(crate) mod python;
