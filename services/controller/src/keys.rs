//! API keys of a project: made, listed, revoked.
//!
//! Owns their use cases. Leaves secrets and their hashes to `farlane-store`.

use farlane_model::ProjectId;
use farlane_state::{Revoke, Revoked};
use farlane_store::{Key, NewKey, Scope, Scopes};
use farlane_units::Millis;
use farlane_wire::v1;

use crate::{Caller, ControlError, Controller};

/// Life of a key that asked for none. Source: network.proto, `CreateKeyRequest`.
const KEY_LIFE: Millis = Millis(365 * 24 * 60 * 60 * 1000);

impl Controller {
    /// Makes a key of the caller's project, with scopes that the caller has.
    ///
    /// *Errors*: scopes beyond the caller's, a bad name, or accounts are away.
    pub async fn create_key(
        &self,
        caller: &Caller,
        request: v1::CreateKeyRequest,
    ) -> Result<v1::CreateKeyReply, ControlError> {
        let words = request.scopes.iter().map(String::as_str);
        let scopes = Scopes::from_words(words).map_err(|word| {
            ControlError::invalid(format!(
                "{word:?} is no scope: submit, read, admin, network"
            ))
        })?;
        if !caller.scopes.covers(scopes) {
            return Err(ControlError::Denied {
                why: "a key cannot give scopes that it has not".into(),
            });
        }
        let project = self.project_of_key(caller, &request.project).await?;
        let wall = self.wall();
        let life = if request.ttl_ms == 0 {
            KEY_LIFE
        } else {
            Millis(request.ttl_ms.min(10 * KEY_LIFE.0))
        };
        let expires = wall.saturating_add(life);
        let new = NewKey {
            project,
            name: request.name,
            scopes,
            expires,
        };
        let (key, secret) = self.store.keys().create(new, wall).await?;
        self.audit(
            &caller.key.to_string(),
            "key.create",
            &key.id.to_string(),
            &key.name,
        )
        .await;
        Ok(v1::CreateKeyReply {
            key: Some(key_view(&key)),
            secret: secret.reveal().to_owned(),
        })
    }

    /// Of which project a new key is.
    async fn project_of_key(
        &self,
        caller: &Caller,
        wanted: &[u8],
    ) -> Result<ProjectId, ControlError> {
        if wanted.is_empty() {
            return Ok(caller.project);
        }
        let project = farlane_wire::id::project(wanted)?;
        if project == caller.project {
            return Ok(project);
        }
        if !caller.scopes.contains(Scope::Network) {
            return Err(ControlError::Denied {
                why: "a key of another project needs the scope network".into(),
            });
        }
        match self.store.projects().get(project).await? {
            Some(_) => Ok(project),
            None => Err(ControlError::UnknownProject),
        }
    }

    /// Keys of the caller's project.
    ///
    /// *Errors*: accounts are away.
    pub async fn list_keys(&self, caller: &Caller) -> Result<Vec<v1::KeyView>, ControlError> {
        Ok(self
            .store
            .keys()
            .list(caller.project)
            .await?
            .iter()
            .map(key_view)
            .collect())
    }

    /// Revokes a key, in accounts and in the replicated state: from now on no server takes it.
    ///
    /// *Errors*: unknown, another project's, one of the network's where the caller's is not, or no quorum.
    pub async fn revoke_key(&self, caller: &Caller, key: &str) -> Result<(), ControlError> {
        let key = key.parse().map_err(|_| ControlError::UnknownKey)?;
        let keys = self.store.keys().list(caller.project).await?;
        let held = keys.iter().find(|held| held.id == key);
        let network = Scopes::from_iter([Scope::Network]);
        if held.is_some_and(|held| held.scopes.covers(network)) && !caller.scopes.covers(network) {
            return Err(ControlError::Denied {
                why: "a key of the network is revoked by one that has the scope network".into(),
            });
        }
        if !self
            .store
            .keys()
            .revoke(caller.project, key, self.wall())
            .await?
        {
            return Err(ControlError::UnknownKey);
        }
        self.order(vec![
            Revoke {
                subject: Revoked::Key(key),
            }
            .into(),
        ])
        .await?;
        self.audit(&caller.key.to_string(), "key.revoke", &key.to_string(), "")
            .await;
        Ok(())
    }
}

fn key_view(key: &Key) -> v1::KeyView {
    v1::KeyView {
        id: key.id.to_string(),
        name: key.name.clone(),
        scopes: key.scopes.words(),
        created_ms: key.created.0,
        expires_ms: key.expires.0,
        revoked: key.revoked.is_some(),
    }
}
