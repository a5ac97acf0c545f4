//! How long results are kept: found by the leader in the rows, ended by `Expire`.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use farlane_model::{ProjectId, SessionId};
use farlane_units::Millis;

use crate::row::{Cursor, ResultRow, keys};
use crate::rows::{Rows, Table};
use crate::{Expire, Forgotten, Session, State};

/// Results are kept this long. Source: choice, told in docs/guide/calls.md.
pub const RETENTION: Millis = Millis(24 * 3600 * 1000);
/// Or this long after their first acknowledgement. Source: the same.
pub const RETENTION_ACKED: Millis = Millis(3600 * 1000);
/// Results kept a project; what is above it goes early, the oldest of each session first. Source: as many
/// as the 1,000,000 queued tasks that a server must hold.
pub const MAX_KEPT_PER_PROJECT: u64 = 1_000_000;

/// Results that are due at `now`, at most `limit`, of the sessions after `from`.
///
/// *Shape*: sessions are walked by id; the second part is the session to go on after, `None` when
/// the walk came to its end. Within a session results lie as they finished, so that what is due
/// stands in front; one page of `limit` rows is read a session. More than `limit` results with a long
/// `result_ttl` hide what is due behind them until they end.
pub fn expired(
    state: &State,
    rows: &impl Rows,
    now: Millis,
    limit: usize,
    from: Option<SessionId>,
) -> (Option<Expire>, Option<SessionId>) {
    let mut out = Expire::default();
    let mut excess: BTreeMap<ProjectId, u64> = BTreeMap::new();
    let start = from.map_or(Bound::Unbounded, Bound::Excluded);
    for (id, handle) in state.session_ids.range((start, Bound::Unbounded)) {
        let session = &state.sessions[*handle];
        if session.kept == 0 {
            continue;
        }
        let left = limit.saturating_sub(out.results.len());
        if left == 0 {
            return (Some(out), last_before(state, *id));
        }
        let excess = excess.entry(session.project).or_insert_with(|| {
            state
                .project_kept(&session.project)
                .saturating_sub(MAX_KEPT_PER_PROJECT)
        });
        of_session(session, rows, now, left, excess, &mut out);
    }
    ((!out.is_empty()).then_some(out), None)
}

fn last_before(state: &State, id: SessionId) -> Option<SessionId> {
    state.session_ids.range(..id).next_back().map(|(id, _)| *id)
}

fn of_session(
    session: &Session,
    rows: &impl Rows,
    now: Millis,
    limit: usize,
    excess: &mut u64,
    out: &mut Expire,
) {
    let (start, end) = keys::results_after(session.id, Cursor::default());
    if !worth_a_page(session, rows, now, *excess) {
        return;
    }
    // One more, to see whether the results of the last entry go on beyond the page.
    let mut page = rows.scan(Table::Results, &start, &end, limit.saturating_add(1));
    let beyond = page.get(limit).and_then(|(key, _)| keys::read_result(key));
    page.truncate(limit);
    // A signature goes when the last of its results does.
    let mut signed: Vec<(Cursor, bool)> = Vec::new();
    for (key, value) in page {
        let Some((at, row)) = read(&key, value) else {
            continue;
        };
        let goes = *excess > 0 || ends(session, at, &row) <= now;
        *excess = excess.saturating_sub(u64::from(goes));
        if let Some(ordinal) = row.batch {
            let batch = Cursor {
                index: at.index,
                ordinal,
            };
            match signed.iter_mut().rev().find(|(known, _)| *known == batch) {
                Some((_, all)) => *all &= goes,
                None => signed.push((batch, goes)),
            }
        }
        if goes {
            out.results.push(Forgotten {
                session: session.id,
                at,
                seq: row.seq,
            });
        }
    }
    let cut = beyond.map(|(_, at)| at.index);
    let done = signed
        .iter()
        .filter(|(batch, all)| *all && cut != Some(batch.index));
    out.batches
        .extend(done.map(|(batch, _)| (session.id, *batch)));
}

/// Whether the oldest result is due: one row instead of a page, in the usual case that it is not.
fn worth_a_page(session: &Session, rows: &impl Rows, now: Millis, excess: u64) -> bool {
    let (start, end) = keys::results_after(session.id, Cursor::default());
    let first = rows.scan(Table::Results, &start, &end, 1).pop();
    let Some((at, row)) = first.and_then(|(key, value)| read(&key, value)) else {
        return false;
    };
    excess > 0 || row.ttl.is_some() || ends(session, at, &row) <= now
}

fn read(key: &[u8], value: Bytes) -> Option<(Cursor, ResultRow)> {
    let (_, at) = keys::read_result(key)?;
    Some((at, ResultRow::from_bytes(value)?))
}

/// When a result's retention ends.
fn ends(session: &Session, at: Cursor, row: &ResultRow) -> Millis {
    let kept = row.finished.saturating_add(RETENTION);
    let acked = session
        .acked(at)
        .map(|when| when.saturating_add(RETENTION_ACKED));
    let ttl = row.finished.saturating_add(row.ttl.unwrap_or(Millis::ZERO));
    acked.map_or(kept, |acked| acked.min(kept)).max(ttl)
}
