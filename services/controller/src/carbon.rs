//! What a kilowatt-hour emits in each region, and what nodes draw.
//!
//! Owns the hourly reading of the feed and what stands in for it. Leaves how a feed is read to who starts the server
//! ([`CarbonFeed`]), and what an hour without reading gets to `farlane-ledger`.
//!
//! ```text
//! feed ─▶ read, once an hour, by the leader ─▶ accounts ─▶ every server ─▶ the reading of an hour, else of an earlier
//!           └ fails: says so, the kept one holds                           one, else the region's mean, else unknown
//! ```

use std::sync::Arc;
use std::time::Duration;

use farlane_ledger::{CPU, CarbonTable, Intensity, PowerModel, STANDS_IN};
use farlane_model::Device;
use farlane_state::Node;
use farlane_store::{KeptCarbon, StoreError};
use farlane_units::{Micros, Millis};
use farlane_wire::v1;
use futures_util::future::BoxFuture;

use crate::Controller;
use crate::prices::device_of;

/// How often accounts are asked whether another server read the feed.
const TICK: Duration = Duration::from_secs(10);
/// How often the feed is read. Source: grids are told by the hour.
const REFRESH: Millis = Millis(3_600_000);
/// How long to wait after it could not be read. Chosen: twelve tries an hour burden nobody.
const RETRY: Micros = Micros(5 * 60 * 1_000_000);

/// Why a feed gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Not there, or not readable.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// No connection, or one that broke.
    #[error("it cannot be reached: {why}")]
    Reach {
        /// What the transport says.
        why: String,
    },
    /// Another status than 200.
    #[error("it answers with status {status}")]
    Status {
        /// Which.
        status: u16,
    },
    /// Larger than is read.
    #[error("it is larger than {most} bytes")]
    TooLarge {
        /// The bound.
        most: u64,
    },
    /// Slower than is waited for.
    #[error("it did not answer within {seconds} s")]
    TooSlow {
        /// The bound.
        seconds: u64,
    },
    /// Not what a feed must be.
    #[error("{what}")]
    Malformed {
        /// Where, and what is wrong there.
        what: String,
    },
}

/// Who knows the carbon of regions.
pub trait CarbonFeed: Send + Sync {
    /// For people: a path or a URL.
    fn source(&self) -> &str;
    /// What it says now. Bounded in size and time.
    fn read(&self) -> BoxFuture<'_, Result<CarbonTable, FeedError>>;
}

/// What this server knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    kept: Option<KeptCarbon>,
    /// Why the feed could not be read last.
    problem: Option<String>,
    /// When it was tried last, on the steady clock.
    tried: Option<Micros>,
}

/// Whether the feed is to be read. A time that is to come is a clock that jumped: it says nothing.
fn is_due(kept: Option<&KeptCarbon>, source: &str, wall: Millis) -> bool {
    let Some(kept) = kept.filter(|k| k.source == source && k.fetched <= wall) else {
        return true;
    };
    wall.saturating_sub(kept.fetched) >= REFRESH
}

/// What one of a node's accelerators draws at most, with its share of cooling, thousandths of a watt: the limit that
/// its driver names, else what its model is known for; 0 where neither is known.
pub(crate) fn gpu_milliwatts(devices: &[Device]) -> u32 {
    let pue = PowerModel::of(CPU).map_or(1_000_000, |power| u64::from(power.pue.0));
    let of = |device: &Device| match u64::from(device.tdp_watts) * 1000 {
        0 => PowerModel::of(&device.model).map_or(0, |power| power.full.0),
        limit => limit,
    };
    let most = devices.iter().map(of).max().unwrap_or(0);
    u32::try_from(most.saturating_mul(pue) / 1_000_000).unwrap_or(u32::MAX)
}

/// What a core draws at full load, with its share of cooling, thousandths of a watt.
pub(crate) fn core_milliwatts() -> u32 {
    let core = PowerModel::of(CPU).map(|power| {
        let cooled = power.full.0 * u64::from(power.pue.0) / 1_000_000;
        u32::try_from(cooled).unwrap_or(u32::MAX)
    });
    core.unwrap_or(0)
}

