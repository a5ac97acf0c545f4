//! Decimal text to integers, exactly: what is written is never a binary fraction on its way.

/// Text that is no decimal number, or not one that fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDecimal {
    /// `nan`, `inf`, a word, nothing.
    #[error("{text:?} is not a number; write one like 0.04")]
    NotANumber {
        /// What was written, cut.
        text: String,
    },
    /// Below zero.
    #[error("{text} is negative")]
    Negative {
        /// What was written, cut.
        text: String,
    },
    /// Finer than what is kept.
    #[error("{text} has more than {places} decimals")]
    TooFine {
        /// What was written, cut.
        text: String,
        /// How many are kept.
        places: u32,
    },
    /// Larger than can be held.
    #[error("{text} is too large")]
    TooLarge {
        /// What was written, cut.
        text: String,
    },
}

/// Longest number that is read. Source: 19 digits fill 64 bits; twice that, so that zeros may stand around.
const MAX_DIGITS: usize = 40;

/// `text` × 10^`places`, exactly: `0.04` with six places is 40,000.
///
/// *Shape*: digits, at most one point, digits on its left; underscores between digits as TOML has them; zeros
/// at the end of the decimals count for nothing.
/// *Errors*: see [`BadDecimal`].
pub fn decimal(text: &str, places: u32) -> Result<u64, BadDecimal> {
    let said = || text.chars().take(MAX_DIGITS).collect::<String>();
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let plain: String = body.chars().filter(|c| *c != '_').collect();
    let (whole, decimals) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return Err(BadDecimal::NotANumber { text: said() });
    }
    let decimals = decimals.trim_end_matches('0');
    let kept = usize::try_from(places).unwrap_or(usize::MAX);
    if decimals.len() > kept {
        let text = said();
        return Err(BadDecimal::TooFine { text, places });
    }
    let large = |_| BadDecimal::TooLarge { text: said() };
    let scaled = format!("{whole}{decimals:0<kept$}")
        .parse()
        .map_err(large)?;
    match negative && scaled != 0 {
        true => Err(BadDecimal::Negative { text: said() }),
        false => Ok(scaled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let fine: [(&str, u64); 8] = [
            ("0.04", 40_000),
            ("0.1", 100_000),
            ("3", 3_000_000),
            ("0.0000010", 1),
            ("1_000.5", 1_000_500_000),
            ("-0.0", 0),
            ("+2.50", 2_500_000),
            ("18446744073709.551615", u64::MAX),
        ];
        for (text, micros) in fine {
            assert_eq!(decimal(text, 6), Ok(micros), "{text}");
        }
        assert_eq!(decimal("312.5", 3), Ok(312_500));
        assert_eq!(decimal("7", 0), Ok(7));
    }

    #[test]
    fn what_is_no_number_says_so() {
        for text in ["", "nan", "inf", ".5", "1e3", "1.2.3", "0x10", "$1", "--1"] {
            let read = decimal(text, 6);
            assert!(
                matches!(read, Err(BadDecimal::NotANumber { .. })),
                "{text}: {read:?}"
            );
        }
        for text in ["-1", "-0.000001"] {
            assert!(matches!(decimal(text, 6), Err(BadDecimal::Negative { .. })));
        }
        let fine = decimal("0.0000001", 6);
        assert!(matches!(fine, Err(BadDecimal::TooFine { places: 6, .. })));
        let large = decimal("18446744073709.551616", 6);
        assert!(matches!(large, Err(BadDecimal::TooLarge { .. })));
    }
}
