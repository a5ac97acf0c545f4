//! Who calls.
//!
//! Owns the check of API keys and of peers' certificates. A key that was found good is remembered by
//! its hash, so that calls go on while accounts are away; whether it was revoked is asked of the
//! replicated state on every use, and its end of the clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use farlane_controller::{Caller, ControlError, Controller};
use farlane_model::{Digest, NodeId};
use farlane_store::{AuthError, KeyIdentity};
use farlane_units::Millis;
use farlane_wire::{ErrorCode, channel};
use tonic::{Request, Status};

use crate::access::Endpoint;
use crate::peer::Peer;

/// Keys remembered; beyond it all are forgotten and asked for again.
const REMEMBERED: usize = 4096;
/// How long a key is taken without asking accounts again. Source: a change of scopes, the only thing
/// that the state does not tell, reaches every server within this.
const REMEMBER: Millis = Millis(10 * 60 * 1000);

struct Known {
    identity: KeyIdentity,
    since: Millis,
}

/// Checks API keys.
pub(crate) struct Authenticator {
    controller: Arc<Controller>,
    known: Mutex<HashMap<Digest, Known>>,
}

/// A caller that may call, and its project's name.
pub(crate) struct Authenticated {
    pub caller: Caller,
    pub project_name: String,
}

impl Authenticator {
    pub fn new(controller: Arc<Controller>) -> Self {
        Self {
            controller,
            known: Mutex::default(),
        }
    }

    /// Who calls, and that they may call this.
    ///
    /// *Errors*: no key, an unknown, expired or revoked one, or one without the scope.
    pub async fn check<T>(
        &self,
        request: &Request<T>,
        endpoint: Endpoint,
    ) -> Result<Authenticated, Status> {
        let key = channel::api_key(request.metadata())?;
        let identity = self.identity(key).await?;
        if identity.expires <= self.controller.wall() {
            return Err(crate::status(ControlError::KeyExpired));
        }
        if self.controller.key_revoked(identity.key) {
            return Err(crate::status(ControlError::KeyRevoked));
        }
        let any = endpoint.scopes();
        if !any.iter().any(|scope| identity.scopes.contains(*scope)) {
            let scope = any.first().map_or("", |scope| scope.as_str());
            let message = format!(
                "the API key lacks the scope {scope:?}; `farlane keys create --scopes {scope}` with a \
                 key that has it makes one"
            );
            return Err(ErrorCode::PermissionDenied.status(message));
        }
        let KeyIdentity {
            key,
            project,
            tenant,
            scopes,
            expires,
            project_name,
            ..
        } = identity;
        Ok(Authenticated {
            caller: Caller {
                key,
                project,
                tenant,
                scopes,
                expires,
            },
            project_name,
        })
    }

    async fn identity(&self, key: &str) -> Result<KeyIdentity, Status> {
        let (digest, now) = (Digest::of(key.as_bytes()), self.controller.wall());
        if let Some(known) = self.known().get(&digest)
            && known.since.saturating_add(REMEMBER) > now
        {
            return Ok(known.identity.clone());
        }
        match self.controller.store().keys().authenticate(key, now).await {
            Ok(identity) => {
                let mut known = self.known();
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(
                    digest,
                    Known {
                        identity: identity.clone(),
                        since: now,
                    },
                );
                Ok(identity)
            }
            Err(AuthError::Store(error)) => {
                tracing::warn!(%error, "accounts cannot be reached; remembered keys go on");
                let kept = self.known().get(&digest).map(|k| k.identity.clone());
                kept.ok_or_else(|| ErrorCode::Unavailable.status("accounts cannot be reached now"))
            }
            Err(error) => {
                self.known().remove(&digest);
                let code = match error {
                    AuthError::Expired => ErrorCode::KeyExpired,
                    AuthError::Revoked => ErrorCode::KeyRevoked,
                    AuthError::Unknown | AuthError::Store(_) => ErrorCode::Unauthenticated,
                };
                Err(code.status(error.to_string()))
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node at the other end, by its certificate.
///
/// *Errors*: it showed none.
pub(crate) fn node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    peer_node(request).ok_or_else(|| {
        ErrorCode::Unauthenticated.status("this call needs a node's transport certificate")
    })
}

/// The node at the other end, where it showed a certificate.
pub(crate) fn peer_node<T>(request: &Request<T>) -> Option<NodeId> {
    request.extensions().get::<Peer>()?.node
}

/// Where a request comes from; none in a test without a listener.
pub(crate) fn from<T>(request: &Request<T>) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>();
    peer.map(|p| p.address.ip())
}
