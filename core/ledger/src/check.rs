//! What is wrong with the prices that somebody wrote, each fault by name.

use farlane_units::{Millis, UsdMicros};

use crate::book::{Draft, MAX_ENTRIES, MAX_PRICE, Scope};
use crate::calendar::date;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Index of the entry that it is about.
    pub entry: usize,
    /// What.
    pub wrong: Wrong,
}

/// What may be wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Below zero.
    #[error("{price} is negative; a price is zero or more")]
    Negative {
        /// The price.
        price: UsdMicros,
    },
    /// Over [`MAX_PRICE`].
    #[error("{price} is absurd: the dearest price that is taken is {MAX_PRICE}")]
    Absurd {
        /// The price.
        price: UsdMicros,
    },
    /// It ends before it begins.
    #[error("it ends on {}, not after it begins on {}", date(*until), date(*since))]
    Backwards {
        /// Its begin.
        since: Millis,
        /// Its end.
        until: Millis,
    },
    /// A date before that of an earlier entry of the same scope.
    #[error("{} stands after {} for {scope}; put dates in order", date(*since), date(*before))]
    Unsorted {
        /// Of what.
        scope: Scope,
        /// Its date.
        since: Millis,
        /// The one before it.
        before: Millis,
    },
    /// Two entries of one scope and date.
    #[error(
        "{scope} has a price from {} already; leave one of the two out",
        when(since)
    )]
    Duplicate {
        /// Of what.
        scope: Scope,
        /// The date; `None` where both have none.
        since: Option<Millis>,
    },
    /// It says that it holds still when the next of its scope begins.
    #[error(
        "two prices of {scope} are in force from {}: one until {}, and the next begins before; end the first there, or leave its end out",
        date(*from),
        date(*until)
    )]
    Overlap {
        /// Of what.
        scope: Scope,
        /// When the next begins.
        from: Millis,
        /// When this one ends.
        until: Millis,
    },
    /// It ends, and nothing follows it at once.
    #[error("from {} no price for {scope} is in force{}", date(*from), to(until))]
    Gap {
        /// Of what.
        scope: Scope,
        /// When it ends.
        from: Millis,
        /// When the next one begins, if one does.
        until: Option<Millis>,
    },
    /// More entries than a book takes.
    #[error("a book holds at most {MAX_ENTRIES} entries")]
    TooMany,
}

fn when(since: &Option<Millis>) -> String {
    since.map_or("when it is set".to_owned(), date)
}
fn to(until: &Option<Millis>) -> String {
    until.map_or(String::new(), |at| format!(" until {}", date(at)))
}

/// Every fault, by entry; nothing where the drafts can be a book.
///
/// Entries of one scope stand in the order of their dates; one without a date counts as the first, and is in
/// force from when it is set.
pub fn check(drafts: &[Draft]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if drafts.len() > MAX_ENTRIES {
        let entry = MAX_ENTRIES;
        faults.push(Fault {
            entry,
            wrong: Wrong::TooMany,
        });
        return faults;
    }
    for (entry, draft) in drafts.iter().enumerate() {
        let mut fault = |wrong| faults.push(Fault { entry, wrong });
        price_of(draft).map(&mut fault);
        let (since, scope) = (draft.since.unwrap_or(Millis::ZERO), &draft.scope);
        let earlier = drafts[..entry].iter().filter(|d| d.scope == *scope);
        if let Some(before) = earlier.clone().next_back() {
            let before = before.since.unwrap_or(Millis::ZERO);
            if earlier.clone().any(|d| d.since == draft.since) {
                let (scope, since) = (scope.clone(), draft.since);
                fault(Wrong::Duplicate { scope, since });
            } else if since < before {
                let scope = scope.clone();
                fault(Wrong::Unsorted {
                    scope,
                    since,
                    before,
                });
            }
        }
        ending(drafts, draft).into_iter().for_each(fault);
    }
    faults
}

fn price_of(draft: &Draft) -> Option<Wrong> {
    let price = draft.price;
    match price {
        _ if price < UsdMicros::ZERO => Some(Wrong::Negative { price }),
        _ if price > MAX_PRICE => Some(Wrong::Absurd { price }),
        _ => None,
    }
}

