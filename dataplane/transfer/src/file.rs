//! Blobs as files: `ROOT/PROJECT/ab/cdef…`, `ROOT/nodes/NODE/abcdef…`, temp files under
//! `ROOT/tmp/SERVER`.
//!
//! Owns the layout, and the turns in which names come, are wanted again and go: `ROOT/lock` is held
//! for each, so that servers that share the folder take them too. A crash leaves at most temp files,
//! which the same server's next open removes; a name never points at bytes that were not synced
//! before it.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farlane_model::{BlobRef, Digest, NodeId, ProjectId};
use farlane_units::ByteCount;

use crate::count::{Counts, Tally};
use crate::upload::{FileDownload, FileUpload, Written};
use crate::{BlobError, BlobStore, Download, Owner, Reach, Upload, Usage};

/// Folder of what nodes have put and no project has adopted.
const NODES: &str = "nodes";

/// How much a store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One blob.
    pub blob: ByteCount,
    /// All blobs of one project. It bounds what the project uploads; results count, and are never refused
    /// for it.
    pub project: ByteCount,
    /// How much more a project may upload in blobs of at most [`CHUNK_BYTES`](crate::CHUNK_BYTES): at least
    /// this much of them, whatever its results take.
    pub reserve: ByteCount,
    /// All blobs.
    pub total: ByteCount,
}

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct FileBlobStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    root: PathBuf,
    temp: PathBuf,
    limits: Limits,
    counts: Counts,
    next_temp: AtomicU64,
    lock: Mutex<File>,
}

impl FileBlobStore {
    /// Opens (or makes) the folder for the server of this number, removes what its uploads cut short
    /// have left, and counts what is there.
    ///
    /// *Errors*: the folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>, server: u64, limits: Limits) -> Result<Self, BlobError> {
        let root = root.into();
        let temp = root.join("tmp").join(server.to_string());
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        fs::create_dir_all(&temp)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))?;
        let counts = Counts::new(tally(&root)?);
        Ok(Self {
            shared: Arc::new(Shared {
                root,
                temp,
                limits,
                counts,
                next_temp: AtomicU64::new(0),
                lock: Mutex::new(lock),
            }),
        })
    }
}

/// The lock file, held until dropped.
pub(crate) struct Turn<'s>(MutexGuard<'s, File>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Closing the file would do it as well; there is nobody to tell.
        let _ = self.0.unlock();
    }
}

impl Shared {
    pub(crate) fn path(&self, owner: Owner, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        match owner {
            Owner::Project(project) => self
                .root
                .join(project.to_string())
                .join(&name[..2])
                .join(&name[2..]),
            Owner::Node(node) => self.root.join(NODES).join(node.to_string()).join(name),
        }
    }

    /// Waits for the turn to change names.
    pub(crate) fn turn(&self) -> std::io::Result<Turn<'_>> {
        let file = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        file.lock()?;
        Ok(Turn(file))
    }

    /// Makes the folder of a blob; its path.
    pub(crate) fn make_folder(&self, blob: &Path) -> std::io::Result<PathBuf> {
        let folder = blob.parent().unwrap_or(&self.root);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            for above in folder.ancestors().skip(1) {
                sync_dir(above)?;
                if above == self.root {
                    break;
                }
            }
        }
        Ok(folder.to_owned())
    }

    /// Room for one more, by a fresh count where the last one would refuse it.
    fn promise(&self, owner: Owner, size: ByteCount) -> Result<crate::count::Promise, BlobError> {
        let promised = self.counts.promise(owner, size, &self.limits);
        if promised.is_ok() || !self.counts.is_old() {
            return promised;
        }
        self.counts.recounted(tally(&self.root)?);
        self.counts.promise(owner, size, &self.limits)
    }

    fn open_blob(&self, reach: Reach, digest: Digest) -> Result<File, BlobError> {
        let try_open = |project| match File::open(self.path(Owner::Project(project), digest)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(BlobError::from(e)),
        };
        let found = match reach {
            Reach::Project(project) => try_open(project)?,
            Reach::Everybody => {
                let mut found = None;
                for project in projects(&self.root)? {
                    found = try_open(project)?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        found.ok_or(BlobError::NotFound(digest))
    }
}

/// Runs disk work off the reactor's threads.
pub(crate) async fn on_disk<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let at = shared.clone();
    let done = tokio::task::spawn_blocking(move || work(&at)).await;
    match done.unwrap_or_else(|e| Err(BlobError::Disk(std::io::Error::other(e)))) {
        Err(BlobError::Disk(error)) => Err(told_apart(error, shared.counts.usage())),
        other => other,
    }
}

/// A disk without room is no disk that failed: waiting does not mend it.
fn told_apart(error: std::io::Error, usage: Usage) -> BlobError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            tracing::error!(%error, "the blob store's disk is full");
            BlobError::NoRoom { used: usage.bytes }
        }
        _ => BlobError::Disk(error),
    }
}

pub(crate) fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Counts a blob's age anew; its size, where it is there.
pub(crate) fn touch(path: &Path) -> std::io::Result<Option<u64>> {
    let file = match File::options().append(true).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    file.set_modified(SystemTime::now())?;
    Ok(Some(file.metadata()?.len()))
}

