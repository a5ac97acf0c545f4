//! What a task says that it computes.
//!
//! Owns the record and its bounds. Leaves how long that takes on a node to `farlane-plan`.

use serde::{Deserialize, Serialize};

use crate::request::bounded;
use crate::{BadSpec, WorkKind};

/// Most operations and bytes of one attempt. Source: choice; a month of ten thousand GPUs is below it.
const MAX_WORK: u64 = 1 << 63;

/// Operations and bytes of one attempt, as its author declares them. A multiplication and its addition are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Declared {
    /// Operations; 0 where only bytes are declared.
    pub flops: u64,
    /// On numbers of this type: any but [`WorkKind::Memory`].
    pub kind: WorkKind,
    /// Moved between memory and cores; 0 where only operations are declared.
    pub bytes: u64,
}

impl Declared {
    /// Holds it against its bounds.
    ///
    /// *Errors*: nothing declared, too much, or a type of number that is none.
    pub fn check(&self) -> Result<(), BadSpec> {
        let work = self.flops.max(self.bytes);
        bounded(&[
            (work > 0, "flops", "at least 1, or bytes declared"),
            (work <= MAX_WORK, "flops and bytes", "at most 2^63"),
            (
                self.kind != WorkKind::Memory,
                "precision",
                "fp32, bf16 or int8",
            ),
        ])
    }
}
