//! The control plane inside this process, and how its founder gets in.
//!
//! Owns the start of a server and the founder's access file. Leaves everything else about servers
//! to farlane-server.

use std::path::{Path, PathBuf};

use farlane_runtime::Shutdown;
use farlane_server::{Running, Server, ServerConfig};

use crate::access::Access;
use crate::problem::Problem;

/// Name of the founder's access file inside the server's folder.
const ACCESS: &str = "access.json";

/// The founder's access file of the server in `data`.
pub fn access_file(data: &Path) -> PathBuf {
    data.join(ACCESS)
}

/// Starts a server and brings its founder's access file up to date: addresses may have changed.
///
/// *Errors*: the server does not start; the file cannot be written.
pub async fn start(
    config: ServerConfig,
    shutdown: Shutdown,
) -> Result<(Running, Option<Access>), Problem> {
    let path = access_file(&config.data);
    let running = Server::start(config, shutdown)
        .await
        .map_err(Problem::failed)?;
    let access = access(&running, &path).await?;
    Ok((running, access))
}

async fn access(running: &Running, path: &Path) -> Result<Option<Access>, Problem> {
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
    Ok(Some(access))
}
