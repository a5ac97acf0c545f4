//! A floor under what any schedule of the same work on the same nodes could cost, in each policy's own money, for
//! one who knows every arrival and every run time beforehand.
//!
//! Owns the bound. Leaves what a schedule did cost to the report.
//!
//! *Why it is one.* Take nodes that are alike but for what is free as one pool, let a task run on a pool as long as
//! the pool's cores (and GPUs) are not exceeded at any time, forget memory: every schedule of the real network is one
//! of this larger world, at the same cost, so that the optimum here is no dearer. A gang begins at one moment among
//! the pools of one region, with no more members on a pool than its nodes run at once; and a region runs no more gangs
//! at once than it has room for whole ones, each counted from its beginning until its first member could end. Now
//! charge λ ≥ 0 for each core that is held in a slot of time, and give back λ × what the pool has of it; room for
//! gangs likewise: a schedule that keeps within the limits pays no more by that, since it holds no more than there is.
//! With this charge the limits are dropped, each task goes where and when it alone is cheapest, and what all of them
//! cost together less what is given back is no more than the optimum, for every λ (Lagrangian duality; Held and Karp
//! 1970). The search only chooses λ that make it high; a poor choice makes the bound lower, never wrong.
//!
//! A task's cheapest moment is found exactly: its cost is a line in its beginning between those moments at which it
//! begins or ends as a charge changes, so one of them is the least. A gang's cost is the least of several such lines,
//! the cheapest seats filled first, and so it is least at one of these moments as well. Grids change with slots only.

use crate::instance::{Ask, At, Instance, Place, SLOTS, fill};
use crate::machine::HOUR;

/// So many slots in a row are charged alike: prices of room change slowly, and what few charges reach is a good
/// beginning for many. Source: choice; bounds after so many rounds.
const TIED: [usize; 3] = [16, 4, 1];

/// What each limit is charged for a millisecond, by slot; or how much of it is held, times milliseconds.
pub(crate) type BySlot = Vec<Vec<f64>>;

impl Instance {
    /// What no schedule costs less than, and what one costs that is made by who knows all. *Units*: micro-dollars; `known`
    /// is what some schedule did cost, `rounds` how often the charges are improved.
    ///
    /// *Shape*: the second is infinite where none was found.
    pub fn bounds(&self, known: f64, rounds: usize) -> (f64, f64) {
        let (bound, charge) = self.charged(known, rounds);
        (bound, self.foreseen(&charge))
    }

    /// The bound, and the charges that prove it. The higher of two searches for charges: where few tasks wait each slot
    /// is best charged by itself from the beginning, where many wait for long it takes too many rounds. The second is
    /// steered by what one who knows all makes of the charges of the first.
    fn charged(&self, known: f64, rounds: usize) -> (f64, BySlot) {
        let each = self.search(known, rounds, &[1]);
        let known = known.min(self.foreseen(&each.1));
        let tied = self.search(known, rounds, &TIED);
        match each.0 > tied.0 {
            true => each,
            false => tied,
        }
    }

    /// Charges steered towards what is known to be reached; so many slots alike in each part of the rounds.
    fn search(&self, known: f64, rounds: usize, tied: &[usize]) -> (f64, BySlot) {
        let slots = (self.horizon() / self.slot + 1) as usize;
        let none = vec![vec![0.0; slots]; self.limits.len()];
        let (mut charge, mut proof) = (none.clone(), none.clone());
        let (mut best, mut step, mut since, mut before) = (0.0, 1.0, 0, 0);
        for round in 0..rounds.max(1) {
            let part = tied[round * tied.len() / rounds.max(1)];
            if part != before {
                (step, since, before) = (1.0, 0, part);
            }
            let mut held = none.clone();
            let reached = self.relaxed(&charge, &mut held);
            match reached > best {
                true => {
                    (best, since) = (reached, 0);
                    proof.clone_from(&charge);
                }
                false => since += 1,
            }
            if since == 5 {
                (step, since) = (step * 0.6, 0);
            }
            let room = (known - reached).max(known * 1e-4) * step;
            if !self.improve(&mut charge, held, room, part) {
                break;
            }
        }
        (best, proof)
    }

    /// Charges move along what is held too much, or too little: Polyak's step towards what is known to be reached,
    /// those of so many slots alike. False where nothing is held too much.
    fn improve(&self, charge: &mut BySlot, held: BySlot, room: f64, tied: usize) -> bool {
        let (mut over, mut sum) = (held, 0.0);
        for ((over, charge), all) in over.iter_mut().zip(&*charge).zip(&self.limits) {
            for (over, charge) in over.chunks_mut(tied).zip(charge.chunks(tied)) {
                let mut all_over = over.iter().sum::<f64>();
                all_over -= all * (self.slot * over.len() as u64) as f64;
                if all_over < 0.0 && charge.iter().all(|charge| *charge <= 0.0) {
                    all_over = 0.0;
                }
                over.fill(all_over);
                sum += all_over * all_over;
            }
        }
        if sum <= 0.0 {
            return false;
        }
        let step = room / sum;
        for (charge, over) in charge.iter_mut().flatten().zip(over.iter().flatten()) {
            *charge = (*charge + step * over).max(0.0);
        }
        true
    }

