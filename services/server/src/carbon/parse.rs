//! What a feed says: CSV or JSON, numbers read as they are written.
//!
//! ```text
//! region,hour,g_per_kwh                          [{"region": "eu-central",
//! eu-central,2026-12-01T13:00Z,312.5               "hour": "2026-12-01T13:00Z", "g_per_kwh": 312.5},
//! eu-north,,24                                    {"region": "eu-north", "g_per_kwh": 24}]
//! ```
//! Without an hour a reading is of every hour. A reading without a number is a hole, and passed over; anything else
//! that cannot be read refuses the feed, so that half a table never takes the place of a whole one.

use std::borrow::Cow;

use farlane_controller::FeedError;
use farlane_ledger::{CarbonTable, decimal, moment_at};
use farlane_units::{MilliGramsKwh, Millis};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Decimals of a gram that are kept; more are cut, as nobody knows a grid so well.
const PLACES: usize = 3;

#[derive(Deserialize)]
struct Reading<'a> {
    #[serde(borrow)]
    region: Cow<'a, str>,
    #[serde(borrow, default)]
    hour: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    g_per_kwh: Option<&'a RawValue>,
}

fn malformed(at: &str, what: impl std::fmt::Display) -> FeedError {
    FeedError::Malformed {
        what: format!("{at}: {what}"),
    }
}

/// The table that a feed's text stands for.
///
/// *Errors*: [`FeedError::Malformed`], with the line or number of the reading.
pub(super) fn table(text: &str) -> Result<CarbonTable, FeedError> {
    let text = text.trim_start_matches('\u{feff}');
    let table = match text.trim_start().starts_with(['[', '{']) {
        true => json(text)?,
        false => csv(text)?,
    };
    match table.is_empty() {
        true => Err(FeedError::Malformed {
            what: "it holds no reading".into(),
        }),
        false => Ok(table),
    }
}

fn json(text: &str) -> Result<CarbonTable, FeedError> {
    let readings: Vec<Reading<'_>> =
        serde_json::from_str(text).map_err(|e| FeedError::Malformed {
            what: format!("it is not a list of readings: {e}"),
        })?;
    let mut table = CarbonTable::default();
    for (n, reading) in readings.iter().enumerate() {
        let value = reading.g_per_kwh.map_or("", RawValue::get);
        let value = value.trim_matches('"');
        let value = if value == "null" { "" } else { value };
        let hour = reading.hour.as_deref().unwrap_or_default();
        let at = format!("reading {}", n + 1);
        note(&mut table, &at, &reading.region, hour, value)?;
    }
    Ok(table)
}

fn csv(text: &str) -> Result<CarbonTable, FeedError> {
    let mut lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let (_, heading) = lines.next().unwrap_or((1, ""));
    let names: Vec<&str> = heading.split(',').map(str::trim).collect();
    let place = |name: &str| names.iter().position(|n| *n == name);
    let missing = || {
        malformed(
            "line 1",
            "its columns must be named: region, hour, g_per_kwh",
        )
    };
    let region = place("region").ok_or_else(missing)?;
    let value = place("g_per_kwh").ok_or_else(missing)?;
    let hour = place("hour");
    let mut table = CarbonTable::default();
    for (n, line) in lines {
        let at = format!("line {n}");
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != names.len() {
            let what = format!("{} columns where {} are named", cells.len(), names.len());
            return Err(malformed(&at, what));
        }
        let hour = hour.map_or("", |column| cells[column]);
        note(&mut table, &at, cells[region], hour, cells[value])?;
    }
    Ok(table)
}

