//! What time has made due: what the leader should name in its next `Expire`.

use farlane_units::Millis;

use crate::{Expire, State};

impl State {
    /// Tasks, keys and sessions that are due at `now`, at most `limit` in all; `None` when nothing is.
    /// Results are rows: see [`crate::expired`].
    pub fn due(&self, now: Millis, limit: usize) -> Option<Expire> {
        let mut out = Expire::default();
        let tasks = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit);
        out.tasks.extend(tasks.map(|(_, id)| *id));
        let left = limit - out.tasks.len();
        let keys = self
            .idempotency_ends
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .take(left);
        out.keys
            .extend(keys.map(|(_, project, key)| (*project, *key)));
        (!out.is_empty()).then_some(out)
    }

    /// Sessions that hold nothing and were silent for 48 h. Walks all of them: ask once a minute.
    pub fn idle_sessions(&self, now: Millis, limit: usize) -> Option<Expire> {
        let idle = self.sessions().filter(|s| self.is_idle(s, now)).take(limit);
        let sessions: Vec<_> = idle.map(|s| s.id).collect();
        (!sessions.is_empty()).then_some(Expire {
            sessions,
            ..Expire::default()
        })
    }

    /// When the next task or key is due.
    pub fn next_due(&self) -> Option<Millis> {
        let task = self.deadlines.first().map(|(at, _)| *at);
        let key = self.idempotency_ends.first().map(|(at, ..)| *at);
        match (task, key) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
