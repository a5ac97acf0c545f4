//! Tasks that run at once or not at all.
//!
//! Owns what a call says of its gang. Leaves placing them together to `farlane-plan`, and holding them together to
//! `farlane-state`.

use serde::{Deserialize, Serialize};

use crate::BadSpec;
use crate::request::bounded;

/// Most members of one gang. Source: half of what a `SubmitBatch` takes (512), which a gang never leaves; and
/// 256 envelopes of 1 KiB fill its 256 KiB.
pub const MAX_GANG: u16 = 256;

/// Where the members of a gang may lie towards each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GangRegions {
    /// All in one region.
    #[default]
    One,
    /// In any regions that the task may run in; near ones cost less.
    Any,
}

/// Every call of its spec is one of so many that run at once: consecutive ones of a session, from the first of
/// the spec on, are its gangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gang {
    /// How many: 1 to [`MAX_GANG`].
    pub size: u16,
    /// How far apart.
    pub regions: GangRegions,
}

impl Gang {
    pub(crate) fn check(gang: Option<&Self>, at_most_once: bool) -> Result<(), BadSpec> {
        let Some(gang) = gang else { return Ok(()) };
        bounded(&[(
            (1..=MAX_GANG).contains(&gang.size),
            "gang",
            "between 1 and 256 tasks",
        )])?;
        match at_most_once {
            // Whoever loses one begins all of it again.
            true => Err(BadSpec::contradiction(
                format!("a gang of {}", gang.size),
                "at_most_once".to_owned(),
            )),
            false => Ok(()),
        }
    }
}
