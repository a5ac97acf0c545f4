//! Terms of the expected cost of a place, by name.
//!
//! Owns which terms there are, and their words. Leaves what they come to, and the detail of each, to `farlane-plan`.

use serde::{Deserialize, Serialize};

macro_rules! terms {
    ($($(#[$doc:meta])* $number:literal $kind:ident $name:literal $of:literal),* $(,)?) => {
        /// What a part of an expected cost is for. Every one is in money.
        ///
        /// *Shape*: the number is part of what is kept of a placement; append only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum TermKind {
            $($(#[$doc])* $kind = $number),*
        }

        impl TermKind {
            /// Every term, in the order in which they are added and shown.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$kind),*];

            /// As people read it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),*
                }
            }

            /// What it is made of, in words, with units.
            pub const fn of(self) -> &'static str {
                match self {
                    $(Self::$kind => $of),*
                }
            }
        }
    };
}

terms! {
    /// What the provider is paid.
    0 Price "price" "run time × cores × price of a core-hour",
    /// The time that it runs.
    1 Run "run" "run time × value of an hour",
    /// The time that it waits on the node.
    2 Queue "queue" "run time × those ahead of it ÷ places × value of an hour",
    /// The way there and back.
    3 RoundTrip "round trip" "round trip × value of an hour",
    /// Bytes that the node does not hold yet, on their way.
    4 Transfer "transfer" "bytes the node lacks ÷ bandwidth × value of an hour",
    /// What those bytes cost.
    5 Egress "egress" "GB between regions × price of a GB",
    /// What is to be made ready first.
    6 Start "start" "time to make the environment ready × value of an hour",
    /// What is emitted.
    7 Carbon "carbon" "g CO2e × price of a tonne",
    /// Doing it again.
    8 Risk "risk" "chance of losing the attempt × cost of doing it again",
    /// What a hot machine is slower by.
    9 Thermal "thermal" "slow-down expected of its heat × (price + run)",
    /// Being where too many of its kind are.
    10 Spread "spread" "tasks of its kind there × what one is worth",
    /// Being away from whom it wants to be with, or beside whom it does not.
    11 Affinity "affinity" "wishes not met × what one is worth",
    /// The slowest way between two of its gang, for which all of them wait.
    12 Link "link" "slowest round trip between members of its gang × value of an hour",
}

impl TermKind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// From its number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_know_their_numbers() {
        for (at, kind) in TermKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
            assert_eq!(TermKind::from_u8(at as u8), Some(*kind));
        }
        assert_eq!(TermKind::from_u8(TermKind::COUNT as u8), None);
    }
}
