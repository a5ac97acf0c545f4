//! From usage rows to lines: what ended, and what it asked.

use std::collections::{HashMap, HashSet};

use farlane_ledger::{Outcome, Usage};
use farlane_model::{Digest, NodeId, PolicyName, PolicyPrices, ProjectId, SessionId, TaskSpec};
use farlane_trace as line;
use farlane_trace::{
    Attempt, End, Gang, Kind, Line, MAX_ATTEMPTS, MAX_CHARGE, MAX_KINDS, MAX_MS, MAX_PROJECTS,
    MAX_TASKS, MAX_TRIES, Policy, Project, Salt, Task,
};
use farlane_units::Millis;

/// What is set of a project: its weight, and its own policy.
pub(super) type Set = (u32, Option<PolicyPrices>);

/// A kind that has its line, and how many of it run together; `None` where what it asks is not known, or no trace can
/// say it.
type Known = Option<(String, u16)>;

/// A gang whose members come one by one.
struct Gathered {
    session: SessionId,
    first: u64,
    kind: String,
    submitted_ms: u64,
    members: Vec<Vec<Attempt>>,
}

/// What came so far.
pub(super) struct Calls {
    salt: Salt,
    begins: Millis,
    /// Those with a line.
    nodes: HashSet<NodeId>,
    projects: HashSet<ProjectId>,
    kinds: HashMap<Digest, Known>,
    /// Attempts of the task at hand.
    held: Vec<Usage>,
    gang: Option<Gathered>,
    out: String,
    tasks: u64,
    attempts: usize,
    left_out: u64,
}

impl Calls {
    pub fn new(salt: Salt, begins: Millis, nodes: HashSet<NodeId>) -> Self {
        Self {
            salt,
            begins,
            nodes,
            projects: HashSet::new(),
            kinds: HashMap::new(),
            held: Vec::new(),
            gang: None,
            out: String::new(),
            tasks: 0,
            attempts: 0,
            left_out: 0,
        }
    }

    /// Tasks that ended, left out or not.
    pub fn ended(&self) -> u64 {
        self.tasks + self.left_out
    }

