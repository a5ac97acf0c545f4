//! Network coordinates: points whose distances are round trips, so that pairs nobody measured have one too.
//!
//! Vivaldi (Dabek, Cox, Kaashoek, Morris, SIGCOMM 2004): a place is a point, and a height above it, the way to
//! where the wide network begins. Each measurement is a spring between two places; a place moves along it by a
//! share that is smaller the surer it is. Servers have no height: they stand where the network is wide.
//!
//! Owns one place and one step. Leaves what is measured, and between whom, to `links`.

use farlane_units::Micros;

/// Axes. Source: the paper, section 5.4: past three, and with heights past two, little is won.
pub(crate) const AXES: usize = 3;
/// Share of the way to go at most, and share of a new error in the old. Source: the paper, section 3.4: both 0.25.
const GAIN: f64 = 0.25;
/// Furthest that one measurement moves a place, microseconds. Source: choice; far places come near within some ten
/// rounds, and one that lies moves nobody far.
const STEP: f64 = 10_000.0;
/// Error of a place that nobody measured, and the largest.
const UNSURE: f64 = 1.0;
/// A place is never surer than this: measurements differ by so much themselves.
const SUREST: f64 = 0.01;

/// Where a place is. *Units*: microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Coordinate {
    at: [f64; AXES],
    height: f64,
    /// Relative, of its distances.
    error: f64,
    /// Whether it has a height.
    tall: bool,
}

impl Coordinate {
    /// A place that nothing is known of: near the origin, and where only on the first axes, so many of them as
    /// there are landmarks that tell them apart. `seed` keeps two places from one point.
    pub fn new(axes: usize, tall: bool, seed: u64) -> Self {
        let mut at = [0.0; AXES];
        for (axis, place) in at.iter_mut().enumerate().take(axes) {
            // Bytes of the seed, from -127.5 to 127.5 µs: a direction, no distance.
            *place = ((seed >> (8 * axis)) & 0xff) as f64 - 127.5;
        }
        Self {
            at,
            height: 0.0,
            error: UNSURE,
            tall,
        }
    }

    /// So far above the only landmark, which stands at the origin: all ways lead through it.
    pub fn above(round_trip: Micros) -> Self {
        Self {
            height: round_trip.0 as f64,
            ..Self::new(0, true, 0)
        }
    }

    /// Round trip to another place.
    pub fn to(&self, other: &Self) -> Micros {
        Micros(self.distance(other) as u64)
    }

    fn distance(&self, other: &Self) -> f64 {
        self.across(other) + self.height + other.height
    }

    fn across(&self, other: &Self) -> f64 {
        let squares = (0..AXES).map(|axis| {
            let apart = self.at[axis] - other.at[axis];
            apart * apart
        });
        squares.sum::<f64>().sqrt()
    }

    /// Moves by what was measured to another place, and says how surely.
    pub fn learn(&mut self, other: &Self, measured: Micros) {
        let measured = (measured.0 as f64).max(1.0);
        let distance = self.distance(other);
        let trust = self.error / (self.error + other.error);
        let wrong = ((distance - measured) / measured).abs().min(UNSURE);
        let share = GAIN * trust;
        self.error = (wrong * share + self.error * (1.0 - share)).clamp(SUREST, UNSURE);
        let force = (share * (measured - distance)).clamp(-STEP, STEP);
        // Apart and up, in the shares that the distance has of both; all of it up where nothing lies between.
        let across = self.across(other);
        let whole = distance.max(1.0);
        if across > 0.0 {
            let along = match self.tall {
                true => force / whole,
                false => force / across,
            };
            for axis in 0..AXES {
                self.at[axis] += (self.at[axis] - other.at[axis]) * along;
            }
        }
        if self.tall {
            let up = match across > 0.0 {
                true => (self.height + other.height) / whole,
                false => 1.0,
            };
            // The share of a place on the ground would stay nothing for ever.
            self.height = (self.height + force * up.max(0.05)).max(0.0);
        }
    }
}
