//! Which nodes hold which blobs, as far as this leader gave them.
//!
//! Owns the memory of it, which no log keeps: a new leader learns anew, and takes nodes to hold nothing meanwhile. Leaves
//! what it is worth to `farlane-plan`, and keeping blobs to the agents.
//!
//! ```text
//! node takes a blob ─▶ once: it has opened the function; lets go of other blobs once they are used
//!                   └▶ again: it keeps the blob on its disk (farlane-daemon, blobs.rs)
//! ```
//! A node that lets go of one to make room asks for it again: what is remembered too long costs one transfer.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::{BlobRef, Digest, NodeId, TaskSpec};
use farlane_plan::Lies;

use crate::warm::note;

/// Blobs remembered; beyond it all are forgotten. Source: at twice 64 nodes each 64 MiB.
const MAX_BLOBS: usize = 16_384;

/// Nodes that took one blob.
#[derive(Debug, Default)]
struct Taken {
    once: Arc<[NodeId]>,
    again: Arc<[NodeId]>,
    hands: [usize; 2],
}

/// Blobs that nodes took from here.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    blobs: HashMap<Digest, Taken>,
}

impl Holdings {
    /// A node has taken all of a blob.
    pub fn took(&mut self, blob: Digest, node: NodeId) {
        if self.blobs.len() >= MAX_BLOBS && !self.blobs.contains_key(&blob) {
            self.blobs.clear();
        }
        let taken = self.blobs.entry(blob).or_default();
        if taken.once.binary_search(&node).is_err() {
            note(&mut taken.once, &mut taken.hands[0], node);
        } else if taken.again.binary_search(&node).is_err() {
            note(&mut taken.again, &mut taken.hands[1], node);
        }
    }

    /// What of a task's function, lock and shared arguments lies where.
    pub fn of(&self, spec: &TaskSpec, shared: &[BlobRef]) -> Vec<Lies> {
        let mut lies = Vec::new();
        let mut add = |nodes: &Arc<[NodeId]>, blob: &BlobRef| {
            if !nodes.is_empty() {
                let (nodes, bytes) = (nodes.clone(), blob.size);
                lies.push(Lies { nodes, bytes });
            }
        };
        if let Some(taken) = self.blobs.get(&spec.code.digest) {
            add(&taken.once, &spec.code);
        }
        let lock = spec.environment.as_ref().map(|wanted| &wanted.lock);
        for blob in lock.into_iter().chain(shared) {
            if let Some(taken) = self.blobs.get(&blob.digest) {
                add(&taken.again, blob);
            }
        }
        lies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::{ProjectId, PythonVersion};
    use farlane_plan::MAX_WARM;
    use farlane_units::ByteCount;

    fn blob(n: u8, mib: u64) -> BlobRef {
        BlobRef {
            digest: Digest([n; 32]),
            size: ByteCount::mib(mib),
        }
    }

    fn spec(code: BlobRef) -> TaskSpec {
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        TaskSpec::new(ProjectId::new(0, [0; 10]), code, python)
    }

    #[test]
    fn a_function_is_held_once_it_was_taken_and_an_argument_once_it_was_taken_twice() {
        let (mut held, node) = (Holdings::default(), NodeId([1; 32]));
        let (code, argument) = (blob(1, 1), blob(2, 64));
        let spec = spec(code);
        assert!(held.of(&spec, &[argument]).is_empty());
        held.took(code.digest, node);
        held.took(argument.digest, node);
        let lies = held.of(&spec, &[argument]);
        assert_eq!((lies.len(), lies[0].bytes), (1, code.size));
        held.took(argument.digest, node);
        let lies = held.of(&spec, &[argument]);
        assert_eq!((lies.len(), lies[1].bytes), (2, argument.size));
        assert_eq!(&lies[1].nodes[..], [node]);
        assert_eq!(held.of(&spec, &[]).len(), 1);
    }

    #[test]
    fn a_bounded_number_of_nodes_is_remembered() {
        let mut held = Holdings::default();
        (0..200).for_each(|n| held.took(Digest([1; 32]), NodeId([n; 32])));
        let lies = held.of(&spec(blob(1, 1)), &[]);
        assert!(lies[0].nodes.len() == MAX_WARM && lies[0].nodes.is_sorted());
    }
}
