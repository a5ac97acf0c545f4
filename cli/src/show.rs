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
    #[arg(long, global = true)]
    pub json: bool,
}

/// Most letters of a name that are shown. Chosen: as long as names that the parser takes.
const NAME: usize = 64;

/// Whether a letter would steer a terminal, or turn the order of what stands around it.
/// *Source*: Unicode 16, UAX 9, table 4 (explicit directional formatting).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with marks in the place of what would steer a terminal; ends of lines and tabs stay.
pub fn plain(text: &str) -> String {
    let keeps = |c: char| matches!(c, '\n' | '\t') || !steers(c);
    text.chars()
        .map(|c| {
            if keeps(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}

/// A name that somebody else chose, as one word or few on a line: plain, and cut where it is long.
pub fn name(text: &str) -> String {
    let marked = |c| {
        if steers(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let mut shown: String = text.chars().take(NAME).map(marked).collect();
    if text.chars().nth(NAME).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Prints a value as indented JSON.
///
/// *Errors*: standard output is closed.
pub fn json(value: &impl Serialize) -> Result<(), Problem> {
    let pretty = serde_json::to_string_pretty(value).map_err(Problem::failed)?;
    text(&escaped(&pretty))?;
    text("\n")
}

/// JSON in which also what serde leaves as it is, but a terminal obeys, is escaped.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c != '\n' && steers(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

/// Prints a line on standard output: [`plain`].
///
/// *Errors*: standard output is closed.
pub fn line(text: &str) -> Result<(), Problem> {
    writeln!(std::io::stdout().lock(), "{}", plain(text)).map_err(Problem::from)
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
    /// Adds a row; it must have as many cells as there are headings. Each is shown [`plain`], on one line.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len());
        let one_line = |cell: String| plain(&cell).replace(['\n', '\t'], " ");
        self.rows.push(cells.map(one_line).into());
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
                true => self::text(&format!("\x1b[1m{text}\x1b[0m\n"))?,
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
    fn what_others_wrote_steers_no_terminal() {
        let evil = "a\u{1b}]0;pwned\u{7}\u{9b}2J\r\n\u{202e}b";
        let mut table = Table::new(&["NAME", "REGION"]);
        table.row([evil.to_owned(), "eu".to_owned()]);
        let shown = [
            &table.lines().concat(),
            &name(evil),
            &plain(evil).replace('\n', ""),
        ]
        .map(|s| s.chars().any(steers));
        assert_eq!(shown, [false; 3]);
        assert_eq!(table.lines()[1], "a�]0;pwned��2J� �b  eu");
        assert_eq!(name(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(name(&"é".repeat(65)), format!("{}…", "é".repeat(63)));
        let json = escaped(&serde_json::json!({"name": evil}).to_string());
        assert!(!json.chars().any(steers));
        let back: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(back["name"], evil);
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
