//! What lies between regions: round trips and bandwidth, as measured, else estimated.
//!
//! ```text
//! Survey: trips of each region's nodes to each server ─▶ medians ─┬▶ pairs with a server at home: measured
//!         bandwidth of nodes ─▶ medians                           └▶ coordinates ─▶ all other pairs: estimated
//! ```
//! Medians, and coordinates that move a bounded step, keep one node that lies from moving others. Round trips
//! between regions without a server are what coordinates say; with one server alone these say the way through it,
//! which is how bytes go. Owns this reckoning; leaves measuring to agents and servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_units::{ByteRate, Micros};

use crate::coordinate::{AXES, Coordinate};

/// Regions that are kept; those last by name are left out. Source: network.proto, `ListRegionsReply`.
const MAX_REGIONS: usize = 1000;
/// Servers that are kept. Source: spine.md, three or five servers; twice that while they are replaced.
const MAX_SERVERS: usize = 10;
/// How often each measurement pulls in one renewal. Source: choice; 1000 regions × 5 servers × 8 are some
/// milliseconds, and after six renewals a far region is where it belongs.
const ROUNDS: usize = 8;
/// And with the first.
const FIRST_ROUNDS: usize = 64;

/// Whether somebody measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Between nodes of one region and a server of the other.
    Measured,
    /// From network coordinates.
    Estimated,
}

/// What lies between two regions, or within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// There and back.
    pub round_trip: Micros,
    /// Of the slower of both regions' nodes to the servers, through which bytes go; `None` where nobody knows.
    pub bandwidth: Option<ByteRate>,
    /// Of the round trip.
    pub basis: Basis,
}

/// What nodes measured, gathered by region.
#[derive(Debug, Default)]
pub struct Survey {
    trips: BTreeMap<(Arc<str>, u64), Vec<Micros>>,
    rates: BTreeMap<Arc<str>, Vec<ByteRate>>,
    homes: BTreeMap<u64, Arc<str>>,
}

impl Survey {
    /// A server stands in this region.
    pub fn server(&mut self, server: u64, region: Arc<str>) {
        self.homes.insert(server, region);
    }

    /// A node of this region has so long a round trip to a server.
    pub fn trip(&mut self, region: &Arc<str>, server: u64, round_trip: Micros) {
        let trips = self.trips.entry((region.clone(), server)).or_default();
        trips.push(round_trip);
    }

    /// A node of this region has so much bandwidth to the servers.
    pub fn rate(&mut self, region: &Arc<str>, bandwidth: ByteRate) {
        self.rates
            .entry(region.clone())
            .or_default()
            .push(bandwidth);
    }
}

fn median<T: Copy + Ord>(mut all: Vec<T>) -> Option<T> {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) / 2).copied()
}

/// Links between all regions. *Shape*: symmetric.
#[derive(Debug, Clone, Default)]
pub struct Links {
    places: BTreeMap<Arc<str>, Coordinate>,
    servers: BTreeMap<u64, Coordinate>,
    measured: BTreeMap<(Arc<str>, Arc<str>), Micros>,
    rates: BTreeMap<Arc<str>, ByteRate>,
    axes: usize,
}

