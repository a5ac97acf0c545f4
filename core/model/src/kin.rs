//! Who is counted together: tasks that others want to be near, or that spread.

use serde::{Deserialize, Serialize};

use crate::{Digest, ProjectId, TaskSpec};

/// Tasks that are counted together at each node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kin {
    /// A project's, with this tag.
    Tag(ProjectId, String),
    /// Those of a spec that is to be spread.
    Spec(Digest),
}

impl TaskSpec {
    /// Whom a task of this spec, of this digest, is counted among. Nearly all specs: among nobody.
    pub fn kin(&self, digest: &Digest) -> impl Iterator<Item = Kin> {
        let tag = self.company.tag.clone();
        let tag = tag.map(|tag| Kin::Tag(self.project, tag));
        let spread = self.company.spread.map(|_| Kin::Spec(*digest));
        tag.into_iter().chain(spread)
    }
}
