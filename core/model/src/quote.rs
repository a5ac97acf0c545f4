//! What a placement was expected to take, kept as it was when it was made.
//!
//! Owns the record and its bytes, which are kept with the attempt and come to the task's client as they are. Leaves
//! what the terms come to `farlane-plan`.

use farlane_units::{MicroGramsCo2, Micros, NanoGramsCo2, UsdMicros, UsdPicos};
use serde::{Deserialize, Serialize};

use crate::{PolicyPrices, TermKind};

/// Most bytes of one. Source: thirteen terms of at most 11 B, four other numbers of at most 10 B, and two names.
pub const MAX_QUOTE_BYTES: usize = 1024;

const HOUR_MICROS: u128 = 3_600_000_000;

/// A time in seconds, to the microsecond.
fn seconds(time: Micros) -> String {
    format!("{}.{:06} s", time.0 / 1_000_000, time.0 % 1_000_000)
}

/// The next best place, of another class of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Its node's name.
    pub node_name: String,
    /// Its region.
    pub region: String,
    /// What it would have cost.
    pub cost: UsdPicos,
}

/// Terms of then, for the first of the tasks that were placed on a node together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Expected run time.
    pub run: Micros,
    /// What an hour of it emits there, by the grid and the power model of then; `None` where nobody knew.
    pub emits: Option<MicroGramsCo2>,
    /// What time, carbon and risk were worth.
    pub prices: PolicyPrices,
    /// Those that came to something, in their order.
    pub terms: Vec<(TermKind, UsdPicos)>,
    /// Where it would have gone else; `None` where there was one class alone.
    pub runner_up: Option<RunnerUp>,
}

impl Quote {
    /// All terms together.
    pub fn total(&self) -> UsdPicos {
        let terms = self.terms.iter();
        terms.fold(UsdPicos::ZERO, |sum, (_, cost)| sum.saturating_add(*cost))
    }

    /// What one term came to.
    fn of(&self, kind: TermKind) -> UsdPicos {
        let found = self.terms.iter().find(|(known, _)| *known == kind);
        found.map_or(UsdPicos::ZERO, |(_, cost)| *cost)
    }

    /// What a term was made of, with its units.
    pub fn detail(&self, kind: TermKind, cost: UsdPicos) -> String {
        let hour = self.prices.hour;
        match kind {
            TermKind::Price => {
                let of_hour = u128::from(cost.0) * HOUR_MICROS / u128::from(self.run.0.max(1));
                let of_hour = UsdMicros(i64::try_from(of_hour / 1_000_000).unwrap_or(i64::MAX));
                format!(
                    "{} × {of_hour} an hour for what it holds",
                    seconds(self.run)
                )
            }
            TermKind::Run
            | TermKind::Queue
            | TermKind::RoundTrip
            | TermKind::Transfer
            | TermKind::Start
            | TermKind::Link => {
                let picos = (hour.0.max(1) as u128) * 1_000_000;
                let micros = u128::from(cost.0) * HOUR_MICROS / picos;
                let time = Micros(u64::try_from(micros).unwrap_or(u64::MAX));
                format!(
                    "{} × {} an hour of waiting",
                    seconds(time),
                    UsdPicos::of(hour)
                )
            }
            TermKind::Thermal => {
                let run = [TermKind::Price, TermKind::Run].map(|kind| u128::from(self.of(kind).0));
                let run = run.into_iter().sum::<u128>().max(1);
                let tenths = (u128::from(cost.0) * 1000 + run / 2) / run;
                format!("{}.{} % longer × (price + run)", tenths / 10, tenths % 10)
            }
            TermKind::Carbon => {
                let hour = self.emits.map_or(0, |of| u128::from(of.0)) * 1000;
                let nanograms = hour * u128::from(self.run.0) / HOUR_MICROS;
                let of = match self.emits {
                    Some(_) => {
                        NanoGramsCo2(u64::try_from(nanograms).unwrap_or(u64::MAX)).to_string()
                    }
                    None => "an unknown weight".to_owned(),
                };
                format!(
                    "{of} of CO2e × ${} a tonne",
                    self.prices.tonne.0 / 1_000_000
                )
            }
            other => other.of().to_owned(),
        }
    }

    /// To bytes: postcard, small numbers short.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("postcard into a Vec cannot fail for these types")
    }

    /// From bytes; `None` where they are none, or absurdly many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_QUOTE_BYTES {
            return None;
        }
        let (quote, left) = postcard::take_from_bytes(bytes).ok()?;
        left.is_empty().then_some(quote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyName;

    #[test]
    fn survives_its_bytes_and_stays_small() {
        let quote = Quote {
            run: Micros(1_000),
            emits: Some(MicroGramsCo2(1_162_980)),
            prices: PolicyName::Balanced.prices(),
            terms: vec![
                (TermKind::Price, UsdPicos(10_000)),
                (TermKind::Run, UsdPicos(138_888)),
                (TermKind::RoundTrip, UsdPicos(277_777)),
                (TermKind::Carbon, UsdPicos(16)),
            ],
            runner_up: Some(RunnerUp {
                node_name: "rack-7".into(),
                region: "eu-west".into(),
                cost: UsdPicos(1_000_000),
            }),
        };
        let bytes = quote.to_bytes();
        assert!(bytes.len() < 60, "{}", bytes.len());
        let detail = |at: usize| quote.detail(quote.terms[at].0, quote.terms[at].1);
        assert_eq!(
            detail(0),
            "0.001000 s × $0.036000 an hour for what it holds"
        );
        assert_eq!(detail(1), "0.000999 s × $0.500000 an hour of waiting");
        assert_eq!(detail(3), "0.323 µg of CO2e × $50 a tonne");
        assert_eq!(quote.total(), UsdPicos(426_681));
        assert_eq!(
            quote.detail(TermKind::Thermal, UsdPicos(37_222)),
            "25.0 % longer × (price + run)"
        );
        assert_eq!(Quote::from_bytes(&bytes), Some(quote));
        for cut in 0..bytes.len() {
            assert_eq!(Quote::from_bytes(&bytes[..cut]), None);
        }
        assert_eq!(Quote::from_bytes(&[0; MAX_QUOTE_BYTES + 1]), None);
    }
}
