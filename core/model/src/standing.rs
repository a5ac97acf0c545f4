//! What audits have found of a node.

use serde::{Deserialize, Serialize};

/// Longest reason kept. Source: a line of a person's screen, twice.
pub const MAX_REASON: usize = 240;

/// Whether a node is what it says. It changes what the node gets, and never what it already runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing is known against it.
    #[default]
    Good,
    /// It gets work, and counts as slower than it says.
    Marked {
        /// So much longer than by its claim a run takes; 1000 is as claimed, and the least.
        slowdown_milli: u32,
        /// For people; at most [`MAX_REASON`] bytes.
        reason: String,
    },
    /// It gets no work.
    Quarantined {
        /// For people; at most [`MAX_REASON`] bytes.
        reason: String,
        /// Ends once it passes audits again; else only a person ends it.
        lifts: bool,
    },
}

impl Standing {
    /// In a word: `good`, `marked`, `quarantined`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Marked { .. } => "marked",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Why, where it is not good.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Good => None,
            Self::Marked { reason, .. } | Self::Quarantined { reason, .. } => Some(reason),
        }
    }

    /// Runs take so much longer than claimed; 1000 where nothing is known.
    pub const fn slowdown_milli(&self) -> u32 {
        match self {
            Self::Marked { slowdown_milli, .. } => *slowdown_milli,
            Self::Good | Self::Quarantined { .. } => 1000,
        }
    }

    /// Whether it gets no work.
    pub const fn is_quarantined(&self) -> bool {
        matches!(self, Self::Quarantined { .. })
    }

    /// Whether every part is within its bounds.
    pub fn is_bounded(&self) -> bool {
        self.reason().is_none_or(|why| why.len() <= MAX_REASON)
            && (1000..=1_000_000).contains(&self.slowdown_milli())
    }
}
