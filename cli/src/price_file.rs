//! Price books as files: TOML, its numbers read as they are written, faults with their lines.
//!
//! ```toml
//! [[price]]
//! region = "eu-*"            # a pattern; every region where it is left out
//! device = "cpu"             # cpu, or a model like "A100*"; every one where it is left out
//! since = 2026-12-01         # left out: from when it is set
//! until = 2027-03-01         # left out: until a newer price of the same region and device
//! core_hour = 0.04           # dollars for one core for an hour
//! ucu_hour = 0.05            # dollars for one measured unit for an hour
//!
//! [[egress]]
//! from = "eu-*"
//! to = "us-*"
//! gb = 0.05                  # dollars for a gigabyte
//! ```

use farlane_ledger::{Draft, Rate, Scope, check, decimal, moment_at};
use farlane_model::Glob;
use farlane_units::{Millis, UsdMicros};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest file. Source: 512 entries of 200 B, ten times over.
pub const MAX_FILE: u64 = 1 << 20;

/// Something wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// What the tables of a file are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Price,
    Egress,
}

impl Kind {
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Price => &[
                "region",
                "device",
                "since",
                "until",
                "core_hour",
                "ucu_hour",
            ],
            Self::Egress => &["from", "to", "since", "until", "gb"],
        }
    }
    const fn scope(self) -> (&'static str, &'static str) {
        match self {
            Self::Price => ("region", "device"),
            Self::Egress => ("from", "to"),
        }
    }
    const fn rates(self) -> &'static [(&'static str, Rate)] {
        match self {
            Self::Price => &[("core_hour", Rate::CoreHour), ("ucu_hour", Rate::UcuHour)],
            Self::Egress => &[("gb", Rate::EgressGb)],
        }
    }
}

/// A file as it is read.
struct Reader<'a> {
    text: &'a str,
    drafts: Vec<(usize, Draft)>,
    faults: Vec<Fault>,
}

/// The drafts of a file, in its order.
///
/// *Errors*: everything that is wrong with it, by line.
pub fn read(text: &str) -> Result<Vec<Draft>, Vec<Fault>> {
    let mut reader = Reader {
        text,
        drafts: Vec::new(),
        faults: Vec::new(),
    };
    let root = match DeTable::parse(text) {
        Ok(root) => root.into_inner(),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let what = error.message().to_owned();
            return Err(vec![reader.fault_at(at, what)]);
        }
    };
    for (key, value) in &root {
        match key.get_ref().as_ref() {
            "price" => reader.tables(Kind::Price, value),
            "egress" => reader.tables(Kind::Egress, value),
            other => reader.say(
                key.span().start,
                format!("unknown key {other:?}; a book has [[price]] and [[egress]]"),
            ),
        }
    }
    let drafts: Vec<Draft> = reader.drafts.iter().map(|(_, d)| d.clone()).collect();
    for fault in check(&drafts) {
        let at = reader.drafts.get(fault.entry).map_or(0, |(at, _)| *at);
        reader.say(at, fault.wrong.to_string());
    }
    reader.faults.sort_by_key(|fault| fault.line);
    match reader.faults.is_empty() {
        true => Ok(drafts),
        false => Err(reader.faults),
    }
}

impl<'a> Reader<'a> {
    fn fault_at(&self, at: usize, what: String) -> Fault {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Fault { line, what }
    }
    fn say(&mut self, at: usize, what: String) {
        let fault = self.fault_at(at, what);
        self.faults.push(fault);
    }

    fn tables(&mut self, kind: Kind, value: &Spanned<DeValue<'a>>) {
        let DeValue::Array(entries) = value.get_ref() else {
            let what = "write a list of tables: [[price]], [[egress]]".to_owned();
            return self.say(value.span().start, what);
        };
        for entry in entries {
            match entry.get_ref() {
                DeValue::Table(table) => self.entry(kind, entry.span().start, table),
                _ => self.say(entry.span().start, "it is not a table".to_owned()),
            }
        }
    }

    fn entry(&mut self, kind: Kind, at: usize, table: &DeTable<'a>) {
        for key in table.keys() {
            if !kind.keys().contains(&key.get_ref().as_ref()) {
                let (key_name, known) = (key.get_ref(), kind.keys().join(", "));
                self.say(
                    key.span().start,
                    format!("unknown key {key_name:?}; an entry has {known}"),
                );
            }
        }
        let faults = self.faults.len();
        let (first, second) = kind.scope();
        let (region, target) = (self.glob(table, first), self.glob(table, second));
        let (since, until) = (self.date(table, "since"), self.date(table, "until"));
        let mut priced = false;
        for (key, rate) in kind.rates() {
            let Some(value) = table.get(*key) else {
                continue;
            };
            priced = true;
            let price = self.price(value);
            if let (Some(region), Some(target), Some(price)) = (&region, &target, price) {
                let scope = Scope {
                    rate: *rate,
                    region: region.clone(),
                    target: target.clone(),
                };
                let draft = Draft {
                    scope,
                    price,
                    since,
                    until,
                };
                self.drafts.push((at, draft));
            }
        }
        if !priced {
            let keys: Vec<&str> = kind.rates().iter().map(|(key, _)| *key).collect();
            self.say(at, format!("it names no price; give {}", keys.join(" or ")));
        }
        if self.faults.len() > faults {
            // What is half read would be found to leave gaps that it does not.
            self.drafts.retain(|(from, _)| *from != at);
        }
    }

