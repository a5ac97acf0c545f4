//! Which entries there are, and where: in the tail in memory, in a segment, or in both.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::frame;
use super::segment::Segment;
use crate::raft::{Entry, LogId};

/// Written entries up to this many bytes stay in memory too, for `apply` and for followers that keep
/// up. The server is to idle within 40 MiB; this takes a tenth of it at most.
pub(crate) const TAIL_BYTES: usize = 4 * 1024 * 1024;

/// Where an entry lies in a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub length: u32,
}

#[derive(Debug, Clone)]
struct Slot {
    id: LogId,
    /// Unknown until the writer has written it; then the tail may let go of the entry.
    place: Option<Place>,
}

/// Where to read an entry.
pub(crate) enum Found {
    Memory(Entry),
    File(u64, Place),
}

/// The contiguous entries above `purged`.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    slots: VecDeque<Slot>,
    /// The newest entries, the last being the last slot's.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

impl Index {
    /// No entries above what was purged.
    pub fn above(purged: Option<LogId>) -> Self {
        Self {
            purged,
            ..Self::default()
        }
    }

    /// Whether there is no entry above what was purged.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The first index that there is, or would be.
    pub fn first(&self) -> u64 {
        self.slots.front().map_or_else(
            || self.purged.map_or(0, |id| id.index + 1),
            |slot| slot.id.index,
        )
    }

    /// The index after the last.
    pub fn next(&self) -> u64 {
        self.first() + self.slots.len() as u64
    }

    /// The last entry's id, or what was purged last.
    pub fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.purged)
    }

    /// The segment that holds the first entry, once it is written.
    pub fn first_segment(&self) -> Option<u64> {
        self.slots
            .front()
            .and_then(|slot| slot.place.as_ref())
            .map(|place| place.segment.number)
    }

    /// The segment that holds the newest written entry.
    pub fn last_segment(&self) -> Option<u64> {
        let newest = self.slots.iter().rev().find_map(|slot| slot.place.as_ref());
        newest.map(|place| place.segment.number)
    }

    /// The last index that lies in segments before this one.
    pub fn last_before_segment(&self, number: u64) -> Option<u64> {
        let count = self.slots.partition_point(|slot| {
            slot.place
                .as_ref()
                .is_some_and(|place| place.segment.number < number)
        });
        (count > 0).then(|| self.first() + count as u64 - 1)
    }

    /// Takes in an entry that is not written yet. Returns false where it would leave a hole.
    pub fn push(&mut self, entry: Entry) -> bool {
        if !self.slots.is_empty() && entry.log_id.index != self.next() {
            return false;
        }
        self.slots.push_back(Slot {
            id: entry.log_id,
            place: None,
        });
        self.tail_bytes += frame::size(&entry);
        self.tail.push_back(entry);
        true
    }

    /// Takes in an entry that lies in a file, while the log is being read.
    pub fn push_written(&mut self, id: LogId, place: Place) {
        self.slots.push_back(Slot {
            id,
            place: Some(place),
        });
    }

    /// The entry has been written. Ignored where it has been truncated meanwhile.
    pub fn written(&mut self, id: LogId, place: Place) {
        let Some(at) = id.index.checked_sub(self.first()) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(at as usize)
            && slot.id == id
        {
            slot.place = Some(place);
        }
    }

    /// Lets go of the oldest written entries in memory, above the bound.
    pub fn trim(&mut self) {
        while self.tail_bytes > TAIL_BYTES {
            let Some(oldest) = self.tail.front() else {
                return;
            };
            let at = oldest.log_id.index.saturating_sub(self.first());
            if self
                .slots
                .get(at as usize)
                .is_some_and(|slot| slot.place.is_none())
            {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes = self.tail_bytes.saturating_sub(frame::size(&entry));
        }
    }

    /// Voids entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        let keep = index.saturating_sub(self.first()) as usize;
        self.slots.truncate(keep);
        while self
            .tail
            .back()
            .is_some_and(|entry| entry.log_id.index >= index)
        {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes = self.tail_bytes.saturating_sub(frame::size(&entry));
            }
        }
    }

    /// Lets go of entries up to and including `id`.
    pub fn purge(&mut self, id: LogId) {
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.id.index <= id.index)
        {
            self.slots.pop_front();
        }
        while self
            .tail
            .front()
            .is_some_and(|entry| entry.log_id.index <= id.index)
        {
            self.drop_oldest();
        }
        if self.purged < Some(id) {
            self.purged = Some(id);
        }
    }

    /// Where to read the entries of the range that there are, up to `most` bytes and at least one.
    pub fn find(&self, range: Range<u64>, most: usize) -> Vec<Found> {
        let first = self.first();
        let range = range.start.max(first)..range.end.min(self.next());
        let tail_first = self
            .tail
            .front()
            .map_or(u64::MAX, |entry| entry.log_id.index);
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in range {
            let (item, size) = match index
                .checked_sub(tail_first)
                .and_then(|at| self.tail.get(at as usize))
            {
                Some(entry) => (Found::Memory(entry.clone()), frame::size(entry)),
                None => {
                    let place = self
                        .slots
                        .get((index - first) as usize)
                        .and_then(|slot| slot.place.clone());
                    let Some(place) = place else { break };
                    let size = place.length as usize;
                    (Found::File(index, place), size)
                }
            };
            bytes += size;
            if bytes > most && !found.is_empty() {
                break;
            }
            found.push(item);
        }
        found
    }
}
