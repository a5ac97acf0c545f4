//! What a history came to, in figures.

use std::ops::Range;

use farlane_plan::{NodeView, Policy};
use farlane_state::{Outcome, State};
use serde::Serialize;

use crate::Scenario;
use crate::machine::HOUR;
use crate::work::Client;

/// Over how long shares are held against weights, milliseconds. Source: SPEC.md's bar, "any 10 s".
const WINDOW: u64 = 10_000;
/// Points of a curve; twice as many at most, where a history lasts longer than work arrives.
const POINTS: u64 = 240;

/// Sums while a history runs.
pub(crate) struct Tally {
    cores: u64,
    weights: Vec<u32>,
    projects: Vec<Sums>,
    pub refused: u64,
    pub lost: u64,
    submitted: u64,
    not_taken: u64,
    ended: u64,
    /// Thousandths of a core × milliseconds.
    used: u128,
    window: Window,
    share_error: f64,
    windows: u64,
    curve: Vec<Point>,
    every: u64,
}

#[derive(Default, Clone)]
struct Sums {
    waits: Vec<u32>,
    usd_micros: f64,
    grams: f64,
    core_ms: f64,
    objective: f64,
}

/// What came of one attempt, in the node's own figures: what the judge of every chooser goes by. *Units*:
/// milliseconds.
pub(crate) struct Started {
    /// From submission until the node took it up.
    pub wait: u64,
    /// There and back.
    pub trip: u64,
    pub run: u64,
    pub cores: f64,
    /// Of the node's grid at that moment, g CO2e a kWh.
    pub carbon: u32,
}

impl Started {
    /// Micro-dollars.
    fn price(&self, node: &NodeView) -> f64 {
        self.cores * (self.run as f64 / HOUR as f64) * node.price.0 as f64
    }

    fn grams(&self, node: &NodeView) -> f64 {
        let hours = self.run as f64 / HOUR as f64;
        let kwh = self.cores * hours * f64::from(node.milliwatts_core) / 1e6;
        kwh * f64::from(self.carbon)
    }

    /// What accelerators emit beside its cores.
    fn grams_of_gpus(&self, node: &NodeView, gpus: f64) -> f64 {
        let hours = self.run as f64 / HOUR as f64;
        gpus * hours * f64::from(node.milliwatts_gpu) / 1e6 * f64::from(self.carbon)
    }

    /// What it is worth to a policy: money, time from submission to the end, carbon, and the chance of doing it
    /// again. Micro-dollars.
    pub fn cost(&self, node: &NodeView, policy: &Policy) -> f64 {
        let worth = |ms: u64| ms as f64 / HOUR as f64 * policy.hour_usd_micros;
        let price = self.price(node);
        let again = price + worth(self.run + self.trip);
        price
            + worth(self.wait + self.trip + self.run)
            + self.grams(node) * policy.tonne_usd
            + f64::from(node.risk.0) / 1e6 * again * policy.risk
    }
}

struct Window {
    begin: u64,
    held: Vec<f64>,
    /// Each had work waiting all the time.
    all_wait: bool,
}

/// One moment of a history.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// From the beginning.
    pub hours: f64,
    /// Of all cores, 0 to 1.
    pub utilisation: f64,
    /// Tasks that wait.
    pub queued: usize,
}

/// What one project got.
#[derive(Debug, Clone, Serialize)]
pub struct ProjectFigures {
    /// Its name.
    pub name: String,
    /// Tasks that began, again after a loss counted again.
    pub started: usize,
    /// From submission to its beginning, milliseconds.
    pub wait_ms_p50: u32,
    /// Likewise.
    pub wait_ms_p99: u32,
    /// On average.
    pub wait_ms_mean: f64,
    /// What its attempts cost.
    pub usd: f64,
    /// What they emitted.
    pub grams_co2e: f64,
    /// What they came to in the policy's own money: price, time, carbon and risk.
    pub objective_usd: f64,
    /// Cores × time.
    pub core_hours: f64,
}

