//! The network's regions, as people look at them.
//!
//! Owns this view: machines, prices and carbon of each region, and of each pair of regions what lies between them. Of
//! that it knows what bytes cost; what was measured between regions belongs into the same links.

use std::collections::{BTreeMap, BTreeSet};

use farlane_ledger::{Origin, PowerModel};
use farlane_model::Digest;
use farlane_state::Node;
use farlane_units::{Millis, UsdMicros};
use farlane_wire::v1;

use crate::Controller;

/// Most regions of one answer. Source: network.proto, `ListRegionsReply`.
const MAX_REGIONS: usize = 1000;
/// With more regions than this, links are left out. Source: 64 × 63 links of 24 B are 100 KiB.
const MAX_LINKED: usize = 64;

/// A region as its nodes are counted.
#[derive(Default)]
struct Sum {
    nodes: u32,
    trips: Vec<u64>,
    prices: Vec<UsdMicros>,
    power: Option<PowerModel>,
    unknown: bool,
    providers: BTreeSet<Digest>,
}

impl Sum {
    fn add(&mut self, node: &Node, trip: Option<u64>, power: Option<PowerModel>, now: Millis) {
        self.nodes += 1;
        self.trips.extend(trip);
        self.prices.push(node.price_at(now));
        self.providers.insert(node.provider);
        let Some(power) = power else {
            self.unknown = true;
            return;
        };
        self.power = Some(match self.power {
            None => power,
            Some(sum) => PowerModel {
                idle: sum.idle.saturating_add(power.idle),
                full: sum.full.saturating_add(power.full),
                pue: sum.pue.max(power.pue),
            },
        });
    }

    /// Of the nodes online that have measured one.
    fn round_trip(&mut self) -> u64 {
        self.trips.retain(|trip| *trip > 0);
        self.trips.sort_unstable();
        self.trips.get(self.trips.len() / 2).copied().unwrap_or(0)
    }

    fn price(&self) -> Option<v1::RegionPrice> {
        Some(v1::RegionPrice {
            least_usd_micros: self.prices.iter().min()?.0,
            most_usd_micros: self.prices.iter().max()?.0,
        })
    }

    fn power(&self) -> Option<v1::RegionPower> {
        let power = self.power.filter(|_| !self.unknown)?;
        Some(v1::RegionPower {
            idle_milliwatts: power.idle.0,
            full_milliwatts: power.full.0,
            pue_ppm: power.pue.0,
        })
    }
}

impl Controller {
    /// Every region with a registered node that is not removed.
    pub fn list_regions(&self) -> v1::ListRegionsReply {
        let (now, steady) = (self.now(), self.clock.steady());
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        self.consensus.read(|state| {
            let leases = self.leases.lock();
            for node in state.nodes().filter(|n| !n.revoked) {
                let online = leases.is_online(node.id, steady);
                let trip = leases
                    .get(node.id)
                    .filter(|_| online)
                    .map(|l| l.round_trip.0);
                let sum = sums.entry(node.region.to_string()).or_default();
                sum.add(node, trip, self.power_of(node), now);
            }
        });
        let names: Vec<String> = sums.keys().cloned().collect();
        let regions = sums.into_iter().take(MAX_REGIONS);
        v1::ListRegionsReply {
            regions: regions
                .map(|(name, sum)| self.region(name, sum, &names, now))
                .collect(),
            feed: self.feed_view(),
        }
    }

    fn region(&self, name: String, mut sum: Sum, all: &[String], now: Millis) -> v1::RegionView {
        v1::RegionView {
            nodes: sum.nodes,
            online: sum.trips.len() as u32,
            core_hour: sum.price(),
            carbon: self.region_carbon(&name),
            round_trip_micros: sum.round_trip(),
            power: sum.power(),
            links: self.links_of(&name, &sum, all, now),
            region: name,
        }
    }

    fn region_carbon(&self, region: &str) -> Option<v1::RegionCarbon> {
        let found = self.carbon_of(region)?;
        let (origin, hour_ms) = match found.origin {
            Origin::Feed => ("feed", 0),
            Origin::Earlier(hour) => ("earlier", hour.0),
            Origin::Default(pattern) => (pattern, 0),
        };
        Some(v1::RegionCarbon {
            mg_kwh: found.of.0,
            origin: origin.to_owned(),
            hour_ms,
        })
    }

    fn links_of(&self, from: &str, sum: &Sum, all: &[String], now: Millis) -> Vec<v1::RegionLink> {
        if all.len() > MAX_LINKED {
            return Vec::new();
        }
        let books: Vec<_> = sum.providers.iter().map(|p| self.book(p)).collect();
        let others = all.iter().filter(|to| *to != from);
        let link = |to: &String| {
            let dearest = books.iter().map(|book| book.egress_gb(from, to, now)).max();
            Some(v1::RegionLink {
                to: to.clone(),
                egress_usd_micros_gb: dearest?.0,
            })
        };
        others.filter_map(link).collect()
    }
}
