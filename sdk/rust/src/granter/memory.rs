//! What the granters of one user remember together, whatever process they are in.
//!
//! Owns a folder that the clients and the standing granter of one user and tenant share: each provider's
//! newest list of revocations, so that a control plane cannot go back to an older one, and the grants of
//! tasks that may run once, so that it cannot get one from each of them. Every change is made under a lock.
//!
//! ```text
//! FOLDER/lock                        held while anything below is read to be changed
//! FOLDER/revocations-FINGERPRINT     the newest list, as signed
//! FOLDER/grants.log, grants.1.log    [`GrantFile`], of tasks with `at_most_once`
//! ```

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use farlane_seal::grant::{GrantEntry, GrantError, GrantLog};
use farlane_seal::record::RevocationList;
use farlane_seal::{PublicKey, private_file};

use super::file::GrantFile;

/// The shared folder, and what this process has seen of it.
pub(super) struct Memory {
    /// `None` where it cannot be written: then this process remembers alone.
    folder: Option<PathBuf>,
    lists: HashMap<PublicKey, RevocationList>,
    log: GrantLog,
    file: Option<GrantFile>,
}

impl Memory {
    /// Makes the folder where it is missing.
    ///
    /// *Errors*: the system's.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        drop(lock(folder)?);
        Ok(Self {
            folder: Some(folder.to_owned()),
            ..Self::alone()
        })
    }

    /// One that ends with the process.
    pub fn alone() -> Self {
        Self {
            folder: None,
            lists: HashMap::new(),
            log: GrantLog::new(),
            file: None,
        }
    }

    /// A provider's newest list that any of these granters has seen.
    pub fn revocations(&mut self, provider: &PublicKey) -> Option<&RevocationList> {
        if let Some(kept) = self.kept(provider) {
            self.take_newer(kept);
        }
        self.lists.get(provider)
    }

    /// Takes up a list of a pinned provider; whether it is newer than what was known here.
    pub fn learn(&mut self, list: RevocationList) -> bool {
        let provider = list.provider();
        if !self.take_newer(list) {
            return false;
        }
        if let Err(error) = self.keep(&provider) {
            tracing::warn!(%error, "a provider's revocations are not remembered beyond this process");
        }
        true
    }

    fn take_newer(&mut self, list: RevocationList) -> bool {
        let known = self.lists.get(&list.provider());
        let newer = known.is_none_or(|known| list.issued() > known.issued());
        if newer {
            self.lists.insert(list.provider(), list);
        }
        newer
    }

    /// The list on disk, where it is another than the one known here.
    fn kept(&self, provider: &PublicKey) -> Option<RevocationList> {
        let folder = self.folder.as_ref()?;
        let bytes = private_file::read(&list_path(folder, provider)).ok()?;
        let known = self.lists.get(provider);
        if known.is_some_and(|known| known.to_bytes()[..] == bytes[..]) {
            return None;
        }
        let list = RevocationList::from_bytes(&bytes).ok()?;
        (list.provider() == *provider).then_some(list)
    }

    /// Writes what is known here, unless a newer one is there by now.
    fn keep(&mut self, provider: &PublicKey) -> io::Result<()> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let _held = lock(&folder)?;
        if let Some(kept) = self.kept(provider)
            && self.take_newer(kept)
        {
            return Ok(());
        }
        let Some(list) = self.lists.get(provider) else {
            return Ok(());
        };
        private_file::write(&list_path(&folder, provider), &list.to_bytes())
            .map_err(io::Error::other)
    }

    /// Judges grants of tasks that may run once, and remembers those that are new, synced, before it
    /// returns; one answer each, in order.
    ///
    /// *Errors*: the system's; none of them may be granted then.
    pub fn admit_once(
        &mut self,
        entries: &[GrantEntry],
    ) -> io::Result<Vec<Result<(), GrantError>>> {
        let held = self.folder.as_deref().map(lock).transpose()?;
        if let Some(folder) = &self.folder {
            match &mut self.file {
                Some(file) => file.catch_up(&mut self.log)?,
                None => self.file = Some(GrantFile::open(folder, &mut self.log)?),
            }
        }
        let mut judged = Vec::with_capacity(entries.len());
        let mut first = Vec::new();
        for entry in entries {
            let admission = self.log.admit(entry.attempt, entry.node, 1);
            if matches!(admission, Ok(super::Admission::First)) {
                first.push(*entry);
            }
            judged.push(admission.map(drop));
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.append(&first, &mut self.log)
        {
            // What counts is on disk, and read again under the next lock.
            (self.file, self.log) = (None, GrantLog::new());
            return Err(error);
        }
        drop(held);
        Ok(judged)
    }
}

