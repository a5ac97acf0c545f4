//! Dotted versions and ranges of them: `535.104`, `>=1.2,<2`.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Most bounds of one range. Source: choice; a range has a lower and an upper end, and a few versions to
/// leave out.
const MAX_BOUNDS: usize = 8;
/// Most numbers of one version. Source: four are usual (`10.0.22631.1`), drivers have three.
const MAX_PARTS: usize = 6;

/// How a version is held against a bound's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Comparison {
    Least,
    Above,
    Most,
    Below,
    Equal,
    Unequal,
}

/// Longest first, so that `>=` is not read as `>`.
const SIGNS: [(&str, Comparison); 6] = [
    (">=", Comparison::Least),
    ("<=", Comparison::Most),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// One bound; its version has no zeros at the end, so that `2` and `2.0` are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Bound {
    comparison: Comparison,
    version: Vec<u32>,
}

impl Bound {
    fn allows(&self, found: Ordering) -> bool {
        match self.comparison {
            Comparison::Least => found != Ordering::Less,
            Comparison::Above => found == Ordering::Greater,
            Comparison::Most => found != Ordering::Greater,
            Comparison::Below => found == Ordering::Less,
            Comparison::Equal => found == Ordering::Equal,
            Comparison::Unequal => found != Ordering::Equal,
        }
    }
}

/// Bounds that a version must keep, every one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange {
    text: String,
    bounds: Vec<Bound>,
}

/// A range that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a range of versions; write bounds of dotted numbers with commas between, like \
     \">=1.2,<2\": >=, >, <=, <, == or !=, at most 8"
)]
pub struct BadRange {
    /// What was given.
    pub text: String,
}

impl VersionRange {
    /// Reads a range; spaces are passed over.
    ///
    /// *Errors*: a bound without a sign, what is no dotted version, or more than 8 bounds.
    pub fn new(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange {
            text: text.chars().take(80).collect(),
        };
        let mut bounds = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let (sign, comparison) = SIGNS
                .iter()
                .find(|(sign, _)| part.starts_with(sign))
                .ok_or_else(bad)?;
            let mut version: Vec<u32> = numbers(part[sign.len()..].trim())
                .collect::<Option<_>>()
                .ok_or_else(bad)?;
            if version.len() > MAX_PARTS || bounds.len() == MAX_BOUNDS {
                return Err(bad());
            }
            while version.last() == Some(&0) {
                version.pop();
            }
            bounds.push(Bound {
                comparison: *comparison,
                version,
            });
        }
        let text = bounds.iter().map(written).collect::<Vec<_>>().join(",");
        Ok(Self { text, bounds })
    }

    /// Whether a text begins like a range rather than a name.
    pub fn looks_like(text: &str) -> bool {
        let text = text.trim_start();
        SIGNS.iter().any(|(sign, _)| text.starts_with(sign))
    }

    /// The range, written without spaces.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `version` keeps every bound. What is no dotted version keeps none.
    pub fn holds(&self, version: &str) -> bool {
        self.bounds
            .iter()
            .all(|bound| compare(version, &bound.version).is_some_and(|found| bound.allows(found)))
    }

    /// Whether no version at all can keep both ranges.
    pub fn excludes(&self, other: &Self) -> bool {
        let all = || self.bounds.iter().chain(&other.bounds);
        // Versions are dense (1.2 < 1.2.0.1 < 1.3), so only ends that touch or cross exclude; and one version
        // alone, where it is left out.
        let mut low: Option<(&[u32], bool)> = None;
        let mut high: Option<(&[u32], bool)> = None;
        for bound in all() {
            let version = &bound.version[..];
            let open = matches!(bound.comparison, Comparison::Above | Comparison::Below);
            if matches!(
                bound.comparison,
                Comparison::Least | Comparison::Above | Comparison::Equal
            ) {
                low = low.max(Some((version, open)));
            }
            if matches!(
                bound.comparison,
                Comparison::Most | Comparison::Below | Comparison::Equal
            ) && high.is_none_or(|(than, shut)| (version, !open) < (than, !shut))
            {
                high = Some((version, open));
            }
        }
        let (Some((low, above)), Some((high, below))) = (low, high) else {
            // Nothing lies below version 0.
            return high.is_some_and(|(version, open)| version.is_empty() && open);
        };
        low > high
            || low == high
                && (above
                    || below
                    || all().any(|b| b.comparison == Comparison::Unequal && b.version == low))
    }
}

