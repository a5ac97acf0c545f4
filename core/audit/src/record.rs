//! What audits of one node have found, and what follows from it.
//!
//! ```text
//!            2 of 3 slow, late or put off, or slow beside its like        4 of 5
//!   good ────────────────────────────────────────────────────▶ marked ─────────▶ quarantined (lifts)
//!    ▲                                                            │                  │
//!    └───────────────── 3 in a row in time and right ◀────────────┴──────────────────┘
//!   any ── a wrong answer, a place that light refutes ──▶ quarantined, until a person ends it
//! ```

use farlane_model::Standing;

use crate::pace::Slow;

/// At this share of the claimed rate an answer is in time, thousandths. Source: choice; the chain fills, packs and
/// folds beside the product that calibration times, and a neighbour of a virtual machine takes a fourth of it for a
/// while; a claim of twice what there is fails. What honest machines reach is to be measured on a quiet one.
const LEAST_MILLI: u64 = 500;
/// Answers remembered.
const MEMORY: usize = 5;
/// Bad ones of the last three that mark a node. Source: an honest node whose neighbour is loud for a tenth of the
/// time is marked by chance after one audit in thirty, and quarantined after one in two thousand.
const MARKS: usize = 2;
/// Bad ones of the last five that quarantine it.
const QUARANTINES: usize = 4;
/// Good ones in a row that clear it.
const CLEARS: usize = 3;
/// As often as this in a row an honest machine is not too busy while its agent has no work.
const EXCUSES: u32 = 8;

/// What became of one challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Right, at this share of the claimed rate, thousandths.
    Right(u64),
    /// Not what the work comes to.
    Wrong,
    /// No answer in time, while the node was connected.
    Late,
    /// The agent said that the machine has other things to do.
    Busy,
}

/// What is known against a node, in a form that its page shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found {
    /// Another challenge was settled.
    Challenge(Verdict),
    /// Its run times lie beside others'.
    Pace(Option<Slow>),
    /// It cannot be where it says: the distance in kilometres, the round trip in microseconds, and what light needs.
    Place {
        /// Between the server and the nearest edge of the claimed region.
        km: u32,
        /// The least that was measured.
        micros: u64,
        /// There and back in vacuum.
        light_micros: u64,
    },
}

/// The last answers of one node.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Share of the claim in thousandths, the newest last; 0 where none came in time.
    shares: Vec<u64>,
    busy: u32,
    slow: Option<Slow>,
    right: u64,
    asked: u64,
}

impl Record {
    /// An answer at this share of the claimed rate or above is in time, thousandths.
    pub const LEAST_SHARE: u64 = LEAST_MILLI;

    /// Whether one of the last answers was bad, so that more should be asked for soon.
    pub fn in_doubt(&self) -> bool {
        self.bad(CLEARS) > 0
    }

    /// Challenges settled, and those that were answered rightly and in time.
    pub fn counts(&self) -> (u64, u64) {
        (self.asked, self.right)
    }

    /// The last answer's share of the claimed rate, thousandths; `None` before the first, 0 where none came.
    pub fn last_share(&self) -> Option<u64> {
        self.shares.last().copied()
    }

    /// Takes in what was found of a node that stands so. The standing that follows, where it is another.
    pub fn note(&mut self, found: Found, now: &Standing) -> Option<Standing> {
        let next = match found {
            Found::Challenge(Verdict::Wrong) => {
                self.asked += 1;
                for_good("it answered a challenge wrongly: it did not do the work")
            }
            Found::Place {
                km,
                micros,
                light_micros,
            } => for_good(&format!(
                "it cannot be in its region: {km} km away, yet it answers within {:.1} ms; light needs {:.1} ms",
                micros as f64 / 1000.0,
                light_micros as f64 / 1000.0
            )),
            Found::Challenge(verdict) => {
                self.answered(verdict);
                self.follows(now)
            }
            Found::Pace(slow) => {
                self.slow = slow;
                self.follows(now)
            }
        };
        let held = matches!(now, Standing::Quarantined { lifts: false, .. });
        (!held && next != *now).then_some(next)
    }

    fn answered(&mut self, verdict: Verdict) {
        let share = match verdict {
            Verdict::Right(share) => share,
            Verdict::Busy if self.busy + 1 < EXCUSES => {
                self.busy += 1;
                return;
            }
            Verdict::Busy | Verdict::Late | Verdict::Wrong => 0,
        };
        self.busy = 0;
        self.asked += 1;
        self.right += u64::from(share >= LEAST_MILLI);
        if self.shares.len() == MEMORY {
            self.shares.remove(0);
        }
        self.shares.push(share);
    }

    fn bad(&self, of_last: usize) -> usize {
        let last = self.shares.iter().rev().take(of_last);
        last.filter(|share| **share < LEAST_MILLI).count()
    }

