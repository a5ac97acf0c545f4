//! What one call took: a line for each attempt.

use farlane_model::{NodeId, TaskId};
use farlane_units::{Millis, NanoGramsCo2, UsdFemtos, UsdMicros};

use crate::{Outcome, Usage};

/// One attempt on a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptLine {
    /// From 1.
    pub attempt: u32,
    /// Where.
    pub node: NodeId,
    /// The node's region.
    pub region: String,
    /// How long it held its cores.
    pub run_time: Millis,
    /// Of one core for an hour.
    pub price: UsdMicros,
    /// What its bytes between regions cost; it is in `cost`.
    pub egress: UsdFemtos,
    /// Rounded by itself; charges are rounded by the minute.
    pub cost: UsdMicros,
    /// What it emitted; `None` where nobody knew.
    pub emitted: Option<NanoGramsCo2>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Everything one call took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which call.
    pub task: TaskId,
    /// In order of attempts; attempts that never ran have none.
    pub lines: Vec<ReceiptLine>,
}

impl Receipt {
    /// The receipt of `task`, from rows that may also speak of others; repeated rows count once.
    pub fn of<'a>(task: TaskId, usage: impl IntoIterator<Item = &'a Usage>) -> Self {
        let mut lines: Vec<_> = usage
            .into_iter()
            .filter(|u| u.task == task)
            .map(|u| ReceiptLine {
                attempt: u.attempt,
                node: u.node,
                region: u.region.clone(),
                run_time: u.run_time(),
                price: u.price,
                egress: u.egress,
                cost: u.cost(),
                emitted: u.emitted,
                outcome: u.outcome,
            })
            .collect();
        lines.sort_by_key(|line| line.attempt);
        lines.dedup_by_key(|line| line.attempt);
        Self { task, lines }
    }

    /// All attempts together.
    pub fn cost(&self) -> UsdMicros {
        self.lines
            .iter()
            .fold(UsdMicros::ZERO, |sum, line| sum.saturating_add(line.cost))
    }

    /// All attempts together; `None` where nobody knows of one of them.
    pub fn emitted(&self) -> Option<NanoGramsCo2> {
        let mut lines = self.lines.iter();
        lines.try_fold(NanoGramsCo2::ZERO, |sum, line| {
            Some(sum.saturating_add(line.emitted?))
        })
    }

    /// All attempts together.
    pub fn run_time(&self) -> Millis {
        self.lines
            .iter()
            .fold(Millis::ZERO, |sum, line| sum.saturating_add(line.run_time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charge::tests::sample;

    #[test]
    fn lost_attempts_are_on_the_receipt_and_rows_count_once() {
        let first = Usage {
            outcome: Outcome::Lost,
            ..sample(1, 0, 3_600_000)
        };
        let second = Usage {
            attempt: 2,
            ..sample(1, 0, 1_800_000)
        };
        let unknown = Usage {
            emitted: None,
            ..sample(3, 0, 1)
        };
        let other = sample(2, 0, 3_600_000);
        let rows = [second.clone(), first.clone(), other, first.clone()];
        let receipt = Receipt::of(first.task, &rows);
        assert_eq!(receipt.lines.len(), 2);
        assert_eq!(receipt.lines[0].outcome, Outcome::Lost);
        assert_eq!(receipt.cost(), UsdMicros(54_000));
        assert_eq!(receipt.run_time(), Millis(5_400_000));
        assert_eq!(receipt.emitted(), Some(NanoGramsCo2(14)));
        assert_eq!(Receipt::of(unknown.task, [&unknown]).emitted(), None);
    }
}
