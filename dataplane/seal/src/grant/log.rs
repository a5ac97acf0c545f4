//! What a granter has granted: never a second node for one attempt, never more often than the task's
//! retries allow.
//!
//! What was granted before anything was placed binds nobody to that node: a placement elsewhere may be
//! granted too, and each of the two counts.

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

/// One grant of a task.
#[derive(Debug, Clone, Copy)]
struct Row {
    epoch: u64,
    attempt: u32,
    /// Granted before it was placed, and not asked for since.
    ahead: bool,
    node: NodeId,
}

/// Newest grant of a task, and those before it (seldom any, so seldom an allocation).
#[derive(Debug)]
struct Granted {
    newest: Row,
    earlier: Vec<Row>,
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
        if let Some(granted) = self.tasks.get_mut(&attempt.task) {
            let mut elsewhere = false;
            for row in std::iter::once(&mut granted.newest).chain(&mut granted.earlier) {
                if (row.epoch, row.attempt) != (attempt.epoch, attempt.attempt) {
                    continue;
                }
                if row.node == node {
                    row.ahead = false;
                    return Ok(Admission::Again);
                }
                elsewhere |= !row.ahead;
            }
            if elsewhere {
                return Err(GrantError::GrantedElsewhere);
            }
        }
        self.add(attempt, node, limit, false)?;
        Ok(Admission::First)
    }

    /// Remembers that the first attempt of a new task goes to `node`, where it will likely be placed.
    ///
    /// *Errors*: not new, may run once, or the log is full: then it waits to be placed.
    pub fn admit_ahead(
        &mut self,
        attempt: AttemptRef,
        node: NodeId,
        limit: u32,
    ) -> Result<(), GrantError> {
        if limit < 2 || self.tasks.contains_key(&attempt.task) {
            return Err(GrantError::AttemptsUsed { limit });
        }
        self.add(attempt, node, limit, true)
    }

    fn add(
        &mut self,
        attempt: AttemptRef,
        node: NodeId,
        limit: u32,
        ahead: bool,
    ) -> Result<(), GrantError> {
        let row = Row {
            epoch: attempt.epoch,
            attempt: attempt.attempt,
            ahead,
            node,
        };
        if let Some(granted) = self.tasks.get_mut(&attempt.task) {
            if granted.earlier.len() as u64 + 1 >= u64::from(limit) {
                return Err(GrantError::AttemptsUsed { limit });
            }
            granted.earlier.push(granted.newest);
            granted.newest = row;
            return Ok(());
        }
        if limit == 0 {
            return Err(GrantError::AttemptsUsed { limit });
        }
        if self.tasks.len() >= MAX_LOGGED_TASKS {
            return Err(GrantError::LogFull);
        }
        let earlier = Vec::new();
        let granted = Granted {
            newest: row,
            earlier,
        };
        self.tasks.insert(attempt.task, granted);
        Ok(())
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
