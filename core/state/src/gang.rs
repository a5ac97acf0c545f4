//! Gangs: runs of a session's tasks that are leased at once, come back at once, and fail at once.
//!
//! ```text
//!             place: each fits, or none is placed
//!   all wait ────────────────────────────────────▶ all leased ── one returns ──▶ that one is settled; the others go on
//!      ▲                                                │
//!      └─ one is lost, raises or is not granted, and ◀──┤
//!         a retry is left: the others are stopped       └─ one ends without a result: the others end too
//! ```
//! Owns who belongs to whom. At every moment either each unfinished member holds a lease or none does, and so all
//! have been leased equally often: the attempt's number is the gang's.

use std::collections::BTreeMap;

use farlane_model::{Exit, ExitKind, LostCause, SessionId, TaskId};

use crate::apply::Ctx;
use crate::row::keys;
use crate::rows::Table;
use crate::task::Task;
use crate::{LiveTask, State};

/// A gang by the session's handle and the number of its first task.
pub(crate) type GangKey = (u32, u64);

/// Gangs with an unfinished member, and how many they were submitted as. Others cost nothing.
#[derive(Default)]
pub(crate) struct Gangs {
    sizes: BTreeMap<GangKey, u16>,
    /// Its members are being ended, each for the same reason.
    ending: Option<GangKey>,
}

impl Gangs {
    pub fn insert(&mut self, key: GangKey, size: u16) {
        self.sizes.insert(key, size);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&GangKey, &u16)> {
        self.sizes.iter()
    }

    /// The gang that holds this number, and its size.
    pub fn find(&self, session: u32, seq: u64) -> Option<(GangKey, u16)> {
        let mut before = self.sizes.range((session, 0)..=(session, seq));
        let (key, size) = before.next_back()?;
        (seq - key.1 < u64::from(*size)).then_some((*key, *size))
    }
}

/// A task's place in its gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The gang's first task, which names it.
    pub first: TaskId,
    /// From 0.
    pub rank: u16,
    /// How many there are, finished ones counted.
    pub size: u16,
}

impl State {
    /// The gang of a live task. Ordinary tasks are told apart by their spec alone.
    pub(crate) fn gang_of(&self, task: &Task) -> Option<(GangKey, u16)> {
        self.specs.slab[task.spec].task.gang?;
        self.gangs.find(task.session, task.seq)
    }

    pub(crate) fn member(&self, task: &Task) -> Option<Member> {
        let ((session, first), size) = self.gang_of(task)?;
        Some(Member {
            first: self.sessions[session].task_id(first),
            rank: u16::try_from(task.seq - first).ok()?,
            size,
        })
    }

    /// The unfinished members of a gang, in the order of their ranks.
    pub fn gang(&self, member: &Member) -> impl Iterator<Item = LiveTask<'_>> {
        let session = self.session_ids.get(&member.first.session()).copied();
        let members = session.map(|s| self.members((s, member.first.seq()), member.size));
        let members = members.unwrap_or_default().into_iter();
        members.filter_map(|handle| self.view(handle))
    }

    /// Handles of a gang's unfinished members, in the order of their ranks.
    pub(crate) fn members(&self, (session, first): GangKey, size: u16) -> Vec<u32> {
        let session = &self.sessions[session];
        let seqs = first..first + u64::from(size);
        seqs.filter_map(|seq| session.task(seq)).collect()
    }

    /// The others of a task's gang that have not finished.
    pub(crate) fn kin(&self, handle: u32) -> Vec<u32> {
        let Some((key, size)) = self.tasks.get(handle).and_then(|t| self.gang_of(t)) else {
            return Vec::new();
        };
        let mut members = self.members(key, size);
        members.retain(|member| *member != handle);
        members
    }

    /// Gangs of a session with an unfinished member, by the first of each.
    pub(crate) fn load_gang(&mut self, first: TaskId, size: u16) -> Option<()> {
        let session: SessionId = first.session();
        let handle = *self.session_ids.get(&session)?;
        self.gangs.insert((handle, first.seq()), size);
        Some(())
    }
}

impl Ctx<'_> {
    /// Remembers that these numbers of a session are one gang.
    pub fn put_gang(&mut self, key: GangKey, size: u16) {
        let id = self.state.sessions[key.0].task_id(key.1);
        self.writes.put_serde(Table::Gangs, &keys::task(id), &size);
        self.state.gangs.insert(key, size);
    }

    fn drop_gang(&mut self, key: GangKey) {
        let id = self.state.sessions[key.0].task_id(key.1);
        self.writes.delete(Table::Gangs, &keys::task(id));
        self.state.gangs.sizes.remove(&key);
    }

    /// A member's attempt has ended and it waits again: so do the others.
    pub fn recall_gang(&mut self, handle: u32) {
        for other in self.state.kin(handle) {
            if self.state.tasks[other].lease.is_none() {
                continue;
            }
            self.stop(other);
            self.bill_unreported(other, ExitKind::Lost(LostCause::GangBroken), false);
            self.requeue_one(other);
        }
    }

    /// A member has finished. With a result the others go on; without, they end with it.
    pub fn member_left(&mut self, task: &Task, exit: &Exit) {
        let Some((key, size)) = self.state.gang_of(task) else {
            return;
        };
        let left = self.state.members(key, size);
        if exit.kind == ExitKind::Returned && !left.is_empty() {
            return;
        }
        // Those who end below end alone.
        if self.state.gangs.ending.replace(key) == Some(key) {
            return;
        }
        let others = match exit.kind {
            // What was decided of one was decided of all.
            ExitKind::Cancelled | ExitKind::Expired | ExitKind::Infeasible => exit.clone(),
            _ => {
                let rank = task.seq - key.1;
                let why = format!("rank {rank} of its gang of {size} {}", words(exit.kind));
                Exit::new(ExitKind::Lost(LostCause::GangBroken), why)
            }
        };
        for other in left {
            self.end(other, others.clone());
        }
        self.state.gangs.ending = None;
        self.drop_gang(key);
    }
}

/// What a member did that the others end for.
const fn words(kind: ExitKind) -> &'static str {
    match kind {
        ExitKind::Raised => "raised an exception",
        ExitKind::TimedOut => "ran longer than its timeout",
        ExitKind::EnvFailed => "had no environment",
        ExitKind::Refused => "was refused",
        ExitKind::Lost(_) => "was lost once more than it is tried again",
        ExitKind::Returned | ExitKind::Cancelled | ExitKind::Expired | ExitKind::Infeasible => {
            "ended"
        }
    }
}