fn written(bound: &Bound) -> String {
    let sign = SIGNS
        .iter()
        .find(|(_, comparison)| *comparison == bound.comparison)
        .map_or("", |(sign, _)| sign);
    let parts: Vec<String> = bound.version.iter().map(ToString::to_string).collect();
    match parts.is_empty() {
        true => format!("{sign}0"),
        false => format!("{sign}{}", parts.join(".")),
    }
}

/// The numbers of a dotted version; `None` for a part that is none.
fn numbers(text: &str) -> impl Iterator<Item = Option<u32>> {
    text.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    })
}

/// Compares a version with a bound's without allocation; `None` where it is no dotted version. Numbers that
/// are missing count as zeros.
fn compare(version: &str, bound: &[u32]) -> Option<Ordering> {
    let mut order = Ordering::Equal;
    let mut rest = bound.iter();
    for number in numbers(version) {
        let number = number?;
        order = order.then(number.cmp(rest.next().unwrap_or(&0)));
    }
    let left = rest.any(|number| *number > 0);
    Some(order.then(if left {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

impl TryFrom<String> for VersionRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        Self::new(&text)
    }
}
impl From<VersionRange> for String {
    fn from(range: VersionRange) -> String {
        range.text
    }
}
impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::VersionRange;

    #[test]
    fn versions_are_numbers_between_dots() {
        for (range, version, held) in [
            (">=535", "535.104.05", true),
            (">=535", "535", true),
            (">=535", "99", false),
            (">=1.2,<2", "1.10", true),
            (">=1.2, < 2", "2.0", false),
            (">=1.2,<2", "1.1.9", false),
            ("==2", "2.0.0", true),
            ("!=1.5", "1.5.0", false),
            (">1.5", "1.5.0.1", true),
            ("<=1.5", "1.5.1", false),
            (">=0", "0", true),
            (">=1", "1.2-rc1", false),
            (">=1", "", false),
            (">=1", "99999999999", false),
        ] {
            let read = VersionRange::new(range).unwrap();
            assert_eq!(read.holds(version), held, "{version} {range}");
            assert_eq!(VersionRange::new(read.as_str()).unwrap(), read);
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let many = [">=1"; 9].join(",");
        for bad in [
            "",
            "1.2",
            ">=",
            ">=a",
            ">=1..2",
            ">=1,",
            "=>1",
            "~1",
            ">=1.2.3.4.5.6.7",
            &many,
        ] {
            assert!(VersionRange::new(bad).is_err(), "{bad}");
        }
        assert!(VersionRange::looks_like(" >=x") && !VersionRange::looks_like("nvme"));
    }

    #[test]
    fn ranges_that_cannot_meet_are_known() {
        for (one, other, never) in [
            (">=2", "<2", true),
            (">=2", "<=2", false),
            (">2", "<=2", true),
            (">=2", "<1.9", true),
            ("==1.2", "!=1.2", true),
            ("==1.2", "==1.2.0", false),
            (">=1", ">=3", false),
            (">=1,<2", ">=1.5,<1.6", false),
            ("<0", ">=0", true),
            (">=1,<=1", "!=1", true),
            (">=1", "!=1", false),
        ] {
            let (a, b) = (
                VersionRange::new(one).unwrap(),
                VersionRange::new(other).unwrap(),
            );
            assert_eq!(
                (a.excludes(&b), b.excludes(&a)),
                (never, never),
                "{one} {other}"
            );
        }
        let impossible = VersionRange::new(">=3,<1").unwrap();
        assert!(impossible.excludes(&impossible));
        assert!(
            VersionRange::new("<0")
                .unwrap()
                .excludes(&VersionRange::new("<1").unwrap())
        );
    }
}
