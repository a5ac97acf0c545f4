//! A floor under what any schedule of the same work on the same nodes could cost, in each policy's own money, for
//! one who knows every arrival and every run time beforehand.
//!
//! Owns the bound. Leaves what a schedule did cost to the report.
//!
//! *Why it is one.* Take nodes that are alike but for what is free as one pool, let a task run on a pool as long as
//! the pool's cores (and GPUs) are not exceeded at any time, forget memory and that gangs begin together: every
//! schedule of the real network is one of this larger world, at the same cost, so that the optimum here is no
//! dearer. Now charge λ ≥ 0 for each core that is held in a slot of time, and give back λ × what the pool has
//! of it: a schedule that keeps within the pools pays no more by that, since it holds no more than there is. With
//! this charge the pools' limits are dropped, each task goes where and when it alone is cheapest, and what all of
//! them cost together less what is given back is no more than the optimum, for every λ (Lagrangian duality; Held
//! and Karp 1970). The search only chooses λ that make it high; a poor choice makes the bound lower, never wrong.
//!
//! A task's cheapest moment is found exactly: its cost is a line in its beginning between those moments at which
//! it begins or ends with a slot, so one of them is the least. Grids change with slots only.

use farlane_plan::{Policy, Site};

use crate::machine::{HOUR, Machine, speed};
use crate::report::Started;
use crate::run::runs_for;
use crate::work::Client;

/// Slots of time. Source: choice; 120 of them are 3 s to 12 min in the histories that are measured.
const SLOTS: u64 = 120;

/// So many slots in a row are charged alike: prices of room change slowly, and what few charges reach is a good
/// beginning for many. Source: choice; bounds after so many rounds.
const TIED: [usize; 3] = [16, 4, 1];

/// What the charges are steered towards: so much above the highest bound yet, where less is not known to be reached.
/// Source: of 1.02, 1.05 and what is known the one that came furthest in 240 rounds of examples/sim/gpus.toml.
const TARGET: f64 = 1.05;

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
struct Pool {
    /// One of them.
    machine: Machine,
    cores: f64,
    gpus: f64,
}

/// Tasks that ask the same.
#[derive(Debug)]
struct Kind {
    cores: f64,
    gpus: f64,
    policy: Policy,
    /// Pools that run it, and how fast.
    pools: Vec<(usize, u64)>,
}

/// Work and nodes, without any schedule.
#[derive(Debug)]
pub struct Instance {
    pools: Vec<Pool>,
    kinds: Vec<Kind>,
    /// By kind.
    jobs: Vec<(usize, u64, u64)>,
    slot: u64,
}

/// What a core and a GPU are charged for a millisecond, by pool and slot.
struct Charge {
    cores: Vec<Vec<f64>>,
    gpus: Vec<Vec<f64>>,
}

