//! A schedule by one who knows every arrival and every run time: what the bound's charges come to on real nodes.
//!
//! Owns that schedule. What it costs lies above the optimum, as the bound lies below: how far apart the two are is
//! how much of a history's cost over its bound is the bound's own looseness.
//!
//! Tasks and gangs are laid one after the other, first each where it is cheapest with the bound's charges on room that
//! is scarce, on nodes with room for it from its beginning to its end; then each is taken up and laid again, for less
//! and less of the charges, as long as that helps. Time goes in short steps, of which a task holds all that it touches.

use crate::bound::{BySlot, Lines};
use crate::instance::{Ask, At, Instance, Kind, Place, Seat, fill};

/// Steps that a usual task runs. Source: choice; a step more than it needs is one percent then.
const STEPS: u64 = 100;
/// For what share of the charges everything is laid, one time after the other. Source: choice; more times save less
/// than 0.2 %.
const SHARES: [f64; 5] = [1.0, 0.7, 0.4, 0.0, 0.0];
/// So much longer than work arrives is looked at: what waits for longer finds no room. Source: choice; of a day that
/// is the next one.
const PAST: u64 = 2;
/// Steps of all nodes together. Source: choice; 8 bytes each, 400 MB.
const MAX_STEPS: usize = 50_000_000;

/// Where one member lies.
#[derive(Debug, Clone, Copy)]
struct Laid {
    node: usize,
    begin: usize,
    end: usize,
}

/// One node's room over time.
#[derive(Debug, Clone)]
struct Room {
    cores: Vec<f32>,
    gpus: Vec<f32>,
}

struct Nodes {
    step: u64,
    /// Nodes of each pool.
    of_pool: Vec<Vec<usize>>,
    rooms: Vec<Room>,
}

/// The best moment yet.
struct Choice {
    cost: f64,
    place: usize,
    begin: usize,
}

impl Instance {
    /// What a schedule costs that is made with these charges, micro-dollars. Cores and GPUs are held against each node;
    /// memory is forgotten, as by the bound.
    ///
    /// *Shape*: infinite where it found none, or where nodes and time are too many.
    pub(crate) fn foreseen(&self, charge: &BySlot) -> f64 {
        let Some(mut nodes) = self.rooms() else {
            return f64::INFINITY;
        };
        let lines = self.lines(charge);
        let mut laid: Vec<Vec<Laid>> = vec![Vec::new(); self.asks.len()];
        let mut least = f64::INFINITY;
        for share in SHARES {
            let mut sum = 0.0;
            for (ask, laid) in self.asks.iter().zip(&mut laid) {
                for one in laid.drain(..) {
                    nodes.give(&one, self, ask, 1.0);
                }
                sum += match self.choose(&nodes, ask, &lines, share) {
                    Some(choice) => self.lay(&mut nodes, ask, &choice, laid),
                    // Nowhere at all: it is none of the bound's either.
                    None if self.kinds[ask.kind].places.is_empty() => 0.0,
                    None => f64::INFINITY,
                };
            }
            least = least.min(sum);
        }
        least
    }

    /// `None` where they are too many.
    fn rooms(&self) -> Option<Nodes> {
        let works: u64 = self.asks.iter().map(|ask| ask.work).sum();
        let step = (works / self.asks.len().max(1) as u64 / STEPS).max(1);
        let last = self.asks.iter().map(|ask| ask.arrival + 2 * ask.work);
        let steps = (last.max().unwrap_or(0) * PAST / step + 1) as usize;
        let nodes: u32 = self.pools.iter().map(|pool| pool.nodes).sum();
        if steps.saturating_mul(nodes as usize) > MAX_STEPS {
            return None;
        }
        let (mut of_pool, mut rooms) = (Vec::new(), Vec::new());
        for pool in &self.pools {
            let nodes = f64::from(pool.nodes);
            let room = Room {
                cores: vec![(pool.cores / nodes) as f32; steps],
                gpus: vec![(pool.gpus / nodes) as f32; steps],
            };
            of_pool.push((rooms.len()..rooms.len() + pool.nodes as usize).collect());
            rooms.extend(std::iter::repeat_n(room, pool.nodes as usize));
        }
        Some(Nodes {
            step,
            of_pool,
            rooms,
        })
    }

    fn choose(&self, nodes: &Nodes, ask: &Ask, lines: &[Vec<Lines>], share: f64) -> Option<Choice> {
        let of = &self.kinds[ask.kind];
        let mut best: Option<Choice> = None;
        for (at, place) in of.places.iter().enumerate() {
            let lines = &lines[ask.kind][at];
            self.choose_in(nodes, ask, (at, place), lines, share, &mut best);
        }
        best
    }

