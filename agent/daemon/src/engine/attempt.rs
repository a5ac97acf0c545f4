//! One attempt on its way through the agent.
//!
//! ```text
//! Waiting (spec? grant?) ─▶ Preparing (blobs, environment) ─▶ Ready ─▶ Sent(worker) ─▶ Finishing ─▶ gone
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use farlane_model::{AttemptRef, Digest, PythonVersion, Sealed, TaskSpec, TenantId, Tier};
use farlane_seal::TaskKey;

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
}

/// All that a worker needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) code: Arc<Code>,
    pub(crate) arguments: Bytes,
    pub(crate) blobs: Vec<Bytes>,
    /// Folder of the built environment.
    pub(crate) environment: Option<PathBuf>,
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
    pub(crate) grant: Option<Granted>,
    pub(crate) stage: Stage,
    /// Cluster time in milliseconds at which it came.
    pub(crate) arrived_ms: u64,
    pub(crate) log: super::log::Log,
    pub(crate) told_started: bool,
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::*;
    use farlane_units::*;

    #[test]
    fn averages_follow_slow_news_at_once_and_fast_news_slowly() {
        let blob = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(0),
        };
        let spec = Spec::new(
            Digest([0; 32]),
            TaskSpec {
                project: ProjectId::new(0, [0; 10]),
                function: String::new(),
                code: blob,
                environment: None,
                resources: Resources {
                    cpus: MilliCpu(1),
                    memory: ByteCount(0),
                    scratch: ByteCount(0),
                },
                node: NodeRequest {
                    regions: vec![],
                    labels: vec![],
                    python: PythonVersion {
                        major: 3,
                        minor: 11,
                    },
                    tier: Tier::Process,
                },
                retry: Retry {
                    lost: 0,
                    raised: 0,
                    at_most_once: false,
                },
                timing: Timing::default(),
                priority: 0,
                forward_secrecy: ForwardSecrecy::Preferred,
                log_limit: ByteCount(0),
            },
        );
        assert_eq!(spec.micros(), None);
        spec.ran(100);
        assert_eq!(spec.micros(), Some(100));
        spec.ran(10_000);
        assert_eq!(spec.micros(), Some(10_000));
        spec.ran(100);
        assert!(spec.micros().is_some_and(|m| m > 8000));
    }
}
