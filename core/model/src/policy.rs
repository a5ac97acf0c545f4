//! What time, carbon and risk are worth: the only thing that policies differ in.
//!
//! Owns the policies by name and their prices. Leaves what a place costs under them to `farlane-plan`.

use farlane_units::{Ppm, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::word::nearest;

/// Most that an hour of waiting or a tonne of carbon is worth. Source: choice; ten thousand times an engineer's
/// hour, and far from where sums lose a millionth.
pub const MAX_WORTH: UsdMicros = UsdMicros(1_000_000_000_000);
/// Most that risk counts. Source: choice; a thousandfold.
const MAX_RISK: Ppm = Ppm(1_000_000_000);

/// What an hour of waiting, a tonne of carbon and a lost attempt are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyPrices {
    /// An hour of waiting.
    pub hour: UsdMicros,
    /// A tonne of CO2e.
    pub tonne: UsdMicros,
    /// Of a lost attempt's cost, how much its chance counts; a million is all of it.
    pub risk: Ppm,
}

/// Prices that no policy may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {bound}")]
pub struct BadPrices {
    /// Which.
    pub field: &'static str,
    /// What it must be.
    pub bound: &'static str,
}

impl PolicyPrices {
    /// Holds them against their bounds.
    ///
    /// *Errors*: the first that is negative or absurd.
    pub fn check(&self) -> Result<(), BadPrices> {
        let worth = UsdMicros::ZERO..=MAX_WORTH;
        let bound = "between $0 and $1,000,000";
        for (value, field) in [
            (self.hour, "the worth of an hour"),
            (self.tonne, "the worth of a tonne"),
        ] {
            if !worth.contains(&value) {
                return Err(BadPrices { field, bound });
            }
        }
        match self.risk <= MAX_RISK {
            true => Ok(()),
            false => Err(BadPrices {
                field: "the weight of risk",
                bound: "between 0 and 1000",
            }),
        }
    }

    /// For people: the policy's name, or what the project's own are.
    pub fn words(&self) -> String {
        let Some(name) = self.name() else {
            let (hour, tonne) = (self.hour, self.tonne);
            return format!(
                "{hour} an hour, {tonne} a tonne, {}.{:02} × risk",
                self.risk.0 / 1_000_000,
                self.risk.0 % 1_000_000 / 10_000
            );
        };
        name.name().to_owned()
    }

    /// The policy that has these; `None` where they are a project's own.
    pub fn name(&self) -> Option<PolicyName> {
        PolicyName::ALL.into_iter().find(|p| p.prices() == *self)
    }
}

/// A policy by its name.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum PolicyName {
    /// Money and time, and some carbon.
    #[default]
    Balanced,
    /// As soon as can be, at nearly any price.
    Fast,
    /// As little money as can be.
    Cheap,
    /// As little carbon as can be.
    Green,
}

/// A name that no policy has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownPolicy {
    /// What was written.
    pub name: String,
    /// The policy it is likely to mean.
    pub nearest: Option<PolicyName>,
}

impl std::fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = PolicyName::ALL.map(PolicyName::name).join(", ");
        write!(f, "no policy is called {:?}", self.name)?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean {:?}?", nearest.name()),
            None => write!(f, "; there are {names}"),
        }
    }
}

impl PolicyName {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Balanced, Self::Fast, Self::Cheap, Self::Green];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Fast => "fast",
            Self::Cheap => "cheap",
            Self::Green => "green",
        }
    }

    /// What they are worth to it. Source: choice.
    ///
    /// `balanced`: half a dollar is ten core-hours at a common spot price of $0.05, and $50 a tonne is near what
    /// emission trading asks. `fast`: an engineer's hour. `cheap`: a queue of a night is worth a few cents.
    /// `green`: a core emits a few grams an hour and costs a few cents, so that from some $20,000 a tonne on carbon
    /// decides, and money where it is alike.
    pub const fn prices(self) -> PolicyPrices {
        let (hour, tonne) = match self {
            Self::Balanced => (500_000, 50),
            Self::Fast => (50_000_000, 0),
            Self::Cheap => (5_000, 0),
            Self::Green => (50_000, 100_000),
        };
        PolicyPrices {
            hour: UsdMicros(hour),
            tonne: UsdMicros(tonne * 1_000_000),
            risk: Ppm(1_000_000),
        }
    }
}

impl std::str::FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let of = |name: &str| Self::ALL.into_iter().find(|p| p.name() == name);
        of(name).ok_or_else(|| {
            let near = nearest(&name.to_lowercase(), Self::ALL.map(Self::name));
            UnknownPolicy {
                name: name.chars().take(64).collect(),
                nearest: near.and_then(of),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn policies_are_told_by_name_and_by_prices() {
        for policy in PolicyName::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
            assert_eq!(policy.prices().name(), Some(policy));
            policy.prices().check().unwrap();
        }
        let own = PolicyPrices {
            hour: UsdMicros(1),
            ..PolicyName::Fast.prices()
        };
        assert_eq!(own.name(), None);
    }

    #[test]
    fn a_mistyped_name_names_the_nearest() {
        let error = "Balancd".parse::<PolicyName>().unwrap_err();
        assert!(error.to_string().contains("did you mean \"balanced\"?"));
        let error = "soonest".parse::<PolicyName>().unwrap_err().to_string();
        assert!(
            error.ends_with("there are balanced, fast, cheap, green"),
            "{error}"
        );
    }

    #[test]
    fn absurd_prices_are_refused_by_name() {
        let good = PolicyName::Balanced.prices();
        let hour = PolicyPrices {
            hour: UsdMicros(-1),
            ..good
        };
        assert!(hour.check().unwrap_err().to_string().contains("an hour"));
        let tonne = PolicyPrices {
            tonne: UsdMicros(i64::MAX),
            ..good
        };
        assert!(tonne.check().unwrap_err().to_string().contains("a tonne"));
        let risk = PolicyPrices {
            risk: Ppm::MAX,
            ..good
        };
        assert!(risk.check().unwrap_err().to_string().contains("risk"));
    }
}
