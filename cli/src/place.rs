//! A place for a secret that is shown once, taken before anything is made that needs it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use farlane_seal::private_file;

use crate::problem::{Exit, Problem, reading};

/// Where a secret will be: standard output (`None`), or a file that is kept free for it, and goes again unless
/// it is filled.
#[derive(Debug)]
pub struct Place {
    file: Option<PathBuf>,
}

impl Place {
    /// Keeps `path` free; `-` is standard output.
    ///
    /// *Errors*: there is a file already, or none can be made there.
    pub fn take(path: PathBuf) -> Result<Self, Problem> {
        if path.as_os_str() == "-" {
            return Ok(Self { file: None });
        }
        let open = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match open {
            Ok(_) => Ok(Self { file: Some(path) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let what = format!("{} exists already", path.display());
                Err(Problem::new(Exit::Usage, what)
                    .next("somebody may yet need it: name another file, or remove that one first"))
            }
            Err(error) => Err(reading(path.parent().unwrap_or(&path))(error)),
        }
    }
    /// Writes the file; its path, where there is one.
    pub fn fill(mut self, bytes: &[u8]) -> Result<Option<PathBuf>, Problem> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        private_file::write(path, bytes).map_err(Problem::failed)?;
        Ok(self.file.take())
    }
    /// As [`Place::fill`], where another has written the file.
    pub fn keep(mut self) {
        self.file = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // It is empty: nothing is lost where this fails.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_takes_no_others_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.txt");
        let place = Place::take(path.clone()).unwrap();
        drop(place);
        assert!(!path.exists(), "nothing is left of one that was not made");
        let place = Place::take(path.clone()).unwrap();
        let meanwhile = Place::take(path.clone());
        assert!(meanwhile.is_err_and(|p| p.is(Exit::Usage)));
        place.fill(b"secret").unwrap();
        let problem = Place::take(path.clone()).err().unwrap();
        assert!(problem.what().contains("exists already"), "{problem:?}");
        assert!(problem.step().unwrap().contains("another file"));
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        let nowhere = Place::take(dir.path().join("none/secret.txt"));
        assert!(nowhere.is_err_and(|p| p.is(Exit::NotFound)));
        assert_eq!(Place::take("-".into()).unwrap().fill(b"").unwrap(), None);
    }
}
