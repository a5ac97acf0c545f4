//! How long results are kept: found by the leader in the rows, ended by `Expire`.

use farlane_model::SessionId;
use farlane_units::Millis;

use crate::row::{Cursor, ResultRow, keys};
use crate::rows::{Rows, Table};
use crate::{Expire, Forgotten, Session, State};

/// Results are kept this long. Source: design.md, "The life of a task".
pub const RETENTION: Millis = Millis(24 * 3600 * 1000);
/// Or this long after their first acknowledgement. Source: the same.
pub const RETENTION_ACKED: Millis = Millis(3600 * 1000);
/// Results kept a project; above it the oldest acknowledged ones go first, then the oldest. Source: as
/// many as live tasks (1,000,000, the figure).
pub const MAX_KEPT_PER_PROJECT: u64 = 1_000_000;

/// Results that are due at `now`, at most `limit`, of the sessions after `from`.
///
/// *Shape*: sessions are walked by id; the second part is the session to go on after, `None` when
/// the walk came to its end. Within a session results lie as they finished, so that what is due
/// stands in front; one page of `limit` rows is read a session.
pub fn expired(
    state: &State,
    rows: &impl Rows,
    now: Millis,
    limit: usize,
    from: Option<SessionId>,
) -> (Option<Expire>, Option<SessionId>) {
    use std::ops::Bound;
    let mut out = Expire::default();
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
        let over = state.project_kept(&session.project) > MAX_KEPT_PER_PROJECT;
        of_session(session, rows, now, left, over, &mut out);
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
    over: bool,
    out: &mut Expire,
) {
    let (start, end) = keys::results_after(session.id, Cursor::default());
    let page = rows.scan(Table::Results, &start, &end, limit);
    let whole = page.len() < limit;
    // A signature goes when the last of its results does.
    let mut signed: Vec<(Cursor, bool)> = Vec::new();
    for (key, value) in page {
        let Some((_, at)) = keys::read_result(&key) else {
            continue;
        };
        let Some(row) = ResultRow::from_bytes(value) else {
            continue;
        };
        let goes = over || ends(session, at, &row) <= now;
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
    // Results of one entry may go on beyond the page: its signatures wait for the next one.
    let cut = signed
        .last()
        .map(|(batch, _)| batch.index)
        .filter(|_| !whole);
    let done = signed
        .iter()
        .filter(|(batch, all)| *all && cut != Some(batch.index));
    out.batches
        .extend(done.map(|(batch, _)| (session.id, *batch)));
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
