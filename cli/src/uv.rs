//! The `uv` that an agent builds environments with, where that agent is another user.
//!
//! Owns finding it as root would, and a copy that the system user can run. Where this process is no
//! root's, the agent finds it by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::{Problem, doing};

/// Where the copy lies, below the system state folder.
const TOOLS: &str = "tools";

/// A `uv` that every user can run; `None` where there is none at all. May copy it below `system`.
///
/// *Errors*: the copy cannot be made.
pub fn for_every_user(system: &Path) -> Result<Option<PathBuf>, Problem> {
    let Some(found) = find() else { return Ok(None) };
    if closed_above(&found).is_none() && is_open(&found) {
        return Ok(Some(found));
    }
    copy(&found, &system.join(TOOLS)).map(Some)
}

/// The first folder on the way to `path` that others cannot pass.
pub fn closed_above(path: &Path) -> Option<&Path> {
    let shut =
        |above: &&Path| fs::metadata(above).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
    path.ancestors().skip(1).find(shut)
}

/// Whether others can read and run the file.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o005 == 0o005)
}

/// The `uv` of whoever runs this: beside this program, then in the `PATH`, then the one
/// that Python's package brought.
pub fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    folders
        .map(|folder| folder.join("uv"))
        // A version manager's stand-in is a script that needs its owner's home.
        .find(|file| is_program(file))
        .and_then(|file| file.canonicalize().ok())
        .or_else(packaged)
}

fn is_program(file: &Path) -> bool {
    let mut magic = [0u8; 4];
    let read = fs::File::open(file).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut magic));
    // ELF's magic number.
    read.is_ok() && magic == *b"\x7fELF"
}

fn packaged() -> Option<PathBuf> {
    let script = "import uv; print(uv.find_uv_bin())";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    is_program(&path).then_some(path)
}

/// Copies `from` into `folder`, unless the copy there is as large and as new.
fn copy(from: &Path, folder: &Path) -> Result<PathBuf, Problem> {
    let to = folder.join("uv");
    let what =
        || doing::<std::io::Error>(format!("copying {} to {}", from.display(), to.display()));
    let source = fs::metadata(from).map_err(what())?;
    let is_fresh = fs::metadata(&to).is_ok_and(|copy| {
        copy.len() == source.len() && copy.modified().ok() >= source.modified().ok()
    });
    if is_fresh {
        return Ok(to);
    }
    fs::create_dir_all(folder).map_err(what())?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(what())?;
    let fresh = folder.join(format!("uv.{}", std::process::id()));
    fs::copy(from, &fresh).map_err(what())?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(what())?;
    fs::rename(&fresh, &to).map_err(what())?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_is_made_once_and_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("uv");
        fs::write(&from, b"\x7fELF one").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(is_program(&from) && !is_open(&from));
        let tools = dir.path().join("tools");
        let to = copy(&from, &tools).unwrap();
        assert!(is_open(&to));
        let made = fs::metadata(&to).unwrap().modified().unwrap();
        copy(&from, &tools).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), made);
        fs::write(&from, b"\x7fELF newer").unwrap();
        copy(&from, &tools).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"\x7fELF newer");
        assert_eq!(fs::read_dir(&tools).unwrap().count(), 1);
    }

    #[test]
    fn a_shut_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let shut = dir.path().join("shut");
        fs::create_dir(&shut).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
        let inside = shut.join("uv");
        assert_eq!(closed_above(&inside), Some(shut.as_path()));
        fs::write(dir.path().join("script"), "#!/bin/sh\n").unwrap();
        assert!(!is_program(&dir.path().join("script")));
    }
}
