//! Writing the log.
//!
//! Owns the files. Entries that come together become one frame, written and synced once, and only then
//! reported. After a failed write or sync nothing is written any more: what the
//! disk holds is then unknown, and a retried sync would lie.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use openraft::storage::LogFlushed;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::frame::{self, Chain, HEAD};
use super::index::{Index, Place};
use super::mark::MarkFile;
use super::segment::{SEGMENT_BYTES, SEGMENT_HEAD, Segment};
use crate::raft::{Entry, LogId, TypeConfig, Vote};

/// Frames are gathered from at most this many queued appends. openraft queues one at a time.
const MOST_APPENDS: usize = 64;
/// A buffer larger than this is given back after its frame.
const KEPT_BUFFER: usize = 256 * 1024;

/// What the writer is asked.
pub(crate) enum Job {
    Append {
        entries: Vec<Entry>,
        flushed: LogFlushed<TypeConfig>,
    },
    Truncate {
        from: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        upto: LogId,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Ends the thread; nothing is written after.
    Close {
        done: oneshot::Sender<io::Result<()>>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// The writer's own state.
pub(crate) struct Writer {
    pub dir: PathBuf,
    pub index: Arc<RwLock<Index>>,
    pub segments: VecDeque<Arc<Segment>>,
    /// Where the next frame goes in the last segment.
    pub end: u64,
    pub chain: Chain,
    pub mark: MarkFile,
    pub buffer: Vec<u8>,
    /// What a write with its sync takes of late, in microseconds; `None` before the first.
    pub sync_us: Option<u64>,
    /// Why nothing is written any more.
    pub failed: Option<String>,
}

impl Writer {
    /// Does one job, and with an append those queued behind it. Returns the first that is something else,
    /// and how many are done.
    pub fn work(&mut self, job: Job, jobs: &Receiver<Job>) -> (Option<Job>, usize) {
        match job {
            Job::Append { entries, flushed } => return self.gather(entries, flushed, jobs),
            // The desk's, which owns this writer.
            Job::Close { done } => drop(done),
            Job::Truncate { from, done } => {
                let _ = done.send(self.guarded(|own| own.truncate(from)));
            }
            Job::Purge { upto, done } => {
                let _ = done.send(self.guarded(|own| own.purge(upto)));
            }
            Job::Vote { vote, done } => {
                let result = self.guarded(|own| {
                    own.mark.mark.vote = Some(vote);
                    own.mark.write()
                });
                let _ = done.send(result);
            }
        }
        (None, 1)
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(why) = &self.failed {
            return Err(io::Error::other(why.clone()));
        }
        work(self).inspect_err(|error| {
            tracing::error!(%error, "the log cannot be written any more");
            self.failed = Some(error.to_string());
        })
    }

    /// Writes this append and those queued behind it.
    fn gather(
        &mut self,
        entries: Vec<Entry>,
        flushed: LogFlushed<TypeConfig>,
        jobs: &Receiver<Job>,
    ) -> (Option<Job>, usize) {
        let mut all = entries;
        let mut waiting = vec![flushed];
        let mut other = None;
        while waiting.len() < MOST_APPENDS {
            match jobs.try_recv() {
                Ok(Job::Append { entries, flushed }) => {
                    all.extend(entries);
                    waiting.push(flushed);
                }
                Ok(job) => {
                    other = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let done = waiting.len();
        self.append(&all, waiting);
        (other, done)
    }

    /// Writes and syncs entries, and tells who waits for them.
    pub fn append(
        &mut self,
        entries: &[Entry],
        waiting: impl IntoIterator<Item = LogFlushed<TypeConfig>>,
    ) {
        let result = self.guarded(|own| own.write_entries(entries));
        for flushed in waiting {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            flushed.log_io_completed(result);
        }
    }

    fn write_entries(&mut self, mut entries: &[Entry]) -> io::Result<()> {
        while let Some(first) = entries.first() {
            let first = first.log_id.index;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.resize(HEAD, 0);
            let mut placed: Vec<(LogId, u32, u32)> = Vec::with_capacity(entries.len());
            for entry in entries {
                // A truncation within the group starts a frame of its own.
                let gap = entry.log_id.index != first + placed.len() as u64;
                if !placed.is_empty()
                    && (gap || buffer.len() + frame::size(entry) > frame::MOST_BODY)
                {
                    break;
                }
                let at = buffer.len();
                frame::write(&mut buffer, entry);
                placed.push((entry.log_id, at as u32, (buffer.len() - at) as u32));
            }
            self.write_frame(&mut buffer, placed.len() as u32, first)?;
            let start = self.end - buffer.len() as u64;
            if buffer.capacity() <= KEPT_BUFFER {
                self.buffer = buffer;
            }
            self.publish(&placed, start)?;
            entries = &entries[placed.len()..];
        }
        Ok(())
    }

    /// Tells the index where the frame's entries lie.
    fn publish(&self, placed: &[(LogId, u32, u32)], start: u64) -> io::Result<()> {
        let segment = self
            .segments
            .back()
            .ok_or_else(|| io::Error::other("no segment"))?;
        let mut index = self.index.write();
        for (id, at, length) in placed {
            let place = Place {
                segment: segment.clone(),
                offset: start + u64::from(*at),
                length: *length,
            };
            index.written(*id, place);
        }
        index.trim();
        Ok(())
    }

    /// Closes the frame in `buffer`, writes it and syncs.
    fn write_frame(&mut self, buffer: &mut [u8], count: u32, first: u64) -> io::Result<()> {
        let chain = frame::close(buffer, 0, count, first, &self.chain);
        let length = buffer.len() as u64;
        self.room(length)?;
        let segment = self
            .segments
            .back()
            .ok_or_else(|| io::Error::other("no segment"))?;
        let begun = Instant::now();
        segment.file.write_all_at(buffer, self.end)?;
        segment.file.sync_data()?;
        let took = begun.elapsed().as_micros() as u64;
        self.sync_us = Some(self.sync_us.map_or(took, |us| (7 * us + took) / 8));
        self.chain = chain;
        self.end += length;
        Ok(())
    }

    /// Goes on in a new segment where the last has no room for `length` bytes.
    fn room(&mut self, length: u64) -> io::Result<()> {
        let size = self.segments.back().map_or(0, |segment| segment.size);
        if self.end + length <= size {
            return Ok(());
        }
        let number = self.segments.back().map_or(0, |segment| segment.number + 1);
        let size = SEGMENT_BYTES.max(SEGMENT_HEAD + length);
        let segment = Segment::create(&self.dir, number, size, self.chain)?;
        self.segments.push_back(Arc::new(segment));
        self.end = SEGMENT_HEAD;
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> io::Result<()> {
        let mut buffer = vec![0; HEAD];
        self.write_frame(&mut buffer, 0, from)
    }

    /// Marks first, unlinks then: a crash in between leaves files that recovery skips over.
    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.mark.mark.purged = Some(upto);
        self.mark.write()?;
        let needed = self.index.read().first_segment();
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            // Nothing written and live: the last segment alone is needed.
            && needed.is_none_or(|needed| oldest.number < needed)
        {
            fs::remove_file(&oldest.path)?;
            self.segments.pop_front();
        }
        Ok(())
    }
}
