//! `farlane granter`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farlane::granter::Standing;
use farlane::{ConnectOptions, Error};
use farlane_runtime::{Shutdown, telemetry};

use crate::connect::{Target, block_on};
use crate::folders;
use crate::owner::Owner;
use crate::problem::{Exit, Problem};
use crate::revocations::{self, Of};

/// How often it is looked at whether it was refused for good. A person notices within seconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Grant this project's tasks while their clients are away.
///
/// Run it where the tenant's keys may be; the network's servers are not such a place. `farlane up`
/// runs one for its own. On a provider's machine it also renews the list of removed machines, which
/// granters refuse when it is older than a day.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane granter --identity ci.json --state /var/lib/farlane/granter"
)]
pub struct Args {
    /// Where it remembers what it granted. Of one granter alone.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What to log.
    #[arg(long, env = "FARLANE_LOG", default_value = "info")]
    log: String,
    #[command(flatten)]
    target: Target,
}

/// The answer to a network that does not take this identity for a granter's.
fn refused(error: &Error) -> Option<Problem> {
    matches!(error, Error::Auth(_)).then(|| {
        Problem::new(Exit::NotAllowed, error).next(
            "a granter needs an identity of the project's owner, with a key that holds: `farlane keys \
             create NAME --identity-out FILE` on the owner's machine. To renew the list of machines of \
             your own in another's network: `farlane nodes renew`, twice a day from a timer",
        )
    })
}

pub fn run(args: Args) -> Result<(), Problem> {
    telemetry::init(&args.log, telemetry::Format::Text).map_err(Problem::failed)?;
    let state = args
        .state
        .unwrap_or_else(|| args.target.owner_folder().join("granter"));
    folders::make_private(&state)?;
    let _lock = folders::lock_granter(&state)?;
    let identity = args.target.identity()?;
    block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let options = ConnectOptions {
            connect_timeout: args.target.patience,
            ..ConnectOptions::default()
        };
        // Where the provider's keys are too, its machines stay granted to.
        if let Some(owner) = Owner::existing(&args.target.owner_folder())? {
            let owner = Arc::new(owner);
            let renewing = revocations::keep_fresh(
                owner,
                identity.clone(),
                Of::WithMachines,
                shutdown.clone(),
            );
            tokio::spawn(renewing);
        }
        let started = Standing::start(identity, &state, options).await;
        let standing = started.map_err(|error| refused(&error).unwrap_or_else(|| error.into()))?;
        eprintln!("farlane: granting; Ctrl-C stops it");
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if !standing.is_serving() {
                return Err(Problem::new(
                    Exit::NotAllowed,
                    "the network refuses this identity from now on",
                )
                .next("has its key ended, or was it revoked? `farlane keys list` on the owner's machine shows it"));
            }
        }
        standing.close();
        Ok(())
    })
}
