//! A provider's price book: dated prices, and which of them holds for whom and when.
//!
//! ```text
//! people write drafts ─▶ check (faults by name) ─▶ revise (with what was in force before) ─▶ PriceBook
//!                                                     the past stays: what was charged was charged
//! ```

use farlane_model::Glob;
use farlane_units::{MilliUcu, Millis, UsdMicros};

use crate::calendar::date;

/// Dearest price of anything. Source: a million dollars an hour is more than any machine costs in all.
pub const MAX_PRICE: UsdMicros = UsdMicros(1_000_000_000_000);
/// Most entries of a book, its past counted. Source: at 100 B an entry 50 KiB on the wire, and sixteen prices
/// in each of 32 regions.
pub const MAX_ENTRIES: usize = 512;
/// A gigabyte that leaves a region, where no book names a price. Chosen: in the middle of what large
/// clouds ask, $0.01 to $0.09.
pub const EGRESS_DEFAULT: UsdMicros = UsdMicros(50_000);

/// What a price is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// One core for an hour.
    CoreHour,
    /// One measured unified compute unit for an hour: of a core, by multiplication of 32-bit floats.
    UcuHour,
    /// One gigabyte (10^9 bytes) out of a region.
    EgressGb,
}

impl Rate {
    /// Every rate.
    pub const ALL: [Self; 3] = [Self::CoreHour, Self::UcuHour, Self::EgressGb];

    /// The word that stands in rows and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CoreHour => "core-hour",
            Self::UcuHour => "ucu-hour",
            Self::EgressGb => "egress-gb",
        }
    }
    /// Reads [`Rate::as_str`] back; unknown words are `None`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rate| rate.as_str() == word)
    }
}

/// What an entry is a price of, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Of what.
    pub rate: Rate,
    /// Where the machine is; for egress, the region that bytes leave.
    pub region: Glob,
    /// Class of device: `cpu`, or a model like `A100*`; for egress, the region that bytes go to.
    pub target: Glob,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (region, target) = (self.region.as_str(), self.target.as_str());
        match (self.rate, target) {
            (Rate::EgressGb, to) => write!(f, "egress from region {region} to {to}"),
            (rate, "*") => write!(f, "{} in region {region}", rate.as_str()),
            (rate, device) => write!(f, "{} of {device} in region {region}", rate.as_str()),
        }
    }
}

/// A glob without stars goes before any with; then the one that says more letters.
fn precision(glob: &Glob) -> (bool, usize) {
    let text = glob.as_str();
    let letters = text.chars().filter(|c| *c != '*').count();
    (letters == text.len(), letters)
}

impl Scope {
    /// Whether it speaks of this.
    pub fn holds_for(&self, rate: Rate, region: &str, target: &str) -> bool {
        self.rate == rate && self.region.matches(region) && self.target.matches(target)
    }
    /// Whether everything that `other` speaks of, it speaks of too.
    pub fn covers(&self, other: &Scope) -> bool {
        // A star of the other is matched by a star alone, so the pattern may stand for what it matches.
        self.holds_for(other.rate, other.region.as_str(), other.target.as_str())
    }
    /// How closely it says what it is of: the larger goes first. The text breaks ties, so that two globs
    /// which are as precise as each other are always taken in the same order.
    fn rank(&self) -> impl Ord + '_ {
        (
            precision(&self.region),
            precision(&self.target),
            &self.region,
            &self.target,
        )
    }
    fn is_exact(&self) -> bool {
        precision(&self.region).0 && precision(&self.target).0
    }
}

/// One dated price, as the book keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of what, and where.
    pub scope: Scope,
    /// What it costs.
    pub price: UsdMicros,
    /// In force from here on.
    pub since: Millis,
    /// Until before here; `None` until a newer entry of the same scope.
    pub until: Option<Millis>,
}

impl Entry {
    /// Whether it is in force at `at`, apart from newer entries.
    pub fn in_force(&self, at: Millis) -> bool {
        self.since <= at && self.until.is_none_or(|until| at < until)
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scope, price) = (&self.scope, self.price);
        write!(f, "{scope}: {price} from {}", date(self.since))?;
        match self.until {
            Some(until) => write!(f, " until {}", date(until)),
            None => Ok(()),
        }
    }
}

