//! Challenges: work that shows whether this machine is as fast as it says.
//!
//! Owns when one is taken up: with nothing else to do, and not too often. Leaves the work to `crate::calibrate`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use farlane_audit::Challenge;
use farlane_wire::v1;
use farlane_wire::v1::agent_frame::Body;

use super::{Done, Engine};
use crate::calibrate::{Broken, challenge};
use crate::clock::ClusterClock;

/// Least time between two, whatever a server asks. Source: a quarter of a second each is then a fortieth of an idle
/// machine, and servers ask once a day.
const LEAST_MS: u64 = 10_000;

impl Engine {
    /// Takes one up, or says at once that there is other work.
    pub(super) fn challenged(&mut self, asked: v1::Challenge) {
        let now = ClusterClock::steady();
        let Some(challenge) = read(&asked) else {
            tracing::warn!("a challenge asks for more than an agent does");
            return;
        };
        let busy = self.is_busy() || self.calibrator.is_running();
        if busy || now < self.next_challenge {
            return self.met(asked.id, Err(Broken::Busy));
        }
        self.next_challenge = now + LEAST_MS;
        let stop = Arc::new(AtomicBool::new(false));
        let (done, stopped) = (self.done.clone(), stop.clone());
        // A thread of its own: it takes the lowest priority, and keeps it.
        let thread = std::thread::Builder::new().name("farlane-audit".into());
        let begun = thread.spawn(move || {
            let answer = challenge::answer(&challenge, &stopped);
            let _ = done.blocking_send(Done::Met(asked.id, answer));
        });
        match begun {
            Ok(_) => self.calibrator.stop_with(stop),
            Err(error) => {
                tracing::warn!(%error, "a challenge cannot be taken up now");
                self.met(asked.id, Err(Broken::Busy));
            }
        }
    }

    /// Hands the answer in.
    pub(super) fn met(&mut self, id: u64, answer: Result<Vec<u8>, Broken>) {
        let links = answer.unwrap_or_default().into();
        self.tell(Body::Answer(v1::ChallengeAnswer { id, links }));
    }
}

fn read(asked: &v1::Challenge) -> Option<Challenge> {
    let challenge = Challenge {
        seed: asked.seed.as_ref().try_into().ok()?,
        cores: asked.cores,
        steps: asked.steps,
        rounds: asked.rounds,
    };
    challenge.bounded()
}
