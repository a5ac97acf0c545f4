//! numpy element types that hold no objects.

use super::ValueError;

/// An element type as numpy's array interface writes it: `<f8`, `|b1`, `<U12`, `<M8[ns]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DType<'a> {
    text: &'a str,
    size: usize,
}

/// Longest text of a type. Source: `<M8[1000000ns]` and a margin.
const MAX_TEXT: usize = 24;
/// Most characters of a fixed-width text element.
const MAX_WIDTH: usize = 1 << 20;

impl<'a> DType<'a> {
    /// Reads one.
    ///
    /// *Errors*: structured, object, or unknown.
    pub fn new(text: &'a str) -> Result<Self, ValueError> {
        let size = Self::size_of(text).ok_or(ValueError::BadArray)?;
        Ok(Self { text, size })
    }

    fn size_of(text: &str) -> Option<usize> {
        if text.len() > MAX_TEXT || !text.is_ascii() {
            return None;
        }
        let (order, rest) = text.split_at_checked(1)?;
        let (kind, rest) = rest.split_at_checked(1)?;
        let (digits, unit) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        let canonical = digits == "0" || !digits.starts_with('0');
        if digits.is_empty() || !canonical || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let count: usize = digits.parse().ok()?;
        let ordered = order == "<" || order == ">";
        match (kind, count) {
            _ if kind != "M" && kind != "m" && !unit.is_empty() => None,
            ("b", 1) if order == "|" => Some(1),
            ("i" | "u", 1) if order == "|" => Some(1),
            ("i" | "u", 2 | 4 | 8) if ordered => Some(count),
            ("f", 2 | 4 | 8) if ordered => Some(count),
            ("c", 8 | 16) if ordered => Some(count),
            ("S", _) if order == "|" && count <= MAX_WIDTH => Some(count),
            ("U", _) if ordered && count <= MAX_WIDTH => Some(count * 4),
            ("M" | "m", 8) if ordered && is_unit(unit) => Some(8),
            _ => None,
        }
    }

    /// As written.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
    /// Bytes of an element.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// `[ns]`, `[25s]`, or nothing.
fn is_unit(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
        return false;
    };
    let unit = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    const UNITS: [&str; 13] = [
        "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as",
    ];
    UNITS.contains(&unit) && !inner.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_types_are_known_and_objects_are_not() {
        let good = [
            ("<f8", 8),
            (">f4", 4),
            ("<f2", 2),
            ("|b1", 1),
            ("|u1", 1),
            ("<i8", 8),
            ("<c16", 16),
            ("|S0", 0),
            ("|S7", 7),
            ("<U3", 12),
            ("<M8[ns]", 8),
            ("<m8[25s]", 8),
            ("<M8", 8),
        ];
        for (text, size) in good {
            assert_eq!(DType::new(text).map(|d| d.size()), Ok(size), "{text}");
        }
        let bad = [
            "",
            "O",
            "|O",
            "|O8",
            "|V8",
            "<f16",
            "f8",
            "<f8[ns]",
            "<f08",
            "<f-8",
            "<b1",
            "|f8",
            "<M8[x]",
            "<M8[",
            "<M8[0s]",
            "<U99999999",
            "<i8,<f8",
            "é",
            "<é8",
            "<i3",
            "<U",
            "|S 7",
        ];
        for text in bad {
            assert_eq!(DType::new(text), Err(ValueError::BadArray), "{text}");
        }
    }
}