impl Instance {
    pub(crate) fn of<'a>(
        machines: impl Iterator<Item = &'a Machine>,
        clients: &[Client],
        jobs: &[Job],
        end: u64,
    ) -> Self {
        let pools = pools(machines);
        let mut kinds = Vec::new();
        let mut first = Vec::new();
        for client in clients {
            first.push(kinds.len());
            let of = |kind: &crate::work::TaskKind| Kind::of(&kind.spec, client.policy, &pools);
            kinds.extend(client.kinds.iter().map(of));
        }
        let jobs = jobs.iter().map(|job| {
            let kind = first[job.client as usize] + job.kind as usize;
            (kind, job.arrival, job.work)
        });
        // Whole slots make an hour, or whole hours a slot.
        let slot = (end / SLOTS).clamp(1, HOUR);
        let slot = HOUR / (HOUR / slot);
        Self {
            jobs: jobs.collect(),
            kinds,
            pools,
            slot: divisor(slot),
        }
    }

    /// No schedule costs less, micro-dollars; `known` is what one did cost, `rounds` how often the charges are
    /// improved. The higher of two searches for charges: where few tasks wait each slot is best charged by itself from
    /// the beginning, where many wait for long it takes too many rounds.
    pub fn bound(&self, known: f64, rounds: usize) -> f64 {
        let each = self.search(known, rounds, &[1], f64::INFINITY);
        let tied = self.search(known, rounds, &TIED, TARGET);
        each.max(tied)
    }

    /// Charges steered towards `target` × the highest bound yet or what is known to be reached, whichever is less; so
    /// many slots alike in each part of the rounds.
    fn search(&self, known: f64, rounds: usize, tied: &[usize], target: f64) -> f64 {
        let slots = (self.horizon() / self.slot + 1) as usize;
        let zero = || vec![vec![0.0; slots]; self.pools.len()];
        let mut charge = Charge {
            cores: zero(),
            gpus: zero(),
        };
        let (mut best, mut step, mut since, mut before) = (0.0, 1.0, 0, 0);
        for round in 0..rounds.max(1) {
            let part = tied[round * tied.len() / rounds.max(1)];
            if part != before {
                (step, since, before) = (1.0, 0, part);
            }
            let mut held = Charge {
                cores: zero(),
                gpus: zero(),
            };
            let reached = self.relaxed(&charge, &mut held, slots);
            match reached > best {
                true => (best, since) = (reached, 0),
                false => since += 1,
            }
            if since == 5 {
                (step, since) = (step * 0.6, 0);
            }
            let room = (known.min(best * target) - reached).max(known * 1e-4) * step;
            if !self.improve(&mut charge, &held, room, part) {
                break;
            }
        }
        best
    }

    /// Charges move along what is held too much, or too little: Polyak's step towards what is known to be reached,
    /// those of so many slots alike. False where nothing is held too much.
    fn improve(&self, charge: &mut Charge, held: &Charge, room: f64, tied: usize) -> bool {
        let slot = self.slot as f64;
        let excess = |held: &Vec<Vec<f64>>, charge: &Vec<Vec<f64>>, all: &dyn Fn(&Pool) -> f64| {
            let mut over = held.clone();
            let mut sum = 0.0;
            for (at, pool) in self.pools.iter().enumerate() {
                let slots = over[at].chunks_mut(tied).zip(charge[at].chunks(tied));
                for (over, charge) in slots {
                    let mut all_over = over.iter().sum::<f64>();
                    all_over -= all(pool) * slot * over.len() as f64;
                    if all_over < 0.0 && charge.iter().all(|charge| *charge <= 0.0) {
                        all_over = 0.0;
                    }
                    over.fill(all_over);
                    sum += all_over * all_over;
                }
            }
            (over, sum)
        };
        let (cores, a) = excess(&held.cores, &charge.cores, &|pool| pool.cores);
        let (gpus, b) = excess(&held.gpus, &charge.gpus, &|pool| pool.gpus);
        if a + b <= 0.0 {
            return false;
        }
        let step = room / (a + b);
        let go = |charge: &mut Vec<Vec<f64>>, over: Vec<Vec<f64>>| {
            for (charge, over) in charge.iter_mut().flatten().zip(over.iter().flatten()) {
                *charge = (*charge + step * over).max(0.0);
            }
        };
        go(&mut charge.cores, cores);
        go(&mut charge.gpus, gpus);
        true
    }

    /// Past this nothing is charged, which can only make the bound lower. So far that nothing is worth waiting for
    /// any longer, where that is not too far.
    fn horizon(&self) -> u64 {
        let ends = self
            .jobs
            .iter()
            .map(|job| job.1 + job.2 + self.worth_waiting(job));
        let last = self.jobs.iter().map(|job| 2 * (job.1 + job.2));
        let last = ends.chain(last).max().unwrap_or(0);
        last.min(self.slot * 6 * SLOTS)
    }

    /// For how long a task would wait for the pool that costs it least, rather than take the dearest, milliseconds.
    fn worth_waiting(&self, (kind, _, work): &(usize, u64, u64)) -> u64 {
        let of = &self.kinds[*kind];
        let costs = of.pools.iter().flat_map(|(pool, speed)| {
            let machine = &self.pools[*pool].machine;
            let task = At {
                of,
                machine,
                arrival: 0,
                run: runs_for(*work, *speed),
                trip: machine.view.round_trip.0.div_ceil(1000),
            };
            let hours = (0..24).map(|hour| machine.grid.at(hour * HOUR));
            [hours.clone().min(), hours.max()].map(|grams| task.cost(0, grams.unwrap_or(0)))
        });
        let (least, most) = costs.fold((f64::INFINITY, 0.0f64), |(a, b), c| (a.min(c), b.max(c)));
        ((most - least).max(0.0) / of.policy.hour_usd_micros.max(1.0) * HOUR as f64) as u64
    }

    /// What all tasks cost with these charges, each where it alone is cheapest, less what is given back; what they
    /// hold then is added up.
    fn relaxed(&self, charge: &Charge, held: &mut Charge, slots: usize) -> f64 {
        let sums: Vec<Vec<(usize, u64, Line)>> = self
            .kinds
            .iter()
            .map(|kind| {
                let line = |(pool, speed): &(usize, u64)| {
                    let (cores, gpus) = (&charge.cores[*pool], &charge.gpus[*pool]);
                    let each = cores.iter().zip(gpus);
                    let each = each.map(|(c, g)| c * kind.cores + g * kind.gpus);
                    (*pool, *speed, Line::of(each.collect(), self.slot))
                };
                kind.pools.iter().map(line).collect()
            })
            .collect();
        let mut total = 0.0;
        for (kind, arrival, work) in &self.jobs {
            let of = &self.kinds[*kind];
            let mut least: Option<Best> = None;
            for (pool, speed, line) in &sums[*kind] {
                let machine = &self.pools[*pool].machine;
                let run = runs_for(*work, *speed);
                let task = At {
                    of,
                    machine,
                    arrival: *arrival,
                    run,
                    trip: machine.view.round_trip.0.div_ceil(1000),
                };
                task.cheapest(line, &mut least, *pool);
            }
            let Some(best) = least else { continue };
            total += best.cost;
            let until = best.begin + best.holds;
            let mut at = best.begin;
            while at < until {
                let slot = (at / self.slot) as usize;
                if slot >= slots {
                    break;
                }
                let next = ((slot as u64 + 1) * self.slot).min(until);
                held.cores[best.pool][slot] += of.cores * (next - at) as f64;
                held.gpus[best.pool][slot] += of.gpus * (next - at) as f64;
                at = next;
            }
        }
        let slot = self.slot as f64;
        for (at, pool) in self.pools.iter().enumerate() {
            total -= charge.cores[at].iter().sum::<f64>() * pool.cores * slot;
            total -= charge.gpus[at].iter().sum::<f64>() * pool.gpus * slot;
        }
        total
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
            Some(pool) => (pool.cores, pool.gpus) = (pool.cores + cores, pool.gpus + gpus),
            None => pools.push(Pool {
                machine: machine.clone(),
                cores,
                gpus,
            }),
        }
    }
    pools
}

