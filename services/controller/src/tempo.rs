//! How fast each project's line moves, and so when what waits in it would start.
//!
//! Owns the counts of what was placed lately: in the leader's memory, so that a new leader knows nothing of it yet and says so.
//! Leaves who goes before whom to those who ask.

use std::collections::BTreeMap;

use farlane_model::ProjectId;
use farlane_units::Millis;

/// What is counted together. Source: choice; a tenth of the shortest look back is as exact as "about" needs.
const STEP: u64 = 10_000;
/// Steps remembered: ten minutes.
const STEPS: usize = 60;
/// Looks back, the shortest first. Source: choice; a line that moves is told from its last minute, one that
/// moves now and then from ten.
const LOOKS: [(usize, &str); 2] = [(6, "minute"), (STEPS, "10 minutes")];
/// Placements that the shortest look needs. Source: choice; of less, one more or less doubles the answer.
const ENOUGH: u64 = 4;
/// Projects remembered; of more, those that placed something last. Source: as many as a network has, at 500 B each.
const MAX_PROJECTS: usize = 1000;

/// Placed in each of the last steps.
#[derive(Debug)]
struct Steps {
    /// Of the last of them, by cluster time.
    last: u64,
    /// By step, modulo how many there are.
    placed: [u64; STEPS],
}

impl Steps {
    /// Forgets what is older than all steps.
    fn until(&mut self, step: u64) {
        let passed = step.saturating_sub(self.last).min(STEPS as u64);
        for gone in 1..=passed {
            self.placed[((self.last + gone) % STEPS as u64) as usize] = 0;
        }
        self.last = self.last.max(step);
    }

    /// In the last `steps` up to `step`.
    fn within(&self, step: u64, steps: usize) -> u64 {
        let all = (0..steps as u64).filter_map(|back| step.checked_sub(back));
        let known = all.filter(|at| *at <= self.last && at + (STEPS as u64) > self.last);
        known
            .map(|at| self.placed[(at % STEPS as u64) as usize])
            .sum()
    }
}

/// When something would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// From now; `None` where nobody knows.
    pub within: Option<Millis>,
    /// What that is told from, or what is missing.
    pub because: String,
}

impl Start {
    /// Nobody knows.
    pub fn unknown(because: impl Into<String>) -> Self {
        Self {
            within: None,
            because: because.into(),
        }
    }

    /// For people, to the precision that it has.
    pub fn words(&self) -> String {
        let because = &self.because;
        let Some(Millis(ms)) = self.within else {
            return format!("when it starts is not known: {because}");
        };
        let about = match ms.div_ceil(1000) {
            s @ 0..=89 => format!("{} s", s.max(1)),
            s @ 90..=5399 => format!("{} min", (s + 30) / 60),
            s => format!("{} h", (s + 1800) / 3600),
        };
        format!("starts in about {about}: {because}")
    }
}

/// What was placed lately, by project.
#[derive(Debug, Default)]
pub(crate) struct Tempo {
    /// When it began to count.
    since: Option<Millis>,
    projects: BTreeMap<ProjectId, Steps>,
}

impl Tempo {
    /// So many of a project were placed.
    pub fn placed(&mut self, project: ProjectId, count: u64, now: Millis) {
        self.since.get_or_insert(now);
        let step = now.0 / STEP;
        if self.projects.len() >= MAX_PROJECTS && !self.projects.contains_key(&project) {
            let oldest = self.projects.iter().min_by_key(|(_, steps)| steps.last);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| self.projects.remove(&id));
        }
        let steps = self.projects.entry(project).or_insert(Steps {
            last: step,
            placed: [0; STEPS],
        });
        steps.until(step);
        steps.placed[(step % STEPS as u64) as usize] += count;
    }

    /// When a project's line has moved on by so many, if it moves as it did.
    pub fn start(&self, project: &ProjectId, places: u64, now: Millis) -> Start {
        let step = now.0 / STEP;
        let counted = now.saturating_sub(self.since.unwrap_or(now)).0.max(1000);
        let of = |steps: usize| {
            let known = self.projects.get(project);
            known.map_or(0, |known| known.within(step, steps))
        };
        for (at, (steps, name)) in LOOKS.into_iter().enumerate() {
            let placed = of(steps);
            if placed == 0 || at == 0 && placed < ENOUGH {
                continue;
            }
            // The last step has only begun.
            let span = (steps as u64 - 1) * STEP + now.0 % STEP;
            let ms = u128::from(span.min(counted)) * u128::from(places) / u128::from(placed);
            return Start {
                within: Some(Millis(u64::try_from(ms).unwrap_or(u64::MAX))),
                because: format!("{placed} of its project were placed in the last {name}"),
            };
        }
        let (steps, name) = LOOKS[1];
        let look = match counted < steps as u64 * STEP {
            true => "since this server leads".to_owned(),
            false => format!("in the last {name}"),
        };
        Start::unknown(format!("none of its project was placed {look}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(n: u8) -> ProjectId {
        ProjectId::new(0, [n; 10])
    }
    const MINUTE: u64 = 60_000;

    #[test]
    fn a_line_that_moves_is_told_from_its_last_minute() {
        let (mut tempo, mut now) = (Tempo::default(), 1_000_000u64);
        // One every five seconds.
        for _ in 0..40 {
            tempo.placed(project(1), 1, Millis(now));
            now += 5000;
        }
        let start = tempo.start(&project(1), 41, Millis(now));
        let within = start.within.map_or(0, |ms| ms.0);
        assert!(within.abs_diff(41 * 5000) < 41 * 5000 / 6, "{within}");
        assert!(
            start.words().starts_with("starts in about 3 min: 1"),
            "{}",
            start.words()
        );
        let other = tempo.start(&project(2), 1, Millis(now));
        assert_eq!(
            other.words(),
            "when it starts is not known: none of its project was placed since this server leads"
        );
    }

    #[test]
    fn a_slow_line_is_told_from_ten_minutes_and_then_not_at_all() {
        let (mut tempo, start) = (Tempo::default(), 5_000_000u64);
        tempo.placed(project(1), 3, Millis(start));
        let said =
            |tempo: &Tempo, after: u64| tempo.start(&project(1), 10, Millis(start + after)).words();
        let soon = said(&tempo, 9 * MINUTE);
        assert_eq!(
            soon,
            "starts in about 30 min: 3 of its project were placed in the last 10 minutes"
        );
        assert!(
            said(&tempo, 11 * MINUTE)
                .starts_with("when it starts is not known: none of its project was placed in")
        );
        // What is long ago does not come back when the ring goes round.
        tempo.placed(project(1), 1, Millis(start + 21 * MINUTE));
        assert!(said(&tempo, 21 * MINUTE).contains(": 1 of its project"));
        assert!(said(&tempo, 200 * MINUTE).contains("not known"));
    }

    #[test]
    fn it_holds_no_more_projects_than_a_network_has() {
        let mut tempo = Tempo::default();
        for n in 0..2000u64 {
            tempo.placed(ProjectId::new(n, [0; 10]), 1, Millis(n * STEP));
        }
        assert_eq!(tempo.projects.len(), MAX_PROJECTS);
        let last = tempo.start(&ProjectId::new(1999, [0; 10]), 1, Millis(1999 * STEP));
        assert!(last.within.is_some());
    }
}
