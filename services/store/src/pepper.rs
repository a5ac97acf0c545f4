//! The key under which secrets are hashed before they are stored.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::row;

/// 32 bytes that live outside the database, so that a stolen database is of no use for guessing.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(hidden)")
    }
}

impl Pepper {
    /// From its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the file, or makes it (mode 0600) with fresh bytes where there is none.
    ///
    /// *Errors*: the file cannot be read or made, or does not hold 32 bytes.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => <[u8; 32]>::try_from(bytes.as_slice())
                .map(Self)
                .map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "the pepper must be 32 bytes")
                }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = row::random().map_err(io::Error::other)?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                Ok(Self(bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// BLAKE3, keyed, over `parts` with their lengths.
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        let first = Pepper::load_or_create(&path).unwrap();
        let again = Pepper::load_or_create(&path).unwrap();
        assert_eq!(first.hash(&[b"x"]), again.hash(&[b"x"]));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, b"short").unwrap();
        assert!(Pepper::load_or_create(&path).is_err());
    }

    #[test]
    fn parts_do_not_run_together() {
        let pepper = Pepper::new([1; 32]);
        assert_ne!(pepper.hash(&[b"ab", b"c"]), pepper.hash(&[b"a", b"bc"]));
    }
}
