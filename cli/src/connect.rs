//! From flags to a network that answers.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use farlane::discover::{self, Hints, ProcessEnvironment};
use farlane::{ConnectOptions, Identity, Network};

use crate::problem::Problem;
use crate::{folders, parse};

/// Which network, and as whom. Without flags: FARLANE_IDENTITY_FILE, the profile `default` (or the
/// one FARLANE_PROFILE names), then the network that `farlane up` runs here.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Identity file to use.
    #[arg(long, value_name = "FILE", help_heading = "Which network")]
    pub identity: Option<PathBuf>,
    /// Folder of a `farlane up` that was given one with --data: its identity, and the owner's keys.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "identity",
        help_heading = "Which network"
    )]
    pub data: Option<PathBuf>,
    /// Server to use instead of the identity's.
    #[arg(long, value_name = "URL", help_heading = "Which network")]
    pub url: Option<String>,
    /// How long to try to reach it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse::duration, help_heading = "Which network")]
    pub patience: Duration,
}

impl Target {
    /// The identity that these flags and the environment lead to.
    ///
    /// *Errors*: none is found, or it cannot be used.
    pub fn identity(&self) -> Result<Identity, Problem> {
        let hints = Hints {
            identity_file: match &self.data {
                Some(data) => Some(folders::endpoint(data)),
                None => self.identity.clone(),
            },
            url: self.url.clone(),
            key: None,
        };
        Ok(discover::discover(&hints, &ProcessEnvironment)?)
    }

    /// The folder whose `keys/` are the owner's: the one named, the one that the identity lies in, or
    /// this user's own.
    pub fn owner_folder(&self) -> PathBuf {
        folders::of_owner(self.data.as_deref(), self.identity.as_deref())
    }

    /// Connects.
    ///
    /// *Errors*: as [`Target::identity`]; no server answers in time.
    pub async fn connect(&self) -> Result<Network, Problem> {
        let options = ConnectOptions {
            connect_timeout: self.patience,
            software: concat!("farlane/", env!("CARGO_PKG_VERSION"), " cli").to_owned(),
            ..ConnectOptions::default()
        };
        Ok(Network::connect(self.identity()?, options).await?)
    }
}

/// Runs one question on a runtime of one thread.
///
/// *Errors*: the future's.
pub fn block_on<T>(future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Problem::failed)?
        .block_on(future)
}