impl Kind {
    fn of(spec: &farlane_model::TaskSpec, policy: Policy, pools: &[Pool]) -> Self {
        let fits = |(at, pool): (usize, &Pool)| {
            let node = &pool.machine.view;
            let site = Site {
                price: node.price,
                // A ceiling is held against the hour's figure: here it may wait for any hour.
                carbon: Some(0),
                ..Site::of(&node.spec, &node.region)
            };
            site.fits(spec).then(|| (at, speed(&node.spec, spec)))
        };
        Self {
            cores: f64::from(spec.resources.cpus.0) / 1000.0,
            gpus: f64::from(spec.resources.gpus.0) / 1000.0,
            policy,
            pools: pools.iter().enumerate().filter_map(fits).collect(),
        }
    }
}

/// A charge over time, and its sums.
struct Line {
    each: Vec<f64>,
    sums: Vec<f64>,
    slot: u64,
}

impl Line {
    fn of(each: Vec<f64>, slot: u64) -> Self {
        let mut sums = vec![0.0];
        for one in &each {
            sums.push(sums[sums.len() - 1] + one * slot as f64);
        }
        Self { each, sums, slot }
    }

    /// From the beginning until here.
    fn until(&self, at: u64) -> f64 {
        let slot = (at / self.slot) as usize;
        match self.each.get(slot) {
            Some(each) => self.sums[slot] + each * (at % self.slot) as f64,
            None => self.sums[self.each.len()],
        }
    }
}

/// Where and when a task is cheapest.
struct Best {
    cost: f64,
    pool: usize,
    begin: u64,
    holds: u64,
}

/// One task on one pool.
struct At<'a> {
    of: &'a Kind,
    machine: &'a Machine,
    arrival: u64,
    run: u64,
    trip: u64,
}

impl At<'_> {
    fn cost(&self, wait: u64, carbon: u32) -> f64 {
        let started = Started {
            wait,
            trip: self.trip,
            run: self.run,
            cores: self.of.cores,
            carbon,
        };
        started.cost(&self.machine.view, &self.of.policy)
    }

    /// Looks at every moment at which it could be cheapest.
    fn cheapest(&self, line: &Line, least: &mut Option<Best>, pool: usize) {
        let holds = self.trip + self.run;
        let dirty = self.machine.grid.swing > 0.0;
        // Without grids that change, waiting only adds: what is dearer without any charge stays so.
        let floor = match dirty {
            true => self.cost(0, 0),
            false => self.cost(0, self.machine.grid.at(0)),
        };
        let an_hour = self.of.policy.hour_usd_micros;
        let mut look = |begin: u64| {
            let wait = begin - self.arrival;
            let floor = floor + wait as f64 / HOUR as f64 * an_hour;
            if least.as_ref().is_some_and(|best| floor >= best.cost) {
                return false;
            }
            // With the hour it lies in, and with the one that ends here.
            let grid = &self.machine.grid;
            let carbon = match dirty {
                true => grid.at(begin).min(grid.at(begin.saturating_sub(1))),
                false => grid.at(0),
            };
            let cost = self.cost(wait, carbon) + line.until(begin + holds) - line.until(begin);
            if least.as_ref().is_none_or(|best| cost < best.cost) {
                *least = Some(Best {
                    cost,
                    pool,
                    begin,
                    holds,
                });
            }
            true
        };
        if !look(self.arrival) {
            return;
        }
        let last = line.each.len() as u64;
        for slot in self.arrival / line.slot + 1..=last {
            if !look(slot * line.slot) {
                break;
            }
        }
        for slot in (self.arrival + holds) / line.slot + 1..=last {
            if !look(slot * line.slot - holds) {
                break;
            }
        }
        // Nothing is charged any more: the cleanest hour of one more day.
        let day = (0..=24 * u64::from(dirty))
            .map(|hour| (last * line.slot).next_multiple_of(HOUR) + hour * HOUR);
        for begin in day.filter(|begin| dirty && *begin > self.arrival) {
            if !look(begin) {
                break;
            }
        }
    }
}
