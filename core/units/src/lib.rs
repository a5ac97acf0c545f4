//! Quantities with their unit in the type, and arithmetic that cannot wrap.
//!
//! Owns the newtypes every room measures in. Leaves meaning (what is priced, what expires) to them.

mod month;
mod ucu;

pub use month::Month;
pub use ucu::{MeasuredUcu, NominalUcu};

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// The most that can be held.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }
            /// Sum, or `None` where it does not fit.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }
            /// Difference, or `None` where it does not fit.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }
            /// Sum, held at the bounds.
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
            /// Difference, held at the bounds.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

quantity! {
    /// Milliseconds: a duration, or a moment of cluster time since the Unix epoch.
    Millis(u64)
}
quantity! {
    /// Microseconds.
    Micros(u64)
}
quantity! {
    /// A size in bytes.
    ByteCount(u64)
}
quantity! {
    /// Bytes a second.
    ByteRate(u64)
}
quantity! {
    /// Thousandths of one core.
    MilliCpu(u32)
}
quantity! {
    /// Millionths of a US dollar. Signed: refunds are negative.
    UsdMicros(i64)
}
quantity! {
    /// Trillionths of a US dollar: for terms of a cost that are far below a millionth. A call of a millisecond costs
    /// some 10,000 of them in money, and its carbon some 20; the most that can be held is $18 million.
    UsdPicos(u64)
}
quantity! {
    /// Quadrillionths of a US dollar: a byte at a millionth of a dollar a GB costs one, so that bytes × price lose nothing.
    /// The most that can be held is $18,446.
    UsdFemtos(u64)
}
quantity! {
    /// Parts per million.
    Ppm(u32)
}
quantity! {
    /// Thousandths of one accelerator.
    MilliGpu(u32)
}
quantity! {
    /// Thousandths of a unified compute unit.
    MilliUcu(u64)
}
quantity! {
    /// Carbon dioxide equivalent, millionths of a gram.
    MicroGramsCo2(u64)
}
quantity! {
    /// Carbon dioxide equivalent, billionths of a gram: what a call of a millisecond emits is some hundreds of them.
    NanoGramsCo2(u64)
}
quantity! {
    /// Thousandths of a watt.
    MilliWatts(u64)
}
quantity! {
    /// Carbon intensity of electricity: thousandths of a gram of CO2 equivalent for a kilowatt-hour.
    MilliGramsKwh(u32)
}

impl ByteCount {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n * 1024)
    }
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n * 1024 * 1024 * 1024)
    }
}

impl std::fmt::Display for ByteCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(&str, u64); 4] = [
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        for (name, size) in UNITS {
            if self.0 >= size {
                let tenths = self.0 / (size / 10).max(1);
                return match tenths % 10 {
                    0 => write!(f, "{} {name}", tenths / 10),
                    rest => write!(f, "{}.{rest} {name}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl ByteRate {
    /// So many bytes in so long, held at the bounds; `None` where no time passed.
    pub const fn of(bytes: ByteCount, time: Micros) -> Option<Self> {
        if time.0 == 0 {
            return None;
        }
        let rate = bytes.0 as u128 * 1_000_000 / time.0 as u128;
        Some(Self(if rate > u64::MAX as u128 {
            u64::MAX
        } else {
            rate as u64
        }))
    }
}

impl std::fmt::Display for ByteRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/s", ByteCount(self.0))
    }
}

impl std::fmt::Display for UsdMicros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        write!(f, "{sign}${}.{:06}", abs / 1_000_000, abs % 1_000_000)
    }
}

impl UsdFemtos {
    /// What so many bytes cost, held at the bound; nothing where the price is negative.
    pub fn of(bytes: ByteCount, gigabyte: UsdMicros) -> Self {
        let price = u128::try_from(gigabyte.0).unwrap_or(0);
        let exact = u128::from(bytes.0).saturating_mul(price);
        Self(u64::try_from(exact).unwrap_or(u64::MAX))
    }

    /// The same, less what is below a trillionth of a dollar.
    pub fn picos(self) -> UsdPicos {
        UsdPicos(self.0 / 1000)
    }
}

impl UsdPicos {
    /// The same sum; nothing where it is negative.
    pub fn of(micros: UsdMicros) -> Self {
        Self(
            u64::try_from(micros.0)
                .unwrap_or(0)
                .saturating_mul(1_000_000),
        )
    }
}