    /// Lines since they were asked for last.
    pub fn lines(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    pub fn knows(&self, spec: &Digest) -> bool {
        self.kinds.contains_key(spec)
    }

    /// What tasks of this spec ask; `None` where accounts do not have it.
    pub fn learn(&mut self, digest: Digest, spec: Option<(&TaskSpec, Set)>) {
        let known = spec.and_then(|(spec, set)| self.kind(&digest, spec, set));
        self.kinds.insert(digest, known);
    }

    fn kind(&mut self, digest: &Digest, spec: &TaskSpec, (weight, own): Set) -> Known {
        if self.kinds.len() >= MAX_KINDS {
            return None;
        }
        let kind = Kind::of(spec, digest, &self.salt);
        let known = (kind.name.clone(), kind.gang);
        let line = Line::Kind(Box::new(kind));
        if let Err(fault) = line::check(&line) {
            tracing::warn!(%fault, "what a task asks is no line of a trace");
            return None;
        }
        if !self.projects.contains(&spec.project) {
            if self.projects.len() >= MAX_PROJECTS {
                return None;
            }
            self.projects.insert(spec.project);
            let project = Line::Project(Project {
                name: self.salt.project(&spec.project),
                weight,
                policy: Policy(own.unwrap_or(PolicyName::default().prices())),
            });
            self.out.push_str(&project.to_json());
        }
        self.out.push_str(&line.to_json());
        Some(known)
    }

    /// One more attempt, in the order of submission, tasks and attempts.
    pub fn take(&mut self, usage: Usage) {
        if self.held.last().is_some_and(|held| held.task != usage.task) {
            self.close();
        }
        // More are never told: the task is left out.
        if self.held.len() <= MAX_TRIES {
            self.held.push(usage);
        } else if let Some(last) = self.held.last_mut() {
            *last = usage;
        }
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        self.close();
        self.drop_gang();
        let end = Line::End(End {
            tasks: self.tasks,
            left_out: self.left_out,
        });
        self.out.push_str(&end.to_json());
    }

    /// The task at hand has no further attempt.
    fn close(&mut self) {
        let held = std::mem::take(&mut self.held);
        let Some(last) = held.last().filter(|usage| usage.last) else {
            return;
        };
        let known = self.kinds.get(&last.spec).cloned().flatten();
        let (Some((kind, size)), Some(attempts)) = (known, self.attempts(&held)) else {
            self.left_out += 1;
            return;
        };
        let submitted_ms = self.since(last.submitted);
        let Some(rank) = last.rank.filter(|_| size > 1) else {
            // One of a gang that is told as if it were on its own would break what its kind says.
            match size {
                1 => self.tell(Line::Task(Task {
                    kind,
                    submitted_ms,
                    attempts,
                })),
                _ => self.left_out += 1,
            }
            return;
        };
        let (session, first) = (last.task.session(), last.task.seq() - u64::from(rank));
        let same = |gang: &Gathered| gang.session == session && gang.first == first;
        if !self.gang.as_ref().is_some_and(same) {
            self.drop_gang();
        }
        let gang = self.gang.get_or_insert_with(|| Gathered {
            session,
            first,
            kind,
            submitted_ms,
            members: Vec::new(),
        });
        gang.members.push(attempts);
        if gang.members.len() == usize::from(size)
            && let Some(whole) = self.gang.take()
        {
            self.tell(Line::Gang(Gang {
                kind: whole.kind,
                submitted_ms: whole.submitted_ms,
                members: whole.members,
            }));
        }
    }

    /// A gang of which some have not ended cannot be told: all of it is left out.
    fn drop_gang(&mut self) {
        self.left_out += self.gang.take().map_or(0, |gang| gang.members.len() as u64);
    }

    fn tell(&mut self, line: Line) {
        let (tasks, attempts) = match &line {
            Line::Gang(gang) => (
                gang.members.len(),
                gang.members.iter().map(Vec::len).sum::<usize>(),
            ),
            Line::Task(task) => (1, task.attempts.len()),
            _ => (0, 0),
        };
        let text = line.to_json();
        // Some may have ended since they were counted.
        let most =
            self.attempts + attempts > MAX_ATTEMPTS || self.tasks + tasks as u64 > MAX_TASKS as u64;
        if most || text.len() > line::MAX_LINE {
            self.left_out += tasks as u64;
            return;
        }
        self.tasks += tasks as u64;
        self.attempts += attempts;
        self.out.push_str(&text);
    }

    fn since(&self, at: Millis) -> u64 {
        at.saturating_sub(self.begins).0
    }

    /// `None` where one ran on a node without a line, or there is no end of them.
    fn attempts(&self, held: &[Usage]) -> Option<Vec<Attempt>> {
        let attempt = |usage: &Usage| {
            let started_ms = self.since(usage.started.max(usage.submitted));
            let ended_ms = self.since(usage.ended).max(started_ms);
            let told = self.nodes.contains(&usage.node) && ended_ms <= MAX_MS;
            told.then(|| Attempt {
                node: self.salt.node(&usage.node),
                started_ms,
                ended_ms,
                outcome: outcome(usage.outcome),
                // What is absurd is held at what a trace may say, so that it spoils no trace.
                usd_nanos: nanos(usage).min(MAX_CHARGE),
                co2e_ng: usage.emitted.map(|emitted| emitted.0.min(MAX_CHARGE)),
            })
        };
        let few = held.len() <= MAX_TRIES;
        few.then(|| held.iter().map(attempt).collect()).flatten()
    }
}

/// What an attempt cost, billionths of a dollar: most cost less than a millionth.
fn nanos(usage: &Usage) -> u64 {
    // Thousandths of a core × ms × millionths of a dollar for an hour of a core.
    const HOUR: u128 = 3_600_000;
    let price = u128::try_from(usage.price.0).unwrap_or(0);
    /// Millionths of a billionth.
    const NANO: u64 = 1_000_000;
    let nanos = u128::from(usage.core_time().0) * price / HOUR;
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    nanos.saturating_add(usage.egress.0 / NANO)
}

fn outcome(of: Outcome) -> line::Outcome {
    match of {
        Outcome::Returned => line::Outcome::Returned,
        Outcome::Raised => line::Outcome::Raised,
        Outcome::Lost => line::Outcome::Lost,
        Outcome::TimedOut => line::Outcome::TimedOut,
        Outcome::Cancelled => line::Outcome::Cancelled,
        Outcome::Failed => line::Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use farlane_model::{BlobRef, PythonVersion, TaskId};
    use farlane_trace::Trace;
    use farlane_units::{ByteCount, MilliCpu, UsdMicros};

    use super::*;

    const BEGINS: Millis = Millis(1_700_000_000_000);
    const NODE: NodeId = NodeId([7; 32]);

    fn spec(gang: u16) -> TaskSpec {
        let code = BlobRef {
            digest: Digest([1; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut spec = TaskSpec::new(ProjectId::new(1, [3; 10]), code, python);
        spec.function = "train".into();
        spec.gang = (gang > 1).then_some(farlane_model::Gang {
            size: gang,
            regions: farlane_model::GangRegions::One,
        });
        spec
    }

    fn task(seq: u64) -> TaskId {
        SessionId::new(BEGINS.0, [1; 5]).task(seq)
    }

    fn usage(seq: u64, spec: u8, rank: Option<u16>) -> Usage {
        Usage {
            project: ProjectId::new(1, [3; 10]),
            task: task(seq),
            attempt: 1,
            node: NODE,
            region: "eu".into(),
            function: "train".into(),
            spec: Digest([spec; 32]),
            rank,
            submitted: Millis(BEGINS.0 + seq),
            started: Millis(BEGINS.0 + seq + 5),
            ended: Millis(BEGINS.0 + seq + 9),
            cpus: MilliCpu(1000),
            peak_memory: ByteCount(0),
            cpu_time: Millis(0),
            price: UsdMicros(3_600_000_000),
            emitted: None,
            moved_there: ByteCount(0),
            moved_back: ByteCount(0),
            egress: farlane_units::UsdFemtos(0),
            outcome: Outcome::Returned,
            last: true,
        }
    }

    fn calls() -> Calls {
        let mut calls = Calls::new(Salt::new([9; 32]), BEGINS, HashSet::from([NODE]));
        calls.learn(Digest([1; 32]), Some((&spec(1), (1000, None))));
        calls.learn(Digest([2; 32]), Some((&spec(2), (1000, None))));
        calls.learn(Digest([3; 32]), None);
        calls
    }

    /// As a reader sees it.
    fn read(mut calls: Calls) -> Trace {
        calls.finish();
        let node = calls.salt.node(&NODE);
        let head = format!(
            "{{\"trace\":{{\"version\":1,\"ms\":1000}}}}\n{{\"region\":{{\"name\":\"eu\"}}}}\n\
             {{\"node\":{{\"name\":\"{node}\",\"region\":\"eu\",\"cores\":8}}}}\n"
        );
        Trace::read((head + &calls.lines()).as_bytes()).unwrap()
    }

    #[test]
    fn attempts_of_a_task_are_one_line_and_what_has_not_ended_is_none() {
        let mut calls = calls();
        let lost = Usage {
            outcome: Outcome::Lost,
            last: false,
            ..usage(1, 1, None)
        };
        let again = Usage {
            attempt: 2,
            // An agent's clock may be behind.
            started: BEGINS,
            ..usage(1, 1, None)
        };
        calls.take(lost.clone());
        calls.take(again);
        calls.take(Usage {
            task: task(2),
            ..lost
        });
        calls.take(usage(3, 1, None));
        let trace = read(calls);
        assert_eq!((trace.calls.len(), trace.left_out), (2, 0));
        let first = trace.attempts(&trace.calls[0]);
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].outcome, line::Outcome::Lost);
        assert_eq!(
            (first[1].started, first[1].ended, first[1].usd_nanos),
            (1, 10, 10_000_000)
        );
    }

    #[test]
    fn what_is_absurd_spoils_no_trace() {
        let mut calls = calls();
        calls.take(Usage {
            price: UsdMicros(1_000_000_000_000),
            cpus: MilliCpu(1_024_000),
            ended: Millis(BEGINS.0 + 36_000_000),
            emitted: Some(farlane_units::NanoGramsCo2(u64::MAX - 1)),
            egress: farlane_units::UsdFemtos::MAX,
            ..usage(1, 1, None)
        });
        let trace = read(calls);
        let run = trace.attempts(&trace.calls[0])[0];
        assert_eq!((run.usd_nanos, run.co2e_ng), (MAX_CHARGE, Some(MAX_CHARGE)));
    }

    #[test]
    fn gangs_are_told_whole_or_not_at_all() {
        let mut calls = calls();
        let at_once = |seq, rank, last| Usage {
            submitted: BEGINS,
            last,
            ..usage(seq, 2, Some(rank))
        };
        for (seq, rank, last) in [
            (1, 0, true),
            (2, 1, true),
            (3, 0, false),
            (4, 1, true),
            (5, 0, true),
        ] {
            calls.take(at_once(seq, rank, last));
        }
        let trace = read(calls);
        assert_eq!((trace.calls.len(), trace.left_out), (2, 2));
    }

    #[test]
    fn what_nobody_knows_any_more_is_counted() {
        let mut calls = calls();
        calls.take(usage(1, 3, None));
        calls.take(Usage {
            node: NodeId([8; 32]),
            ..usage(2, 1, None)
        });
        for attempt in 1..=1002 {
            calls.take(Usage {
                attempt,
                last: attempt == 1002,
                ..usage(3, 1, None)
            });
        }
        let trace = read(calls);
        assert_eq!((trace.calls.len(), trace.left_out), (0, 3));
    }
}
