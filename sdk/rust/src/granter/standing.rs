//! A granter that stays when clients leave.

use std::path::Path;
use std::time::Duration;

use farlane_seal::identity::Identity;

use super::Granting;
use crate::options::ConnectOptions;
use crate::{Client, Error};

/// A standing granter tries to reconnect for as long as it lives. Source: one year, so that sums of
/// durations stay in range.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Grants any task of its project whose session is away. What it granted is kept in `state`, which
/// belongs to one standing granter alone; what may run once is also kept where this user's clients look.
pub struct Standing {
    client: Client,
}

impl Standing {
    /// Connects and serves until closed or dropped.
    ///
    /// *Errors*: no server answers in time, the identity is not accepted, or `state` cannot be used.
    pub async fn start(
        identity: Identity,
        state: &Path,
        mut options: ConnectOptions,
    ) -> Result<Self, Error> {
        let shared = options.memory_of(identity.tenant());
        let file = |e: std::io::Error| Error::File {
            path: format!("{} or {}", state.display(), shared.display()),
            reason: e.to_string(),
        };
        let granting = Granting::standing(state, &shared).map_err(file)?;
        options.reconnect_for = FOREVER;
        let client = Client::connect_as(identity, options, Box::new(|_| {}), granting).await?;
        Ok(Self { client })
    }

    /// Whether it still serves; false once refused for good (key revoked).
    pub fn is_serving(&self) -> bool {
        !self.client.is_closed()
    }

    /// Ends it.
    pub fn close(&self) {
        self.client.close();
    }
}