fn list_path(folder: &Path, provider: &PublicKey) -> PathBuf {
    folder.join(format!("revocations-{}", provider.fingerprint()))
}

/// Waits for the lock; it is held for as long as a few rows take, and ends with its holder.
fn lock(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::{AttemptRef, NodeId, SessionId};
    use farlane_seal::ProviderRoot;
    use farlane_units::Millis;

    fn entry(seq: u64, attempt: u32, node: u8) -> GrantEntry {
        let task = SessionId::new(1, [1; 5]).task(seq);
        let attempt = AttemptRef {
            task,
            attempt,
            epoch: 1,
        };
        let node = NodeId([node; 32]);
        GrantEntry { attempt, node }
    }

    #[test]
    fn what_may_run_once_is_granted_by_one_of_all_that_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut client = Memory::open(folder.path()).unwrap();
        let mut standing = Memory::open(folder.path()).unwrap();
        let first = |memory: &mut Memory, entry| memory.admit_once(&[entry]).unwrap().remove(0);
        assert_eq!(first(&mut client, entry(1, 1, 7)), Ok(()));
        assert_eq!(
            first(&mut standing, entry(1, 2, 7)),
            Err(GrantError::AttemptsUsed { limit: 1 })
        );
        assert_eq!(
            first(&mut standing, entry(1, 1, 8)),
            Err(GrantError::GrantedElsewhere)
        );
        assert_eq!(first(&mut standing, entry(1, 1, 7)), Ok(()), "the same");
        assert_eq!(first(&mut standing, entry(2, 1, 7)), Ok(()));
        // Each goes on from what the other has written, and so does one that comes later.
        assert!(first(&mut client, entry(2, 2, 7)).is_err());
        let mut late = Memory::open(folder.path()).unwrap();
        assert!(first(&mut late, entry(1, 3, 9)).is_err());
        // Another folder is another user's.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut other = Memory::open(elsewhere.path()).unwrap();
        assert_eq!(first(&mut other, entry(1, 2, 7)), Ok(()));
    }

    #[test]
    fn a_torn_row_of_one_that_died_is_cut_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = Memory::open(folder.path()).unwrap();
        let mut two = Memory::open(folder.path()).unwrap();
        one.admit_once(&[entry(1, 1, 7)]).unwrap();
        two.admit_once(&[entry(2, 1, 7)]).unwrap();
        let path = folder.path().join("grants.log");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(&entry(3, 1, 7).to_bytes()[..40]);
        std::fs::write(&path, torn).unwrap();
        one.admit_once(&[entry(4, 1, 7)]).unwrap();
        let judged = two.admit_once(&[entry(4, 2, 7), entry(3, 1, 8)]).unwrap();
        assert!(judged[0].is_err() && judged[1].is_ok());
    }

    #[test]
    fn the_newest_list_is_known_to_all_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = ProviderRoot::generate();
        let list = |issued| RevocationList::sign(&root, Millis(issued), vec![]).unwrap();
        let issued = |memory: &mut Memory| memory.revocations(&root.public()).map(|l| l.issued());
        let mut one = Memory::open(folder.path()).unwrap();
        let mut two = Memory::open(folder.path()).unwrap();
        assert_eq!(issued(&mut one), None);
        assert!(one.learn(list(5)) && !one.learn(list(5)) && !one.learn(list(4)));
        assert_eq!(issued(&mut two), Some(Millis(5)));
        assert!(two.learn(list(9)));
        // What it knows is older than the disk by now, and what it takes up must not replace that.
        assert!(one.learn(list(7)));
        assert_eq!(issued(&mut one), Some(Millis(9)));
        let mut late = Memory::open(folder.path()).unwrap();
        assert_eq!(issued(&mut late), Some(Millis(9)));
        // Nobody else's list stands in for it.
        let path = list_path(folder.path(), &root.public());
        let foreign = RevocationList::sign(&ProviderRoot::generate(), Millis(99), vec![]).unwrap();
        private_file::write(&path, &foreign.to_bytes()).unwrap();
        let mut fresh = Memory::open(folder.path()).unwrap();
        assert_eq!(issued(&mut fresh), None);
    }
}
