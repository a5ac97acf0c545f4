//! One attempt on its way through the agent.
//!
//! ```text
//! Waiting (spec? grant?) ─▶ Preparing (blobs, environment) ─▶ Ready ─▶ Sent(worker) ─▶ Finishing ─▶ gone
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use farlane_model::{AttemptRef, Digest, PythonVersion, Sealed, TaskSpec, TenantId, Tier};
use farlane_seal::TaskKey;

use crate::environment::Environment;
use crate::worker::WorkerNumber;

/// Names an attempt within the agent's life; what workers answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) u64);

/// A spec, with what was learned about tasks of it.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) digest: Digest,
    pub(crate) spec: TaskSpec,
    /// Moving average of the run time in microseconds; 0 until one has run.
    micros: AtomicU32,
}

impl Spec {
    pub(crate) fn new(digest: Digest, spec: TaskSpec) -> Self {
        Self {
            digest,
            spec,
            micros: AtomicU32::new(0),
        }
    }

    /// A run took so long. An eighth of the news counts, but a longer run counts at once, so that a
    /// function that turned slow is not sent ahead.
    pub(crate) fn ran(&self, micros: u64) {
        let new = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
        let old = self.micros.load(Ordering::Relaxed);
        let next = if old == 0 || new > old.saturating_mul(8) {
            new
        } else {
            old - old / 8 + new / 8
        };
        self.micros.store(next.max(1), Ordering::Relaxed);
    }

    /// Average run time in microseconds; `None` until one has run.
    pub(crate) fn micros(&self) -> Option<u32> {
        Some(self.micros.load(Ordering::Relaxed)).filter(|micros| *micros > 0)
    }
}

/// Specs of one generation. Source: twice what a server takes to be known of one stream before it tells
/// again (farlane-controller, `MAX_SPECS_TOLD`); 1 KiB each.
const GENERATION: usize = 2048;

/// Specs that servers told: whatever is among the last [`GENERATION`] told is here, and at most twice as
/// many are.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    newer: HashMap<Digest, Arc<Spec>>,
    older: HashMap<Digest, Arc<Spec>>,
}

impl Specs {
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Spec>> {
        let found = self.newer.get(digest).or_else(|| self.older.get(digest));
        found.cloned()
    }
    /// A spec was told again: it is among the newest now. False when it is not known.
    pub(crate) fn renew(&mut self, digest: &Digest) -> bool {
        let known = self.get(digest);
        let found = known.is_some();
        known.into_iter().for_each(|spec| self.insert(spec));
        found
    }
    pub(crate) fn insert(&mut self, spec: Arc<Spec>) {
        if self.newer.len() >= GENERATION && !self.newer.contains_key(&spec.digest) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(spec.digest, spec);
    }
}

/// What a grant gave.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) key: TaskKey,
    pub(crate) tenant: TenantId,
    /// The client takes pickles from this node.
    pub(crate) own: bool,
    pub(crate) spec_digest: Digest,
    pub(crate) payload_digest: Digest,
}

/// Which template's workers can run it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) tenant: TenantId,
    pub(crate) project: farlane_model::ProjectId,
    pub(crate) environment: Option<Digest>,
    pub(crate) python: PythonVersion,
    pub(crate) tier: Tier,
    /// Threads that numeric libraries are told to use.
    pub(crate) threads: u32,
    /// Bound of the scratch space.
    pub(crate) scratch: u64,
    /// The GPUs that its tasks hold: bit n is the n-th device of the node's spec.
    pub(crate) devices: u64,
}

/// Places of a set of devices, lowest first.
pub(crate) fn places(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (place < 64).then_some(place as usize)
    })
}

/// All that a worker needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its place in its gang.
    pub(crate) rank: u16,
    pub(crate) code: Arc<Code>,
    pub(crate) arguments: Bytes,
    pub(crate) blobs: Vec<Bytes>,
    /// The built environment, kept from removal.
    pub(crate) environment: Option<Arc<Environment>>,
}

/// A function's pickle, opened.
#[derive(Debug)]
pub(crate) struct Code {
    /// Names it towards workers.
    pub(crate) number: u32,
    pub(crate) bytes: Bytes,
}

