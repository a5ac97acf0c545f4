//! A port for whatever estimates run times, and the bench on which a candidate is held against what plans use.
//!
//! Owns the port, one candidate, and the comparison. A candidate stands in shadow: it is told every outcome, and asked
//! before it; no plan uses it. Leaves its promotion to people: it takes the place of [`Estimates`] in the
//! controller's view once its error is the smaller on the network's own outcomes.
//!
//! ```text
//! an attempt ended ─▶ both say what they expected ─▶ errors of both ─▶ `farlane status --json`
//!                  └▶ both are told how long it ran
//! ```

use std::collections::HashMap;

use farlane_model::Digest;
use farlane_units::{ByteCount, Micros};

use crate::estimate::{Estimates, Rates, Shape};

/// What is known of an attempt before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Which function and options.
    pub spec: Digest,
    /// Of what work it is made.
    pub shape: Shape,
    /// Names the node's hardware.
    pub class: u64,
    /// Of the node's cores.
    pub rates: Rates,
    /// Sealed bytes of its arguments, padded.
    pub payload: ByteCount,
}

/// What estimates run times.
pub trait Estimator: Send {
    /// For people.
    fn name(&self) -> &'static str;
    /// How long it is expected to run; `None` where it has nothing to say yet.
    fn predict(&mut self, case: &Case) -> Option<Micros>;
    /// It ran for so long.
    fn learn(&mut self, case: &Case, ran: Micros);
}

impl Estimator for Estimates {
    fn name(&self) -> &'static str {
        "median"
    }
    fn predict(&mut self, case: &Case) -> Option<Micros> {
        Some(
            self.work(&case.spec, case.shape)
                .on(case.class, &case.rates),
        )
    }
    fn learn(&mut self, case: &Case, ran: Micros) {
        let Case {
            spec,
            shape,
            class,
            rates,
            ..
        } = *case;
        Estimates::learn(self, spec, shape, class, &rates, ran);
    }
}

/// Lines remembered; beyond it all are forgotten. Source: 64 k × 64 B is 4 MB.
const MAX_LINES: usize = 65_536;
/// Runs before a line says anything. Source: two points are a line through noise.
const LEAST_RUNS: f64 = 3.0;
/// What an older run weighs against the next. Source: choice; the last fifty or so count.
const FADES: f64 = 0.98;

/// Run time = a + b × bytes of the arguments, for each spec on each class of nodes, by least squares.
#[derive(Debug, Default)]
pub struct BySize {
    lines: HashMap<(Digest, u64), Line>,
}

/// Weighted sums of one line.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    weight: f64,
    bytes: f64,
    micros: f64,
    bytes_bytes: f64,
    bytes_micros: f64,
    /// The longest run: no line is followed far beyond what was seen.
    longest: f64,
}

impl Line {
    fn see(&mut self, bytes: f64, micros: f64) {
        self.weight = self.weight * FADES + 1.0;
        self.bytes = self.bytes * FADES + bytes;
        self.micros = self.micros * FADES + micros;
        self.bytes_bytes = self.bytes_bytes * FADES + bytes * bytes;
        self.bytes_micros = self.bytes_micros * FADES + bytes * micros;
        self.longest = self.longest.max(micros);
    }

    fn at(&self, bytes: f64) -> f64 {
        let (x, y) = (self.bytes / self.weight, self.micros / self.weight);
        let spread = self.bytes_bytes / self.weight - x * x;
        let together = self.bytes_micros / self.weight - x * y;
        // All of one size: there is no slope to be seen.
        let slope = match spread > x * x * 1e-6 {
            true => (together / spread).max(0.0),
            false => 0.0,
        };
        (y + slope * (bytes - x)).clamp(0.0, self.longest * 10.0)
    }
}

impl Estimator for BySize {
    fn name(&self) -> &'static str {
        "by-size"
    }
    fn predict(&mut self, case: &Case) -> Option<Micros> {
        let line = self.lines.get(&(case.spec, case.class))?;
        let enough = line.weight >= LEAST_RUNS * FADES * FADES;
        enough.then(|| Micros(line.at(case.payload.0 as f64) as u64))
    }
    fn learn(&mut self, case: &Case, ran: Micros) {
        let key = (case.spec, case.class);
        if self.lines.len() >= MAX_LINES && !self.lines.contains_key(&key) {
            self.lines.clear();
        }
        let line = self.lines.entry(key).or_default();
        line.see(case.payload.0 as f64, ran.0 as f64);
    }
}