impl Controller {
    /// Keeps what is known of carbon up to date, until the server stops.
    pub(crate) async fn carbon_loop(self: Arc<Self>) {
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        loop {
            if let Err(error) = self.learn_carbon().await {
                tracing::debug!(%error, "the carbon table in accounts cannot be read now");
            }
            if self.check_leads().is_ok() {
                tokio::select! {
                    () = &mut stop => return,
                    () = self.read_feed() => {}
                }
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Takes over what accounts hold, where that is newer or another server's.
    async fn learn_carbon(&self) -> Result<(), StoreError> {
        let fetched = self.store.carbon().fetched().await?;
        let known = self.carbon.lock().kept.as_ref().map(|k| k.fetched);
        if fetched.is_some() && fetched != known {
            let kept = self.store.carbon().kept().await?;
            self.carbon.lock().kept = kept;
        }
        Ok(())
    }

    /// Reads the feed where an hour has passed, and keeps what it says.
    async fn read_feed(&self) {
        let Some(feed) = self.feed.clone() else {
            return;
        };
        let (steady, wall) = (self.clock.steady(), self.wall());
        let older = {
            let mut known = self.carbon.lock();
            let waits = known
                .tried
                .is_some_and(|at| steady.saturating_sub(at) < RETRY);
            if waits || !is_due(known.kept.as_ref(), feed.source(), wall) {
                return;
            }
            known.tried = Some(steady);
            known.kept.clone().filter(|k| k.source == feed.source())
        };
        let mut table = match feed.read().await {
            Ok(table) => table,
            Err(error) => {
                let age = older.map(|k| wall.saturating_sub(k.fetched).0 / 60_000);
                tracing::warn!(%error, source = feed.source(), kept_minutes = age, "the carbon feed cannot be read; what was kept holds");
                self.carbon.lock().problem = Some(error.to_string());
                return;
            }
        };
        if let Some(older) = older {
            table.fill_from(&older.table, wall.saturating_sub(STANDS_IN));
        }
        let kept = KeptCarbon {
            source: feed.source().to_owned(),
            fetched: wall,
            table,
        };
        if let Err(error) = self.store.carbon().keep(&kept).await {
            tracing::warn!(%error, "the carbon table could not be kept in accounts");
        }
        let mut known = self.carbon.lock();
        (known.kept, known.problem) = (Some(kept), None);
    }

    /// What a kilowatt-hour emits in a region now, and who says so; `None` where that is unknown. For the planner,
    /// too: once a region and round.
    pub fn carbon_of(&self, region: &str) -> Option<Intensity> {
        self.carbon_at(region, self.now())
    }

    /// The same of another moment.
    pub(crate) fn carbon_at(&self, region: &str, at: Millis) -> Option<Intensity> {
        match &self.carbon.lock().kept {
            Some(kept) => kept.table.at(region, at),
            None => CarbonTable::default().at(region, at),
        }
    }

    /// What a node draws; `None` where its device is not known. For the planner, too.
    pub fn power_of(&self, node: &Node) -> Option<PowerModel> {
        Some(PowerModel::of(device_of(node))?.times(u64::from(node.spec.cpus.0)))
    }

    /// How the feed is, for people.
    pub(crate) fn feed_view(&self) -> Option<v1::CarbonFeed> {
        let (wall, known) = (self.wall(), self.carbon.lock());
        let named = self.feed.as_ref().map(|feed| feed.source().to_owned());
        let kept = known.kept.as_ref();
        Some(v1::CarbonFeed {
            source: named.or_else(|| kept.map(|k| k.source.clone()))?,
            age_ms: kept.map_or(0, |k| wall.saturating_sub(k.fetched).0),
            problem: known.problem.clone().unwrap_or_default(),
            readings: kept.map_or(0, |k| k.table.len() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_draws_its_limit_else_what_its_model_is_known_for() {
        let device = |tdp_watts, model: &str| Device {
            kind: farlane_model::DeviceKind::Gpu { cuda_cores: 1 },
            model: model.to_owned(),
            memory: farlane_units::ByteCount::gib(1),
            tdp_watts,
            id: String::new(),
            measured: None,
        };
        // Times 1.56, what its site takes for each watt of it.
        assert_eq!(gpu_milliwatts(&[device(300, "A100")]), 468_000);
        assert_eq!(gpu_milliwatts(&[device(0, "A100")]), 624_000);
        assert_eq!(gpu_milliwatts(&[device(0, "of ours")]), 0);
        assert_eq!(gpu_milliwatts(&[]), 0);
    }

    #[test]
    fn a_feed_is_read_once_an_hour_whatever_clocks_do() {
        let kept = KeptCarbon {
            source: "a".into(),
            fetched: Millis(10 * REFRESH.0),
            table: CarbonTable::default(),
        };
        let due = |source, wall| is_due(Some(&kept), source, Millis(wall));
        assert!(!due("a", kept.fetched.0) && !due("a", 11 * REFRESH.0 - 1));
        assert!(due("a", 11 * REFRESH.0) && due("a", u64::MAX));
        // Another source was named, nothing is kept, or the clock went back.
        assert!(due("b", kept.fetched.0) && is_due(None, "a", Millis(0)) && due("a", 0));
    }
}
