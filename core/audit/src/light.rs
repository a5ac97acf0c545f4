//! Whether a node can be where it says, by how soon it answers.
//!
//! A round trip is at least twice the distance at the speed of light in vacuum. A node can answer later than it
//! could, and so seem further than it is; it cannot seem nearer. So this refutes a claim to be far, and never one to
//! be near.

use farlane_units::Micros;

/// Kilometres that light goes in a second. Source: SI, exact to the kilometre. In fibre it is two thirds of that;
/// vacuum leaves nothing to doubt.
const LIGHT_KM_S: f64 = 299_792.0;
/// Mean radius of the Earth. Source: IUGG.
const EARTH_KM: f64 = 6371.0;

/// Somewhere on Earth, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// It is within so many kilometres of there.
    pub within_km: f64,
}

impl Place {
    /// From "52.5,13.4" or "52.5,13.4,50": degrees north and east, and kilometres around, 0 unless said.
    ///
    /// *Errors*: `None` where it is anything else, or not on Earth.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(',').map(|part| part.trim().parse::<f64>().ok());
        let place = Self {
            latitude: parts.next()??,
            longitude: parts.next()??,
            within_km: parts.next().unwrap_or(Some(0.0))?,
        };
        let on_earth = (-90.0..=90.0).contains(&place.latitude)
            && (-180.0..=180.0).contains(&place.longitude)
            && (0.0..=20_040.0).contains(&place.within_km);
        (parts.next().is_none() && on_earth).then_some(place)
    }

    /// The least distance that there can be between two.
    ///
    /// *Units*: kilometres.
    pub fn least_km(&self, other: &Self) -> f64 {
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let (north, east) = (b - a, (other.longitude - self.longitude).to_radians());
        let h = (north / 2.0).sin().powi(2) + a.cos() * b.cos() * (east / 2.0).sin().powi(2);
        let km = 2.0 * EARTH_KM * h.sqrt().min(1.0).asin();
        (km - self.within_km - other.within_km).max(0.0)
    }
}

/// Where a round trip this short refutes that one end is here and the other there: the distance in kilometres, and
/// what light needs.
pub fn impossible(here: &Place, there: &Place, round_trip: Micros) -> Option<(u32, Micros)> {
    let km = here.least_km(there);
    let light = Micros((2.0 * km / LIGHT_KM_S * 1e6) as u64);
    (round_trip < light).then_some((km as u32, light))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_read_and_what_is_none_is_refused() {
        let berlin = Place::read("52.5, 13.4").unwrap();
        assert_eq!(
            (berlin.latitude, berlin.longitude, berlin.within_km),
            (52.5, 13.4, 0.0)
        );
        assert_eq!(Place::read("52.5,13.4,50").unwrap().within_km, 50.0);
        for wrong in [
            "", "52.5", "52.5,x", "91,0", "0,181", "0,0,-1", "NaN,0", "1,2,3,4", "inf,0",
        ] {
            assert_eq!(Place::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        let at = |text| Place::read(text).unwrap();
        let (berlin, sydney) = (at("52.52,13.40"), at("-33.87,151.21"));
        let km = berlin.least_km(&sydney);
        assert!((16_000.0..16_200.0).contains(&km), "{km}");
        assert_eq!(berlin.least_km(&at("52.52,13.40,10")), 0.0);
        // Across the date line.
        assert!(at("0,179.5").least_km(&at("0,-179.5")) < 112.0);
        assert!((20_000.0..20_030.0).contains(&at("90,0").least_km(&at("-90,0"))));
    }

    #[test]
    fn only_what_light_cannot_do_is_impossible() {
        let (frankfurt, oregon) = (
            Place::read("50.1,8.7").unwrap(),
            Place::read("45.6,-121.2").unwrap(),
        );
        // 8,300 km: there and back in 55 ms at best.
        let (km, light) = impossible(&frankfurt, &oregon, Micros(3_000)).unwrap();
        assert!(
            (8_000..8_600).contains(&km) && (53_000..58_000).contains(&light.0),
            "{km} {light:?}"
        );
        assert_eq!(impossible(&frankfurt, &oregon, Micros(140_000)), None);
        // Late answers refute nothing, and neither do places that are known too roughly.
        assert_eq!(impossible(&frankfurt, &frankfurt, Micros(0)), None);
        let roughly = Place {
            within_km: 9_000.0,
            ..oregon
        };
        assert_eq!(impossible(&frankfurt, &roughly, Micros(3_000)), None);
    }
}
