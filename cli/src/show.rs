//! Answers for people and for programs.

use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use farlane_units::UsdMicros;
use serde::Serialize;

use crate::problem::Problem;

/// `--json`, on every command that answers a question.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Form {
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prints a value as indented JSON.
///
/// *Errors*: standard output is closed.
pub fn json(value: &impl Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).map_err(Problem::failed)?;
    line(&text)
}

/// Prints a line on standard output.
///
/// *Errors*: standard output is closed.
pub fn line(text: &str) -> Result<(), Problem> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(Problem::from)
}

/// Prints text as it is on standard output.
///
/// *Errors*: standard output is closed.
pub fn text(text: &str) -> Result<(), Problem> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(Problem::from)
}

/// A small table: columns as wide as their longest cell, two spaces between.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()],
        }
    }
    /// Adds a row; it must have as many cells as there are headings.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len());
        self.rows.push(cells.into());
    }
    /// The lines, without trailing spaces.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|r| r[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let pad = |(cell, width): (&String, &usize)| {
            format!("{cell}{}", " ".repeat(width - cell.chars().count()))
        };
        self.rows
            .iter()
            .map(|r| {
                r.iter()
                    .zip(&widths)
                    .map(pad)
                    .collect::<Vec<_>>()
                    .join("  ")
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }
    /// Prints it; `empty` instead where it has no rows.
    ///
    /// *Errors*: standard output is closed.
    pub fn print(&self, empty: &str) -> Result<(), Problem> {
        if self.rows.len() == 1 {
            return line(empty);
        }
        let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for (n, text) in self.lines().into_iter().enumerate() {
            match n == 0 && bold {
                true => line(&format!("\x1b[1m{text}\x1b[0m"))?,
                false => line(&text)?,
            }
        }
        Ok(())
    }
}

/// Milliseconds as `850 ms`, `1.5 s`, `2 m 5 s`, `3 h 20 m`, `4 d 2 h`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago, or how long still.
pub fn relative(ms: u64, now: u64) -> String {
    match ms {
        0 => "never".to_owned(),
        past if past <= now => format!("{} ago", span(now - past)),
        future => format!("in {}", span(future - now)),
    }
}

/// Money, short: four digits after the point are enough for a table.
pub fn money(amount: UsdMicros) -> String {
    match amount.0 {
        0 => "$0".to_owned(),
        _ => amount.to_string(),
    }
}

/// Wall time now.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "REGION"]);
        table.row(["a".to_owned(), "eu".to_owned()]);
        table.row(["längster".to_owned(), String::new()]);
        assert_eq!(
            table.lines(),
            ["NAME      REGION", "a         eu", "längster"]
        );
    }

    #[test]
    fn spans_read_as_people_say_them() {
        for (ms, text) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (1550, "1.5 s"),
            (125_000, "2 m 5 s"),
            (12_000_000, "3 h 20 m"),
            (352_800_000, "4 d 2 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(relative(0, 5), "never");
        assert_eq!(relative(1000, 3000), "2.0 s ago");
        assert_eq!(relative(3000, 1000), "in 2.0 s");
    }
}
