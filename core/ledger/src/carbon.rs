//! Grams: what power a device draws, and what a kilowatt-hour of its region emits.
//!
//! Unknown is `None` everywhere, and never zero: nothing that is not known looks clean.

use std::collections::BTreeMap;

use farlane_model::Glob;
use farlane_units::{MicroGramsCo2, MilliGramsKwh, MilliWatts, Millis, Ppm};

use crate::derive::PUE;

/// Most that is taken for an intensity. Source: burnt lignite gives about 1.2 kg/kWh; four times that is a slip.
pub const MAX_INTENSITY: MilliGramsKwh = MilliGramsKwh(5_000_000);
/// Most readings of a table. Source: a thousand regions for two days by the hour, rounded up.
pub const MAX_READINGS: usize = 65_536;
/// Where a region's feed has a hole, an earlier hour stands in for this long. Source: a grid's day repeats
/// itself better than its week.
pub const STANDS_IN: Millis = Millis(24 * HOUR_MS);

const HOUR_MS: u64 = 3_600_000;
/// Thousandths of a watt × ms × 10^-6 PUE × thousandths of a gram, for a millionth of a gram: 3.6 × 10^12 of the
/// first two are a kilowatt-hour, and 10^6 × 10^3 ÷ 10^6 the rest.
const PER_MICROGRAM: u128 = 3_600_000_000_000 * 1_000;

/// Yearly means by region, where no feed says more: pattern, thousandths of a gram. Source: Ember, Global Electricity
/// Review 2025, figures of 2024: EU 213, USA 384, China 560, India 708 g CO2e/kWh.
const DEFAULTS: [(&str, MilliGramsKwh); 4] = [
    ("eu-*", MilliGramsKwh(213_000)),
    ("us-*", MilliGramsKwh(384_000)),
    ("cn-*", MilliGramsKwh(560_000)),
    ("in-*", MilliGramsKwh(708_000)),
];

/// Where an intensity is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The feed, for this hour, or for every hour.
    Feed,
    /// The feed, for an earlier hour: of when.
    Earlier(Millis),
    /// A yearly mean, by this pattern.
    Default(&'static str),
}

/// What a kilowatt-hour emits, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// How much.
    pub of: MilliGramsKwh,
    /// From where.
    pub origin: Origin,
}

/// Intensities by region and hour.
///
/// *Shape*: an hour is named by its begin; `None` is every hour that has no reading of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarbonTable {
    readings: BTreeMap<String, BTreeMap<Option<Millis>, MilliGramsKwh>>,
    count: usize,
}

/// Why a reading is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReading {
    /// Not a region's name.
    #[error("{region:?} is not a region's name")]
    Region {
        /// What was given, cut.
        region: String,
    },
    /// Over [`MAX_INTENSITY`].
    #[error("{} g/kWh is absurd: the most that is taken is {}", .of.0 / 1000, MAX_INTENSITY.0 / 1000)]
    Absurd {
        /// What was given.
        of: MilliGramsKwh,
    },
    /// Over [`MAX_READINGS`].
    #[error("more than {MAX_READINGS} readings")]
    TooMany,
}

impl CarbonTable {
    /// Notes what a kilowatt-hour emits in a region, in the hour of `at` or in any; a later word on the same
    /// hour wins.
    ///
    /// *Errors*: see [`BadReading`].
    pub fn note(
        &mut self,
        region: &str,
        at: Option<Millis>,
        of: MilliGramsKwh,
    ) -> Result<(), BadReading> {
        if region.contains('*') || Glob::new(region).is_err() {
            let region = region.chars().take(64).collect();
            return Err(BadReading::Region { region });
        }
        if of > MAX_INTENSITY {
            return Err(BadReading::Absurd { of });
        }
        let hour = at.map(begin);
        let hours = self.readings.entry(region.to_owned()).or_default();
        if hours.insert(hour, of).is_none() {
            self.count += 1;
        }
        match self.count > MAX_READINGS {
            true => Err(BadReading::TooMany),
            false => Ok(()),
        }
    }

    /// Takes over what an older table says of hours from `since` on that this one does not speak of: a feed may
    /// give the present hour alone.
    pub fn fill_from(&mut self, older: &CarbonTable, since: Millis) {
        for (region, hour, of) in older.readings().filter(|(_, hour, _)| *hour >= Some(since)) {
            let hours = self.readings.get(region);
            let known = hours.is_some_and(|hours| hours.contains_key(&hour));
            if !known && self.count < MAX_READINGS {
                self.readings
                    .entry(region.to_owned())
                    .or_default()
                    .insert(hour, of);
                self.count += 1;
            }
        }
    }

    /// How many readings there are.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Every reading, by region and hour.
    pub fn readings(&self) -> impl Iterator<Item = (&str, Option<Millis>, MilliGramsKwh)> {
        self.readings.iter().flat_map(|(region, hours)| {
            hours
                .iter()
                .map(move |(hour, of)| (region.as_str(), *hour, *of))
        })
    }

