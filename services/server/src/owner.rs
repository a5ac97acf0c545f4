//! How a network's founder gets in.

use farlane_model::ProjectId;
use farlane_runtime::Clock;
use farlane_store::{AuthError, NewKey, Scopes, Store, StoreError};
use farlane_units::Millis;

/// The founder's project.
const PROJECT: &str = "default";
/// Life of the founder's key: it lies beside the server's own keys, so its end protects little.
const LIFE: Millis = Millis(10 * 365 * 24 * 60 * 60 * 1000);

/// The founder's project, and a key that may do everything, in it and for the whole network.
pub struct Owner {
    /// The project `default`.
    pub project: ProjectId,
    /// The caller keeps it; accounts know only its hash.
    pub api_key: String,
}

/// The project, and the key that the caller holds if it is good still, else a new one.
pub(crate) async fn ensure(
    store: &Store,
    clock: &dyn Clock,
    held: Option<&str>,
) -> Result<Owner, StoreError> {
    let now = clock.wall();
    let project = store.projects().ensure(PROJECT, now).await?.id;
    if let Some(held) = held {
        match store.keys().authenticate(held, now).await {
            Ok(identity) if identity.project == project && identity.scopes == Scopes::all() => {
                return Ok(Owner {
                    project,
                    api_key: held.to_owned(),
                });
            }
            Err(AuthError::Store(error)) => return Err(error),
            Ok(_) | Err(AuthError::Unknown | AuthError::Expired | AuthError::Revoked) => {}
        }
    }
    let new = NewKey {
        project,
        name: "owner".to_owned(),
        scopes: Scopes::all(),
        expires: now.saturating_add(LIFE),
    };
    let (_, secret) = store.keys().create(new, now).await?;
    Ok(Owner {
        project,
        api_key: secret.reveal().to_owned(),
    })
}