impl std::fmt::Display for UsdPicos {
    /// Six digits at least, and as many more as the first three that count need: `$0.000139`, `$0.0000000203`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DOLLAR: u64 = 1_000_000_000_000;
        let (whole, part) = (self.0 / DOLLAR, self.0 % DOLLAR);
        let digits = match part {
            0 => 6,
            _ if whole > 0 => 6,
            some => (11 - some.ilog10() + 3).clamp(6, 12),
        };
        let scale = 10u64.pow(12 - digits);
        let rounded = u128::from(self.0 / scale)
            + u128::from(self.0 % scale >= scale.div_ceil(2) && scale > 1);
        let unit = 10u128.pow(digits);
        let width = digits as usize;
        f.pad(&format!("${}.{:0width$}", rounded / unit, rounded % unit))
    }
}

impl std::fmt::Display for NanoGramsCo2 {
    /// With the unit that gives the fewest zeros: `1.250 kg`, `3.200 g`, `4.100 mg`, `0.323 µg`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(&str, u64); 4] = [
            ("kg", 1_000_000_000_000),
            ("g", 1_000_000_000),
            ("mg", 1_000_000),
            ("µg", 1_000),
        ];
        let (name, size) = UNITS
            .into_iter()
            .find(|(_, size)| self.0 >= *size)
            .unwrap_or(("µg", 1_000));
        write!(
            f,
            "{}.{:03} {name}",
            self.0 / size,
            self.0 % size / (size / 1000)
        )
    }
}

/// A size that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write bytes as a number, or like 512MiB, 16GiB, 2GB")]
pub struct BadSize {
    /// What was written.
    pub text: String,
}

impl std::str::FromStr for ByteCount {
    type Err = BadSize;

    /// Reads `1048576`, `512MiB`, `1.5 GiB`, `2GB` (powers of ten) or `4K` (powers of two).
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize {
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "ki" | "kib" => 1 << 10,
            "m" | "mi" | "mib" => 1 << 20,
            "g" | "gi" | "gib" => 1 << 30,
            "t" | "ti" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 6 {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let mut bytes = whole.checked_mul(scale).ok_or_else(bad)?;
        if !fraction.is_empty() {
            let digits: u64 = fraction.parse().map_err(|_| bad())?;
            let part = u128::from(digits) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
            bytes = bytes
                .checked_add(u64::try_from(part).map_err(|_| bad())?)
                .ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("16GiB", 16 << 30),
            ("1.5 GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("4k", 4096),
        ] {
            assert_eq!(text.parse::<ByteCount>(), Ok(ByteCount(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.2.3GiB", "5 apples", "99999999999999TiB"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
        assert_eq!(ByteCount::gib(16).to_string(), "16 GiB");
        assert_eq!(ByteCount(1536).to_string(), "1.5 KiB");
        let rate = ByteRate::of(ByteCount::mib(3), Micros(2_000_000));
        assert_eq!(rate.map(|r| r.to_string()).as_deref(), Some("1.5 MiB/s"));
        assert_eq!(ByteRate::of(ByteCount::MAX, Micros(1)), Some(ByteRate::MAX));
        assert_eq!(ByteRate::of(ByteCount(1), Micros::ZERO), None);
    }

    #[test]
    fn money_prints_with_its_sign() {
        assert_eq!(UsdMicros(-1_500_000).to_string(), "-$1.500000");
        assert_eq!(UsdMicros(12).to_string(), "$0.000012");
    }

    #[test]
    fn small_sums_keep_three_digits_that_count() {
        for (picos, text) in [
            (0, "$0.000000"),
            (138_888_888, "$0.000139"),
            (10_000, "$0.0000000100"),
            (16, "$0.000000000016"),
            (1_500_000_000_000, "$1.500000"),
            (u64::MAX, "$18446744.073710"),
        ] {
            assert_eq!(UsdPicos(picos).to_string(), text);
        }
        for (nanograms, text) in [
            (0, "0.000 µg"),
            (323, "0.323 µg"),
            (4_100_000, "4.100 mg"),
            (3_200_000_000, "3.200 g"),
        ] {
            assert_eq!(NanoGramsCo2(nanograms).to_string(), text);
        }
    }
}