/// How two estimators did on the same outcomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The one that plans use.
    pub used: &'static str,
    /// The one in shadow.
    pub shadow: &'static str,
    /// Outcomes on which both had something to say.
    pub runs: u64,
    /// Mean of how far it was off, over the longer of what it said and what was: 0 is exact, 1 is hopeless.
    pub used_error: f64,
    /// The same of the one in shadow.
    pub shadow_error: f64,
}

/// A candidate beside the estimates that plans use.
pub struct Shadow {
    candidate: Box<dyn Estimator>,
    runs: u64,
    used: f64,
    shadow: f64,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow")
            .field("candidate", &self.candidate.name())
            .field("runs", &self.runs)
            .finish()
    }
}

impl Default for Shadow {
    /// The candidate of today.
    fn default() -> Self {
        Self::new(BySize::default())
    }
}

impl Shadow {
    /// This one in shadow.
    pub fn new(candidate: impl Estimator + 'static) -> Self {
        Self {
            candidate: Box::new(candidate),
            runs: 0,
            used: 0.0,
            shadow: 0.0,
        }
    }

    /// An attempt ran for so long; `used` has not been told of it yet.
    pub fn see(&mut self, used: &mut dyn Estimator, case: &Case, ran: Micros) {
        if let (Some(by_used), Some(by_shadow)) = (used.predict(case), self.candidate.predict(case))
        {
            self.runs += 1;
            self.used += off(by_used, ran);
            self.shadow += off(by_shadow, ran);
        }
        self.candidate.learn(case, ran);
    }

    /// How both did; `None` before any outcome on which both had something to say.
    pub fn compare(&self, used: &dyn Estimator) -> Option<Comparison> {
        let runs = self.runs as f64;
        (self.runs > 0).then(|| Comparison {
            used: used.name(),
            shadow: self.candidate.name(),
            runs: self.runs,
            used_error: self.used / runs,
            shadow_error: self.shadow / runs,
        })
    }
}

/// Between 0 and 1, alike for half and for twice as long.
fn off(said: Micros, was: Micros) -> f64 {
    let longer = said.0.max(was.0).max(1);
    said.0.abs_diff(was.0) as f64 / longer as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{BlobRef, ProjectId, PythonVersion, TaskSpec};

    fn case(spec: u8, class: u64, payload: u64) -> Case {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let task = TaskSpec::new(ProjectId::new(0, [0; 10]), code, python);
        Case {
            spec: Digest([spec; 32]),
            shape: Shape::of(&task),
            class,
            rates: Rates::REFERENCE,
            payload: ByteCount(payload),
        }
    }

    /// Outcomes of a function whose time grows with its arguments, and of one whose time does not; noise of a
    /// tenth, by a generator of its own.
    fn outcomes(slope: u64) -> impl Iterator<Item = (Case, Micros)> {
        let mut seed = 9u64;
        (0..400).map(move |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let payload = 1u64 << (10 + (seed >> 40) % 9);
            let exact = 5_000 + slope * payload / 10;
            let noise = exact / 10 * ((seed >> 20) % 100) / 100;
            (case(1, (seed >> 50) % 2, payload), Micros(exact + noise))
        })
    }

    fn errors(slope: u64) -> Comparison {
        let (mut used, mut shadow) = (Estimates::default(), Shadow::new(BySize::default()));
        for (case, ran) in outcomes(slope) {
            shadow.see(&mut used, &case, ran);
            Estimator::learn(&mut used, &case, ran);
        }
        shadow.compare(&used).unwrap()
    }

    #[test]
    fn the_candidate_beats_the_median_where_time_grows_with_size_and_is_no_worse_where_it_does_not()
    {
        let grows = errors(10);
        assert!(grows.runs > 350, "{grows:?}");
        assert!(grows.shadow_error * 3.0 < grows.used_error, "{grows:?}");
        assert!(grows.shadow_error < 0.1, "{grows:?}");
        let steady = errors(0);
        assert!(steady.shadow_error < steady.used_error * 1.2, "{steady:?}");
    }

    #[test]
    fn a_candidate_that_knows_nothing_says_nothing_and_none_is_compared() {
        let mut shadow = Shadow::new(BySize::default());
        let mut used = Estimates::default();
        for _ in 0..3 {
            shadow.see(&mut used, &case(1, 1, 100), Micros(7));
            assert_eq!(shadow.compare(&used), None);
        }
        shadow.see(&mut used, &case(1, 1, 100), Micros(7));
        let known = shadow.compare(&used).unwrap();
        assert_eq!((known.runs, known.shadow_error), (1, 0.0));
        assert_eq!((known.used, known.shadow), ("median", "by-size"));
    }
}
