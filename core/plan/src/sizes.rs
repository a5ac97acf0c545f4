//! How large a task's arguments and results are: what was seen of its function.
//!
//! Owns a running mean of both. Leaves code and environment, whose sizes its spec names, to the caller.

use std::collections::HashMap;

use farlane_model::Digest;
use farlane_units::ByteCount;

/// Specs remembered; beyond it all are forgotten. Source: as many as of run times.
const MAX_SPECS: usize = 65_536;
/// Share of a new size in the mean. Source: choice; what a function takes and gives changes seldom, and one large
/// result in a thousand small ones is soon forgotten.
const GAIN: f64 = 0.125;

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    arguments: Option<f64>,
    result: Option<f64>,
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

    /// Tasks of `spec` ended with results of this size, in the mean.
    pub fn learn_result(&mut self, spec: Digest, size: ByteCount) {
        see(&mut self.of(spec).result, size);
    }

    /// Arguments and result of a task; zero before one was seen.
    pub fn sizes(&self, spec: &Digest) -> (ByteCount, ByteCount) {
        let known = self.specs.get(spec).copied().unwrap_or_default();
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
}
