//! How large a task's arguments and results are: what was seen of its function.
//!
//! Owns a running mean of both. Leaves code and environment, whose sizes its spec names, to the caller.

use std::collections::HashMap;

use farlane_model::{BlobRef, Digest};
use farlane_units::ByteCount;

/// Specs remembered; beyond it all are forgotten. Source: as many as of run times.
const MAX_SPECS: usize = 65_536;
/// Share of a new size in the mean. Source: choice; what a function takes and gives changes seldom, and one large
/// result in a thousand small ones is soon forgotten.
const GAIN: f64 = 0.125;

/// Blobs remembered of a spec. Source: choice; more than a function has large arguments that calls share.
const MAX_SHARED: usize = 8;

#[derive(Debug, Clone, Default)]
struct Known {
    arguments: Option<f64>,
    result: Option<f64>,
    shared: Vec<BlobRef>,
}

fn see(known: &mut Option<f64>, size: ByteCount) {
    let size = size.0 as f64;
    *known = Some(known.map_or(size, |mean| mean + (size - mean) * GAIN));
}

fn told(known: Option<f64>) -> ByteCount {
    ByteCount(known.unwrap_or(0.0) as u64)
}

/// What was learned of all specs.
#[derive(Debug, Default)]
pub struct Sizes {
    specs: HashMap<Digest, Known>,
}

impl Sizes {
    fn of(&mut self, spec: Digest) -> &mut Known {
        if self.specs.len() >= MAX_SPECS && !self.specs.contains_key(&spec) {
            self.specs.clear();
        }
        self.specs.entry(spec).or_default()
    }

    /// Tasks of `spec` were submitted with arguments of this size, in the mean.
    pub fn learn_arguments(&mut self, spec: Digest, size: ByteCount) {
        see(&mut self.of(spec).arguments, size);
    }

    /// The newest of these tasks all take these blobs, as far as they are large enough to be some.
    pub fn learn_shared(&mut self, spec: Digest, blobs: impl Iterator<Item = BlobRef>) {
        let mut blobs = blobs.take(MAX_SHARED).peekable();
        let known = self.specs.get(&spec).is_some_and(|k| !k.shared.is_empty());
        // Nearly all have none, and had none.
        if known || blobs.peek().is_some() {
            self.of(spec).shared = blobs.collect();
        }
    }

    /// Blobs that tasks of `spec` take with them, as the newest did.
    pub fn shared(&self, spec: &Digest) -> &[BlobRef] {
        self.specs.get(spec).map_or(&[], |known| &known.shared)
    }

    /// Tasks of `spec` ended with results of this size, in the mean.
    pub fn learn_result(&mut self, spec: Digest, size: ByteCount) {
        see(&mut self.of(spec).result, size);
    }

    /// Arguments and result of a task; zero before one was seen.
    pub fn sizes(&self, spec: &Digest) -> (ByteCount, ByteCount) {
        let Some(known) = self.specs.get(spec) else {
            return (ByteCount::ZERO, ByteCount::ZERO);
        };
        (told(known.arguments), told(known.result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_what_was_seen() {
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        let mut sizes = Sizes::default();
        assert_eq!(sizes.sizes(&one), (ByteCount::ZERO, ByteCount::ZERO));
        sizes.learn_arguments(one, ByteCount(1000));
        sizes.learn_result(one, ByteCount::mib(1));
        assert_eq!(sizes.sizes(&one), (ByteCount(1000), ByteCount::mib(1)));
        (0..60).for_each(|_| sizes.learn_result(one, ByteCount(500)));
        assert!((500..1000).contains(&sizes.sizes(&one).1.0));
        assert_eq!(sizes.sizes(&other).0, ByteCount::ZERO);
    }

    #[test]
    fn the_newest_tasks_say_which_blobs_are_shared() {
        let (one, mut sizes) = (Digest([1; 32]), Sizes::default());
        let blob = |n: u8| BlobRef {
            digest: Digest([n; 32]),
            size: ByteCount::mib(1),
        };
        sizes.learn_shared(one, [].into_iter());
        assert!(sizes.shared(&one).is_empty() && sizes.specs.is_empty());
        sizes.learn_shared(one, (0..20).map(blob));
        assert_eq!(sizes.shared(&one).len(), MAX_SHARED);
        sizes.learn_shared(one, [blob(7)].into_iter());
        assert_eq!(sizes.shared(&one), [blob(7)]);
        sizes.learn_shared(one, [].into_iter());
        assert!(sizes.shared(&one).is_empty());
    }
}
