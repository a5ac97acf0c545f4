//! What a granter has granted: never a second node for one attempt, never more attempts than the
//! task's retries allow.

use std::collections::HashMap;

use farlane_model::{AttemptRef, NodeId, Retry, TaskId};

use super::GrantError;

/// Most unfinished tasks remembered, about 100 B each. Source: more than a cell runs at once.
pub const MAX_LOGGED_TASKS: usize = 2_000_000;

/// Placements that return through no fault of the task may have been granted; this many are let
/// pass beyond its retries.
const SLACK: u32 = 16;

/// How many attempts of a task may be granted.
pub fn attempts_allowed(retry: &Retry) -> u32 {
    match retry.at_most_once {
        true => 1,
        false => 1 + u32::from(retry.lost) + u32::from(retry.raised) + SLACK,
    }
}

/// Whether a grant is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The first for this attempt: remember it (a standing granter: on disk) before sending.
    First,
    /// The same attempt to the same node again.
    Again,
}

/// One granted attempt, as it is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantEntry {
    /// What was granted.
    pub attempt: AttemptRef,
    /// To whom.
    pub node: NodeId,
}

impl GrantEntry {
    /// Bytes of one entry.
    pub const BYTES: usize = 16 + 4 + 8 + 32 + 4;

    /// Its bytes; the last four are a check, so that a torn write is seen.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..16].copy_from_slice(&self.attempt.task.to_bytes());
        out[16..20].copy_from_slice(&self.attempt.attempt.to_be_bytes());
        out[20..28].copy_from_slice(&self.attempt.epoch.to_be_bytes());
        out[28..60].copy_from_slice(self.node.as_bytes());
        let check = blake3::hash(&out[..60]);
        out[60..].copy_from_slice(&check.as_bytes()[..4]);
        out
    }
    /// From its bytes; `None` where they are torn.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (body, check) = bytes.split_at(60);
        if blake3::hash(body).as_bytes()[..4] != *check {
            return None;
        }
        let (task, rest) = body.split_first_chunk::<16>()?;
        let (attempt, rest) = rest.split_first_chunk::<4>()?;
        let (epoch, node) = rest.split_first_chunk::<8>()?;
        let attempt = AttemptRef {
            task: TaskId::from_bytes(*task),
            attempt: u32::from_be_bytes(*attempt),
            epoch: u64::from_be_bytes(*epoch),
        };
        Some(Self {
            attempt,
            node: NodeId::from_slice(node).ok()?,
        })
    }
}

/// Newest grant of a task, and those before it (seldom any, so seldom an allocation).
#[derive(Debug)]
struct Granted {
    newest: (u64, u32, NodeId),
    earlier: Vec<(u64, u32, NodeId)>,
}

/// What was granted of tasks not yet finished.
#[derive(Debug, Default)]
pub struct GrantLog {
    tasks: HashMap<TaskId, Granted>,
}

impl GrantLog {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
    /// Tasks remembered.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Remembers that `attempt` goes to `node`; `limit` is [`attempts_allowed`] of its spec.
    ///
    /// *Errors*: granted to another node before, no attempts left, or the log is full.
    pub fn admit(
        &mut self,
        attempt: AttemptRef,
        node: NodeId,
        limit: u32,
    ) -> Result<Admission, GrantError> {
        let row = (attempt.epoch, attempt.attempt, node);
        if let Some(granted) = self.tasks.get_mut(&attempt.task) {
            let same = |r: &(u64, u32, NodeId)| (r.0, r.1) == (row.0, row.1);
            let before = std::iter::once(&granted.newest)
                .chain(&granted.earlier)
                .find(|r| same(r));
            match before {
                Some(found) if found.2 == node => return Ok(Admission::Again),
                Some(_) => return Err(GrantError::GrantedElsewhere),
                None => {}
            }
            if granted.earlier.len() as u64 + 1 >= u64::from(limit) {
                return Err(GrantError::AttemptsUsed { limit });
            }
            granted.earlier.push(granted.newest);
            granted.newest = row;
            return Ok(Admission::First);
        }
        if limit == 0 {
            return Err(GrantError::AttemptsUsed { limit });
        }
        if self.tasks.len() >= MAX_LOGGED_TASKS {
            return Err(GrantError::LogFull);
        }
        self.tasks.insert(
            attempt.task,
            Granted {
                newest: row,
                earlier: Vec::new(),
            },
        );
        Ok(Admission::First)
    }

    /// Takes up an entry kept on disk; it was admitted once and is not judged again.
    pub fn restore(&mut self, entry: GrantEntry) {
        let _ = self.admit(entry.attempt, entry.node, u32::MAX);
    }

    /// Forgets a finished task.
    pub fn forget(&mut self, task: &TaskId) {
        self.tasks.remove(task);
    }
}
