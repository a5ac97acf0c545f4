//! Prices on the wire, to and from the ledger.

use farlane_ledger::{Draft, Entry, PriceBook, Rate, Scope};
use farlane_model::Glob;
use farlane_units::{Millis, UsdMicros};

use crate::convert::BadMessage;
use crate::v1;

const fn bad(field: &'static str, problem: &'static str) -> BadMessage {
    BadMessage { field, problem }
}

/// A moment that 0 stands for none of.
fn some(ms: u64) -> Option<Millis> {
    (ms != 0).then_some(Millis(ms))
}

impl TryFrom<&v1::PriceEntry> for Draft {
    type Error = BadMessage;
    fn try_from(from: &v1::PriceEntry) -> Result<Self, BadMessage> {
        let glob = |text: &str, field| {
            Glob::new(text).map_err(|_| bad(field, "not a pattern of at most 64 characters"))
        };
        let unknown = bad("rate", "none of core-hour, ucu-hour, egress-gb");
        Ok(Self {
            scope: Scope {
                rate: Rate::from_word(&from.rate).ok_or(unknown)?,
                region: glob(&from.region, "region")?,
                target: glob(&from.target, "target")?,
            },
            price: UsdMicros(from.usd_micros),
            since: some(from.since_ms),
            until: some(from.until_ms),
        })
    }
}

impl From<&Draft> for v1::PriceEntry {
    fn from(from: &Draft) -> Self {
        Self {
            rate: from.scope.rate.as_str().to_owned(),
            region: from.scope.region.as_str().to_owned(),
            target: from.scope.target.as_str().to_owned(),
            usd_micros: from.price.0,
            since_ms: from.since.map_or(0, |at| at.0),
            until_ms: from.until.map_or(0, |at| at.0),
        }
    }
}

impl From<&Entry> for v1::PriceEntry {
    fn from(from: &Entry) -> Self {
        Self {
            rate: from.scope.rate.as_str().to_owned(),
            region: from.scope.region.as_str().to_owned(),
            target: from.scope.target.as_str().to_owned(),
            usd_micros: from.price.0,
            since_ms: from.since.0,
            until_ms: from.until.map_or(0, |at| at.0),
        }
    }
}

/// A book as it is kept, where every entry has its date.
///
/// *Errors*: an entry that is none.
pub fn book(from: &v1::PriceBook) -> Result<PriceBook, BadMessage> {
    let entry = |entry: &v1::PriceEntry| {
        let draft = Draft::try_from(entry)?;
        Ok(Entry {
            scope: draft.scope,
            price: draft.price,
            since: Millis(entry.since_ms),
            until: draft.until,
        })
    };
    let entries: Result<Vec<_>, BadMessage> = from.entries.iter().map(entry).collect();
    Ok(PriceBook::new(entries?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_travel_and_malformed_ones_are_named() {
        let sent = v1::PriceEntry {
            rate: "core-hour".into(),
            region: "eu-*".into(),
            target: "*".into(),
            usd_micros: 40_000,
            since_ms: 5,
            until_ms: 0,
        };
        let draft = Draft::try_from(&sent).unwrap();
        assert_eq!(v1::PriceEntry::from(&draft), sent);
        let kept = v1::PriceBook {
            entries: vec![sent.clone()],
            ..Default::default()
        };
        let kept = book(&kept).unwrap();
        assert_eq!(v1::PriceEntry::from(&kept.entries()[0]), sent);
        let wrong = |change: fn(&mut v1::PriceEntry)| {
            let mut entry = sent.clone();
            change(&mut entry);
            Draft::try_from(&entry).unwrap_err().field
        };
        assert_eq!(wrong(|e| e.rate = "free".into()), "rate");
        assert_eq!(wrong(|e| e.region = String::new()), "region");
        assert_eq!(wrong(|e| e.target = "a/b".into()), "target");
    }
}
