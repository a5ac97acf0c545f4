//! Work and nodes without any schedule: what bounds on cost, and schedules by one who knows all, are made of.
//!
//! Owns which nodes are alike, what may run where, and what a task costs at a moment. Leaves moments and places to
//! `bound` and `foresight`.

use farlane_model::{GangRegions, TaskSpec};
use farlane_plan::{Policy, Site};

use crate::machine::{Grid, HOUR, Machine, speed};
use crate::report::Started;
use crate::run::runs_for;
use crate::work::{Client, TaskKind};

/// Slots of time. Source: choice; 120 of them are 3 s to 12 min in the histories that are measured.
pub(crate) const SLOTS: u64 = 120;

/// A task that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub client: u32,
    /// Of its client's.
    pub kind: u32,
    /// Milliseconds from the beginning.
    pub arrival: u64,
    /// Milliseconds at full speed.
    pub work: u64,
}

/// Nodes that are alike.
#[derive(Debug)]
pub(crate) struct Pool {
    /// One of them.
    pub machine: Machine,
    pub nodes: u32,
    /// Of all of them.
    pub cores: f64,
    pub gpus: f64,
}

/// A pool that runs a kind of task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seat {
    pub pool: usize,
    /// Thousandths.
    pub speed: u64,
    /// So many of them at once, none across two nodes.
    pub room: u32,
}

/// Tasks that ask the same.
#[derive(Debug)]
pub(crate) struct Kind {
    pub cores: f64,
    pub gpus: f64,
    pub policy: Policy,
    /// So many begin together.
    pub gang: u32,
    /// Where all of a gang may lie, each with room for it: of a task on its own each pool is one.
    pub places: Vec<Place>,
}

/// Pools among which a gang is divided, or one pool for a task on its own.
#[derive(Debug)]
pub(crate) struct Place {
    pub seats: Vec<Seat>,
    /// So many gangs at once, each whole.
    pub gangs: u32,
    /// Which of the limits that is; `None` for tasks on their own.
    pub limit: Option<usize>,
}

impl Kind {
    /// Micro-dollars for a millisecond of waiting, of all its members.
    pub fn waiting(&self) -> f64 {
        self.policy.hour_usd_micros * f64::from(self.gang) / HOUR as f64
    }
}

/// A task, or a gang whose members run equally long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub kind: usize,
    pub arrival: u64,
    pub work: u64,
}

/// Work and nodes, without any schedule.
#[derive(Debug)]
pub struct Instance {
    pub(crate) pools: Vec<Pool>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) asks: Vec<Ask>,
    /// What there is at any time: cores of each pool, GPUs of each pool, then cores for whole gangs of each kind in
    /// each place.
    pub(crate) limits: Vec<f64>,
    /// Milliseconds: whole ones make an hour.
    pub(crate) slot: u64,
}

impl Instance {
    /// Of what arrived, by client and in the order in which it came, until the last of it ended.
    pub(crate) fn of<'a>(
        machines: impl Iterator<Item = &'a Machine>,
        clients: &[Client],
        jobs: &[Job],
        end: u64,
    ) -> Self {
        let pools = pools(machines);
        let mut kinds: Vec<Kind> = Vec::new();
        let mut first = Vec::new();
        for client in clients {
            first.push(kinds.len());
            let of = |kind: &TaskKind| Kind::of(&kind.spec, client.policy, &pools);
            kinds.extend(client.kinds.iter().map(of));
        }
        let mut asks = Vec::with_capacity(jobs.len());
        let mut left = jobs;
        while let Some(job) = left.first() {
            let kind = first[job.client as usize] + job.kind as usize;
            // Gangs come whole.
            let (members, rest) = left.split_at((kinds[kind].gang as usize).min(left.len()));
            left = rest;
            asks.push(Ask {
                kind,
                arrival: job.arrival,
                work: members.iter().map(|job| job.work).min().unwrap_or(job.work),
            });
        }
        let slot = (end / SLOTS).clamp(1, HOUR);
        let mut limits: Vec<f64> = pools.iter().map(|pool| pool.cores).collect();
        limits.extend(pools.iter().map(|pool| pool.gpus));
        for kind in kinds.iter_mut().filter(|kind| kind.gang > 1) {
            let whole = kind.cores * f64::from(kind.gang);
            for place in &mut kind.places {
                place.limit = Some(limits.len());
                limits.push(f64::from(place.gangs) * whole);
            }
        }
        Self {
            limits,
            asks,
            kinds,
            pools,
            slot: divisor(HOUR / (HOUR / slot)),
        }
    }

    /// One member of it on a seat.
    pub(crate) fn at(&self, ask: &Ask, seat: &Seat) -> At<'_> {
        let (machine, of) = (&self.pools[seat.pool].machine, &self.kinds[ask.kind]);
        let run = runs_for(ask.work, seat.speed);
        let trip = machine.view.round_trip.0.div_ceil(1000);
        let cost = |carbon| {
            let started = Started {
                wait: 0,
                trip,
                run,
                cores: of.cores,
                carbon,
            };
            started.cost(&machine.view, &of.policy)
        };
        let still = machine.grid.swing == 0.0;
        At {
            grid: &machine.grid,
            holds: trip + run,
            clean: cost(0),
            gram: (cost(1000) - cost(0)) / 1000.0,
            always: still.then(|| cost(machine.grid.at(0))),
        }
    }
}