/// The folders in a folder, by their names; none where it is missing.
fn folders(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(name) = entry.file_name().to_str()
        {
            found.push((name.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

fn projects(root: &Path) -> std::io::Result<impl Iterator<Item = ProjectId>> {
    let folders = folders(root)?.into_iter();
    Ok(folders.filter_map(|(name, _)| name.parse().ok()))
}

/// Calls `see` with every blob below `root`, until it says no.
fn walk(root: &Path, mut see: impl FnMut(Owner, Digest, &Metadata) -> bool) -> std::io::Result<()> {
    let mut places: Vec<(Owner, String, PathBuf)> = Vec::new();
    for (name, path) in folders(root)? {
        if let Ok(project) = name.parse() {
            for (head, path) in folders(&path)? {
                places.push((Owner::Project(project), head, path));
            }
        }
    }
    for (name, path) in folders(&root.join(NODES))? {
        if let Ok(node) = name.parse() {
            places.push((Owner::Node(node), String::new(), path));
        }
    }
    for (owner, head, path) in places {
        for file in fs::read_dir(path)? {
            let file = file?;
            let name = file.file_name();
            let digest = name
                .to_str()
                .and_then(|n| format!("{head}{n}").parse().ok());
            let meta = match file.metadata() {
                // Forgotten or adopted meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            if digest.is_some_and(|digest| !see(owner, digest, &meta)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn tally(root: &Path) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    walk(root, |owner, _, meta| {
        tally.add(owner, meta.len());
        true
    })?;
    Ok(tally)
}

/// Whether a blob's age is at least this.
fn is_idle(meta: &Metadata, age: Duration) -> std::io::Result<bool> {
    let until = SystemTime::now().checked_sub(age);
    Ok(meta.modified()? <= until.unwrap_or(SystemTime::UNIX_EPOCH))
}

#[async_trait]
impl BlobStore for FileBlobStore {
    async fn begin(&self, owner: Owner, claim: BlobRef) -> Result<Box<dyn Upload>, BlobError> {
        let limit = self.shared.limits.blob;
        if claim.size > limit {
            return Err(BlobError::TooLarge {
                size: claim.size,
                limit,
            });
        }
        let written = on_disk(&self.shared, move |shared| {
            {
                let _turn = shared.turn()?;
                // Its age counts from the last time that somebody wanted it here.
                if touch(&shared.path(owner, claim.digest))?.is_some() {
                    return Ok(None);
                }
            }
            let promise = shared.promise(owner, claim.size)?;
            let number = shared.next_temp.fetch_add(1, Ordering::Relaxed);
            let path = shared.temp.join(number.to_string());
            Ok(Some(Written::create(path, promise)?))
        })
        .await?;
        let upload = FileUpload::new(self.shared.clone(), owner, claim, written);
        Ok(Box::new(upload))
    }

    async fn get(
        &self,
        reach: Reach,
        digest: Digest,
        offset: u64,
    ) -> Result<Box<dyn Download>, BlobError> {
        let (blob, file) = on_disk(&self.shared, move |shared| {
            let mut file = shared.open_blob(reach, digest)?;
            let size = file.metadata()?.len();
            if offset > size {
                return Err(BlobError::BadOffset { offset, size });
            }
            file.seek(SeekFrom::Start(offset))?;
            let size = ByteCount(size);
            Ok((BlobRef { digest, size }, file))
        })
        .await?;
        Ok(Box::new(FileDownload::new(self.shared.clone(), blob, file)))
    }

    async fn adopt(
        &self,
        node: NodeId,
        project: ProjectId,
        digest: Digest,
    ) -> Result<(), BlobError> {
        on_disk(&self.shared, move |shared| {
            let (node, project) = (Owner::Node(node), Owner::Project(project));
            let (from, to) = (shared.path(node, digest), shared.path(project, digest));
            let folder = shared.make_folder(&to)?;
            let turn = shared.turn()?;
            let there = touch(&to)?.is_some();
            let Some(size) = touch(&from)? else {
                return match there {
                    true => Ok(()),
                    false => Err(BlobError::NotFound(digest)),
                };
            };
            if there {
                fs::remove_file(&from)?;
                shared.counts.gone(node, size);
                return Ok(());
            }
            fs::rename(&from, &to)?;
            shared.counts.adopted(node, project, size);
            drop(turn);
            sync_dir(&folder)?;
            Ok(())
        })
        .await
    }

    async fn idle(&self, age: Duration, limit: usize) -> Result<Vec<(Owner, Digest)>, BlobError> {
        on_disk(&self.shared, move |shared| {
            let mut idle = Vec::new();
            walk(&shared.root, |owner, digest, meta| {
                if is_idle(meta, age).unwrap_or(false) {
                    idle.push((owner, digest));
                }
                idle.len() < limit
            })?;
            Ok(idle)
        })
        .await
    }

    async fn forget(&self, owner: Owner, digest: Digest, age: Duration) -> Result<bool, BlobError> {
        on_disk(&self.shared, move |shared| {
            let path = shared.path(owner, digest);
            let _turn = shared.turn()?;
            let meta = match fs::metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
                other => other?,
            };
            // Somebody has put it again since it was found idle.
            if !is_idle(&meta, age)? {
                return Ok(false);
            }
            fs::remove_file(&path)?;
            shared.counts.gone(owner, meta.len());
            Ok(true)
        })
        .await
    }

    fn usage(&self) -> Usage {
        self.shared.counts.usage()
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