/// What is wrong with the end of an entry.
fn ending(drafts: &[Draft], draft: &Draft) -> Option<Wrong> {
    let until = draft.until?;
    let since = draft.since.unwrap_or(Millis::ZERO);
    if until <= since {
        return Some(Wrong::Backwards { since, until });
    }
    let begins = |d: &Draft| d.since.unwrap_or(Millis::ZERO);
    let scope = draft.scope.clone();
    let same = drafts.iter().filter(|d| d.scope == scope);
    if let Some(next) = same.map(begins).filter(|at| *at > since).min()
        && next < until
    {
        let from = next;
        return Some(Wrong::Overlap { scope, from, until });
    }
    let covering = || drafts.iter().filter(|d| d.scope.covers(&scope));
    if covering().any(|d| begins(d) <= until && d.until.is_none_or(|end| until < end)) {
        return None;
    }
    let next = covering().map(begins).filter(|at| *at > until).min();
    Some(Wrong::Gap {
        scope,
        from: until,
        until: next,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::book::Rate;
    use crate::book::tests::scope;
    use crate::calendar::moment;

    fn on(year: u16, month: u8, day: u8) -> Millis {
        moment((year, month, day), (0, 0, 0)).unwrap()
    }
    fn draft(region: &str, since: Option<Millis>, until: Option<Millis>) -> Draft {
        Draft {
            scope: scope(Rate::CoreHour, region, "*"),
            price: UsdMicros(40_000),
            since,
            until,
        }
    }
    fn words(drafts: &[Draft]) -> Vec<(usize, String)> {
        let faults = check(drafts).into_iter();
        faults.map(|f| (f.entry, f.wrong.to_string())).collect()
    }

    #[test]
    fn a_gap_is_named_with_its_begin_and_its_end() {
        let december = on(2026, 12, 1);
        let alone = [draft("eu-*", Some(on(2026, 1, 1)), Some(december))];
        let said = "from 2026-12-01 no price for core-hour in region eu-* is in force";
        assert_eq!(words(&alone), [(0, said.to_owned())]);
        let resumed = [alone[0].clone(), draft("eu-*", Some(on(2027, 1, 1)), None)];
        assert_eq!(words(&resumed), [(0, format!("{said} until 2027-01-01"))]);
        // What is less precise may stand in; what is more precise, or of another region, does not.
        let mut covered = [draft("*", None, None), alone[0].clone()];
        assert_eq!(words(&covered), []);
        covered[0] = draft("eu-central", None, None);
        assert_eq!(words(&covered), [(1, said.to_owned())]);
        let meets = [alone[0].clone(), draft("eu-*", Some(december), None)];
        assert_eq!(words(&meets), []);
    }

    #[test]
    fn overlaps_duplicates_and_disorder_are_named() {
        let (a, b, c) = (on(2026, 1, 1), on(2026, 6, 1), on(2026, 12, 1));
        let overlap = [draft("*", Some(a), Some(c)), draft("*", Some(b), None)];
        assert_eq!(
            words(&overlap),
            [(
                0,
                "two prices of core-hour in region * are in force from 2026-06-01: one until 2026-12-01, and the \
                 next begins before; end the first there, or leave its end out"
                    .to_owned()
            )]
        );
        let unsorted = [draft("*", Some(b), None), draft("*", Some(a), None)];
        assert!(words(&unsorted)[0].1.contains("put dates in order"));
        let twice = [draft("*", Some(a), None), draft("*", Some(a), None)];
        assert!(words(&twice)[0].1.contains("from 2026-01-01 already"));
        let undated = [draft("*", None, None), draft("*", None, None)];
        assert!(words(&undated)[0].1.contains("from when it is set already"));
        // An open end is ended by the next of its scope.
        let plain = [draft("*", None, None), draft("*", Some(a), None)];
        assert_eq!(words(&plain), []);
        assert!(
            words(&[draft("*", Some(b), Some(a))])[0]
                .1
                .contains("not after it begins")
        );
    }

    #[test]
    fn negative_and_absurd_prices_are_named() {
        let priced = |price| {
            let price = UsdMicros(price);
            words(&[Draft {
                price,
                ..draft("*", None, None)
            }])
        };
        assert!(priced(-1)[0].1.contains("negative"));
        assert!(priced(MAX_PRICE.0 + 1)[0].1.contains("absurd"));
        assert_eq!((priced(0), priced(MAX_PRICE.0)), (vec![], vec![]));
        let many = vec![draft("*", None, None); MAX_ENTRIES + 1];
        assert_eq!(check(&many)[0].wrong, Wrong::TooMany);
    }
}