/// What a history came to.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What was made up; nothing for a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// Machines, all that were there at any time.
    pub nodes: usize,
    /// Until the last task ended.
    pub makespan_hours: f64,
    /// Taken in.
    pub submitted: u64,
    /// Refused at submission.
    pub not_taken: u64,
    /// Ended.
    pub ended: u64,
    /// Attempts lost with their node.
    pub lost: u64,
    /// Placements that no longer held when they were judged.
    pub refused: u64,
    /// Share of all cores over all the time.
    pub utilisation: f64,
    /// Largest error of any project's share over any ten seconds in which all had work waiting, against its
    /// weight's; `None` where there were no such ten seconds.
    pub share_error: Option<f64>,
    /// How many such ten seconds.
    pub share_windows: u64,
    /// All projects together.
    pub usd: f64,
    /// Likewise.
    pub grams_co2e: f64,
    /// Likewise.
    pub objective_usd: f64,
    /// One each.
    pub projects: Vec<ProjectFigures>,
    /// In equal steps.
    pub curve: Vec<Point>,
}

impl Tally {
    pub fn new(cores: u64, weights: Vec<u32>, scenario: &Scenario) -> Self {
        Self {
            cores,
            projects: vec![Sums::default(); weights.len()],
            window: Window {
                begin: 0,
                held: vec![0.0; weights.len()],
                all_wait: true,
            },
            weights,
            refused: 0,
            lost: 0,
            submitted: 0,
            not_taken: 0,
            ended: 0,
            used: 0,
            share_error: 0.0,
            windows: 0,
            curve: Vec::new(),
            every: ((scenario.hours * 3_600_000.0) as u64 / POINTS).max(1),
        }
    }

    pub fn submitted(&mut self, count: usize, outcome: &Outcome) {
        let refused = match outcome {
            Outcome::Submitted { refused, .. } => refused.len(),
            _ => count,
        };
        self.submitted += (count - refused) as u64;
        self.not_taken += refused as u64;
    }

    /// An attempt began, which holds so many accelerators.
    pub fn started(
        &mut self,
        client: usize,
        it: &Started,
        node: &NodeView,
        (policy, gpus): (&Policy, f64),
    ) {
        let sums = &mut self.projects[client];
        // Of made-up ones nobody says what they draw.
        let beside = it.grams_of_gpus(node, gpus);
        let wait = it.wait + it.trip;
        sums.waits.push(u32::try_from(wait).unwrap_or(u32::MAX));
        sums.core_ms += it.cores * it.run as f64;
        sums.usd_micros += it.price(node);
        sums.grams += it.grams(node) + beside;
        sums.objective += it.cost(node, policy) + beside * policy.tonne_usd;
    }

    pub fn ended(&mut self) {
        self.ended += 1;
    }

    /// Time passes from one event to the next; the state is as it was in between, and so many thousandths of a core
    /// worked. What waits on a node holds a share, and no core.
    pub fn pass(&mut self, state: &State, clients: &[Client], busy: u64, time: Range<u64>) {
        let Range {
            start: from,
            end: to,
        } = time;
        if to == from {
            return;
        }
        let mut held = vec![0u64; clients.len()];
        for (id, project) in state.projects() {
            if let Some(at) = clients.iter().position(|c| c.project == id) {
                held[at] = project.held().cpus;
            }
        }
        self.used += u128::from(busy) * u128::from(to - from);
        let mut waiting = vec![false; clients.len()];
        for queue in state.waiting() {
            if let Some(at) = clients.iter().position(|c| c.project == queue.project) {
                waiting[at] = true;
            }
        }
        let all_wait = waiting.iter().all(|w| *w);
        self.window.all_wait &= all_wait;
        let mut at = from;
        while at < to {
            let until = to.min(self.window.begin + WINDOW);
            for (sum, held) in self.window.held.iter_mut().zip(&held) {
                *sum += (*held as f64) * (until - at) as f64;
            }
            at = until;
            if at == self.window.begin + WINDOW {
                self.close_windows(1);
                self.window.all_wait = all_wait;
                // Of whole windows in which nothing changes one is as the other.
                let whole = (to - at) / WINDOW;
                if whole > 0 {
                    let each = self.window.held.iter_mut().zip(&held);
                    each.for_each(|(sum, held)| *sum = (*held as f64) * WINDOW as f64);
                    self.close_windows(whole);
                    self.window.all_wait = all_wait;
                    at += whole * WINDOW;
                }
            }
        }
        while self.curve.len() as u64 * self.every < to {
            if self.curve.len() as u64 == 2 * POINTS {
                // It lasts longer than was thought: every other point is enough.
                let mut kept = (0..).map(|at| at % 2 == 0);
                self.curve.retain(|_| kept.next().unwrap_or(true));
                self.every *= 2;
            }
            self.curve.push(Point {
                hours: (self.curve.len() as u64 * self.every) as f64 / 3_600_000.0,
                utilisation: busy as f64 / self.cores.max(1) as f64,
                queued: state.counts().queued,
            });
        }
    }

