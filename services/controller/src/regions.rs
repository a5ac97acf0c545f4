//! The network's regions, as people look at them.
//!
//! Owns this view: machines, prices and carbon of each region, and what lies between each pair of regions. Leaves
//! measuring to `paths`, and what follows from it for pairs nobody measured to `farlane-plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farlane_ledger::{Origin, PowerModel};
use farlane_model::{Digest, NodeId};
use farlane_plan::{Basis, Link};
use farlane_state::Node;
use farlane_units::{ByteCount, ByteRate, Micros, Millis, UsdMicros};
use farlane_wire::v1;

use crate::Controller;
use crate::paths::Seen;

/// Most regions of one answer. Source: network.proto, `ListRegionsReply`.
const MAX_REGIONS: usize = 1000;
/// With more regions than this, links are left out. Source: 64 × 64 links of 40 B are 160 KiB.
const MAX_LINKED: usize = 64;

/// Blobs that nodes took since the last plan; more are taken not to be held. Source: choice; far more than go out
/// between two plans.
const MAX_TOOK: usize = 16_384;

/// A region as its nodes are counted.
#[derive(Default)]
struct Sum {
    nodes: u32,
    online: u32,
    trips: Vec<Micros>,
    rates: Vec<ByteRate>,
    prices: Vec<UsdMicros>,
    power: Option<PowerModel>,
    unknown: bool,
    providers: BTreeSet<Digest>,
}

impl Sum {
    fn add(&mut self, node: &Node, path: Option<Seen>, power: Option<PowerModel>, now: Millis) {
        self.nodes += 1;
        self.online += u32::from(path.is_some());
        let trip = path.map(|path| path.round_trip);
        self.trips.extend(trip.filter(|trip| *trip != Micros::ZERO));
        self.rates.extend(path.and_then(|path| path.bandwidth));
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

/// Zero where there is none.
fn median<T: Copy + Default + Ord>(all: &mut [T]) -> T {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

impl Controller {
    /// Reckons anew what lies between regions.
    pub(crate) fn survey(&self) {
        let mut survey = self.paths.lock().survey(self.server);
        for (server, region) in &self.homes {
            survey.server(*server, region.clone());
        }
        let mut links = farlane_plan::Links::clone(&self.between.lock());
        links.renew(survey);
        *self.between.lock() = Arc::new(links);
    }

    /// So many bytes came from a node within `time`: how much goes through.
    pub fn came(&self, node: NodeId, bytes: ByteCount, time: Micros) {
        self.paths.lock().came(node, bytes, time);
    }

    /// A node has taken all of a blob: the next plan knows.
    pub(crate) fn took(&self, blob: Digest, node: NodeId) {
        let mut took = self.took.lock();
        if took.len() < MAX_TOOK {
            took.push((blob, node));
        }
    }

    /// Whether a node may probe now how much goes through.
    pub fn may_probe(&self, node: NodeId) -> bool {
        self.paths.lock().may_probe(node, self.clock.steady())
    }

    /// Every region with a registered node that is not removed.
    pub fn list_regions(&self) -> v1::ListRegionsReply {
        let (now, steady) = (self.now(), self.clock.steady());
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        self.consensus.read(|state| {
            let (leases, paths) = (self.leases.lock(), self.paths.lock());
            for node in state.nodes().filter(|n| !n.revoked) {
                let online = leases.is_online(node.id, steady);
                let path = online.then(|| paths.of(node.id));
                let sum = sums.entry(node.region.to_string()).or_default();
                sum.add(node, path, self.power_of(node), now);
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
            online: sum.online,
            core_hour: sum.price(),
            carbon: self.region_carbon(&name),
            round_trip_micros: median(&mut sum.trips).0,
            bandwidth_bytes_s: median(&mut sum.rates).0,
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
        let between = self.between.lock().clone();
        let link = |to: &String| {
            let dearest = books.iter().map(|book| book.egress_gb(from, to, now)).max();
            let known: Option<Link> = between.between(from, to);
            let rate = known.and_then(|link| link.bandwidth);
            Some(v1::RegionLink {
                to: to.clone(),
                egress_usd_micros_gb: dearest?.0,
                round_trip_micros: known.map_or(0, |link| link.round_trip.0),
                bandwidth_bytes_s: rate.map_or(0, |rate| rate.0),
                measured: known.is_some_and(|link| link.basis == Basis::Measured),
            })
        };
        all.iter().filter_map(link).collect()
    }
}
