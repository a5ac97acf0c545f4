//! What was recorded, in the figures of a replay: the one beside the other.

use farlane_trace::{Outcome, Trace};
use serde::Serialize;

use crate::report::Waits;

/// What one project got.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedProject {
    /// Its name, as the trace has it.
    pub name: String,
    /// That ended.
    pub tasks: usize,
    /// From submission until a node took it up first, milliseconds.
    pub wait_ms_p50: u32,
    /// Likewise.
    pub wait_ms_p99: u32,
    /// On average.
    pub wait_ms_mean: f64,
    /// What its attempts were charged.
    pub usd: f64,
    /// What they emitted, as far as anybody knew.
    pub grams_co2e: f64,
    /// Cores × time.
    pub core_hours: f64,
}

/// What the network came to when the trace was recorded.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedFigures {
    /// Until the last task ended.
    pub makespan_hours: f64,
    /// Tasks that ended.
    pub ended: usize,
    /// Attempts that were lost, or made way.
    pub lost: usize,
    /// Attempts of which nobody knew what they emitted.
    pub unknown_co2e: usize,
    /// Tasks that ended and are not in the trace.
    pub left_out: u64,
    /// Share of all cores until the last task ended.
    pub utilisation: f64,
    /// All projects together.
    pub usd: f64,
    /// Likewise.
    pub grams_co2e: f64,
    /// One each.
    pub projects: Vec<RecordedProject>,
}

#[derive(Default, Clone)]
struct Sums {
    waits: Vec<u32>,
    usd_nanos: u64,
    nanograms: u64,
    core_ms: f64,
}

impl RecordedFigures {
    /// Of a trace.
    pub fn of(trace: &Trace) -> Self {
        let place = |name: &String| trace.projects.iter().position(|p| p.name == *name);
        let whose: Vec<usize> = trace.kinds.iter().flat_map(|k| place(&k.project)).collect();
        let mut sums = vec![Sums::default(); trace.projects.len()];
        let (mut end, mut lost, mut unknown) = (0, 0, 0);
        for call in &trace.calls {
            let sums = &mut sums[whose[call.kind as usize]];
            let runs = trace.attempts(call);
            let cores = trace.kinds[call.kind as usize].cores;
            let wait = runs.first().map_or(0, |run| run.started - call.submitted);
            sums.waits.push(u32::try_from(wait).unwrap_or(u32::MAX));
            for run in runs {
                end = end.max(run.ended);
                lost += usize::from(run.outcome == Outcome::Lost);
                unknown += usize::from(run.co2e_ng.is_none());
                sums.usd_nanos = sums.usd_nanos.saturating_add(run.usd_nanos);
                sums.nanograms = sums.nanograms.saturating_add(run.co2e_ng.unwrap_or(0));
                sums.core_ms += cores * (run.ended - run.started) as f64;
            }
        }
        let cores: f64 = trace.nodes.iter().map(|node| node.cores).sum();
        let used: f64 = sums.iter().map(|sums| sums.core_ms).sum();
        let named = trace.projects.iter().map(|p| p.name.clone()).zip(sums);
        let projects: Vec<RecordedProject> = named.map(project).collect();
        Self {
            makespan_hours: end as f64 / 3_600_000.0,
            ended: trace.calls.len(),
            lost,
            unknown_co2e: unknown,
            left_out: trace.left_out,
            utilisation: used / (cores * end.max(1) as f64),
            usd: projects.iter().map(|p| p.usd).sum(),
            grams_co2e: projects.iter().map(|p| p.grams_co2e).sum(),
            projects,
        }
    }
}

fn project((name, sums): (String, Sums)) -> RecordedProject {
    let waits = Waits::of(sums.waits);
    RecordedProject {
        name,
        tasks: waits.count,
        wait_ms_p50: waits.p50,
        wait_ms_p99: waits.p99,
        wait_ms_mean: waits.mean,
        usd: sums.usd_nanos as f64 / 1e9,
        grams_co2e: sums.nanograms as f64 / 1e9,
        core_hours: sums.core_ms / 3_600_000.0,
    }
}
