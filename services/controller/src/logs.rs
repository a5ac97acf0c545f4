//! Sealed output of attempts, kept in files after they ended.
//!
//! Owns the files under `DATA/logs`: one for each attempt, bounded, appended in chunks that nobody
//! here can read. Leaves sealing to the node and opening to the client. Not replicated and not synced:
//! output is asked for again, not promised.
//!
//! ```text
//! file = frame*        frame = length u32 ‖ chunk u32 ‖ last u8 ‖ dropped u64 ‖ node 32 ‖ sealed
//! ```

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farlane_model::{AttemptRef, NodeId, TaskId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Most sealed bytes kept of one attempt, whatever its spec says: the spec's own bound
/// (`log_limit` ≤ 64 MiB) and an eighth for salts and tags.
const ATTEMPT_BYTES: u64 = 72 << 20;
/// Most bytes of one chunk; larger ones are refused. Source: types.proto, twice an agent's flush.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Most bytes that one read returns, so that a page fits a message.
const PAGE_BYTES: usize = 1 << 20;
/// Attempts whose end of file is remembered; beyond it all that are not being written are forgotten and
/// read again.
const REMEMBERED: usize = 8192;
const HEAD: usize = 4 + 1 + 8 + 32;

/// One piece of sealed output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    /// Counts from 0 within the attempt.
    pub chunk: u32,
    /// Nothing follows.
    pub last: bool,
    /// Output beyond the bound, said on the last chunk.
    pub dropped: u64,
    /// Where it was written.
    pub node: NodeId,
    /// Ciphertext.
    pub sealed: Bytes,
}

/// Why output could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Larger than [`CHUNK_BYTES`]. The caller's fault.
    #[error("a chunk of output holds at most {CHUNK_BYTES} bytes")]
    ChunkTooLarge,
    /// The disk failed. Retry.
    #[error("the log store's disk failed: {0}")]
    Disk(#[from] std::io::Error),
}

/// Where the end of an attempt's file is.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    next: u32,
    bytes: u64,
}

/// The end of one attempt's file, `None` until it was looked for; held while the file is written, so
/// that streams that bring the same chunks take turns.
type Place = Arc<Mutex<Option<End>>>;

#[derive(Debug, Default)]
struct Known {
    ends: HashMap<(TaskId, u32), Place>,
    followers: HashMap<TaskId, watch::Sender<u64>>,
}

impl Known {
    fn place(&mut self, key: (TaskId, u32)) -> Place {
        if self.ends.len() >= REMEMBERED && !self.ends.contains_key(&key) {
            self.forget_idle();
        }
        self.ends.entry(key).or_default().clone()
    }

    /// Forgets the ends of all files that nobody writes: of a file, there is never more than one place.
    fn forget_idle(&mut self) {
        self.ends.retain(|_, place| Arc::strong_count(place) > 1);
    }
}

/// The files, and who waits for more of them. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LogStore {
    root: Arc<PathBuf>,
    known: Arc<Mutex<Known>>,
}