    fn follows(&mut self, now: &Standing) -> Standing {
        let clear = self.shares.len() >= CLEARS && self.bad(CLEARS) == 0;
        if clear && now.is_quarantined() {
            // It had no work meanwhile, so that its run times are those of before.
            self.slow = None;
        }
        if self.bad(MEMORY) >= QUARANTINES {
            return Standing::Quarantined {
                reason: format!(
                    "{} of its last {} answers to challenges came at under half of the speed that it claims, or not at all",
                    self.bad(MEMORY),
                    self.shares.len()
                ),
                lifts: true,
            };
        }
        if now.is_quarantined() && !clear {
            return now.clone();
        }
        if let Some(slow) = &self.slow {
            return slow.standing();
        }
        if self.bad(3) >= MARKS {
            return Standing::Marked {
                slowdown_milli: self.slowdown(),
                reason: format!(
                    "{} of its last 3 answers to challenges came at under half of the speed that it claims, or not at all",
                    self.bad(3)
                ),
            };
        }
        match now {
            Standing::Marked { .. } if !clear && !self.shares.is_empty() => now.clone(),
            _ => Standing::Good,
        }
    }

    /// By the middle of the last three.
    fn slowdown(&self) -> u32 {
        let mut last: Vec<u64> = self.shares.iter().rev().take(3).copied().collect();
        last.sort_unstable();
        let middle = last.get(last.len() / 2).copied().unwrap_or(0);
        // One that does not come counts as a tenth of the speed.
        (1_000_000 / middle.max(100)).clamp(1000, 10_000) as u32
    }
}

fn for_good(reason: &str) -> Standing {
    Standing::Quarantined {
        reason: reason.to_owned(),
        lifts: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each finding in turn, and where it leads.
    fn story(all: &[Verdict]) -> Vec<&'static str> {
        let (mut record, mut now) = (Record::default(), Standing::Good);
        let mut names = Vec::new();
        for verdict in all {
            if let Some(next) = record.note(Found::Challenge(*verdict), &now) {
                assert!(next.is_bounded());
                now = next;
            }
            names.push(now.name());
        }
        names
    }
    const GOOD: Verdict = Verdict::Right(800);
    const SLOW: Verdict = Verdict::Right(300);

    #[test]
    fn one_slow_answer_is_none() {
        assert_eq!(
            story(&[GOOD, SLOW, GOOD, GOOD, Verdict::Late, GOOD]),
            ["good"; 6]
        );
    }

    #[test]
    fn slow_ones_mark_then_quarantine_and_good_ones_clear() {
        let all = [SLOW, SLOW, Verdict::Late, SLOW, GOOD, GOOD, GOOD];
        let marked = "marked";
        let locked = "quarantined";
        let wanted = ["good", marked, marked, locked, locked, locked, "good"];
        assert_eq!(story(&all), wanted);
        assert_eq!(
            story(&[SLOW, SLOW, GOOD, GOOD, GOOD])[2..],
            [marked, marked, "good"]
        );
    }

    #[test]
    fn a_mark_says_how_much_slower() {
        let mut record = Record::default();
        record.note(Found::Challenge(SLOW), &Standing::Good);
        let marked = record.note(Found::Challenge(Verdict::Right(250)), &Standing::Good);
        assert_eq!(marked.map(|s| s.slowdown_milli()), Some(3333));
    }

    #[test]
    fn a_wrong_answer_is_for_good() {
        let all = [Verdict::Wrong, GOOD, GOOD, GOOD, GOOD];
        assert_eq!(story(&all), ["quarantined"; 5]);
    }

    #[test]
    fn too_busy_is_an_excuse_for_a_while() {
        assert_eq!(story(&[Verdict::Busy; 15]), ["good"; 15]);
        assert_eq!(story(&[Verdict::Busy; 16]).last(), Some(&"marked"));
    }

    #[test]
    fn a_place_that_light_refutes_is_for_good_and_says_so() {
        let found = Found::Place {
            km: 6000,
            micros: 3000,
            light_micros: 40_028,
        };
        let next = Record::default().note(found, &Standing::Good);
        let why = next.as_ref().and_then(Standing::reason).unwrap_or_default();
        assert!(
            why.contains("6000 km") && why.contains("3.0 ms") && why.contains("40.0 ms"),
            "{why}"
        );
    }

    #[test]
    fn slow_beside_its_like_is_marked_and_cleared() {
        let mut record = Record::default();
        let slow = Slow {
            times_milli: 1800,
            functions: 3,
        };
        let marked = record.note(Found::Pace(Some(slow)), &Standing::Good);
        let marked = marked.unwrap_or_default();
        assert_eq!((marked.name(), marked.slowdown_milli()), ("marked", 1500));
        assert_eq!(record.note(Found::Pace(Some(slow)), &marked), None);
        assert_eq!(
            record.note(Found::Pace(None), &marked),
            Some(Standing::Good)
        );
    }
}
