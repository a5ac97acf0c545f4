//! A project's client: what it asks for, how often, and how long it truly runs.

use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{
    BlobRef, Digest, Gang, GangRegions, Glob, ProjectId, PythonVersion, Resources, SessionId,
    TaskSpec,
};
use farlane_plan::Policy;
use farlane_units::{ByteCount, MilliCpu, MilliGpu};

use crate::scenario::Project;
use crate::{Random, Scenario};

/// The project's one session.
pub(crate) struct Client {
    pub name: String,
    pub project: ProjectId,
    pub session: SessionId,
    pub weight: u32,
    pub policy: Policy,
    pub gang: u32,
    pub next_seq: u64,
    of: Project,
    seed: u64,
    pub kinds: Vec<TaskKind>,
    sent: bool,
}

/// One kind of task that a client submits.
pub(crate) struct TaskKind {
    pub digest: Digest,
    pub bytes: Bytes,
    pub spec: Arc<TaskSpec>,
}

impl TaskKind {
    pub fn of(spec: TaskSpec) -> Self {
        let bytes: Bytes = spec.to_canonical().into();
        Self {
            digest: Digest::of(&bytes),
            bytes,
            spec: Arc::new(spec),
        }
    }
}

impl Client {
    pub fn all(scenario: &Scenario) -> Vec<Self> {
        let copies = |p: &Project| vec![p.clone(); p.copies as usize];
        let projects = scenario.projects.iter().flat_map(copies);
        let numbered = projects.enumerate();
        numbered
            .map(|(n, project)| Self::new(n as u64, project, scenario.seed))
            .collect()
    }

    fn new(number: u64, of: Project, seed: u64) -> Self {
        // As they are drawn in a real network: equal shares are told apart by it.
        let mut drawn = [9; 10];
        drawn[2..].copy_from_slice(&Random::new(number).bits().to_be_bytes());
        let project = ProjectId::new(1 + number, drawn);
        let kinds = of.cores.iter();
        let kinds = kinds.map(|cores| TaskKind::of(spec(project, &of, *cores)));
        Self {
            name: match of.copies {
                1 => of.name.clone(),
                _ => format!("{}-{number}", of.name),
            },
            project,
            session: SessionId::new(1000 + number, [1; 5]),
            weight: of.weight,
            policy: of.policy.policy(),
            gang: of.gang,
            next_seq: 1,
            kinds: kinds.collect(),
            sent: false,
            seed: seed.wrapping_add(number << 40),
            of,
        }
    }

    /// Specs that the network does not have yet.
    pub fn new_specs(&mut self) -> Vec<Bytes> {
        if std::mem::replace(&mut self.sent, true) {
            return Vec::new();
        }
        self.kinds.iter().map(|kind| kind.bytes.clone()).collect()
    }

    /// The kind of the next task.
    pub fn draw(&self, random: &mut Random) -> usize {
        random.below(self.kinds.len() as u64) as usize
    }

    /// Tasks that arrive in this share of an hour from `now` on, in whole gangs.
    pub fn arrivals(&self, now: u64, share: f64, random: &mut Random) -> usize {
        let day = (now % (24 * 3_600_000)) as f64 / (24.0 * 3_600_000.0);
        let rate = self.of.tasks_per_hour * (1.0 + self.of.diurnal * wave(day));
        let gang = self.gang as usize;
        (rate * share / gang as f64 + random.unit()) as usize * gang
    }

    /// How long a task truly runs at full speed; the same whenever it is asked.
    pub fn runs_ms(&self, seq: u64) -> u64 {
        let gang = seq.saturating_sub(1) / u64::from(self.gang);
        let mut random = Random::new(self.seed ^ gang.wrapping_mul(0x9e37_79b9));
        let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        let seconds = self.of.median_seconds * exp(self.of.sigma * normal);
        ((seconds * 1000.0) as u64).max(1)
    }
}

fn spec(project: ProjectId, of: &Project, cores: f64) -> TaskSpec {
    let code = BlobRef {
        digest: Digest::of(of.name.as_bytes()),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    let mut spec = TaskSpec::new(project, code, python);
    spec.resources = Resources {
        cpus: MilliCpu((cores * 1000.0) as u32),
        memory: ByteCount::mib(of.memory_mib),
        gpus: MilliGpu((of.gpus * 1000.0) as u32),
        ..spec.resources
    };
    let globs = of.regions.iter().map(|r| Glob::new(r.as_str()));
    spec.node.regions = globs.filter_map(Result::ok).collect();
    spec.retry.lost = 100;
    spec.gang = (of.gang > 1).then_some(Gang {
        size: of.gang as u16,
        regions: GangRegions::One,
    });
    spec
}

/// Near a sine of a whole turn, by two parabolas: the same on every machine.
pub(crate) fn wave(turn: f64) -> f64 {
    let half = |x: f64| 16.0 * x * (0.5 - x);
    match turn < 0.5 {
        true => half(turn),
        false => -half(turn - 0.5),
    }
}

/// Near e to the x, within a hundredth for the exponents here, by multiplication alone.
fn exp(x: f64) -> f64 {
    let mut y = 1.0 + x.clamp(-30.0, 30.0) / 4096.0;
    for _ in 0..12 {
        y *= y;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_sine_and_exponent_is_near_them() {
        for n in 0..100 {
            let turn = f64::from(n) / 100.0;
            assert!((wave(turn) - (turn * std::f64::consts::TAU).sin()).abs() < 0.07);
            let x = f64::from(n - 50) / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 0.01, "{x}");
        }
    }
}
