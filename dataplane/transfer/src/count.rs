//! How much is held, in all and by each project.
//!
//! Owns the two bounds and room promised to uploads under way. Leaves what lies on the disk to the
//! store, which counts it anew before a bound refuses anybody: another server may have deleted, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farlane_model::ProjectId;
use farlane_units::ByteCount;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BlobError, CHUNK_BYTES, Limits, Owner, Usage};

/// A count this young is believed when it refuses. Source: a walk over 64 GiB of blobs of 1 MiB takes
/// a second on a cold disk; a full store should not be walked for every call.
pub(crate) const BELIEVED: Duration = Duration::from_secs(10);

/// A blob that may take a project's reserve. Source: the wire's chunk; a function with what it captures, where
/// no array is among it, fits.
const SMALL: ByteCount = ByteCount(CHUNK_BYTES as u64);

/// Blobs and their bytes, by project too.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    usage: Usage,
    projects: HashMap<ProjectId, Held>,
}

/// One project's bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    bytes: u64,
    /// Of these, in blobs of at most [`SMALL`].
    small: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, owner: Owner, bytes: u64) {
        self.usage.blobs += 1;
        self.usage.bytes = self.usage.bytes.saturating_add(ByteCount(bytes));
        if let Owner::Project(project) = owner {
            let held = self.projects.entry(project).or_default();
            held.bytes += bytes;
            held.small += if bytes <= SMALL.0 { bytes } else { 0 };
        }
    }
    fn take(&mut self, owner: Owner, bytes: u64) {
        self.usage.blobs = self.usage.blobs.saturating_sub(1);
        self.usage.bytes = self.usage.bytes.saturating_sub(ByteCount(bytes));
        if let Owner::Project(project) = owner
            && let Some(of) = self.projects.get_mut(&project)
        {
            of.bytes = of.bytes.saturating_sub(bytes);
            let small = if bytes <= SMALL.0 { bytes } else { 0 };
            of.small = of.small.saturating_sub(small);
            if of.bytes == 0 {
                self.projects.remove(&project);
            }
        }
    }
    fn of(&self, project: ProjectId) -> Held {
        self.projects.get(&project).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Inner {
    stored: Tally,
    promised: Tally,
    counted: Instant,
}

/// What is stored and promised.
#[derive(Debug, Clone)]
pub(crate) struct Counts(Arc<Mutex<Inner>>);

impl Counts {
    pub(crate) fn new(stored: Tally) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stored,
            promised: Tally::default(),
            counted: Instant::now(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.inner().stored.usage
    }

    /// Whether a refusal by these counts should be checked on the disk first.
    pub(crate) fn is_old(&self) -> bool {
        self.inner().counted.elapsed() > BELIEVED
    }

    /// As if the last count were long ago.
    #[cfg(test)]
    pub(crate) fn make_old(&self) {
        let mut inner = self.inner();
        inner.counted = inner
            .counted
            .checked_sub(2 * BELIEVED)
            .unwrap_or(inner.counted);
    }

    /// Takes a fresh count of the disk.
    pub(crate) fn recounted(&self, stored: Tally) {
        let mut inner = self.inner();
        (inner.stored, inner.counted) = (stored, Instant::now());
    }

    /// Room for one more blob.
    ///
    /// *Errors*: a bound is reached.
    pub(crate) fn promise(
        &self,
        owner: Owner,
        size: ByteCount,
        limits: &Limits,
    ) -> Result<Promise, BlobError> {
        let mut inner = self.inner();
        let in_all = |of: fn(&Tally) -> u64| of(&inner.stored) + of(&inner.promised);
        let used = ByteCount(in_all(|t| t.usage.bytes.0));
        if used.saturating_add(size) > limits.total {
            return Err(BlobError::Full {
                used,
                limit: limits.total,
            });
        }
        if let Owner::Project(project) = owner {
            let (stored, promised) = (inner.stored.of(project), inner.promised.of(project));
            let used = ByteCount(stored.bytes + promised.bytes);
            let small = ByteCount(stored.small + promised.small);
            let fits = used.saturating_add(size) <= limits.project;
            // A project whose results fill its bound goes on with calls that need little.
            let reserved = size <= SMALL
                && (small.saturating_add(size) <= limits.reserve
                    || used.saturating_add(size) <= limits.project.saturating_add(limits.reserve));
            if !fits && !reserved {
                return Err(BlobError::Quota {
                    used,
                    limit: limits.project,
                });
            }
        }
        inner.promised.add(owner, size.0);
        Ok(Promise {
            counts: self.clone(),
            owner,
            size: size.0,
        })
    }

    pub(crate) fn gone(&self, owner: Owner, bytes: u64) {
        self.inner().stored.take(owner, bytes);
    }

    pub(crate) fn adopted(&self, from: Owner, to: Owner, bytes: u64) {
        let mut inner = self.inner();
        inner.stored.take(from, bytes);
        inner.stored.add(to, bytes);
    }
}

/// Room kept for one upload; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Promise {
    counts: Counts,
    owner: Owner,
    size: u64,
}

impl Promise {
    /// The upload is stored now.
    pub(crate) fn keep(self) {
        self.counts.inner().stored.add(self.owner, self.size);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.counts.inner().promised.take(self.owner, self.size);
    }
}
