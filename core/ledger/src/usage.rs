//! What one attempt used.

use farlane_model::{Digest, ExitKind, NodeId, ProjectId, TaskId};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};

use crate::{CoreTime, cost_with};

/// Where a row of the outbox comes from: unique for ever, and growing.
///
/// *Shape*: ordered by epoch, then log index, then ordinal of the command, then row of the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId {
    /// Epoch of the cluster; a restore starts a new one.
    pub epoch: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Command within the entry.
    pub ordinal: u32,
    /// Row within the command.
    pub row: u32,
}

/// How an attempt ended, as the ledger tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A result came back.
    Returned,
    /// An exception came back.
    Raised,
    /// The worker or the node went away.
    Lost,
    /// Its time was up.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
    /// The environment, the agent or the control plane gave it up.
    Failed,
}

impl Outcome {
    /// The word that stands in rows and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Raised => "raised",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Reads [`Outcome::as_str`] back; unknown words are `None`.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Returned,
            Self::Raised,
            Self::Lost,
            Self::TimedOut,
            Self::Cancelled,
            Self::Failed,
        ]
        .into_iter()
        .find(|o| o.as_str() == word)
    }
}

impl From<ExitKind> for Outcome {
    fn from(kind: ExitKind) -> Self {
        match kind {
            ExitKind::Returned => Self::Returned,
            ExitKind::Raised => Self::Raised,
            ExitKind::Lost(_) => Self::Lost,
            ExitKind::TimedOut => Self::TimedOut,
            ExitKind::Cancelled => Self::Cancelled,
            ExitKind::EnvFailed | ExitKind::Refused | ExitKind::Expired | ExitKind::Infeasible => {
                Self::Failed
            }
        }
    }
}

/// One attempt's use of one node: the evidence behind a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Who asked.
    pub project: ProjectId,
    /// Which call.
    pub task: TaskId,
    /// Which execution of it, from 1.
    pub attempt: u32,
    /// Where it ran.
    pub node: NodeId,
    /// The node's region.
    pub region: String,
    /// The function's name, for people.
    pub function: String,
    /// What the call asked: digest of its canonical `TaskSpec`.
    pub spec: Digest,
    /// Its place in its gang; `None` where it is on its own.
    pub rank: Option<u16>,
    /// Cluster time; not after `started`.
    pub submitted: Millis,
    /// Cluster time.
    pub started: Millis,
    /// Cluster time; not before `started`.
    pub ended: Millis,
    /// Cores held.
    pub cpus: MilliCpu,
    /// Most memory it had.
    pub peak_memory: ByteCount,
    /// Processor time it used.
    pub cpu_time: Millis,
    /// Of one core for an hour, as it was when the attempt ended.
    pub price: UsdMicros,
    /// Bytes that went from the servers' region to the node's for it, where that is another.
    pub moved_there: ByteCount,
    /// Bytes that went back.
    pub moved_back: ByteCount,
    /// What both cost, as it was when the attempt ended.
    pub egress: UsdFemtos,
    /// What it emitted; `None` where nobody knew.
    pub emitted: Option<NanoGramsCo2>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the call ended with it.
    pub last: bool,
}

impl Usage {
    /// How long it held its cores.
    pub fn run_time(&self) -> Millis {
        self.ended.saturating_sub(self.started)
    }

    /// Cores × time.
    pub fn core_time(&self) -> CoreTime {
        CoreTime::of(self.run_time(), self.cpus)
    }

    /// What it costs, rounded to the millionth of a dollar.
    pub fn cost(&self) -> UsdMicros {
        cost_with(self.core_time(), self.price, self.egress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for outcome in [
            Outcome::Returned,
            Outcome::Lost,
            Outcome::Failed,
            Outcome::TimedOut,
        ] {
            assert_eq!(Outcome::from_word(outcome.as_str()), Some(outcome));
        }
        assert_eq!(Outcome::from_word("exploded"), None);
    }

    #[test]
    fn outbox_ids_sort_by_epoch_first() {
        let old = OutboxId {
            epoch: 1,
            index: 900,
            ordinal: 3,
            row: 7,
        };
        let new = OutboxId {
            epoch: 2,
            index: 1,
            ordinal: 0,
            row: 0,
        };
        assert!(old < new);
        assert!(OutboxId { row: 8, ..old } > old);
    }
}
