//! From flags to a network that answers.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use farlane::discover::{self, Environment, Hints, ProcessEnvironment};
use farlane::{ConnectOptions, Identity, Network};

use crate::problem::{Exit, Problem};
use crate::{folders, parse};

/// Which network, and as whom. Without flags: FARLANE_IDENTITY_FILE, the profile `default` (or the
/// one FARLANE_PROFILE names), then the network that `farlane up` runs here.
///
/// The flags are global, so that a command with actions may take them before the action, too.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Identity file to use.
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help_heading = "Which network"
    )]
    pub identity: Option<PathBuf>,
    /// Folder of a `farlane up` that was given one with --data: its identity, and the owner's keys.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "identity",
        global = true,
        help_heading = "Which network"
    )]
    pub data: Option<PathBuf>,
    /// Server to use instead of the identity's.
    #[arg(long, value_name = "URL", value_parser = parse::url, global = true, help_heading = "Which network")]
    pub url: Option<String>,
    /// How long to try to reach it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse::duration, global = true, help_heading = "Which network")]
    pub patience: Duration,
}

impl Target {
    /// The identity that these flags and the environment lead to.
    ///
    /// *Errors*: none is found, or it cannot be used.
    pub fn identity(&self) -> Result<Identity, Problem> {
        if self.data.is_some() && self.identity.is_some() {
            // One stood before an action and one after it: the parser compares only those beside each other.
            let what = "--identity and --data name two identities";
            return Err(Problem::new(Exit::Usage, what).next("give one of them"));
        }
        if let (None, Some(url)) = (&self.url, ProcessEnvironment.var("FARLANE_URL")) {
            parse::url(&url).map_err(|why| {
                Problem::new(Exit::Usage, format!("FARLANE_URL is {url:?}: {why}"))
            })?;
        }
        let hints = Hints {
            identity_file: match &self.data {
                Some(data) => Some(folders::endpoint(data)),
                None => self.identity.clone(),
            },
            url: self.url.clone(),
            key: None,
        };
        discover::discover(&hints, &ProcessEnvironment)
            .map_err(|error| self.absent().unwrap_or_else(|| error.into()))
    }

    /// What to do where the file that was named is not there.
    fn absent(&self) -> Option<Problem> {
        let env = ProcessEnvironment;
        let (path, next) = if let Some(data) = &self.data {
            let next = format!(
                "`farlane up --data {}` makes it; or name the folder that one runs in",
                data.display()
            );
            (folders::endpoint(data), next)
        } else if let Some(path) = &self.identity {
            let next = "name an identity file that is there, or leave --identity out";
            (path.clone(), next.to_owned())
        } else if let Some(path) = env.var("FARLANE_IDENTITY_FILE") {
            let next = "let FARLANE_IDENTITY_FILE name a file that is there, or unset it";
            (path.into(), next.to_owned())
        } else {
            let name = env.var("FARLANE_PROFILE")?;
            let next = format!(
                "`farlane login FILE --profile {name}` makes it; FARLANE_PROFILE names it now"
            );
            (folders::profile(&name), next)
        };
        let missing = matches!(path.try_exists(), Ok(false));
        missing.then(|| {
            let what = format!("{} does not exist", path.display());
            Problem::new(Exit::NotFound, what).next(next)
        })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_not_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target {
            identity: None,
            data: Some(dir.path().join("none")),
            url: Some("https://a:1".to_owned()),
            patience: Duration::from_secs(1),
        };
        let problem = target.identity().unwrap_err();
        assert!(problem.is(Exit::NotFound), "{problem:?}");
        assert!(problem.step().unwrap().contains("farlane up --data"));
        let (data, identity) = (None, Some(dir.path().join("none.json")));
        let target = Target {
            data,
            identity,
            ..target
        };
        let problem = target.identity().unwrap_err();
        assert!(problem.is(Exit::NotFound), "{problem:?}");
        assert!(problem.step().unwrap().contains("--identity"));
        std::fs::write(dir.path().join("none.json"), "{}").unwrap();
        assert!(target.identity().unwrap_err().is(Exit::NotAllowed));
    }
}
