//! Reading the log at start: every frame in its place, up to where it ends.
//!
//! A frame that does not check is the log's end if nothing after it continues it: it was being
//! written when the process or the machine stopped, and nothing in it was acknowledged. If
//! something does, it had been synced, and the disk has lost it: that is damage, and refused.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{self, Chain, HEAD, Head};
use super::index::{Index, Place};
use super::segment::{Opened, SEGMENT_HEAD, Segment};
use crate::error::StartError;
use crate::raft::LogId;

/// A log as found on disk.
pub(crate) struct Recovered {
    pub index: Index,
    /// Oldest first; empty for a new log.
    pub segments: Vec<Arc<Segment>>,
    /// Where the next frame goes in the last segment.
    pub end: u64,
    pub chain: Chain,
}

/// Reads all segments of the folder.
///
/// *Errors*: a file cannot be read; damage that no crash explains.
pub(crate) fn recover(dir: &Path, purged: Option<LogId>) -> Result<Recovered, StartError> {
    let io = |source: io::Error| StartError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut numbers = Vec::new();
    for item in fs::read_dir(dir).map_err(io)? {
        if let Some(number) = item
            .map_err(io)?
            .file_name()
            .to_str()
            .and_then(Segment::number_of)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let mut out = Recovered {
        index: Index::above(purged),
        segments: Vec::new(),
        end: SEGMENT_HEAD,
        chain: Chain::default(),
    };
    let last = numbers.last().copied();
    for number in numbers {
        match Segment::open(dir, number).map_err(io)? {
            Opened::Segment(segment, chain) => {
                if let Some(before) = out.segments.last() {
                    let gap = before.number + 1 != number;
                    if gap || chain != out.chain {
                        let what = if gap {
                            "a segment before it is missing"
                        } else {
                            "it does not continue the segment before it"
                        };
                        return Err(damaged(&segment, what));
                    }
                }
                let segment = Arc::new(segment);
                out.chain = chain;
                out.end = SEGMENT_HEAD;
                out.segments.push(segment.clone());
                read_segment(&mut out, &segment, purged)?;
            }
            Opened::Unborn(path) if Some(number) == last => fs::remove_file(&path).map_err(io)?,
            Opened::Unborn(path) => {
                return Err(StartError::Damaged {
                    path,
                    what: "it has no segment's head".to_owned(),
                });
            }
        }
    }
    if let Some(newest) = out.segments.last() {
        // What survived the process may not have been synced, and is about to count as such.
        newest.file.sync_data().map_err(io)?;
    }
    if let Some(id) = purged {
        out.index.purge(id);
        let first = out.index.first();
        if first > id.index + 1
            && let Some(segment) = out.segments.first()
        {
            return Err(damaged(
                segment,
                &format!("entries {} to {} are missing", id.index + 1, first - 1),
            ));
        }
    }
    Ok(out)
}

fn damaged(segment: &Segment, what: &str) -> StartError {
    StartError::Damaged {
        path: segment.path.clone(),
        what: what.to_owned(),
    }
}

/// Reads frames until one does not check, leaving end and chain there.
fn read_segment(
    out: &mut Recovered,
    segment: &Arc<Segment>,
    purged: Option<LogId>,
) -> Result<(), StartError> {
    let io = |source: io::Error| StartError::Io {
        path: segment.path.clone(),
        source,
    };
    let length = segment.file.metadata().map_err(io)?.len();
    loop {
        let Some((head, body)) = read_frame(segment, out.end, length).map_err(io)? else {
            return Ok(());
        };
        if !head.continues(&out.chain, &body) {
            let next = out.end + (HEAD + body.len()) as u64;
            if let Some((after, after_body)) = read_frame(segment, next, length).map_err(io)?
                && after.continues(&head.chain, &after_body)
            {
                return Err(damaged(
                    segment,
                    &format!("the frame at byte {} does not check", out.end),
                ));
            }
            return Ok(());
        }
        take_frame(out, segment, &head, body, purged)?;
    }
}

/// The head and body at this place, unchecked; `None` at the end or where no frame can be.
fn read_frame(segment: &Segment, at: u64, length: u64) -> io::Result<Option<(Head, Bytes)>> {
    let mut bytes = [0; HEAD];
    if at + HEAD as u64 > length {
        return Ok(None);
    }
    segment.file.read_exact_at(&mut bytes, at)?;
    let Some(head) = Head::read(&bytes) else {
        return Ok(None);
    };
    if at + HEAD as u64 + u64::from(head.length) > length {
        return Ok(None);
    }
    let mut body = vec![0; head.length as usize];
    segment.file.read_exact_at(&mut body, at + HEAD as u64)?;
    Ok(Some((head, body.into())))
}

fn take_frame(
    out: &mut Recovered,
    segment: &Arc<Segment>,
    head: &Head,
    mut body: Bytes,
    purged: Option<LogId>,
) -> Result<(), StartError> {
    let at = out.end;
    out.end += HEAD as u64 + u64::from(head.length);
    out.chain = head.chain;
    if head.count == 0 {
        out.index.truncate(head.first);
        return Ok(());
    }
    if head.first != out.index.next() {
        // After a snapshot the log goes on behind a gap that has been purged; and the oldest
        // segment may begin anywhere.
        let covered = purged.is_some_and(|id| out.index.next() <= id.index + 1);
        if !covered && !out.index.is_empty() {
            return Err(damaged(
                segment,
                &format!("entry {} is missing", out.index.next()),
            ));
        }
        out.index = Index::above(purged);
    }
    let mut offset = at + HEAD as u64;
    for index in head.first..head.first + u64::from(head.count) {
        let before = body.len();
        let entry = frame::read(&mut body, index)
            .map_err(|bad| damaged(segment, &format!("entry {index} at byte {offset}: {bad}")))?;
        let length = (before - body.len()) as u32;
        out.index.push_written(
            entry.log_id,
            Place {
                segment: segment.clone(),
                offset,
                length,
            },
        );
        offset += u64::from(length);
    }
    Ok(())
}
