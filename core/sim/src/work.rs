//! A project's client: what it asks for, how often, and how long it truly runs.

use std::collections::HashMap;
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
    source: Source,
    pub kinds: Vec<TaskKind>,
    sent: bool,
}

/// Where its work is from.
enum Source {
    Drawn { of: Project, seed: u64 },
    Recorded(Recorded),
}

/// What a trace says of one project's work.
pub(crate) struct Recorded {
    /// Whether kinds keep the policies that they name.
    own_policies: bool,
    /// Of kinds that name one.
    policies: HashMap<Digest, Policy>,
    /// In the order of submission, milliseconds.
    work: Vec<u64>,
}

impl Recorded {
    /// Nothing yet. `own_policies`: kinds keep the policies that they name.
    pub fn new(own_policies: bool) -> Self {
        Self {
            own_policies,
            policies: HashMap::new(),
            work: Vec::new(),
        }
    }
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
        let project = project_of(number);
        let kinds = of.cores.iter();
        let kinds = kinds.map(|cores| TaskKind::of(spec(project, &of, *cores)));
        Self {
            name: match of.copies {
                1 => of.name.clone(),
                _ => format!("{}-{number}", of.name),
            },
            project,
            session: session_of(number),
            weight: of.weight,
            policy: of.policy.policy(),
            gang: of.gang,
            next_seq: 1,
            kinds: kinds.collect(),
            sent: false,
            source: Source::Drawn {
                of,
                seed: seed.wrapping_add(number << 40),
            },
        }
    }

    /// One whose work is known beforehand, of which nothing is known yet.
    pub fn recorded(number: u64, name: &str, weight: u32, policy: Policy, of: Recorded) -> Self {
        Self {
            name: name.to_owned(),
            project: project_of(number),
            session: session_of(number),
            weight,
            policy,
            gang: 1,
            next_seq: 1,
            kinds: Vec::new(),
            sent: false,
            source: Source::Recorded(of),
        }
    }

    /// One more recorded kind, and the policy that it names.
    pub fn learn(&mut self, kind: TaskKind, policy: Option<Policy>) {
        if let (Source::Recorded(recorded), Some(policy)) = (&mut self.source, policy) {
            recorded.policies.insert(kind.digest, policy);
        }
        self.kinds.push(kind);
    }

    /// Its next recorded task runs so long at full speed.
    pub fn will_run(&mut self, work: u64) {
        if let Source::Recorded(recorded) = &mut self.source {
            recorded.work.push(work);
        }
    }

    /// What tasks of this spec minimise.
    pub fn policy_of(&self, spec: &Digest) -> Policy {
        let Source::Recorded(recorded) = &self.source else {
            return self.policy;
        };
        let named = recorded.policies.get(spec).copied();
        named
            .filter(|_| recorded.own_policies)
            .unwrap_or(self.policy)
    }

    /// How many of the first of these make a batch of whole gangs.
    pub fn whole(&self, kinds: &[u32], most: usize) -> usize {
        let mut taken = 0;
        while taken < kinds.len() {
            let gang = self.kinds[kinds[taken] as usize].spec.gang;
            let size = gang.map_or(1, |gang| usize::from(gang.size));
            if taken + size > most {
                break;
            }
            taken += size;
        }
        taken.min(kinds.len())
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
        let Source::Drawn { of, .. } = &self.source else {
            return 0;
        };
        let day = (now % (24 * 3_600_000)) as f64 / (24.0 * 3_600_000.0);
        let rate = of.tasks_per_hour * (1.0 + of.diurnal * wave(day));
        let gang = self.gang as usize;
        (rate * share / gang as f64 + random.unit()) as usize * gang
    }

    /// How long a task truly runs at full speed; the same whenever it is asked.
    pub fn runs_ms(&self, seq: u64) -> u64 {
        let (of, seed) = match &self.source {
            Source::Drawn { of, seed } => (of, seed),
            Source::Recorded(recorded) => {
                let place = usize::try_from(seq.saturating_sub(1)).ok();
                let work = place.and_then(|place| recorded.work.get(place));
                return work.copied().unwrap_or(1);
            }
        };
        let gang = seq.saturating_sub(1) / u64::from(self.gang);
        let mut random = Random::new(seed ^ gang.wrapping_mul(0x9e37_79b9));
        let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        let seconds = of.median_seconds * exp(of.sigma * normal);
        ((seconds * 1000.0) as u64).max(1)
    }
}

/// As they are drawn in a real network: equal shares are told apart by it.
fn project_of(number: u64) -> ProjectId {
    let mut drawn = [9; 10];
    drawn[2..].copy_from_slice(&Random::new(number).bits().to_be_bytes());
    ProjectId::new(1 + number, drawn)
}

fn session_of(number: u64) -> SessionId {
    SessionId::new(1000 + number, [1; 5])
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
