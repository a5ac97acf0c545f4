//! What followers still lack that are caught up by a snapshot: so much of the log stays for them.
//!
//! ```text
//! sent up to an index ─▶ the log stays from there ─▶ installed: it stays from what the follower has
//!        │ failed: forgotten, and sent anew                   │ the newest segment reached: forgotten
//! ```
//! Purged by size alone, the log of a busy cluster would lose the entries after a large snapshot while
//! that is under way, and its follower would be sent one after another for ever.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How far the log may be purged, by the size of what stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// For followers that keep up.
    pub usual: u64,
    /// For those that are being caught up: whoever lacks more is given up, and sent another snapshot.
    pub most: Option<u64>,
    /// Who has everything up to here keeps up.
    pub near: Option<u64>,
}

/// The followers that are being caught up, each with the index that its snapshot holds.
#[derive(Debug, Default)]
pub(crate) struct Arrears(Mutex<BTreeMap<u64, u64>>);

impl Arrears {
    /// A snapshot up to `index` is being sent.
    pub fn began(&self, follower: u64, index: u64) {
        tracing::info!(follower, index, "a snapshot is being sent");
        self.0.lock().insert(follower, index);
    }

    /// It did not arrive.
    pub fn failed(&self, follower: u64) {
        if self.0.lock().remove(&follower).is_some() {
            tracing::warn!(follower, "the snapshot did not arrive; it is sent again");
        }
    }

    /// How far the log may be purged. `has` gives what a follower is known to hold; this server does
    /// not lead where it is `None`, and owes nobody anything then.
    pub fn purgeable(&self, bounds: Bounds, has: Option<impl Fn(u64) -> Option<u64>>) -> u64 {
        let mut followers = self.0.lock();
        let Some(has) = has else {
            followers.clear();
            return bounds.usual;
        };
        let mut upto = bounds.usual;
        followers.retain(|follower, snapshot| {
            let held = has(*follower).filter(|held| held >= snapshot);
            let from = held.unwrap_or(*snapshot);
            let keeps_up = held.is_some() && held >= bounds.near;
            let stays = !keeps_up && bounds.most.is_none_or(|most| from >= most);
            if stays {
                upto = upto.min(from);
            }
            stays
        });
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        usual: 900,
        most: Some(200),
        near: Some(950),
    };

    fn leads(held: Option<u64>) -> Option<impl Fn(u64) -> Option<u64>> {
        Some(move |_| held)
    }

    #[test]
    fn the_log_stays_for_a_follower_from_its_snapshot_until_it_keeps_up() {
        let arrears = Arrears::default();
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 900);
        arrears.began(2, 500);
        // Sent still, whatever it had before.
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 500);
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(30))), 500);
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(500))), 500);
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(800))), 800);
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(940))), 900);
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(950))), 900);
        // Forgotten by now: what it lacks later is no arrear.
        assert_eq!(arrears.purgeable(BOUNDS, leads(Some(500))), 900);
    }

    #[test]
    fn nothing_stays_for_who_lacks_too_much_for_a_failed_snapshot_or_without_the_lead() {
        let arrears = Arrears::default();
        arrears.began(2, 199);
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 900);
        arrears.began(2, 500);
        arrears.began(3, 400);
        arrears.failed(3);
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 500);
        assert_eq!(
            arrears.purgeable(BOUNDS, None::<fn(u64) -> Option<u64>>),
            900
        );
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 900);
    }

    #[test]
    fn the_slowest_of_several_counts() {
        let arrears = Arrears::default();
        arrears.began(2, 500);
        arrears.began(3, 400);
        assert_eq!(arrears.purgeable(BOUNDS, leads(None)), 400);
    }
}
