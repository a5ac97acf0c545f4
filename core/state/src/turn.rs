//! Which queues are looked at next, where there are more than can be looked at: every project in turn, and inside
//! a project the most urgent first, then the others in turn.
//!
//! Owns whose turn it is. Leaves who then goes first to the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use farlane_model::ProjectId;

use crate::queue::QueueKey;
use crate::{State, WaitingQueue};

/// Queues looked at for each that is wanted: beyond it those that are not kept wait for another turn.
const LOOKS: usize = 2;

/// Where the next look goes on.
#[derive(Debug, Default)]
pub struct Turn {
    /// The last project that had its turn, where not all had.
    project: Option<ProjectId>,
    /// In each project of more queues than were looked at, the last one.
    inside: BTreeMap<ProjectId, QueueKey>,
}

/// One look.
struct Look<'a, F> {
    state: &'a State,
    keep: F,
    chosen: BTreeSet<QueueKey>,
    found: Vec<WaitingQueue<'a>>,
    most: usize,
    looks: usize,
}

impl<'a, F: FnMut(&WaitingQueue<'a>) -> bool> Look<'a, F> {
    fn is_over(&self) -> bool {
        self.found.len() >= self.most || self.looks == 0
    }

    /// Takes this one, if it is to be kept.
    fn take(&mut self, key: QueueKey) {
        let Some(queue) = self.state.waiting_at(&key) else {
            return;
        };
        self.looks -= 1;
        if self.chosen.insert(key) && (self.keep)(&queue) {
            self.found.push(queue);
        }
    }
}

impl State {
    /// At most so many waiting queues of those to be kept, none twice. Every project's most urgent queue is among
    /// them, or its turn is next; what room is left goes to projects' other queues, three quarters by urgency and
    /// one in turn.
    ///
    /// *Shape*: by project from where the last look ended. *Cost*: logarithmic in all queues for each looked at,
    /// of which there are at most twice as many as wanted.
    pub fn waiting_in_turn<'a>(
        &'a self,
        turn: &mut Turn,
        most: usize,
        keep: impl FnMut(&WaitingQueue<'a>) -> bool,
    ) -> Vec<WaitingQueue<'a>> {
        let mut look = Look {
            state: self,
            keep,
            chosen: BTreeSet::new(),
            found: Vec::new(),
            most: most - most / 4,
            looks: LOOKS * most,
        };
        let mut last = self.first_of_projects(turn, &mut look);
        self.more_by_urgency(&mut last, &mut look);
        look.most = most;
        self.others_in_turn(turn, &last, &mut look);
        look.found
    }

    /// The most urgent queue of each project, from where the last look ended; the last one taken of each.
    fn first_of_projects<'a>(
        &'a self,
        turn: &mut Turn,
        look: &mut Look<'a, impl FnMut(&WaitingQueue<'a>) -> bool>,
    ) -> Vec<QueueKey> {
        let mut last = Vec::new();
        let begin = turn.project.take();
        let mut at = begin.map_or(Bound::Unbounded, after);
        let mut wrapped = begin.is_none();
        loop {
            let Some(key) = self.queues.next_from(at).copied() else {
                if std::mem::replace(&mut wrapped, true) {
                    break;
                }
                at = Bound::Unbounded;
                continue;
            };
            if wrapped && begin.is_some_and(|begin| key.project > begin) {
                break;
            }
            if look.is_over() {
                turn.project = last.last().map(|key: &QueueKey| key.project);
                break;
            }
            look.take(key);
            last.push(key);
            at = after(key.project);
        }
        last
    }

    /// One more of each project, again and again.
    fn more_by_urgency<'a>(
        &'a self,
        last: &mut [QueueKey],
        look: &mut Look<'a, impl FnMut(&WaitingQueue<'a>) -> bool>,
    ) {
        let mut any = true;
        while std::mem::take(&mut any) {
            for at in last.iter_mut() {
                if look.is_over() {
                    return;
                }
                let next = self.queues.next_from(Bound::Excluded(*at));
                if let Some(next) = next.filter(|next| next.project == at.project) {
                    look.take(*next);
                    *at = *next;
                    any = true;
                }
            }
        }
    }

    /// Of projects with more queues than were taken, those after the last look's.
    fn others_in_turn<'a>(
        &'a self,
        turn: &mut Turn,
        last: &[QueueKey],
        look: &mut Look<'a, impl FnMut(&WaitingQueue<'a>) -> bool>,
    ) {
        let before = std::mem::take(&mut turn.inside);
        let mut open: Vec<(QueueKey, QueueKey)> = Vec::new();
        for end in last {
            let next = self.queues.next_from(Bound::Excluded(*end));
            if next.is_some_and(|next| next.project == end.project) {
                let from = before.get(&end.project).copied().unwrap_or(*end);
                open.push((from.max(*end), *end));
            }
        }
        while !look.is_over() && !open.is_empty() {
            for (at, end) in &mut open {
                if look.is_over() {
                    break;
                }
                let next = self.queues.next_from(Bound::Excluded(*at));
                match next.filter(|next| next.project == at.project) {
                    Some(next) => {
                        look.take(*next);
                        *at = *next;
                    }
                    // Round again.
                    None => {
                        look.looks = look.looks.saturating_sub(1);
                        *at = *end;
                    }
                }
            }
        }
        turn.inside = open.into_iter().map(|(at, _)| (at.project, at)).collect();
    }
}

/// From the next project on.
fn after(project: ProjectId) -> Bound<QueueKey> {
    Bound::Excluded(QueueKey {
        project,
        urgency: i16::MAX,
        session: u32::MAX,
        spec: u32::MAX,
    })
}
