//! What a server is told of audits: how often, and where it and the regions are.

use std::time::Duration;

use farlane_audit::Place;
use farlane_controller::{AuditSettings, MAX_PLACES};
use farlane_model::Glob;

use crate::config::ServerConfig;

/// What `location` takes.
pub(crate) const PLACE: &str =
    "degrees north and east, like \"52.5,13.4\", and kilometres around if known";
/// What `locations` takes.
pub(crate) const PLACES: &str = "regions with their places, like { \"eu-*\" = \"50,10,1500\" }";

pub(crate) fn place(value: &toml::Value) -> Option<String> {
    let text = value.as_str()?;
    (text.is_empty() || Place::read(text).is_some()).then(|| text.to_owned())
}

/// In the order of the longest globs first, since the first that matches counts and a table has no order.
pub(crate) fn places(value: &toml::Value) -> Option<Vec<(String, String)>> {
    let table = value.as_table().filter(|t| t.len() <= MAX_PLACES)?;
    let read = |(region, value): (&String, &toml::Value)| {
        let known = Glob::new(region.as_str()).is_ok() && !value.as_str()?.is_empty();
        known.then_some((region.clone(), place(value)?))
    };
    let mut all: Vec<_> = table.iter().map(read).collect::<Option<_>>()?;
    all.sort_by_key(|(region, _)| std::cmp::Reverse(region.len()));
    Some(all)
}

/// For the controller.
pub(crate) fn settings(config: &ServerConfig) -> AuditSettings {
    let read = |(region, place): &(String, String)| {
        Some((Glob::new(region.as_str()).ok()?, Place::read(place)?))
    };
    let places: Vec<(Glob, Place)> = config.locations.iter().filter_map(read).collect();
    let of_region = places.iter().find(|(glob, _)| glob.matches(&config.region));
    AuditSettings {
        every: Duration::from_secs(config.audit_every),
        here: Place::read(&config.location).or(of_region.map(|(_, place)| *place)),
        places,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_glob_counts_first_and_what_is_no_place_is_refused() {
        let read = |text: &str| places(&text.parse::<toml::Table>().unwrap()["locations"]);
        let two = "locations = { 'eu-*' = '50,10,1500', 'eu-west-1' = '53.3,-6.3' }";
        let regions: Vec<String> = read(two)
            .unwrap()
            .into_iter()
            .map(|(region, _)| region)
            .collect();
        assert_eq!(regions, ["eu-west-1", "eu-*"]);
        for wrong in [
            "{ eu = '91,0' }",
            "{ eu = '' }",
            "{ eu = 1 }",
            "{ '' = '1,2' }",
            "'eu'",
        ] {
            assert_eq!(read(&format!("locations = {wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn settings_are_what_was_read() {
        let mut config = ServerConfig::new("/srv");
        assert_eq!(settings(&config).every, Duration::from_secs(86_400));
        config.location = "52.5,13.4".into();
        config.locations = vec![("eu-*".into(), "50,10,1500".into())];
        let told = settings(&config);
        assert_eq!(told.here.unwrap().longitude, 13.4);
        assert_eq!(told.places[0].1.within_km, 1500.0);
        // Where nothing more is said, it is where its region is.
        (config.location, config.region) = (String::new(), "eu-west".into());
        assert_eq!(settings(&config).here.unwrap().latitude, 50.0);
    }
}