    /// This one, and those after it that are as it is.
    fn close_windows(&mut self, count: u64) {
        let sum: f64 = self.window.held.iter().sum();
        let weights: f64 = self.weights.iter().map(|w| f64::from(*w)).sum();
        if self.window.all_wait && sum > 0.0 && self.weights.len() > 1 {
            self.windows += count;
            for (held, weight) in self.window.held.iter().zip(&self.weights) {
                let due = f64::from(*weight) / weights;
                let error = (held / sum / due - 1.0).abs();
                self.share_error = self.share_error.max(error);
            }
        }
        self.window.begin += WINDOW * count;
        self.window.held.iter_mut().for_each(|held| *held = 0.0);
    }

    pub fn figures(
        self,
        now: u64,
        clients: &[Client],
        scenario: Option<Scenario>,
        nodes: usize,
    ) -> Figures {
        let project = |(client, sums): (&Client, Sums)| {
            let waits = Waits::of(sums.waits);
            ProjectFigures {
                name: client.name.clone(),
                started: waits.count,
                wait_ms_p50: waits.p50,
                wait_ms_p99: waits.p99,
                wait_ms_mean: waits.mean,
                usd: sums.usd_micros / 1e6,
                grams_co2e: sums.grams,
                objective_usd: sums.objective / 1e6,
                core_hours: sums.core_ms / 3_600_000.0,
            }
        };
        let projects: Vec<_> = clients.iter().zip(self.projects).map(project).collect();
        let capacity = u128::from(self.cores) * u128::from(now.max(1));
        Figures {
            scenario,
            nodes,
            makespan_hours: now as f64 / 3_600_000.0,
            submitted: self.submitted,
            not_taken: self.not_taken,
            ended: self.ended,
            lost: self.lost,
            refused: self.refused,
            utilisation: self.used as f64 / capacity as f64,
            share_error: (self.windows > 0).then_some(self.share_error),
            share_windows: self.windows,
            usd: projects.iter().map(|p| p.usd).sum(),
            grams_co2e: projects.iter().map(|p| p.grams_co2e).sum(),
            objective_usd: projects.iter().map(|p| p.objective_usd).sum(),
            projects,
            curve: self.curve,
        }
    }
}

/// How long some waited, milliseconds; percentiles by nearest rank.
pub(crate) struct Waits {
    pub count: usize,
    pub p50: u32,
    pub p99: u32,
    pub mean: f64,
}

impl Waits {
    pub fn of(mut waits: Vec<u32>) -> Self {
        waits.sort_unstable();
        let count = waits.len();
        let at = |percent: usize| {
            let rank = (count * percent).div_ceil(100);
            waits.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        let all: f64 = waits.iter().map(|ms| f64::from(*ms)).sum();
        Self {
            count,
            p50: at(50),
            p99: at(99),
            mean: all / count.max(1) as f64,
        }
    }
}