/// The nearest divisor of an hour that is no longer.
fn divisor(slot: u64) -> u64 {
    (1..=slot)
        .rev()
        .find(|s| HOUR.is_multiple_of(*s))
        .unwrap_or(1)
}

fn pools<'a>(machines: impl Iterator<Item = &'a Machine>) -> Vec<Pool> {
    let mut all: Vec<&Machine> = machines.collect();
    all.sort_unstable_by_key(|machine| machine.view.id);
    let mut pools: Vec<Pool> = Vec::new();
    for machine in all {
        let (node, cores) = (&machine.view, f64::from(machine.view.spec.cpus.0) / 1000.0);
        let gpus = node.spec.devices.len() as f64;
        let alike = pools.iter_mut().find(|pool| {
            let one = &pool.machine.view;
            one.spec == node.spec
                && one.region == node.region
                && one.provider == node.provider
                && one.price == node.price
                && one.round_trip == node.round_trip
                && one.risk == node.risk
                && one.milliwatts_core == node.milliwatts_core
                && pool.machine.grid == machine.grid
        });
        match alike {
            Some(pool) => {
                pool.nodes += 1;
                (pool.cores, pool.gpus) = (pool.cores + cores, pool.gpus + gpus);
            }
            None => pools.push(Pool {
                machine: machine.clone(),
                nodes: 1,
                cores,
                gpus,
            }),
        }
    }
    pools
}

impl Kind {
    fn of(spec: &TaskSpec, policy: Policy, pools: &[Pool]) -> Self {
        let seat = |(at, pool): (usize, &Pool)| {
            let node = &pool.machine.view;
            let site = Site {
                price: node.price,
                // A ceiling is held against the hour's figure: here it may wait for any hour.
                carbon: Some(0),
                ..Site::of(&node.spec, &node.region)
            };
            site.fits(spec).then(|| Seat {
                pool: at,
                speed: speed(&node.spec, spec),
                room: room(pool, spec),
            })
        };
        let seats: Vec<Seat> = pools.iter().enumerate().filter_map(seat).collect();
        let (gang, apart) = match &spec.gang {
            Some(gang) => (u32::from(gang.size), gang.regions == GangRegions::Any),
            None => (1, false),
        };
        let mut places: Vec<Vec<Seat>> = Vec::new();
        for seat in seats {
            let region = |seat: &Seat| &pools[seat.pool].machine.view.region;
            let with = |other: &Seat| gang > 1 && (apart || region(other) == region(&seat));
            match places.iter_mut().find(|place| with(&place[0])) {
                Some(place) => place.push(seat),
                None => places.push(vec![seat]),
            }
        }
        let place = |seats: Vec<Seat>| Place {
            gangs: seats.iter().map(|seat| seat.room).sum::<u32>() / gang,
            limit: None,
            seats,
        };
        let places = places.into_iter().map(place);
        Self {
            cores: f64::from(spec.resources.cpus.0) / 1000.0,
            gpus: f64::from(spec.resources.gpus.0) / 1000.0,
            policy,
            gang,
            places: places.filter(|place| place.gangs > 0).collect(),
        }
    }
}

/// How many such tasks the nodes of a pool run at once, by cores and whole GPUs.
fn room(pool: &Pool, spec: &TaskSpec) -> u32 {
    let node = &pool.machine.view.spec;
    let cores = node.cpus.0 / spec.resources.cpus.0.max(1);
    let gpus = match spec.resources.gpus.0 {
        0 => u32::MAX,
        each => node.devices.len() as u32 * 1000 / each,
    };
    pool.nodes * cores.min(gpus).max(1)
}

/// One task on one pool.
pub(crate) struct At<'a> {
    pub grid: &'a Grid,
    /// For so long it holds its node.
    pub holds: u64,
    /// What it costs at once on a grid that emits nothing, micro-dollars.
    clean: f64,
    /// More for each gram a kWh.
    gram: f64,
    /// What it costs at once, where its grid does not change.
    always: Option<f64>,
}

impl At<'_> {
    /// Micro-dollars at this many grams a kWh, without waiting.
    pub fn cost(&self, carbon: u32) -> f64 {
        self.clean + self.gram * f64::from(carbon)
    }

    /// Micro-dollars for one that begins now, waiting apart.
    pub fn begun(&self, now: u64) -> f64 {
        self.always.unwrap_or_else(|| self.cost(self.grid.at(now)))
    }

    /// The same with the hour it lies in or with the one that ends here, whichever is cleaner.
    pub fn begun_or_before(&self, now: u64) -> f64 {
        match now.is_multiple_of(HOUR) {
            true => self.begun(now).min(self.begun(now.saturating_sub(1))),
            false => self.begun(now),
        }
    }

    /// Whether its grid changes.
    pub fn changes(&self) -> bool {
        self.always.is_none()
    }

    /// At no moment it costs less, waiting apart.
    pub fn floor(&self) -> f64 {
        self.always.unwrap_or(self.clean)
    }
}

/// The least for so many, no more on each seat than it has room for: each seat's cost, its room, and what it is. What
/// each takes is left in the place of its room; the sum is told.
pub(crate) fn fill<T>(seats: &mut [(f64, u32, T)], gang: u32) -> f64 {
    seats.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut left, mut sum) = (gang, 0.0);
    for (cost, room, _) in seats {
        *room = left.min(*room);
        sum += *cost * f64::from(*room);
        left -= *room;
    }
    match left {
        0 => sum,
        _ => f64::INFINITY,
    }
}