/// One dated price, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Of what, and where.
    pub scope: Scope,
    /// What it costs.
    pub price: UsdMicros,
    /// In force from here on; `None` from when it is set.
    pub since: Option<Millis>,
    /// Until before here; `None` until a newer entry of the same scope.
    pub until: Option<Millis>,
}

/// What a provider asks, and since when.
///
/// *Shape*: by scope, then date; at most [`MAX_ENTRIES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceBook {
    entries: Vec<Entry>,
}

impl PriceBook {
    /// A book of these entries, in any order.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| (&a.scope, a.since).cmp(&(&b.scope, b.since)));
        Self { entries }
    }

    /// By scope, then date.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that holds: the most precise scope that speaks of it and has an entry in force, then the newest.
    pub fn entry(&self, rate: Rate, region: &str, target: &str, at: Millis) -> Option<&Entry> {
        self.entries
            .iter()
            .filter(|e| e.in_force(at) && e.scope.holds_for(rate, region, target))
            .max_by(|a, b| (a.scope.rank(), a.since).cmp(&(b.scope.rank(), b.since)))
    }

    /// What one core costs for an hour on a device of this class there; `None` where the book names no price.
    pub fn core_hour(&self, region: &str, device: &str, at: Millis) -> Option<UsdMicros> {
        Some(self.entry(Rate::CoreHour, region, device, at)?.price)
    }

    /// The same where the book prices measured units: what it names for a core, else what it names for a unit × how
    /// many units one core was measured to be. A machine that was not measured has no such price, and nominal
    /// figures never stand in. *Source*: docs/guide/prices.md.
    pub fn core_hour_of(
        &self,
        region: &str,
        device: &str,
        core: Option<MilliUcu>,
        at: Millis,
    ) -> Option<UsdMicros> {
        if let Some(price) = self.core_hour(region, device, at) {
            return Some(price);
        }
        let unit = self.entry(Rate::UcuHour, region, device, at)?.price;
        // To the nearest, halves up; no price is below zero.
        let exact = i128::from(unit.0) * i128::from(core?.0) + 500;
        let price = i64::try_from(exact / 1000).unwrap_or(i64::MAX);
        Some(UsdMicros(price).min(MAX_PRICE))
    }

    /// What a gigabyte costs from one region to another: nothing within a region unless an entry names both
    /// without stars, [`EGRESS_DEFAULT`] across regions unless an entry says otherwise.
    pub fn egress_gb(&self, from: &str, to: &str, at: Millis) -> UsdMicros {
        let found = self.entry(Rate::EgressGb, from, to, at);
        match (from == to, found) {
            (true, Some(entry)) if entry.scope.is_exact() => entry.price,
            (true, _) => UsdMicros::ZERO,
            (false, found) => found.map_or(EGRESS_DEFAULT, |entry| entry.price),
        }
    }

    /// Entries that this book has and the other has not.
    pub fn beyond<'a>(&'a self, other: &'a PriceBook) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|e| !other.entries.contains(e))
    }

    /// Moments after `from` and up to `to` at which a price of this rate may change, in order, each once.
    pub fn turns(&self, rate: Rate, from: Millis, to: Millis) -> Vec<Millis> {
        let mut turns: Vec<Millis> = self
            .entries
            .iter()
            .filter(|e| e.scope.rate == rate)
            .flat_map(|e| [Some(e.since), e.until])
            .flatten()
            .filter(|at| *at > from && *at <= to)
            .collect();
        turns.sort_unstable();
        turns.dedup();
        turns
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn scope(rate: Rate, region: &str, target: &str) -> Scope {
        Scope {
            rate,
            region: Glob::new(region).unwrap(),
            target: Glob::new(target).unwrap(),
        }
    }
    pub(crate) fn entry(region: &str, target: &str, price: i64, since: u64, until: u64) -> Entry {
        Entry {
            scope: scope(Rate::CoreHour, region, target),
            price: UsdMicros(price),
            since: Millis(since),
            until: (until != 0).then_some(Millis(until)),
        }
    }

    #[test]
    fn the_most_precise_goes_first_then_the_newest_in_force() {
        let book = PriceBook::new(vec![
            entry("*", "*", 1, 0, 0),
            entry("*", "*", 2, 100, 0),
            entry("eu-*", "*", 3, 50, 80),
            entry("eu-central", "*", 4, 200, 0),
            entry("eu-*", "A100*", 5, 60, 0),
            entry("eu-*", "A100-80G", 6, 300, 0),
        ]);
        let at = |region, device, at| book.core_hour(region, device, Millis(at)).map(|p| p.0);
        assert_eq!(at("us-west", "cpu", 0), Some(1));
        assert_eq!(at("us-west", "cpu", 99), Some(1));
        assert_eq!(at("us-west", "cpu", 100), Some(2));
        assert_eq!(at("eu-west", "cpu", 50), Some(3));
        // It has ended: what is less precise holds again.
        assert_eq!(at("eu-west", "cpu", 80), Some(1));
        assert_eq!(at("eu-central", "cpu", 200), Some(4));
        assert_eq!(at("eu-central", "A100-80G", 100), Some(5));
        // Where comes before what.
        assert_eq!(at("eu-central", "A100-80G", 300), Some(4));
        assert_eq!(at("eu-west", "A100-80G", 300), Some(6));
        assert_eq!(PriceBook::default().core_hour("x", "cpu", Millis(1)), None);
        assert_eq!(
            book.turns(Rate::CoreHour, Millis(50), Millis(100)),
            [Millis(60), Millis(80), Millis(100)]
        );
    }

    #[test]
    fn a_unit_prices_the_cores_of_machines_that_were_measured() {
        let mut unit = entry("*", "cpu", 40_000, 0, 0);
        unit.scope.rate = Rate::UcuHour;
        let at = |book: &PriceBook, core: Option<u64>| {
            let core = core.map(MilliUcu);
            book.core_hour_of("eu", "cpu", core, Millis(1)).map(|p| p.0)
        };
        let book = PriceBook::new(vec![unit.clone()]);
        assert_eq!(at(&book, Some(1500)), Some(60_000));
        assert_eq!(at(&book, Some(1)), Some(40));
        assert_eq!(at(&book, Some(u64::MAX)), Some(MAX_PRICE.0));
        assert_eq!(at(&book, None), None, "it was not measured");
        assert_eq!(
            book.core_hour_of("eu", "A100", Some(MilliUcu(1)), Millis(1)),
            None
        );
        // What is named for a core goes before.
        let both = PriceBook::new(vec![unit, entry("eu", "*", 7, 0, 0)]);
        assert_eq!((at(&both, Some(1500)), at(&both, None)), (Some(7), Some(7)));
    }

    #[test]
    fn egress_is_free_at_home_and_five_cents_abroad_unless_named() {
        let mut home = entry("eu-central", "eu-central", 7, 0, 0);
        let mut abroad = entry("eu-*", "us-*", 90_000, 0, 0);
        let mut all = entry("*", "*", 20_000, 10, 0);
        for e in [&mut home, &mut abroad, &mut all] {
            e.scope.rate = Rate::EgressGb;
        }
        let book = PriceBook::new(vec![home, abroad, all]);
        let at = |from, to, at| book.egress_gb(from, to, Millis(at)).0;
        assert_eq!(at("eu-west", "us-east", 0), 90_000);
        assert_eq!(at("us-east", "eu-west", 0), 50_000);
        assert_eq!(at("us-east", "eu-west", 10), 20_000);
        assert_eq!(
            (
                at("eu-west", "eu-west", 10),
                at("eu-central", "eu-central", 0)
            ),
            (0, 7)
        );
    }

    #[test]
    fn a_pattern_covers_what_it_matches_in_every_case() {
        let covers = |a: (&str, &str), b: (&str, &str)| {
            scope(Rate::CoreHour, a.0, a.1).covers(&scope(Rate::CoreHour, b.0, b.1))
        };
        assert!(covers(("*", "*"), ("eu-*", "A100*")));
        assert!(covers(("eu-*", "*"), ("eu-c*l", "cpu")));
        assert!(!covers(("eu-c*", "*"), ("eu-*", "*")));
        assert!(!covers(("eu-*", "cpu"), ("eu-*", "*")));
    }
}
