//! Sessions and granters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use farlane_model::{KeyId, ProjectId, SessionId, TaskId, TenantId};
use farlane_units::Millis;

use crate::Verdict;
use crate::row::{Cursor, MarksRow, SessionRow};
use crate::slab::NONE;

/// A session without live tasks, kept results or calls for this long is forgotten: twice the
/// retention of results, so that a client that was away for a day finds its numbers.
pub const SESSION_IDLE: Millis = Millis(48 * 3600 * 1000);
/// Acknowledgements remembered a session, one a minute: more than the hour for which they matter.
pub(crate) const MAX_ACKS: usize = 64;
/// Verdicts are remembered on this many of a session's newest numbers. Source: farlane-wire,
/// `WINDOW_TASKS`: a client may send again whatever is not acknowledged, which is no more than that.
pub const VERDICT_WINDOW: u64 = 16_384;

/// One client's conversation.
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// Its project.
    pub project: ProjectId,
    /// The project's tenant.
    pub tenant: TenantId,
    /// The key that opened it last.
    pub key: KeyId,
    /// Sealed to the project's vault key.
    pub wrapped_session_key: Bytes,
    /// Canonical signed device record.
    pub device: Bytes,
    /// Cluster time.
    pub opened: Millis,
    /// The next sequence number that is taken; everything below is durable.
    pub next_seq: u64,
    /// Results kept for it.
    pub kept: u64,
    /// Cluster time of the last order that named it.
    pub active: Millis,
    /// What was acknowledged when, ascending; the last one is the furthest.
    pub acks: Vec<(Cursor, Millis)>,
    /// Sequence numbers that are no tasks of their own.
    pub verdicts: BTreeMap<u64, Verdict>,
    /// Tasks that have not finished.
    pub live: u32,
    pub(crate) specs: BTreeSet<u32>,
    pub(crate) base: u64,
    pub(crate) tasks: VecDeque<u32>,
}

impl Session {
    pub(crate) fn from_rows(id: SessionId, row: SessionRow, marks: MarksRow) -> Self {
        Self {
            id,
            project: row.project,
            tenant: row.tenant,
            key: row.key,
            wrapped_session_key: row.wrapped_session_key,
            device: row.device,
            opened: row.opened,
            next_seq: marks.next_seq,
            kept: marks.kept,
            active: marks.active,
            acks: marks.acks,
            verdicts: BTreeMap::new(),
            live: 0,
            specs: BTreeSet::new(),
            base: marks.next_seq,
            tasks: VecDeque::new(),
        }
    }
    pub(crate) fn row(&self) -> SessionRow {
        SessionRow {
            project: self.project,
            tenant: self.tenant,
            key: self.key,
            wrapped_session_key: self.wrapped_session_key.clone(),
            device: self.device.clone(),
            opened: self.opened,
        }
    }
    pub(crate) fn marks(&self) -> MarksRow {
        MarksRow {
            next_seq: self.next_seq,
            kept: self.kept,
            active: self.active,
            acks: self.acks.clone(),
        }
    }

    /// Handle of the live task with this number.
    pub(crate) fn task(&self, seq: u64) -> Option<u32> {
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.tasks.get(at).copied().filter(|h| *h != NONE)
    }
    /// Numbers come ascending; gaps are verdicts, or finished tasks on loading.
    pub(crate) fn push_task(&mut self, seq: u64, handle: u32) {
        if self.tasks.is_empty() {
            self.base = seq;
        }
        while self.base + (self.tasks.len() as u64) < seq {
            self.tasks.push_back(NONE);
        }
        self.tasks.push_back(handle);
        self.live += 1;
    }
    pub(crate) fn drop_task(&mut self, seq: u64) {
        let Some(at) = seq.checked_sub(self.base) else {
            return;
        };
        if let Some(slot) = self.tasks.get_mut(at as usize) {
            self.live -= u32::from(*slot != NONE);
            *slot = NONE;
        }
        while self.tasks.front() == Some(&NONE) {
            self.tasks.pop_front();
            self.base += 1;
        }
    }
    /// Its live tasks, ascending.
    pub(crate) fn live_handles(&self) -> impl Iterator<Item = u32> + '_ {
        self.tasks.iter().copied().filter(|h| *h != NONE)
    }
    /// Id of its task with this number.
    pub const fn task_id(&self, seq: u64) -> TaskId {
        self.id.task(seq)
    }
    /// When what finished at `at` was first acknowledged.
    pub fn acked(&self, at: Cursor) -> Option<Millis> {
        let from = self.acks.partition_point(|(through, _)| *through < at);
        self.acks.get(from).map(|(_, when)| *when)
    }
}

/// Who can grant attempts: a client while attached, or a standing granter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Granter {
    /// Whose tasks.
    pub project: ProjectId,
    /// Grants tasks of any session of the project, not only its own.
    pub standing: bool,
    /// Canonical signed device record.
    pub device: Bytes,
}
