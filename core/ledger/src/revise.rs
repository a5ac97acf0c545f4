//! A new book in the place of an old one: the future is the new one's, the past stays.

use farlane_units::Millis;

use crate::book::{Draft, Entry, MAX_ENTRIES, PriceBook};
use crate::calendar::date;

/// Why a book does not take the place of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An entry for the past that the book did not have: what was charged would no longer be what held.
    #[error(
        "{} of {} is in the past ({}): what was charged stays; give it a date that is to come, or none",
        entry.price,
        entry.scope,
        date(entry.since)
    )]
    Past {
        /// Which.
        entry: Entry,
    },
}

impl PriceBook {
    /// The book with `drafts` for what is to come. What held before `now` is kept, as it was charged by:
    /// entries that the drafts leave out end now, and go once there is no more room for them.
    ///
    /// A draft without a date goes on from where the same price has been in force, or begins now.
    ///
    /// *Shape*: give drafts that [`check`](crate::check) finds no fault with.
    /// *Errors*: a draft for the past that was not so.
    pub fn revised(&self, drafts: &[Draft], now: Millis) -> Result<PriceBook, Refused> {
        let mut entries = Vec::new();
        let mut kept = vec![false; self.entries().len()];
        for draft in drafts {
            let same = |e: &Entry| e.scope == draft.scope && e.price == draft.price;
            let held = self.entries().iter().position(|e| match draft.since {
                None => same(e) && self.holds_by_itself(e, now),
                Some(since) if since < now => {
                    same(e) && e.since == since && ends_alike(e, draft, now)
                }
                Some(_) => false,
            });
            let since = match (held, draft.since) {
                (Some(at), _) => {
                    kept[at] = true;
                    self.entries()[at].since
                }
                (None, since) => since.unwrap_or(now),
            };
            let entry = Entry {
                scope: draft.scope.clone(),
                price: draft.price,
                since,
                until: draft.until,
            };
            if held.is_none() && since < now {
                return Err(Refused::Past { entry });
            }
            entries.push(entry);
        }
        let room = MAX_ENTRIES.saturating_sub(entries.len());
        let mut past: Vec<Entry> = (self.entries().iter().zip(kept))
            .filter(|(e, kept)| !kept && e.since < now)
            .map(|(e, _)| Entry {
                until: Some(e.until.map_or(now, |until| until.min(now))),
                ..e.clone()
            })
            .collect();
        past.sort_by_key(|e| std::cmp::Reverse(e.until));
        past.truncate(room);
        entries.extend(past);
        Ok(PriceBook::new(entries))
    }

    /// Whether an entry is in force, and no newer one of its scope.
    fn holds_by_itself(&self, entry: &Entry, now: Millis) -> bool {
        let newer = |e: &&Entry| e.scope == entry.scope && e.since > entry.since && e.since <= now;
        entry.in_force(now) && !self.entries().iter().any(|e| newer(&e))
    }
}

/// Whether a draft says of the past what the entry says: the same end, or ends that are both to come.
fn ends_alike(entry: &Entry, draft: &Draft, now: Millis) -> bool {
    let to_come = |until: Option<Millis>| until.is_none_or(|until| until >= now);
    entry.until == draft.until || (to_come(entry.until) && to_come(draft.until))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::book::Rate;
    use crate::book::tests::{entry, scope};
    use farlane_units::UsdMicros;

    fn draft(region: &str, price: i64, since: Option<u64>, until: Option<u64>) -> Draft {
        Draft {
            scope: scope(Rate::CoreHour, region, "*"),
            price: UsdMicros(price),
            since: since.map(Millis),
            until: until.map(Millis),
        }
    }

    #[test]
    fn a_changed_file_ends_what_it_leaves_out_and_keeps_the_past() {
        let first = PriceBook::default()
            .revised(&[draft("*", 4, None, None)], Millis(100))
            .unwrap();
        assert_eq!(first.entries(), [entry("*", "*", 4, 100, 0)]);
        // The same file again changes nothing, whenever.
        let again = first
            .revised(&[draft("*", 4, None, None)], Millis(200))
            .unwrap();
        assert_eq!(again, first);
        let dearer = again
            .revised(&[draft("*", 5, None, None)], Millis(300))
            .unwrap();
        assert_eq!(
            dearer.entries(),
            [entry("*", "*", 4, 100, 300), entry("*", "*", 5, 300, 0)]
        );
        let withdrawn = dearer.revised(&[], Millis(400)).unwrap();
        for (at, price) in [
            (99, None),
            (100, Some(4)),
            (299, Some(4)),
            (300, Some(5)),
            (400, None),
        ] {
            let held = withdrawn.core_hour("eu", "cpu", Millis(at)).map(|p| p.0);
            assert_eq!(held, price, "{at}");
        }
    }

    #[test]
    fn what_is_to_come_may_change_and_what_was_may_not() {
        let book = PriceBook::new(vec![entry("*", "*", 4, 100, 0), entry("*", "*", 5, 500, 0)]);
        let past = book.revised(&[draft("*", 3, Some(150), None)], Millis(200));
        assert!(past.unwrap_err().to_string().contains("is in the past"));
        // Another price, another date, or an end that would have been before.
        for changed in [
            draft("*", 3, Some(100), None),
            draft("*", 4, Some(99), None),
            draft("*", 4, Some(100), Some(150)),
        ] {
            assert!(book.revised(&[changed], Millis(200)).is_err());
        }
        let ended = book.revised(&[draft("*", 4, Some(100), Some(300))], Millis(200));
        assert_eq!(ended.unwrap().entries(), [entry("*", "*", 4, 100, 300)]);
        let moved = [
            draft("*", 4, Some(100), None),
            draft("*", 6, Some(600), None),
        ];
        let moved = book.revised(&moved, Millis(200)).unwrap();
        assert_eq!(
            moved.core_hour("eu", "cpu", Millis(550)),
            Some(UsdMicros(4))
        );
    }

    #[test]
    fn a_clock_that_jumped_back_loses_nothing_that_is_dated() {
        let book = PriceBook::new(vec![entry("*", "*", 4, 1000, 0)]);
        // By the clock now, the entry is to come; the same file keeps it.
        let back = book
            .revised(&[draft("*", 4, Some(1000), None)], Millis(10))
            .unwrap();
        assert_eq!(back, book);
    }

    #[test]
    fn the_oldest_past_goes_when_the_book_is_full() {
        let mut book = PriceBook::default();
        for n in 0..2 * MAX_ENTRIES as u64 {
            let drafts = [draft("*", n as i64, None, None)];
            book = book.revised(&drafts, Millis(10 * (n + 1))).unwrap();
        }
        assert_eq!(book.entries().len(), MAX_ENTRIES);
        let newest = book.entries().last().unwrap();
        assert_eq!((newest.price.0, newest.until), (1023, None));
    }
}