    /// What a kilowatt-hour emits there then: the reading of that hour; else of the newest of the day before it;
    /// else of any hour; else the yearly mean; else `None`, unknown.
    pub fn at(&self, region: &str, at: Millis) -> Option<Intensity> {
        self.read(region, at).or_else(|| {
            let matches = |pattern: &str| Glob::new(pattern).is_ok_and(|g| g.matches(region));
            let (pattern, of) = DEFAULTS.into_iter().find(|(p, _)| matches(p))?;
            let origin = Origin::Default(pattern);
            Some(Intensity { of, origin })
        })
    }

    fn read(&self, region: &str, at: Millis) -> Option<Intensity> {
        let hours = self.readings.get(region)?;
        let (now, oldest) = (begin(at), begin(at.saturating_sub(STANDS_IN)));
        let found = hours.range(Some(oldest)..=Some(now)).next_back();
        let (of, origin) = match found {
            Some((Some(hour), of)) if *hour == now => (*of, Origin::Feed),
            Some((Some(hour), of)) => (*of, Origin::Earlier(*hour)),
            _ => (*hours.get(&None)?, Origin::Feed),
        };
        Some(Intensity { of, origin })
    }
}

/// When the hour of `at` began.
fn begin(at: Millis) -> Millis {
    Millis(at.0 - at.0 % HOUR_MS)
}

/// What a device draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerModel {
    /// With nothing to do.
    pub idle: MilliWatts,
    /// At full load: its TDP.
    pub full: MilliWatts,
    /// What its site takes for each watt of it.
    pub pue: Ppm,
}

/// Devices: pattern of the model, idle and full watts, thousandths. Source: the makers' data sheets for full
/// power (NVIDIA H100 SXM, A100 SXM, V100 SXM2, L40S, L4, T4); idle is chosen: a tenth of
/// it.
const DEVICES: [(&str, u64, u64); 6] = [
    ("H100*", 70_000, 700_000),
    ("A100*", 40_000, 400_000),
    ("V100*", 30_000, 300_000),
    ("L40S*", 35_000, 350_000),
    ("L4*", 7_200, 72_000),
    ("T4*", 7_000, 70_000),
];
/// One core of a server. Source: Cloud Carbon Footprint, methodology, mean of AWS's processors: 0.74 W idle and
/// 3.5 W full a virtual core.
const CORE: (u64, u64) = (740, 3_500);
/// The class of a machine's cores.
pub const CPU: &str = "cpu";

impl PowerModel {
    /// What one device of a model draws, or one core where the class is [`CPU`]; `None` where that is not known.
    pub fn of(device: &str) -> Option<Self> {
        let known = |(pattern, idle, full): (&str, u64, u64)| {
            let matches = Glob::new(pattern).is_ok_and(|g| g.matches(device));
            matches.then_some((idle, full))
        };
        let found = DEVICES.into_iter().find_map(known);
        let (idle, full) = match device {
            CPU => CORE,
            _ => found?,
        };
        Some(Self {
            idle: MilliWatts(idle),
            full: MilliWatts(full),
            pue: PUE,
        })
    }

    /// Of so many thousandths of the device.
    pub fn times(self, thousandths: u64) -> Self {
        let scaled = |watts: MilliWatts| MilliWatts(watts.0.saturating_mul(thousandths) / 1000);
        Self {
            idle: scaled(self.idle),
            full: scaled(self.full),
            pue: self.pue,
        }
    }

    /// What it draws at a share of its load.
    pub fn at(self, load: Ppm) -> MilliWatts {
        let span = self.full.saturating_sub(self.idle);
        let share = u128::from(span.0) * u128::from(load.0.min(1_000_000)) / 1_000_000;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        self.idle.saturating_add(MilliWatts(share))
    }
}

