//! A client begins a session, or comes back to it.

use bytes::Bytes;
use farlane_model::{KeyId, ProjectId, SessionId, TenantId};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::{MarksRow, SessionRow, keys};
use crate::rows::Table;
use crate::{Outcome, Refusal, Session};

/// Most sessions remembered. Source: 1 KiB each is 1 GiB at most, far above what a cell sees in two days.
const MAX_SESSIONS: usize = 1_000_000;
/// Most bytes of a wrapped session key or a device record. Source: both are under 600 bytes.
const MAX_RECORD: usize = 4096;

/// Names a client, its project and what opens its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Drawn by the client; low 40 bits zero.
    pub session: SessionId,
    /// The key's project.
    pub project: ProjectId,
    /// The project's tenant.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyId,
    /// Sealed to the project's vault key.
    pub wrapped_session_key: Bytes,
    /// Canonical signed device record.
    pub device: Bytes,
}

impl OpenSession {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if !self.session.is_valid() {
            return Err(Refusal::SessionTaken);
        }
        if ctx.state.key_revoked(&self.key) {
            return Err(Refusal::KeyRevoked);
        }
        if self.wrapped_session_key.len() > MAX_RECORD || self.device.len() > MAX_RECORD {
            return Err(Refusal::EnvelopeInvalid {
                field: "session".into(),
            });
        }
        let handle = match ctx.state.session_ids.get(&self.session).copied() {
            Some(handle) => {
                let known = &mut ctx.state.sessions[handle];
                if known.project != self.project || known.tenant != self.tenant {
                    return Err(Refusal::SessionTaken);
                }
                if known.key != self.key {
                    known.key = self.key;
                    let row = known.row();
                    ctx.writes
                        .put_serde(Table::Sessions, &keys::session(self.session), &row);
                }
                handle
            }
            None => self.add(ctx)?,
        };
        ctx.mark(handle);
        Ok(Outcome::Done)
    }

    fn add(self, ctx: &mut Ctx) -> Result<u32, Refusal> {
        if ctx.state.session_ids.len() >= MAX_SESSIONS {
            return Err(Refusal::TooMany {
                what: "sessions".into(),
                most: MAX_SESSIONS as u64,
            });
        }
        let row = SessionRow {
            project: self.project,
            tenant: self.tenant,
            key: self.key,
            wrapped_session_key: self.wrapped_session_key,
            device: self.device,
            opened: ctx.stamp.now,
        };
        ctx.writes
            .put_serde(Table::Sessions, &keys::session(self.session), &row);
        let marks = MarksRow {
            next_seq: 1,
            kept: 0,
            active: ctx.stamp.now,
            acks: Vec::new(),
        };
        let handle = ctx
            .state
            .sessions
            .insert(Session::from_rows(self.session, row, marks));
        ctx.state.session_ids.insert(self.session, handle);
        Ok(handle)
    }
}
