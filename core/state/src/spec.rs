//! Interned specs: one copy for however many tasks and sessions use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{Digest, TaskSpec};

use crate::slab::Slab;

/// A spec as it was sent, read once.
#[derive(Debug, Clone)]
pub struct Spec {
    /// BLAKE3 of the canonical bytes.
    pub digest: Digest,
    /// What they say.
    pub task: Arc<TaskSpec>,
    /// The canonical bytes.
    pub bytes: Bytes,
    /// Sessions that know it; it goes with the last of them.
    pub(crate) sessions: u32,
}

/// All of them.
pub(crate) struct Specs {
    pub slab: Slab<Spec>,
    by_digest: BTreeMap<Digest, u32>,
}

impl Specs {
    pub const fn new() -> Self {
        Self {
            slab: Slab::new(),
            by_digest: BTreeMap::new(),
        }
    }
    pub fn find(&self, digest: &Digest) -> Option<u32> {
        self.by_digest.get(digest).copied()
    }
    pub fn insert(&mut self, digest: Digest, task: TaskSpec, bytes: Bytes) -> u32 {
        let handle = self.slab.insert(Spec {
            digest,
            task: Arc::new(task),
            bytes,
            sessions: 0,
        });
        self.by_digest.insert(digest, handle);
        handle
    }
    /// One session fewer knows it. True when it was the last.
    pub fn release(&mut self, handle: u32) -> bool {
        let Some(spec) = self.slab.get_mut(handle) else {
            return false;
        };
        spec.sessions = spec.sessions.saturating_sub(1);
        if spec.sessions > 0 {
            return false;
        }
        let digest = spec.digest;
        self.by_digest.remove(&digest);
        self.slab.remove(handle);
        true
    }
    pub fn iter(&self) -> impl Iterator<Item = &Spec> {
        self.by_digest.values().map(|h| &self.slab[*h])
    }
}