/// What `watts` emit in `time`: watts × time × PUE × intensity, to the nearest, held at the bound.
pub fn emitted(
    watts: MilliWatts,
    time: Millis,
    pue: Ppm,
    intensity: MilliGramsKwh,
) -> MicroGramsCo2 {
    let energy = u128::from(watts.0) * u128::from(time.0);
    let exact = u128::from(pue.0) * u128::from(intensity.0);
    let micrograms = energy
        .saturating_mul(exact)
        .saturating_add(PER_MICROGRAM / 2)
        / PER_MICROGRAM;
    MicroGramsCo2(u64::try_from(micrograms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn hour(n: u64) -> Millis {
        Millis(n * HOUR_MS)
    }
    fn grams(n: u32) -> MilliGramsKwh {
        MilliGramsKwh(n * 1000)
    }

    #[test]
    fn a_hole_is_filled_by_an_earlier_hour_for_a_day_then_by_the_mean_then_by_nothing() {
        let mut table = CarbonTable::default();
        table
            .note("eu-central", Some(Millis(hour(100).0 + 5)), grams(300))
            .unwrap();
        table
            .note("eu-central", Some(hour(102)), grams(200))
            .unwrap();
        table.note("moon-1", None, grams(10)).unwrap();
        table.note("moon-1", Some(hour(100)), grams(11)).unwrap();
        let at = |region, at| table.at(region, at).map(|i| (i.of.0 / 1000, i.origin));
        assert_eq!(at("eu-central", hour(100)), Some((300, Origin::Feed)));
        assert_eq!(
            at("eu-central", Millis(hour(101).0 - 1)),
            Some((300, Origin::Feed))
        );
        assert_eq!(
            at("eu-central", hour(101)),
            Some((300, Origin::Earlier(hour(100))))
        );
        assert_eq!(
            at("eu-central", hour(126)),
            Some((200, Origin::Earlier(hour(102))))
        );
        assert_eq!(
            at("eu-central", hour(127)),
            Some((213, Origin::Default("eu-*")))
        );
        assert_eq!(
            at("eu-central", hour(99)),
            Some((213, Origin::Default("eu-*")))
        );
        assert_eq!(at("moon-1", hour(100)), Some((11, Origin::Feed)));
        assert_eq!(at("moon-1", hour(200)), Some((10, Origin::Feed)));
        assert_eq!(at("mars", hour(100)), None);
        // A clock that jumped to either end finds something to say, and does not panic.
        assert!(
            table.at("eu-central", Millis::ZERO).is_some()
                && table.at("mars", Millis::MAX).is_none()
        );
        assert_eq!(table.readings().count(), table.len());
    }

    #[test]
    fn a_feed_of_the_present_hour_alone_keeps_the_day_before() {
        let mut older = CarbonTable::default();
        for n in 0..5 {
            older.note("eu", Some(hour(n)), grams(n as u32)).unwrap();
        }
        older.note("eu", None, grams(99)).unwrap();
        let mut fresh = CarbonTable::default();
        fresh.note("eu", Some(hour(4)), grams(7)).unwrap();
        fresh.fill_from(&older, hour(2));
        let seen: Vec<_> = fresh
            .readings()
            .map(|(_, at, of)| (at.unwrap().0 / HOUR_MS, of.0 / 1000))
            .collect();
        assert_eq!((seen, fresh.len()), (vec![(2, 2), (3, 3), (4, 7)], 3));
    }

    #[test]
    fn readings_are_bounded() {
        let mut table = CarbonTable::default();
        for region in ["", "eu-*", "a b", &"x".repeat(65)] {
            let bad = table.note(region, None, grams(1));
            assert!(matches!(bad, Err(BadReading::Region { .. })), "{region}");
        }
        let absurd = table.note("eu", None, MilliGramsKwh(MAX_INTENSITY.0 + 1));
        assert!(absurd.unwrap_err().to_string().contains("absurd"));
        let all =
            (0..MAX_READINGS as u64).try_for_each(|n| table.note("eu", Some(hour(n)), grams(1)));
        all.unwrap();
        table.note("eu", Some(hour(3)), grams(2)).unwrap();
        assert_eq!(table.note("eu", None, grams(1)), Err(BadReading::TooMany));
    }

    #[test]
    fn grams_are_as_reckoned_by_hand() {
        // 400 W × 1 h × 1.5 × 250 g/kWh = 0.6 kWh × 250 = 150 g.
        let of = emitted(MilliWatts(400_000), hour(1), Ppm(1_500_000), grams(250));
        assert_eq!(of, MicroGramsCo2(150_000_000));
        // 3.5 W × 10 ms × 1.56 × 213 g/kWh = 9.7222… × 10^-9 kWh × 332.28 = 3.2305 µg.
        let of = emitted(MilliWatts(3_500), Millis(10), PUE, grams(213));
        assert_eq!(of, MicroGramsCo2(3));
        let all = emitted(
            MilliWatts(u64::MAX),
            Millis::MAX,
            Ppm::MAX,
            MilliGramsKwh::MAX,
        );
        assert_eq!(all, MicroGramsCo2::MAX);
    }

    #[test]
    fn power_of_what_is_not_known_is_unknown() {
        let core = PowerModel::of(CPU).unwrap();
        assert_eq!(core.times(4000).full, MilliWatts(14_000));
        assert_eq!(core.at(Ppm(500_000)), MilliWatts(2_120));
        assert_eq!(
            PowerModel::of("A100-80G").unwrap().at(Ppm::MAX),
            MilliWatts(400_000)
        );
        assert_eq!(PowerModel::of("L40S").unwrap().full, MilliWatts(350_000));
        assert_eq!(PowerModel::of("abacus"), None);
    }
}
