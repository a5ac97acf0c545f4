//! The control plane inside this process, and how its founder gets in.
//!
//! Owns the start of a server and the founder's access file. Leaves everything else about servers
//! to farlane-server.

use std::path::{Path, PathBuf};

use farlane_runtime::Shutdown;
use farlane_server::{Running, Server, ServerConfig, ServerError};

use crate::access::Access;
use crate::problem::Problem;

/// Name of the founder's access file inside the server's folder.
const ACCESS: &str = "access.json";

/// The founder's access file of the server in `data`.
pub fn access_file(data: &Path) -> PathBuf {
    data.join(ACCESS)
}

/// Starts a server. `whole` is the folder with everything that would have to go with the server's own.
///
/// *Errors*: the server does not start.
pub async fn start(
    config: ServerConfig,
    whole: &Path,
    shutdown: Shutdown,
) -> Result<Running, Problem> {
    let started = Server::start(config, shutdown).await;
    started.map_err(|error| unstarted(&error, whole))
}

fn unstarted(error: &ServerError, whole: &Path) -> Problem {
    match error.is_of_another_build() {
        true => Problem::failed(error).next(format!(
            "run the build that wrote it, or move {} away and start anew (another database too, where \
             one is named): queue, results, history and the keys in there go with it",
            whole.display()
        )),
        false => Problem::failed(error),
    }
}

/// Brings the founder's access file in `data` up to date: addresses may have changed.
///
/// *Errors*: accounts cannot be read, or the file not written.
pub async fn admit_founder(running: &Running, data: &Path) -> Result<Access, Problem> {
    let path = &access_file(data);
    let held = match std::fs::read_to_string(path) {
        Ok(text) => Access::from_json(&text)?,
        Err(_) => None,
    };
    let held_key = held.as_ref().map(|a| a.api_key.clone());
    let owner = running
        .bootstrap_owner(held_key.as_deref())
        .await
        .map_err(Problem::failed)?;
    let access = Access {
        name: "owner".to_owned(),
        urls: running.urls().to_vec(),
        ca_pem: running.ca_pem().to_owned(),
        api_key: owner.api_key,
        project: owner.project,
        network: running.network().to_vec(),
    };
    if held.as_ref() != Some(&access) {
        access.save(path)?;
    }
    Ok(access)
}
