//! Files that only their owner may read.
//!
//! Owns how secrets lie on disk: refused when others can read them, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::random;

/// Largest file read. Source: an identity with a full manifest is about 300 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// A file that was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("{path} can be read by others; run `chmod 600 {path}`, and replace its keys if they may have been", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than any file of its kind.
    #[error("{path} is larger than 4 MiB", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |source| FileError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Reads a file that only its owner can read.
///
/// *Errors*: not there, readable by group or others, or over 4 MiB.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut file = File::open(path).map_err(at(path))?;
    let meta = file.metadata().map_err(at(path))?;
    if meta.is_dir() {
        return Err(at(path)(io::ErrorKind::IsADirectory.into()));
    }
    if is_exposed(&meta) {
        return Err(FileError::Exposed {
            path: path.to_owned(),
        });
    }
    if meta.len() > MAX_BYTES {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    // Room for all of it, so that no half-read copy is left behind by growth.
    let mut out = Zeroizing::new(Vec::with_capacity(meta.len() as usize + 1));
    (&mut file)
        .take(MAX_BYTES)
        .read_to_end(&mut out)
        .map_err(at(path))?;
    Ok(out)
}

/// Writes a file with mode 0600, atomically and synced; its folder must exist.
///
/// *Errors*: the system's.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", hex::encode(random::bytes::<6>())));
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(at(path))?;
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(at(folder))
}

#[cfg(unix)]
fn is_exposed(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o077 != 0
}
#[cfg(not(unix))]
fn is_exposed(_: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(FileError::Exposed { .. })));
        let text = read(folder.path()).unwrap_err().to_string();
        assert!(text.contains("is a directory"), "{text}");
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(FileError::Io { .. })
        ));
    }
}