    /// Past this nothing is charged, which can only make the bound lower. So far that nothing is worth waiting for
    /// any longer, where that is not too far.
    fn horizon(&self) -> u64 {
        let ends = self.asks.iter();
        let ends = ends.map(|ask| ask.arrival + ask.work + self.worth_waiting(ask));
        let last = self.asks.iter().map(|ask| 2 * (ask.arrival + ask.work));
        let last = ends.chain(last).max().unwrap_or(0);
        last.min(self.slot * 6 * SLOTS)
    }

    /// For how long a task would wait for the pool that costs it least, rather than take the dearest, milliseconds.
    fn worth_waiting(&self, ask: &Ask) -> u64 {
        let of = &self.kinds[ask.kind];
        let seats = of.places.iter().flat_map(|place| &place.seats);
        let costs = seats.flat_map(|seat| {
            let at = self.at(ask, seat);
            let hours = (0..24).map(|hour| at.grid.at(hour * HOUR));
            [hours.clone().min(), hours.max()].map(|grams| at.cost(grams.unwrap_or(0)))
        });
        let (least, most) = costs.fold((f64::INFINITY, 0.0f64), |(a, b), c| (a.min(c), b.max(c)));
        ((most - least).max(0.0) / of.policy.hour_usd_micros.max(1.0) * HOUR as f64) as u64
    }

    /// What each kind is charged in each of its places.
    pub(crate) fn lines(&self, charge: &BySlot) -> Vec<Vec<Lines>> {
        let kinds = self.kinds.iter().map(|kind| {
            let (cores, gpus) = (&charge[..self.pools.len()], &charge[self.pools.len()..]);
            let seat = |pool: usize| {
                let each = cores[pool].iter().zip(&gpus[pool]);
                let each = each.map(|(c, g)| c * kind.cores + g * kind.gpus);
                Line::of(each.collect(), self.slot)
            };
            let whole = kind.cores * f64::from(kind.gang);
            let place = |place: &Place| {
                let seats: Vec<Line> = place.seats.iter().map(|s| seat(s.pool)).collect();
                let whole = place.limit.map(|limit| {
                    let each = charge[limit].iter().map(|charge| charge * whole);
                    Line::of(each.collect(), self.slot)
                });
                let grids = place.seats.iter().map(|s| &self.pools[s.pool].machine.grid);
                let changes = grids.clone().any(|grid| grid.swing > 0.0);
                let turns = |slot: &u64| {
                    let now = slot * self.slot;
                    (changes && now.is_multiple_of(HOUR))
                        || seats.iter().chain(&whole).any(|line| line.turns(*slot))
                };
                let turns = (1..=charge[0].len() as u64).filter(turns);
                Lines {
                    turns: turns.map(|slot| slot * self.slot).collect(),
                    seats,
                    whole,
                }
            };
            kind.places.iter().map(place).collect()
        });
        kinds.collect()
    }

    /// What all tasks cost with these charges, each where it alone is cheapest, less what is given back; what they
    /// hold then is added up.
    fn relaxed(&self, charge: &BySlot, held: &mut BySlot) -> f64 {
        let lines = self.lines(charge);
        let mut total = 0.0;
        for ask in &self.asks {
            let of = &self.kinds[ask.kind];
            let mut least: Option<Best> = None;
            for (place, lines) in of.places.iter().zip(&lines[ask.kind]) {
                let seats: Vec<At<'_>> = place.seats.iter().map(|s| self.at(ask, s)).collect();
                let mut look = Look {
                    first: seats.iter().map(|at| at.holds).min().unwrap_or(0),
                    dirty: seats.iter().any(At::changes),
                    waiting: of.waiting(),
                    gang: of.gang,
                    arrival: ask.arrival,
                    seats,
                    place,
                    lines,
                    costs: Vec::new(),
                };
                look.cheapest(&mut least);
            }
            let Some(best) = least else { continue };
            total += best.cost;
            for (pool, members, until) in &best.held {
                let long = (best.begin, *until);
                let members = f64::from(*members);
                self.hold(&mut held[*pool], long, members * of.cores);
                self.hold(&mut held[self.pools.len() + pool], long, members * of.gpus);
            }
            if let Some((limit, until)) = best.whole {
                let cores = of.cores * f64::from(of.gang);
                self.hold(&mut held[limit], (best.begin, until), cores);
            }
        }
        for (charge, all) in charge.iter().zip(&self.limits) {
            total -= charge.iter().sum::<f64>() * all * self.slot as f64;
        }
        total
    }