impl LogStore {
    /// Opens or makes the folder.
    ///
    /// *Errors*: it cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LogError> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(Self {
            root: Arc::new(root),
            known: Arc::default(),
        })
    }

    /// The file of one attempt, in a folder of its session.
    fn path(&self, task: TaskId, attempt: u32) -> PathBuf {
        self.root
            .join(task.session().to_string())
            .join(format!("{:010}-{attempt}", task.seq()))
    }

    /// Keeps chunks of one attempt, in order; those already there or beyond the bound are passed
    /// over. Blocks on the disk.
    ///
    /// *Errors*: a chunk too large, or the disk.
    pub fn append(&self, attempt: AttemptRef, chunks: &[StoredChunk]) -> Result<(), LogError> {
        if chunks.iter().any(|c| c.sealed.len() > CHUNK_BYTES) {
            return Err(LogError::ChunkTooLarge);
        }
        let path = self.path(attempt.task, attempt.attempt);
        let place = self.known.lock().place((attempt.task, attempt.attempt));
        let mut held = place.lock();
        // Nothing is remembered while writing: what a failure leaves half written is cut off next time.
        let mut end = match held.take() {
            Some(end) => end,
            None => find_end(&path)?,
        };
        let mut out = Vec::new();
        for chunk in chunks {
            let size = (4 + HEAD + chunk.sealed.len()) as u64;
            // The last number has no next.
            if chunk.chunk < end.next || chunk.chunk == u32::MAX || end.bytes + size > ATTEMPT_BYTES
            {
                continue;
            }
            encode(chunk, &mut out);
            end = End {
                next: chunk.chunk + 1,
                bytes: end.bytes + size,
            };
        }
        if !out.is_empty() {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)?
                .write_all(&out)?;
        }
        *held = Some(end);
        drop(held);
        if let Some(follower) = self.known.lock().followers.get(&attempt.task) {
            follower.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// Chunks of one attempt from a number on, at most a page. Blocks on the disk.
    ///
    /// *Shape*: ascending; empty when there are none (yet).
    ///
    /// *Errors*: the disk.
    pub fn read(
        &self,
        task: TaskId,
        attempt: u32,
        from: u32,
    ) -> Result<Vec<StoredChunk>, LogError> {
        let mut file = match File::open(self.path(task, attempt)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let (mut chunks, mut taken) = (Vec::new(), 0);
        while taken < PAGE_BYTES {
            let Some((number, length)) = next_head(&mut file)? else {
                break;
            };
            if number < from {
                file.seek_relative(length as i64 - 4)?;
                continue;
            }
            let mut body = vec![0; length - 4];
            if !read_whole(&mut file, &mut body)? {
                break;
            }
            taken += length;
            chunks.push(decode(number, body));
        }
        Ok(chunks)
    }

    /// The newest attempt of a task that has output, if any. Blocks on the disk.
    ///
    /// *Errors*: the disk.
    pub fn newest(&self, task: TaskId) -> Result<Option<u32>, LogError> {
        let folder = self.root.join(task.session().to_string());
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let prefix = format!("{:010}-", task.seq());
        let mut newest = None;
        for entry in entries {
            let name = entry?.file_name();
            let attempt = name
                .to_str()
                .and_then(|n| n.strip_prefix(&prefix))
                .and_then(|n| n.parse().ok());
            newest = newest.max(attempt);
        }
        Ok(newest)
    }

    /// Tells when output of this task may have been added; the number only grows.
    pub fn follow(&self, task: TaskId) -> watch::Receiver<u64> {
        let mut known = self.known.lock();
        known
            .followers
            .retain(|_, sender| sender.receiver_count() > 0);
        known
            .followers
            .entry(task)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Removes the files that have not grown for this long, and folders that are left empty. Blocks
    /// on the disk.
    ///
    /// *Errors*: the disk.
    pub fn sweep(&self, age: Duration) -> Result<u64, LogError> {
        let limit = SystemTime::now()
            .checked_sub(age)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let mut removed = 0;
        for folder in fs::read_dir(self.root.as_ref())? {
            let folder = folder?.path();
            let mut left = 0;
            for file in fs::read_dir(&folder)? {
                let file = file?;
                if file.metadata()?.modified()? < limit {
                    fs::remove_file(file.path())?;
                    removed += 1;
                } else {
                    left += 1;
                }
            }
            if left == 0 {
                // A writer may just have put a file there again; then the folder stays.
                let _ = fs::remove_dir(&folder);
            }
        }
        self.known.lock().forget_idle();
        Ok(removed)
    }
}

fn encode(chunk: &StoredChunk, out: &mut Vec<u8>) {
    out.extend_from_slice(&((HEAD + chunk.sealed.len()) as u32).to_be_bytes());
    out.extend_from_slice(&chunk.chunk.to_be_bytes());
    out.push(u8::from(chunk.last));
    out.extend_from_slice(&chunk.dropped.to_be_bytes());
    out.extend_from_slice(chunk.node.as_bytes());
    out.extend_from_slice(&chunk.sealed);
}

fn decode(number: u32, body: Vec<u8>) -> StoredChunk {
    let mut dropped = [0; 8];
    dropped.copy_from_slice(&body[1..9]);
    let mut node = [0; 32];
    node.copy_from_slice(&body[9..41]);
    StoredChunk {
        chunk: number,
        last: body[0] == 1,
        dropped: u64::from_be_bytes(dropped),
        node: NodeId(node),
        sealed: Bytes::from(body).slice(41..),
    }
}

/// The number and length of the next frame; `None` at the end, or at a frame cut short by a crash.
fn next_head(file: &mut File) -> Result<Option<(u32, usize)>, LogError> {
    let mut head = [0; 8];
    if !read_whole(file, &mut head)? {
        return Ok(None);
    }
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let fits = (HEAD..=HEAD + CHUNK_BYTES).contains(&length);
    Ok(fits.then_some((u32::from_be_bytes([e, f, g, h]), length)))
}

fn read_whole(file: &mut File, buffer: &mut [u8]) -> Result<bool, LogError> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Finds the end of a file from an earlier start, and cuts off what a crash left half written.
fn find_end(path: &PathBuf) -> Result<End, LogError> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(End::default()),
        other => other?,
    };
    let size = file.metadata()?.len();
    let mut end = End::default();
    while let Some((number, length)) = next_head(&mut file)? {
        let after = end.bytes + 4 + length as u64;
        if after > size {
            break;
        }
        end = End {
            next: number.saturating_add(1),
            bytes: after,
        };
        file.seek(SeekFrom::Start(after))?;
    }
    if end.bytes < size {
        file.set_len(end.bytes)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::SessionId;

    fn chunk(number: u32, text: &str) -> StoredChunk {
        let sealed = Bytes::copy_from_slice(text.as_bytes());
        StoredChunk {
            chunk: number,
            last: number == 3,
            dropped: 5,
            node: NodeId([3; 32]),
            sealed,
        }
    }

    fn attempt(number: u32) -> AttemptRef {
        let task = SessionId::new(1, [1; 5]).task(7);
        AttemptRef {
            task,
            attempt: number,
            epoch: 1,
        }
    }

    #[test]
    fn chunks_come_back_in_order_once_and_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let at = attempt(2);
        store.append(at, &[chunk(0, "a"), chunk(1, "b")]).unwrap();
        store
            .append(at, &[chunk(1, "again"), chunk(2, "c")])
            .unwrap();
        let path = store.path(at.task, 2);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[0, 0, 0, 60, 0, 0])
            .unwrap();

        let store = LogStore::open(dir.path()).unwrap();
        store.append(at, &[chunk(3, "d")]).unwrap();
        let all = [chunk(0, "a"), chunk(1, "b"), chunk(2, "c"), chunk(3, "d")];
        assert_eq!(store.read(at.task, 2, 0).unwrap(), all);
        assert_eq!(store.read(at.task, 2, 3).unwrap(), all[3..]);
        assert_eq!(store.newest(at.task).unwrap(), Some(2));
        assert_eq!(store.newest(at.task.session().task(8)).unwrap(), None);
    }

    #[test]
    fn bounds_hold_and_old_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let mut big = chunk(0, "");
        big.sealed = Bytes::from(vec![0; CHUNK_BYTES + 1]);
        assert!(matches!(
            store.append(attempt(1), &[big.clone()]),
            Err(LogError::ChunkTooLarge)
        ));
        big.sealed = Bytes::from(vec![0; CHUNK_BYTES]);
        for number in 0..300 {
            store
                .append(
                    attempt(1),
                    &[StoredChunk {
                        chunk: number,
                        ..big.clone()
                    }],
                )
                .unwrap();
        }
        let size = fs::metadata(store.path(attempt(1).task, 1)).unwrap().len();
        assert!(size <= ATTEMPT_BYTES && size > ATTEMPT_BYTES - (1 << 20));
        assert_eq!(store.sweep(Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(store.sweep(Duration::ZERO).unwrap(), 1);
        assert!(store.read(attempt(1).task, 1, 0).unwrap().is_empty());
    }

    #[test]
    fn a_chunk_with_the_last_number_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let at = attempt(1);
        store
            .append(at, &[chunk(u32::MAX, "a"), chunk(0, "b")])
            .unwrap();
        assert_eq!(store.read(at.task, 1, 0).unwrap(), [chunk(0, "b")]);
    }

    #[test]
    fn streams_that_bring_the_same_chunks_at_once_leave_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let at = attempt(1);
        let all: Vec<StoredChunk> = (0..200).map(|n| chunk(n, "output")).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for one in all.chunks(3) {
                        store.append(at, one).unwrap();
                        // As when many others are written.
                        store.known.lock().forget_idle();
                    }
                });
            }
        });
        assert_eq!(store.read(at.task, 1, 0).unwrap(), all);
    }

    #[test]
    fn what_a_failed_write_left_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let at = attempt(1);
        store.append(at, &[chunk(0, "a")]).unwrap();
        let path = store.path(at.task, 1);
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.append(at, &[chunk(1, "b")]).is_err());
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        // Half a frame, as on a disk that was full for a moment.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[0, 0, 0, 60, 0, 0]).unwrap();
        store.append(at, &[chunk(1, "b")]).unwrap();
        let all = [chunk(0, "a"), chunk(1, "b")];
        assert_eq!(store.read(at.task, 1, 0).unwrap(), all);
    }

    #[tokio::test]
    async fn followers_hear_of_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let mut more = store.follow(attempt(1).task);
        store.append(attempt(1), &[chunk(0, "a")]).unwrap();
        more.changed().await.unwrap();
    }
}