/// A direction of a name's own. Source: FNV-1a, 64 bits.
fn seed(name: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    name.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

fn pair(a: &Arc<str>, b: &Arc<str>) -> (Arc<str>, Arc<str>) {
    match a <= b {
        true => (a.clone(), b.clone()),
        false => (b.clone(), a.clone()),
    }
}

impl Links {
    /// Between nodes of two regions, or of one; `None` where nothing is known of one of them.
    pub fn between(&self, a: &str, b: &str) -> Option<Link> {
        let (name_a, place_a) = self.places.get_key_value(a)?;
        let (name_b, place_b) = self.places.get_key_value(b)?;
        let rates = (self.rates.get(a), self.rates.get(b));
        let bandwidth = match rates {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (one, other) => one.or(other).copied(),
        };
        let (round_trip, basis) = match self.measured.get(&pair(name_a, name_b)) {
            Some(known) => (*known, Basis::Measured),
            None => (place_a.to(place_b), Basis::Estimated),
        };
        Some(Link {
            round_trip,
            bandwidth,
            basis,
        })
    }

    /// Takes over what is measured now: pairs at once, coordinates by bounded steps from where they were.
    pub fn renew(&mut self, survey: Survey) {
        let Survey {
            trips,
            rates,
            homes,
        } = survey;
        let trips: Vec<((Arc<str>, u64), Micros)> = trips
            .into_iter()
            .filter_map(|(of, all)| Some((of, median(all)?)))
            .collect();
        let rates = rates.into_iter();
        self.rates = rates
            .filter_map(|(of, all)| Some((of, median(all)?)))
            .collect();
        self.measured.clear();
        for ((region, server), trip) in &trips {
            if let Some(home) = homes.get(server) {
                let known = self.measured.entry(pair(region, home)).or_insert(*trip);
                *known = (*known).min(*trip);
            }
        }
        self.place(&trips);
    }

    fn place(&mut self, trips: &[((Arc<str>, u64), Micros)]) {
        let mut servers: Vec<u64> = trips.iter().map(|((_, server), _)| *server).collect();
        servers.sort_unstable();
        servers.dedup();
        servers.truncate(MAX_SERVERS);
        let axes = servers.len().saturating_sub(1).min(AXES);
        if axes != self.axes {
            // Other landmarks tell other places apart.
            (self.places, self.servers) = (BTreeMap::new(), BTreeMap::new());
            self.axes = axes;
        }
        let mut rounds = match self.places.is_empty() {
            true => FIRST_ROUNDS,
            false => ROUNDS,
        };
        self.servers.retain(|server, _| servers.contains(server));
        for server in servers {
            let new = || Coordinate::new(axes, false, seed(&server.to_le_bytes()));
            self.servers.entry(server).or_insert_with(new);
        }
        let known = |region: &Arc<str>| trips.binary_search_by(|((r, _), _)| r.cmp(region)).is_ok();
        self.places.retain(|region, _| known(region));
        for ((region, _), _) in trips {
            if self.places.len() < MAX_REGIONS && !self.places.contains_key(region) {
                let new = Coordinate::new(axes, true, seed(region.as_bytes()));
                self.places.insert(region.clone(), new);
            }
        }
        if axes == 0 {
            for ((region, _), trip) in trips {
                let place = self.places.entry(region.clone());
                place.and_modify(|place| *place = Coordinate::above(*trip));
            }
            return;
        }
        while rounds > 0 {
            for ((region, server), trip) in trips {
                let (Some(place), Some(stands)) =
                    (self.places.get_mut(region), self.servers.get_mut(server))
                else {
                    continue;
                };
                let was = *place;
                place.learn(stands, *trip);
                stands.learn(&was, *trip);
            }
            rounds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(of: usize) -> Arc<str> {
        format!("region-{of:02}").into()
    }

    /// Twenty regions on a plane of 200 ms, each some way from the wide network; servers in the first few.
    fn world() -> Vec<(f64, f64, f64)> {
        let mut x = 7u64;
        let mut next = move |below: f64| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) as f64 / (1u64 << 31) as f64 * below
        };
        (0..20)
            .map(|_| (next(200_000.0), next(200_000.0), next(6_000.0)))
            .collect()
    }

    fn truth(world: &[(f64, f64, f64)], a: usize, b: usize) -> f64 {
        let ((ax, ay, ah), (bx, by, bh)) = (world[a], world[b]);
        ((ax - bx) * (ax - bx) + (ay - by) * (ay - by)).sqrt() + ah + bh
    }

    /// What nodes of every region measure to the servers; three a region, one of them a little off.
    fn survey(world: &[(f64, f64, f64)], servers: usize, lie: impl Fn(usize) -> f64) -> Survey {
        let mut survey = Survey::default();
        for server in 0..servers {
            survey.server(server as u64, name(server));
            for region in 0..world.len() {
                // The server itself stands where the network is wide.
                let real = truth(world, region, server) - world[server].2;
                for off in [1.0, 1.05, 1.3] {
                    let trip = (real * off * lie(region)) as u64;
                    survey.trip(&name(region), server as u64, Micros(trip));
                }
            }
        }
        survey
    }

    /// Relative errors of all estimated pairs but those of `but`, sorted.
    fn errors(links: &Links, world: &[(f64, f64, f64)], but: Option<usize>) -> Vec<f64> {
        let mut errors = Vec::new();
        for a in (0..world.len()).filter(|a| Some(*a) != but) {
            for b in (0..a).filter(|b| Some(*b) != but) {
                let link = links.between(&name(a), &name(b)).unwrap();
                assert_eq!(links.between(&name(b), &name(a)), Some(link));
                if link.basis == Basis::Estimated {
                    let real = truth(world, a, b);
                    errors.push((link.round_trip.0 as f64 - real).abs() / real);
                }
            }
        }
        errors.sort_unstable_by(f64::total_cmp);
        errors
    }

    #[test]
    fn pairs_that_nobody_measured_are_near_the_truth_and_one_liar_moves_nobody_far() {
        let world = world();
        let (mut links, mut lied) = (Links::default(), Links::default());
        for _ in 0..20 {
            links.renew(survey(&world, 5, |_| 1.0));
            lied.renew(survey(
                &world,
                5,
                |region| if region == 11 { 20.0 } else { 1.0 },
            ));
        }
        let honest = errors(&links, &world, None);
        let (middle, most) = (honest[honest.len() / 2], honest[honest.len() * 9 / 10]);
        assert!(middle < 0.10 && most < 0.35, "{middle} {most}");
        let beside = errors(&lied, &world, Some(11));
        let (middle, most) = (beside[beside.len() / 2], beside[beside.len() * 9 / 10]);
        assert!(middle < 0.20 && most < 0.60, "{middle} {most}");
    }

    #[test]
    fn with_one_server_the_way_leads_through_it_and_a_worse_link_is_seen_at_once() {
        let mut links = Links::default();
        let mut say = |far: u64| {
            let mut survey = Survey::default();
            survey.server(1, "eu".into());
            for (region, trip) in [("eu", 1_000), ("us", 80_000), ("ap", far)] {
                survey.trip(&region.into(), 1, Micros(trip));
                survey.rate(&region.into(), ByteRate(trip * 10));
            }
            links.renew(survey);
            let of = |a, b| links.between(a, b).unwrap();
            (of("eu", "ap"), of("us", "ap"), links.between("us", "moon"))
        };
        let (measured, through, unknown) = say(150_000);
        assert_eq!(
            (measured.round_trip, measured.basis),
            (Micros(150_000), Basis::Measured)
        );
        assert_eq!(measured.bandwidth, Some(ByteRate(10_000)));
        assert_eq!((through.basis, unknown), (Basis::Estimated, None));
        assert_eq!(through.round_trip, Micros(80_000 + 150_000));
        let (measured, through, _) = say(900_000);
        assert_eq!(
            (measured.round_trip.0, through.round_trip.0),
            (900_000, 980_000)
        );
    }

    #[test]
    fn regions_and_servers_that_are_gone_are_forgotten() {
        let mut links = Links::default();
        links.renew(survey(&world(), 3, |_| 1.0));
        assert!(links.between("region-00", "region-19").is_some());
        let mut left = Survey::default();
        left.trip(&name(3), 2, Micros(5_000));
        links.renew(left);
        assert_eq!(links.between("region-00", "region-19"), None);
        let alone = links.between("region-03", "region-03").unwrap();
        assert_eq!((alone.basis, alone.bandwidth), (Basis::Estimated, None));
        assert!(links.servers.len() == 1 && links.places.len() == 1);
    }
}
