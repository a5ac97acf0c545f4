//! Usage folded into charges, so that money is rounded once a minute and not once an attempt.

use std::collections::BTreeMap;

use farlane_model::{NodeId, ProjectId};
use farlane_units::{Millis, UsdFemtos, UsdMicros};

use crate::{CoreTime, Usage, cost_with};

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// What usage is folded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChargeKey {
    /// Who pays.
    pub project: ProjectId,
    /// Whose machine.
    pub node: NodeId,
    /// Of one core for an hour.
    pub price: UsdMicros,
    /// Minute of cluster time in which the attempt ended, counted from the Unix epoch.
    pub minute: u64,
}

/// Core time at one price in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Of what.
    pub key: ChargeKey,
    /// Attempts folded into it.
    pub attempts: u64,
    /// Their core time.
    pub core_time: CoreTime,
    /// What their bytes between regions cost.
    pub egress: UsdFemtos,
}

impl Charge {
    /// The money, rounded here and nowhere before.
    pub fn cost(&self) -> UsdMicros {
        cost_with(self.core_time, self.key.price, self.egress)
    }

    /// The moment its minute begins.
    pub fn begins(&self) -> Millis {
        Millis(self.key.minute.saturating_mul(MINUTE_MS))
    }
}

/// Folds usage into charges, in order of their keys; the order of `usage` does not matter.
pub fn fold<'a>(usage: impl IntoIterator<Item = &'a Usage>) -> Vec<Charge> {
    let mut sums: BTreeMap<ChargeKey, (u64, CoreTime, UsdFemtos)> = BTreeMap::new();
    for one in usage {
        let key = ChargeKey {
            project: one.project,
            node: one.node,
            price: one.price,
            minute: one.ended.0 / MINUTE_MS,
        };
        let sum = sums.entry(key).or_default();
        sum.0 += 1;
        sum.1 = sum.1.saturating_add(one.core_time());
        sum.2 = sum.2.saturating_add(one.egress);
    }
    sums.into_iter()
        .map(|(key, (attempts, core_time, egress))| Charge {
            key,
            attempts,
            core_time,
            egress,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use farlane_model::{ProjectId, SessionId};
    use farlane_units::{ByteCount, MilliCpu, NanoGramsCo2};

    use super::*;
    use crate::Outcome;

    pub(crate) fn sample(seq: u64, started: u64, ended: u64) -> Usage {
        Usage {
            project: ProjectId::from_bytes([1; 16]),
            task: SessionId::new(1_700_000_000_000, [1; 5]).task(seq),
            attempt: 1,
            node: NodeId([7; 32]),
            region: "eu-central".into(),
            function: "train".into(),
            spec: farlane_model::Digest::default(),
            rank: None,
            submitted: Millis(started),
            started: Millis(started),
            ended: Millis(ended),
            cpus: MilliCpu(1000),
            peak_memory: ByteCount::mib(20),
            cpu_time: Millis(1),
            price: UsdMicros(36_000),
            moved_there: ByteCount::ZERO,
            moved_back: ByteCount::ZERO,
            egress: UsdFemtos::ZERO,
            emitted: Some(NanoGramsCo2(7)),
            outcome: Outcome::Returned,
            last: true,
        }
    }

    #[test]
    fn short_attempts_add_up_before_rounding() {
        // One millisecond at $0.036 an hour is a hundredth of a millionth: nothing by itself.
        let many: Vec<_> = (1..=1000).map(|n| sample(n, 10, 11)).collect();
        assert_eq!(many[0].cost(), UsdMicros(0));
        let charges = fold(&many);
        assert_eq!(charges.len(), 1);
        assert_eq!(
            (charges[0].attempts, charges[0].cost()),
            (1000, UsdMicros(10))
        );
    }

    #[test]
    fn bytes_between_regions_add_up_before_rounding_too() {
        let moves = |seq| Usage {
            moved_back: ByteCount(100),
            egress: UsdFemtos::of(ByteCount(100), UsdMicros(50_000)),
            ..sample(seq, 10, 10)
        };
        let many: Vec<_> = (1..=1000).map(moves).collect();
        assert_eq!(many[0].cost(), UsdMicros(0));
        let charges = fold(&many);
        assert_eq!((charges.len(), charges[0].cost()), (1, UsdMicros(5)));
    }

    #[test]
    fn minutes_and_prices_stay_apart_and_order_does_not_matter() {
        let mut usage = vec![sample(1, 0, 10), sample(2, 0, 59_999), sample(3, 0, 60_000)];
        usage.push(Usage {
            price: UsdMicros(1),
            ..sample(4, 0, 10)
        });
        let forwards = fold(&usage);
        usage.reverse();
        assert_eq!(forwards, fold(&usage));
        assert_eq!(forwards.len(), 3);
        assert_eq!(forwards.iter().map(|c| c.attempts).sum::<u64>(), 4);
        assert_eq!(forwards[2].begins(), Millis(60_000));
    }

    #[test]
    fn an_attempt_that_ends_before_it_starts_costs_nothing() {
        assert_eq!(sample(1, 500, 400).cost(), UsdMicros(0));
    }
}
