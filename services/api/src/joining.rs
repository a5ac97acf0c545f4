//! How often machines may ask to join, and to come back without a certificate that is in force.
//!
//! Owns the two calls that a stranger can make this server work for: each costs two signatures, and a
//! join a look into accounts. A secret of 256 bits is not found by guessing, nor is a signature; what is
//! held down is the work.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use farlane_units::Millis;
use farlane_wire::ErrorCode;
use tonic::Status;

/// Calls that one source, and all together, may make at once after a pause. Source: a rack behind one
/// address that starts together; a network that comes back after a failure of power.
const BURST: (u64, u64) = (64, 512);
/// One more call for each of these. Source: choice, no rate is promised; a join takes about 5 ms of a
/// core, so that all together cost at most a sixth of one.
const EACH: (Millis, Millis) = (Millis(1000), Millis(31));
/// Sources remembered; beyond it those that have been quiet for longest are forgotten. Chosen: 100
/// bytes each.
const REMEMBERED: usize = 8192;

/// A bucket that fills with time; kept as the moment at which it will be full.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: Millis,
}

impl Bucket {
    /// Takes one call, or says how long to wait.
    fn take(&mut self, burst: u64, each: Millis, now: Millis) -> Result<(), Millis> {
        let from = self.full_at.max(now);
        let after = from.saturating_add(each);
        let most = now.saturating_add(Millis(burst.saturating_mul(each.0)));
        if after > most {
            return Err(after.saturating_sub(most));
        }
        self.full_at = after;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Buckets {
    all: Bucket,
    sources: HashMap<IpAddr, Bucket>,
}

/// Who asked to come in, and how often.
#[derive(Debug, Default)]
pub(crate) struct Joining(Mutex<Buckets>);

impl Joining {
    /// Lets a call through.
    ///
    /// *Errors*: too many from this source or in all; agents try again by themselves.
    pub fn admit(&self, source: Option<IpAddr>, now: Millis) -> Result<(), Status> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = source.map(neighbourhood) {
            buckets.make_room(now);
            let bucket = buckets.sources.entry(source).or_default();
            if let Err(wait) = bucket.take(BURST.0, EACH.0, now) {
                return Err(later("from this address", wait));
            }
        }
        let taken = buckets.all.take(BURST.1, EACH.1, now);
        taken.map_err(|wait| later("in all", wait))
    }
}

impl Buckets {
    fn make_room(&mut self, now: Millis) {
        if self.sources.len() < REMEMBERED {
            return;
        }
        self.sources.retain(|_, bucket| bucket.full_at > now);
        if self.sources.len() >= REMEMBERED {
            // Under attack from everywhere; the bound for all holds.
            self.sources.clear();
        }
    }
}

fn later(whose: &str, wait: Millis) -> Status {
    ErrorCode::Unavailable.status(format!(
        "too many machines ask to join or to come back {whose}; try again in {} s",
        wait.0.div_ceil(1000)
    ))
}

/// Whoever has an IPv6 address has 2^64 of them.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn source(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_source_waits_and_others_do_not() {
        let joining = Joining::default();
        for _ in 0..BURST.0 {
            joining.admit(source(1), NOW).unwrap();
        }
        let refused = joining.admit(source(1), NOW).unwrap_err();
        assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::Unavailable));
        assert!(refused.message().contains("in 1 s"), "{refused}");
        joining.admit(source(2), NOW).unwrap();
        let later = NOW.saturating_add(EACH.0);
        joining.admit(source(1), later).unwrap();
        joining.admit(source(1), later).unwrap_err();
    }

    #[test]
    fn all_together_are_bounded_too() {
        let joining = Joining::default();
        let let_in = (0..2 * BURST.1 as u32).filter(|n| joining.admit(source(*n), NOW).is_ok());
        assert_eq!(let_in.count() as u64, BURST.1);
        assert!(joining.0.lock().unwrap().sources.len() <= REMEMBERED);
    }

    #[test]
    fn one_network_of_ipv6_is_one_source() {
        let joining = Joining::default();
        let address = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]));
        for n in 0..BURST.0 as u16 {
            joining.admit(address(n), NOW).unwrap();
        }
        joining.admit(address(999), NOW).unwrap_err();
    }
}