fn note(
    table: &mut CarbonTable,
    at: &str,
    region: &str,
    hour: &str,
    value: &str,
) -> Result<(), FeedError> {
    if value.is_empty() {
        return Ok(());
    }
    let hour = match hour {
        "" => None,
        text => Some(moment_of(text).ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            malformed(
                at,
                format!("{text:?} is not an hour; write it like 2026-12-01T13:00Z"),
            )
        })?),
    };
    let end = value.find('.').map_or(value.len(), |dot| dot + 1 + PLACES);
    let digits = value.get(..end.min(value.len())).unwrap_or(value);
    let all = value.strip_prefix(digits).unwrap_or_default();
    if !all.chars().all(|c| c.is_ascii_digit()) {
        return Err(malformed(at, format!("{:?} is not a number", cut(value))));
    }
    let of = decimal(digits, PLACES as u32).map_err(|why| malformed(at, why))?;
    let of = MilliGramsKwh(u32::try_from(of).unwrap_or(u32::MAX));
    table
        .note(region, hour, of)
        .map_err(|why| malformed(at, why))
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A moment of RFC 3339, its offset counted in; without one it is UTC.
fn moment_of(text: &str) -> Option<Millis> {
    let read: toml::value::Datetime = text.parse().ok()?;
    let (date, time) = (read.date?, read.time?);
    let time = (time.hour, time.minute, time.second);
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

    fn readings(text: &str) -> Vec<(String, Option<u64>, u32)> {
        let table = table(text).unwrap();
        let own = |(r, at, of): (&str, Option<Millis>, MilliGramsKwh)| {
            (r.to_owned(), at.map(|at| at.0 / 3_600_000), of.0)
        };
        table.readings().map(own).collect()
    }
    fn wrong(text: &str) -> String {
        table(text).unwrap_err().to_string()
    }

    const THIRTEEN: u64 = 498_925;

    #[test]
    fn csv_and_json_say_the_same() {
        let csv = "g_per_kwh, region ,hour,note\r\n312.54999,eu-central,2026-12-01T13:00:00Z,x\n\n24,eu-north,,\n\
                   ,eu-central,2026-12-01T14:00Z,a hole\n300,eu-central,2026-12-01T17:30+02:00,\n";
        let json = r#"[{"region": "eu-central", "hour": "2026-12-01T13:00Z", "g_per_kwh": 312.54999, "more": {}},
            {"region": "eu-north", "g_per_kwh": "24"}, {"region": "eu-central", "hour": "2026-12-01T14:00Z", "g_per_kwh": null},
            {"region": "eu-central", "hour": "2026-12-01T17:30+02:00", "g_per_kwh": 300}]"#;
        let expected = [
            ("eu-central".to_owned(), Some(THIRTEEN), 312_549),
            ("eu-central".to_owned(), Some(THIRTEEN + 2), 300_000),
            ("eu-north".to_owned(), None, 24_000),
        ];
        assert_eq!(readings(csv), expected);
        assert_eq!(readings(json), expected);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let of = |row: &str| wrong(&format!("region,hour,g_per_kwh\neu,,1\n{row}\n"));
        for (row, said) in [
            ("eu,,nan", "line 3: \"nan\" is not a number"),
            ("eu,,-5", "line 3: -5 is negative"),
            ("eu,,1e3", "is not a number"),
            ("eu,,1.2345x", "\"1.2345x\" is not a number"),
            ("eu,,99999", "99999 g/kWh is absurd"),
            ("eu,,999999999999999999999", "too large"),
            ("eu,yesterday,5", "\"yesterday\" is not an hour"),
            ("eu,2026-12-01,5", "is not an hour"),
            ("eu,2026-13-01T00:00Z,5", "is not an hour"),
            ("e u,,5", "is not a region's name"),
            ("eu,5", "2 columns where 3 are named"),
        ] {
            assert!(of(row).contains(said), "{row}: {}", of(row));
        }
        assert!(wrong("a,b\n1,2\n").contains("its columns must be named"));
        assert!(
            wrong("").contains("columns") && wrong("region,g_per_kwh\n").contains("no reading")
        );
        assert!(wrong("[]").contains("no reading"));
        assert!(wrong("{\"error\": 1}").contains("not a list of readings"));
        assert!(
            wrong("[{\"region\": \"eu\", \"g_per_kwh\": NaN}]").contains("not a list of readings")
        );
    }
}
