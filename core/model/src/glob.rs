//! Region patterns: `eu-*`, `us-west`, `*`.

use serde::{Deserialize, Serialize};

/// Whether a text can name a region: small letters, digits and '-', 1 to 64.
pub fn is_region(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 64 && text.chars().all(fine)
}

/// A pattern over region names; `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

/// A pattern that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a region pattern; use letters, digits, '-', '_', '.' and '*', at most 64 characters"
)]
pub struct BadGlob {
    /// What was given.
    pub text: String,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// *Errors*: empty, longer than 64 characters, or other characters.
    pub fn new(text: impl Into<String>) -> Result<Self, BadGlob> {
        let text = text.into();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
            return Err(BadGlob {
                text: text.chars().take(80).collect(),
            });
        }
        Ok(Self(text))
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` matches, in time linear in both for each star.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                retry = Some((p, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((star, from)) = retry {
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

impl Glob {
    /// Whether some name matches both. Exact: where both have a star, what stands between the first and the last
    /// can always be put one after the other, so only beginnings and ends can disagree.
    pub fn meets(&self, other: &Self) -> bool {
        let (one, two) = (self.ends(), other.ends());
        let (Some((a, z)), Some((b, y))) = (one, two) else {
            return match one {
                None => other.matches(&self.0),
                Some(_) => self.matches(&other.0),
            };
        };
        (a.starts_with(b) || b.starts_with(a)) && (z.ends_with(y) || y.ends_with(z))
    }

    /// What stands before the first star and after the last; `None` without a star.
    fn ends(&self) -> Option<(&str, &str)> {
        Some((self.0.split_once('*')?.0, self.0.rsplit_once('*')?.1))
    }
}

impl TryFrom<String> for Glob {
    type Error = BadGlob;
    fn try_from(text: String) -> Result<Self, BadGlob> {
        Self::new(text)
    }
}
impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Glob;

    #[test]
    fn stars_match_any_run() {
        let yes = [
            ("eu-*", "eu-central"),
            ("*", "x"),
            ("us-west", "us-west"),
            ("*-c*l", "eu-central"),
        ];
        let no = [
            ("eu-*", "us-west"),
            ("us", "us-west"),
            ("us-west", "us"),
            ("a*b*c", "acb"),
        ];
        for (p, n) in yes {
            assert!(Glob::new(p).is_ok_and(|g| g.matches(n)), "{p} {n}");
        }
        for (p, n) in no {
            assert!(Glob::new(p).is_ok_and(|g| !g.matches(n)), "{p} {n}");
        }
        assert!(Glob::new("").is_err() && Glob::new("eu/*").is_err());
    }

    #[test]
    fn patterns_meet_where_one_name_matches_both() {
        for (one, other, meet) in [
            ("eu-*", "us-*", false),
            ("eu-*", "*", true),
            ("eu-*", "eu-central", true),
            ("eu-central", "eu-central", true),
            ("eu-central", "eu-west", false),
            ("*-west", "eu-*", true),
            ("*-west", "*-east", false),
            ("eu-*-1", "eu-c*", true),
            ("a*b*c", "ab*bc", true),
            ("eu-central", "eu-*-1", false),
        ] {
            let (a, b) = (Glob::new(one).unwrap(), Glob::new(other).unwrap());
            assert_eq!((a.meets(&b), b.meets(&a)), (meet, meet), "{one} {other}");
        }
    }
}