    /// Every one where it is left out.
    fn glob(&mut self, table: &DeTable<'a>, key: &str) -> Option<Glob> {
        let Some(value) = table.get(key) else {
            return Glob::new("*").ok();
        };
        let read = value
            .get_ref()
            .as_str()
            .and_then(|text| Glob::new(text).ok());
        if read.is_none() {
            let what = format!(
                "{key} must be a pattern in quotes, like \"eu-*\", of at most 64 letters, digits, '-', '_', '.' and '*'"
            );
            self.say(value.span().start, what);
        }
        read
    }

    fn date(&mut self, table: &DeTable<'a>, key: &str) -> Option<Millis> {
        let value = table.get(key)?;
        let read = match value.get_ref() {
            DeValue::Datetime(read) => moment_of(read),
            _ => None,
        };
        if read.is_none() {
            let what = format!(
                "{key} must be a day or a moment without quotes, like 2026-12-01 or 2026-12-01T08:00:00Z"
            );
            self.say(value.span().start, what);
        }
        read
    }

    fn price(&mut self, value: &Spanned<DeValue<'a>>) -> Option<UsdMicros> {
        let text = match value.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::String(text) => text.as_ref(),
            _ => "",
        };
        let read = decimal(text, 6).map_err(|why| why.to_string());
        let held = read
            .and_then(|micros| i64::try_from(micros).map_err(|_| format!("{text} is too large")));
        match held {
            Ok(micros) => Some(UsdMicros(micros)),
            Err(what) => {
                self.say(value.span().start, what);
                None
            }
        }
    }
}

/// Midnight where no time is given; UTC where no offset is.
pub fn moment_of(read: &toml::value::Datetime) -> Option<Millis> {
    let date = read.date?;
    let time = read
        .time
        .map_or((0, 0, 0), |t| (t.hour, t.minute, t.second));
    let offset = match read.offset {
        Some(toml::value::Offset::Custom { minutes }) => minutes,
        _ => 0,
    };
    moment_at((date.year, date.month, date.day), time, offset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn faults(text: &str) -> Vec<(usize, String)> {
        let faults = read(text).unwrap_err();
        faults.into_iter().map(|f| (f.line, f.what)).collect()
    }

    #[test]
    fn a_file_is_read_to_the_last_decimal() {
        let text = "[[price]]\nregion = \"eu-*\"\nsince = 2026-12-01\ncore_hour = 0.1\nucu_hour = \"0.000001\"\n\
                    [[price]]\ncore_hour = 3\n[[egress]]\nfrom = \"eu-*\"\nto = \"us-*\"\nsince = 2026-12-01T02:00:00+02:00\ngb = 1_000.05\n";
        let drafts = read(text).unwrap();
        let seen: Vec<_> = drafts
            .iter()
            .map(|d| {
                (
                    d.scope.to_string(),
                    d.price.0,
                    d.since.map(farlane_ledger::date),
                )
            })
            .collect();
        let december = Some("2026-12-01".to_owned());
        assert_eq!(
            seen,
            [
                (
                    "egress from region eu-* to us-*".to_owned(),
                    1_000_050_000,
                    december.clone()
                ),
                (
                    "core-hour in region eu-*".to_owned(),
                    100_000,
                    december.clone()
                ),
                ("ucu-hour in region eu-*".to_owned(), 1, december),
                ("core-hour in region *".to_owned(), 3_000_000, None),
            ]
        );
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let text = "[[price]]\ncore_hour = nan\n\n[[price]]\ncore_hour = -0.5\n\n[[price]]\ncore_hour = 2000000.0\n\n\
                    [[price]]\nregion = \"eu/x\"\ncore_hour = inf\nprize = 1\n\n[[price]]\nsince = \"2026-12-01\"\n\n\
                    [[price]]\nregion = \"us-*\"\nuntil = 2026-12-01\ncore_hour = 1e-3\n\n\
                    [[price]]\nregion = \"af-*\"\nuntil = 2026-12-01\ncore_hour = 1\n";
        let said = faults(text);
        let at = |line, part: &str| {
            let found = said
                .iter()
                .any(|(l, what)| *l == line && what.contains(part));
            assert!(found, "{line} {part}: {said:#?}");
        };
        at(2, "\"nan\" is not a number");
        at(5, "-0.5 is negative");
        at(7, "$2000000.000000 is absurd");
        at(11, "region must be a pattern");
        at(12, "\"inf\" is not a number");
        at(13, "unknown key \"prize\"");
        at(15, "it names no price");
        at(16, "since must be a day");
        at(21, "\"1e-3\" is not a number");
        // The price that stands for every region is absurd, and there all the same: no gap is left.
        assert!(
            !said.iter().any(|(_, what)| what.contains("in force")),
            "{said:#?}"
        );
        let gap = "[[price]]\nregion = \"eu-*\"\nuntil = 2026-12-01\ncore_hour = 1\n";
        let said = "from 2026-12-01 no price for core-hour in region eu-* is in force";
        assert_eq!(faults(gap), [(1, said.to_owned())]);
    }

    #[test]
    fn what_is_no_book_says_so() {
        assert_eq!(faults("a = 1\n\n[b\n")[0].0, 3);
        assert!(faults("price = 1\n")[0].1.contains("list of tables"));
        assert!(
            faults("\n[prices]\nx = 1\n")[0]
                .1
                .contains("unknown key \"prices\"")
        );
        assert!(
            faults("[[price]]\ncore_hour = 0x10\n")[0]
                .1
                .contains("not a number")
        );
        assert!(
            faults("[[price]]\ncore_hour = true\n")[0]
                .1
                .contains("not a number")
        );
    }
}