    fn hold(&self, held: &mut [f64], (begin, until): (u64, u64), each: f64) {
        let slots = held.iter_mut().enumerate();
        for (slot, held) in slots.skip((begin / self.slot) as usize) {
            let from = (slot as u64 * self.slot).max(begin);
            let to = ((slot as u64 + 1) * self.slot).min(until);
            if from >= to {
                break;
            }
            *held += each * (to - from) as f64;
        }
    }
}

/// One kind in one place.
pub(crate) struct Lines {
    /// What a member on each seat is charged.
    pub seats: Vec<Line>,
    /// What a whole gang is, until the first of it could end.
    pub whole: Option<Line>,
    /// When a charge changes, or a grid.
    turns: Vec<u64>,
}

/// A charge over time, and its sums.
pub(crate) struct Line {
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

    /// Whether it changes as a slot begins.
    fn turns(&self, slot: u64) -> bool {
        let at = |slot: u64| self.each.get(slot as usize).copied().unwrap_or(0.0);
        at(slot) != at(slot - 1)
    }

    /// From one moment to another.
    pub fn within(&self, begin: u64, end: u64) -> f64 {
        self.until(end) - self.until(begin)
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

/// Where and when a task or a gang is cheapest.
struct Best {
    cost: f64,
    begin: u64,
    /// Pools, members on each, and until when.
    held: Vec<(usize, u32, u64)>,
    /// Which limit a whole gang counts in, and until when.
    whole: Option<(usize, u64)>,
}

/// One task or gang in one place.
struct Look<'a> {
    place: &'a Place,
    seats: Vec<At<'a>>,
    lines: &'a Lines,
    /// Until the first member could end, milliseconds.
    first: u64,
    /// Whether a grid changes.
    dirty: bool,
    /// What a millisecond of waiting costs all of it.
    waiting: f64,
    gang: u32,
    arrival: u64,
    /// Of each seat, its room, and which.
    costs: Vec<(f64, u32, usize)>,
}

impl Look<'_> {
    /// With these costs of one member on each seat.
    fn fill(&mut self, cost: impl Fn(&At<'_>, &Line) -> f64) -> f64 {
        self.costs.clear();
        if let ([at], [line]) = (&self.seats[..], &self.lines.seats[..])
            && self.gang == 1
        {
            let cost = cost(at, line);
            self.costs.push((cost, 1, 0));
            return cost;
        }
        let each = self
            .seats
            .iter()
            .zip(&self.lines.seats)
            .zip(&self.place.seats);
        let each = each.enumerate();
        self.costs
            .extend(each.map(|(n, ((at, line), seat))| (cost(at, line), seat.room, n)));
        fill(&mut self.costs, self.gang)
    }

    /// Looks at every moment at which it could be cheapest.
    fn cheapest(&mut self, least: &mut Option<Best>) {
        // Without grids that change, waiting only adds: what is dearer without any charge stays so.
        let floor = self.fill(|at, _| at.floor());
        let line = &self.lines.seats[0];
        let (slot, last) = (line.slot, line.each.len() as u64);
        let mut holds: Vec<u64> = self.seats.iter().map(|at| at.holds).collect();
        holds.dedup();
        if !self.look(self.arrival, floor, least) {
            return;
        }
        let lines = self.lines;
        let after = |moment: u64| {
            let past = lines.turns.partition_point(|turn| *turn <= moment);
            lines.turns[past..].iter()
        };
        for turn in after(self.arrival) {
            if !self.look(*turn, floor, least) {
                break;
            }
        }
        for holds in holds {
            for turn in after(self.arrival + holds) {
                if !self.look(turn - holds, floor, least) {
                    break;
                }
            }
        }
        if !self.dirty {
            return;
        }
        // Nothing is charged any more: the cleanest hour of one more day.
        let day = (last * slot).next_multiple_of(HOUR);
        for begin in (0..=24).map(|hour| day + hour * HOUR) {
            if begin > self.arrival && !self.look(begin, floor, least) {
                break;
            }
        }
    }

    /// Looks at one moment; false where waiting alone makes it, and all after it, too dear.
    fn look(&mut self, begin: u64, floor: f64, least: &mut Option<Best>) -> bool {
        let waited = (begin - self.arrival) as f64 * self.waiting;
        if least
            .as_ref()
            .is_some_and(|best| floor + waited >= best.cost)
        {
            return false;
        }
        let whole = self.lines.whole.as_ref();
        let whole = whole.map_or(0.0, |line| line.within(begin, begin + self.first));
        let members =
            self.fill(|at, line| at.begun_or_before(begin) + line.within(begin, begin + at.holds));
        let cost = members + whole + waited;
        if least.as_ref().is_none_or(|best| cost < best.cost) {
            let taken = self.costs.iter().filter(|(_, members, _)| *members > 0);
            let held = |(_, members, n): &(f64, u32, usize)| {
                let until = begin + self.seats[*n].holds;
                (self.place.seats[*n].pool, *members, until)
            };
            *least = Some(Best {
                cost,
                begin,
                held: taken.map(held).collect(),
                whole: self.place.limit.map(|limit| (limit, begin + self.first)),
            });
        }
        true
    }
}