    fn choose_in(
        &self,
        nodes: &Nodes,
        ask: &Ask,
        (at, place): (usize, &Place),
        lines: &Lines,
        share: f64,
        best: &mut Option<Choice>,
    ) {
        let of = &self.kinds[ask.kind];
        let seats: Vec<At<'_>> = place.seats.iter().map(|seat| self.at(ask, seat)).collect();
        let mut costs: Vec<(f64, u32, ())> = Vec::new();
        let floors = seats.iter().zip(&place.seats);
        costs.extend(floors.map(|(at, seat)| (at.floor(), seat.room, ())));
        let floor = fill(&mut costs, of.gang);
        let whole_until = seats.iter().map(|at| at.holds).min().unwrap_or(0);
        let first = ask.arrival.div_ceil(nodes.step) as usize;
        let mut runs: Vec<Run> = place
            .seats
            .iter()
            .zip(&seats)
            .map(|(seat, at)| Run::of(nodes, seat, at.holds, of, first))
            .collect();
        for begin in first..nodes.rooms[0].cores.len() {
            let now = begin as u64 * nodes.step;
            let waited = (now - ask.arrival) as f64 * of.waiting();
            if best
                .as_ref()
                .is_some_and(|best| floor + waited >= best.cost)
            {
                return;
            }
            costs.clear();
            for ((run, at), line) in runs.iter_mut().zip(&seats).zip(&lines.seats) {
                let Some(room) = run.room(nodes, begin) else {
                    return;
                };
                let charge = line.within(now, now + at.holds);
                costs.push((at.begun(now) + share * charge, room, ()));
            }
            let whole = lines.whole.as_ref();
            let whole = whole.map_or(0.0, |line| line.within(now, now + whole_until));
            let cost = fill(&mut costs, of.gang) + waited + share * whole;
            if cost.is_finite() && best.as_ref().is_none_or(|best| cost < best.cost) {
                *best = Some(Choice {
                    cost,
                    place: at,
                    begin,
                });
            }
        }
    }

    /// What it costs without charges.
    fn lay(&self, nodes: &mut Nodes, ask: &Ask, choice: &Choice, laid: &mut Vec<Laid>) -> f64 {
        let of = &self.kinds[ask.kind];
        let now = choice.begin as u64 * nodes.step;
        let mut seats: Vec<(f64, Laid)> = Vec::new();
        for seat in &of.places[choice.place].seats {
            let at = self.at(ask, seat);
            let end = choice.begin + at.holds.div_ceil(nodes.step) as usize;
            for node in nodes.of_pool[seat.pool].iter().copied() {
                let one = Laid {
                    node,
                    begin: choice.begin,
                    end,
                };
                let members = nodes
                    .members(&one, of.cores as f32, of.gpus as f32)
                    .min(of.gang);
                seats.extend((0..members).map(|_| (at.begun(now), one)));
            }
        }
        seats.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sum = (now - ask.arrival) as f64 * of.waiting();
        for (cost, one) in seats.into_iter().take(of.gang as usize) {
            sum += cost;
            nodes.give(&one, self, ask, -1.0);
            laid.push(one);
        }
        sum
    }
}

impl Nodes {
    fn members(&self, laid: &Laid, cores: f32, gpus: f32) -> u32 {
        let room = &self.rooms[laid.node];
        let each = (laid.begin..laid.end).map(|at| fits(room, at, cores, gpus));
        each.min().unwrap_or(0)
    }

    fn give(&mut self, laid: &Laid, of: &Instance, ask: &Ask, sign: f64) {
        let kind = &of.kinds[ask.kind];
        let room = &mut self.rooms[laid.node];
        for at in laid.begin..laid.end {
            room.cores[at] += (sign * kind.cores) as f32;
            room.gpus[at] += (sign * kind.gpus) as f32;
        }
    }
}

fn fits(room: &Room, at: usize, cores: f32, gpus: f32) -> u32 {
    let by = |free: f32, each: f32| match each > 0.0 {
        true => ((free + 1e-3) / each) as u32,
        false => u32::MAX,
    };
    match room.cores.get(at) {
        Some(free) => by(*free, cores).min(by(room.gpus[at], gpus)),
        None => 0,
    }
}

/// Members that have room on each node of a seat from a moment to their end: as the moment goes on.
struct Run {
    nodes: Vec<usize>,
    long: usize,
    gang: u32,
    /// Since when, going back from `looked`, so many had room all the time: by node, then by how many.
    since: Vec<Vec<usize>>,
    looked: usize,
    cores: f32,
    gpus: f32,
}

impl Run {
    fn of(nodes: &Nodes, seat: &Seat, holds: u64, of: &Kind, first: usize) -> Self {
        let ids = nodes.of_pool[seat.pool].clone();
        Self {
            long: holds.div_ceil(nodes.step) as usize,
            since: vec![vec![first; of.gang as usize]; ids.len()],
            nodes: ids,
            gang: of.gang,
            looked: first,
            cores: of.cores as f32,
            gpus: of.gpus as f32,
        }
    }

    /// `None` past the last step.
    fn room(&mut self, nodes: &Nodes, begin: usize) -> Option<u32> {
        let end = begin + self.long;
        if end > nodes.rooms[0].cores.len() {
            return None;
        }
        while self.looked < end {
            for (node, since) in self.nodes.iter().zip(&mut self.since) {
                let room = fits(&nodes.rooms[*node], self.looked, self.cores, self.gpus);
                for more in since.iter_mut().skip(room as usize) {
                    *more = self.looked + 1;
                }
            }
            self.looked += 1;
        }
        let of_node = |since: &Vec<usize>| since.iter().take_while(|s| **s <= begin).count() as u32;
        let all: u32 = self.since.iter().map(of_node).sum();
        Some(all.min(self.gang))
    }
}
