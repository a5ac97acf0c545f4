//! Values of flags, checked where they are read.

use std::time::Duration;

use farlane_model::{Amount, MAX_AMOUNT};
use farlane_units::UsdMicros;

/// Longest time that a flag takes: ten years, the life of a network's root.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Dearest core-hour that a flag takes: a thousand dollars is a slip of the finger.
const MAX_PRICE: i64 = 1_000_000_000;

/// `90s`, `15m`, `24h`, `30d`, `52w`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("write a number and s, m, h, d or w, like 24h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a number first, like 24h".to_owned())?;
    let whole = Duration::from_secs(number.saturating_mul(seconds));
    match whole.is_zero() || whole > MAX_DURATION {
        true => Err("it must be more than nothing and at most ten years".to_owned()),
        false => Ok(whole),
    }
}

/// Dollars for one core for an hour: `0.04`.
pub fn price(text: &str) -> Result<UsdMicros, String> {
    let bad = || "write dollars for a core-hour, like 0.04, with at most six decimals".to_owned();
    let text = text.trim_start_matches('$');
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 6 || !digits(whole) || !digits(decimals) {
        return Err(bad());
    }
    let whole: i64 = whole.parse().map_err(|_| bad())?;
    let part: i64 = format!("{decimals:0<6}").parse().map_err(|_| bad())?;
    let micros = whole
        .checked_mul(1_000_000)
        .and_then(|w| w.checked_add(part))
        .ok_or_else(bad)?;
    match micros > MAX_PRICE {
        true => Err("that is more than $1000 for a core-hour".to_owned()),
        false => Ok(UsdMicros(micros)),
    }
}

/// A server's address: `https://farlane.example:7443`.
pub fn url(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    let host = text.strip_prefix("https://").unwrap_or_default();
    match !host.is_empty() && !host.starts_with(['/', ':']) && host.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("write https://HOST:PORT, like https://farlane.example:7443".to_owned()),
    }
}

/// `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && key.len() <= 64 && value.len() <= 256 => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write key=value, like gpu=none".to_owned()),
    }
}

/// So much of a named resource: `license=2`.
pub fn resource(text: &str) -> Result<Amount, String> {
    let bad = |_: ()| {
        format!(
            "write NAME=N, like license=2: a name of letters, digits, '-', '_' and '.', at most 64, and a whole number \
             from 1 to {MAX_AMOUNT}"
        )
    };
    let (name, amount) = text.split_once('=').ok_or(()).map_err(bad)?;
    let amount = amount.parse().map_err(|_| bad(()))?;
    Amount::new(name, amount).map_err(|_| bad(()))
}

/// A region's name: what globs like `eu-*` are matched against.
pub fn region(text: &str) -> Result<String, String> {
    match farlane_model::is_region(text) {
        true => Ok(text.to_owned()),
        false => Err("use small letters, digits and '-', at most 64, like eu-central".to_owned()),
    }
}

/// A profile's or provider's name, safe as a file's.
pub fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("use letters, digits, '-', '_' and '.', at most 64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in [
            "",
            "h",
            "24",
            "0d",
            "-1h",
            "1.5h",
            "99999999999999999999w",
            "5000d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prices_are_exact_to_the_millionth() {
        assert_eq!(price("0.04"), Ok(UsdMicros(40_000)));
        assert_eq!(price("$2"), Ok(UsdMicros(2_000_000)));
        assert_eq!(price("0.000001"), Ok(UsdMicros(1)));
        for bad in ["", ".5", "-1", "0.0000001", "1e3", "1001", "0.+5"] {
            assert!(price(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for fine in [
            "https://a.example:7443",
            "https://[::1]:7443/",
            "https://127.0.0.1",
        ] {
            assert_eq!(url(fine).as_deref(), Ok(fine));
        }
        for bad in [
            "zzz",
            "",
            "http://a:1",
            "https://",
            "https://:1",
            "https://a b",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_regions_and_names_are_plain() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(
            resource("license=2"),
            Ok(Amount::new("license", 2).unwrap())
        );
        for bad in [
            "license",
            "license=",
            "license=0",
            "license=-1",
            "a b=1",
            "=1",
            "x=1000001",
            "x=1.5",
        ] {
            assert!(resource(bad).is_err(), "{bad}");
        }
        assert!(label("a").is_err() && label("=b").is_err());
        assert!(region("eu-central").is_ok() && region("EU").is_err() && region("eu-*").is_err());
        assert!(name("lab.1").is_ok() && name("../x").is_err() && name(".x").is_err());
    }
}