/// Where it is on its way.
#[derive(Debug)]
pub(crate) enum Stage {
    Waiting,
    Preparing,
    Ready(Prepared),
    /// In a worker's socket or running; kept to be sent elsewhere should it not have begun.
    Sent(WorkerNumber, Prepared),
    /// Its result is being sealed or uploaded.
    Finishing,
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) at: AttemptRef,
    pub(crate) spec_digest: Digest,
    pub(crate) spec: Option<Arc<Spec>>,
    pub(crate) payload: Sealed,
    /// The GPUs that it was leased, as in [`PoolKey`]; none while it waits for room.
    pub(crate) devices: u64,
    pub(crate) grant: Option<Granted>,
    pub(crate) stage: Stage,
    /// Cluster time in milliseconds at which it came.
    pub(crate) arrived_ms: u64,
    pub(crate) log: super::log::Log,
    pub(crate) told_started: bool,
    /// What runs beside the loop for it: getting it ready, or its result out. Ends with it.
    pub(crate) beside: Option<Beside>,
}

/// A task of the runtime that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Beside(tokio::task::AbortHandle);

impl Beside {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Attempt {
    /// What its template must offer; `None` before spec and grant are here.
    pub(crate) fn pool(&self, tier: Tier) -> Option<PoolKey> {
        let (spec, grant) = (&self.spec.as_ref()?.spec, self.grant.as_ref()?);
        Some(PoolKey {
            tenant: grant.tenant,
            project: spec.project,
            environment: spec.environment.map(|environment| environment.id),
            python: spec.node.python,
            tier,
            threads: spec.resources.cpus.0.div_ceil(1000),
            scratch: spec.resources.scratch.0,
            devices: self.devices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::*;
    use farlane_units::*;

    fn spec(digest: Digest) -> Spec {
        let blob = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(0),
        };
        Spec::new(
            digest,
            TaskSpec {
                project: ProjectId::new(0, [0; 10]),
                function: String::new(),
                code: blob,
                environment: None,
                resources: Resources {
                    cpus: MilliCpu(1),
                    memory: ByteCount(0),
                    scratch: ByteCount(0),
                    gpus: MilliGpu::ZERO,
                },
                gpu: GpuRequest::default(),
                amounts: vec![],
                node: NodeRequest::any(PythonVersion {
                    major: 3,
                    minor: 11,
                }),
                company: Company::default(),
                gang: None,
                retry: Retry {
                    lost: 0,
                    raised: 0,
                    at_most_once: false,
                },
                timing: Timing::default(),
                policy: None,
                work: None,
                priority: 0,
                forward_secrecy: ForwardSecrecy::Preferred,
                log_limit: ByteCount(0),
            },
        )
    }

    #[test]
    fn specs_told_last_are_known_also_those_told_again() {
        let mut specs = Specs::default();
        let digest = |n: usize| Digest::of(&n.to_be_bytes());
        specs.insert(Arc::new(spec(digest(0))));
        let many = 5 * GENERATION;
        for n in 1..=many {
            specs.insert(Arc::new(spec(digest(n))));
            // What is told over and over stays, however long ago it was first told.
            assert!(n % GENERATION != 0 || specs.renew(&digest(0)));
        }
        assert!((many - GENERATION + 1..=many).all(|n| specs.get(&digest(n)).is_some()));
        assert!(specs.get(&digest(0)).is_some() && specs.get(&digest(1)).is_none());
        assert!(!specs.renew(&digest(1)));
        assert!(specs.newer.len() + specs.older.len() <= 2 * GENERATION);
    }

    #[test]
    fn averages_follow_slow_news_at_once_and_fast_news_slowly() {
        let spec = spec(Digest([0; 32]));
        assert_eq!(spec.micros(), None);
        spec.ran(100);
        assert_eq!(spec.micros(), Some(100));
        spec.ran(10_000);
        assert_eq!(spec.micros(), Some(10_000));
        spec.ran(100);
        assert!(spec.micros().is_some_and(|m| m > 8000));
    }
}
