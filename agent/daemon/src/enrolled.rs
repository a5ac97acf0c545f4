//! What a state folder says of its machine to whoever starts the agent.

use std::path::Path;

use farlane_model::NodeId;
use farlane_seal::record::{EnrolmentTerms, NodeRecord};

use crate::StartError;

/// What of a state folder is the node's that joined, in the order in which it goes: without the first it
/// has not joined. Caches stay.
const OWN: [&str; 5] = [
    "transport.json",
    "journal",
    "record",
    "network.json",
    "identity",
];

/// Which node the machine of `state_dir` is, and what its provider certified of it; `None` where it has
/// not joined, or its record cannot be read (the agent says so).
pub fn enrolled(state_dir: &Path) -> Option<(NodeId, EnrolmentTerms)> {
    if !crate::Agent::has_joined(state_dir) {
        return None;
    }
    let record = std::fs::read(state_dir.join("record")).ok()?;
    let record = NodeRecord::from_bytes(&record).ok()?;
    Some((record.node(), EnrolmentTerms::clone(record.certificate())))
}

/// Forgets which node the machine of `state_dir` was, so that it can join as another: its keys, and
/// results that nobody had acknowledged. No agent may run in it.
///
/// *Errors*: a file cannot be removed.
pub fn forget(state_dir: &Path) -> Result<(), StartError> {
    for name in OWN {
        let path = state_dir.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StartError::Io {
                    what: format!("removing {}", path.display()),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
