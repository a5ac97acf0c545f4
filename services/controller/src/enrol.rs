//! Nodes coming in, staying and going.
//!
//! Owns joining by a one-time secret, renewal of transport certificates by proof of the identity key,
//! removal. Leaves who is trusted to those who pin providers: a server only checks that a record holds
//! together.

use bytes::Bytes;
use farlane_model::{Digest, NodeId, NodeSpec};
use farlane_seal::record::{EnrolmentCert, NodeRecord, RevocationList};
use farlane_seal::renewal::{self, BadRenewal};
use farlane_state::{PublishRevocations, RegisterNode, Revoke, Revoked};
use farlane_store::{AuditEntry, JoinError, JoinToken, NewJoinToken};
use farlane_units::Millis;
use farlane_wire::v1;

use crate::{Caller, ControlError, Controller, IssueError, IssuedCertificate};

/// Longest life of a join token. Source: a person carries it over within a week.
const MAX_TOKEN_LIFE: Millis = Millis(7 * 24 * 60 * 60 * 1000);
/// Largest request for a certificate, which is hashed before anything is known of who sends it. Source:
/// an agent's takes 200 bytes; ten times that for other keys, rounded up.
const MAX_REQUEST: usize = 4096;

fn refused(why: impl ToString) -> ControlError {
    ControlError::JoinRefused {
        why: why.to_string(),
    }
}

/// What an agent says of its machine, held to what its provider certified: labels and price are the
/// provider's to give, and the tier at most the certified one.
///
/// *Errors*: not a spec.
fn bounded_spec(record: &NodeRecord, bytes: &[u8]) -> Result<Bytes, ControlError> {
    let spec = NodeSpec::from_canonical(bytes);
    let mut spec = spec.ok_or_else(|| ControlError::invalid("spec_bytes are no node's spec"))?;
    let terms = record.certificate();
    spec.tier = spec.tier.min(terms.tier);
    spec.labels = terms.labels.as_slice().into();
    if let Some(price) = terms.price_usd_micros_core_hour {
        spec.price_usd_micros_core_hour = price;
    }
    Ok(spec.to_canonical().into())
}

/// Until when its provider stands for the node.
///
/// *Errors*: no longer.
fn stands_until(record: &NodeRecord, wall: Millis) -> Result<Millis, ControlError> {
    match record.certificate().not_after {
        ended if ended <= wall => Err(enrolment_ended()),
        until => Ok(until),
    }
}

/// Its provider stands for the node no longer.
pub(crate) fn enrolment_ended() -> ControlError {
    ControlError::Denied {
        why: "the node's enrolment certificate has ended; its provider makes a new join file \
              (`farlane tokens create`), and the machine joins with it in a new state folder"
            .to_owned(),
    }
}

impl Controller {
    /// [`bounded_spec`] of a registered node, and until when its provider stands for it.
    ///
    /// *Errors*: unknown, its certificate has ended, or not a spec.
    pub(crate) fn spec_of(
        &self,
        node: NodeId,
        bytes: &[u8],
    ) -> Result<(Bytes, Millis), ControlError> {
        let record = self.standing_record(node)?;
        Ok((
            bounded_spec(&record, bytes)?,
            record.certificate().not_after,
        ))
    }

    /// The record of a registered node that its provider still stands for.
    ///
    /// *Errors*: unknown, or its certificate has ended.
    fn standing_record(&self, node: NodeId) -> Result<NodeRecord, ControlError> {
        let (record, _) = self.record(node)?;
        stands_until(&record, self.wall())?;
        Ok(record)
    }

    /// The record of a registered node, and whether it was revoked.
    ///
    /// *Errors*: unknown.
    fn record(&self, node: NodeId) -> Result<(NodeRecord, bool), ControlError> {
        let revoked = self.consensus.read(|s| s.node(&node).map(|n| n.revoked));
        let known = revoked.zip(self.record_of(node));
        let (revoked, record) = known.ok_or(ControlError::UnknownNode)?;
        let record = NodeRecord::from_bytes(&record).map_err(|e| ControlError::Internal {
            detail: e.to_string(),
        })?;
        Ok((record, revoked))
    }

    /// Takes a node in: checks its record, takes its join secret, registers and certifies it.
    ///
    /// *Errors*: the record does not hold, the secret is unknown, expired or used, or the request for
    /// a certificate is malformed. The secret is taken only after everything else has held, and then
    /// by this machine's identity: it may come again with it where the registration did not follow.
    pub async fn enrol(&self, request: v1::EnrolRequest) -> Result<v1::EnrolReply, ControlError> {
        farlane_wire::hello::negotiate(request.hello.as_ref())?;
        self.check_leads()?;
        let wall = self.wall();
        let record = NodeRecord::from_bytes(&request.record_bytes).map_err(refused)?;
        let node = record.node();
        if record.certificate().not_after <= wall {
            return Err(refused(
                "the enrolment certificate has ended; make another join file",
            ));
        }
        if self
            .consensus
            .read(|s| s.node(&node).is_some_and(|n| n.revoked))
        {
            return Err(ControlError::NodeRevoked);
        }
        let spec = bounded_spec(&record, &request.spec_bytes)?;
        let issued = self.certify(node, &request.csr_der, wall, record.certificate().not_after)?;
        self.take_secret(&request.join_secret, &record, wall)
            .await?;
        let order = RegisterNode {
            node,
            record: request.record_bytes,
            spec,
            region: record.region().to_owned(),
            provider: record.provider().fingerprint(),
        };
        // Its price holds from its first task on.
        let price = self.prices_of(node, order.provider, &order.region).await;
        self.order(vec![order.into(), price.into()]).await?;
        self.audit(
            &node.to_string(),
            "node.enrol",
            record.hostname(),
            record.region(),
        )
        .await;
        Ok(v1::EnrolReply {
            certificate_pem: issued.chain_pem.into(),
            expires_ms: issued.expires.0,
            server_time_ms: wall.0,
            network: self.network(),
        })
    }

    fn certify(
        &self,
        node: NodeId,
        csr: &[u8],
        wall: Millis,
        latest: Millis,
    ) -> Result<IssuedCertificate, ControlError> {
        self.issuer
            .issue(node, csr, wall, latest)
            .map_err(|error| match error {
                IssueError::BadRequest => ControlError::invalid(error.to_string()),
                IssueError::Signing(detail) => ControlError::Internal { detail },
            })
    }

    async fn take_secret(
        &self,
        secret: &[u8],
        record: &NodeRecord,
        wall: Millis,
    ) -> Result<(), ControlError> {
        let tokens = self.store.join_tokens();
        let token = tokens.take(secret, record.identity().0, wall).await;
        let token = token.map_err(|error| match error {
            JoinError::Store(error) => error.into(),
            JoinError::Unknown | JoinError::Expired | JoinError::Taken | JoinError::TooLarge => {
                refused(error)
            }
        })?;
        // The token was made for this certificate, so a stolen secret brings in no other node.
        match token.enrolment.is_empty() || token.enrolment == record.certificate().to_bytes() {
            true => Ok(()),
            false => Err(refused("the join token was made for another node")),
        }
    }

    /// Certifies a new transport key of a node that is trusted still, by its identity key's signature:
    /// the certificate that it replaces may have ended while the machine was off.
    ///
    /// *Errors*: the node is unknown or revoked, its enrolment has ended, the signature is not its own or
    /// of another time, or the request is malformed. Only who holds the key hears more than `unknown`.
    pub fn renew(&self, request: &v1::RenewRequest) -> Result<v1::RenewReply, ControlError> {
        let node = farlane_wire::id::node(&request.node)?;
        if request.csr_der.len() > MAX_REQUEST {
            return Err(ControlError::TooLarge {
                what: "csr_der",
                most: MAX_REQUEST as u64,
            });
        }
        let wall = self.wall();
        let (record, revoked) = self.record(node)?;
        let (network, at) = (self.network(), Millis(request.at_ms));
        let (csr, signature) = (&request.csr_der, &request.signature);
        renewal::verify(&record, &network, at, csr, signature, wall).map_err(|bad| match bad {
            BadRenewal::Signature => ControlError::Unproven,
            BadRenewal::Stale { skew_ms } => ControlError::ClockSkew { skew_ms },
        })?;
        if revoked {
            return Err(ControlError::NodeRevoked);
        }
        let latest = stands_until(&record, wall)?;
        let issued = self.certify(node, csr, wall, latest)?;
        Ok(v1::RenewReply {
            certificate_pem: issued.chain_pem.into(),
            expires_ms: issued.expires.0,
            server_time_ms: wall.0,
        })
    }

    /// Registers the hash of a one-time join secret.
    ///
    /// *Errors*: malformed, too long a life, or accounts are away.
    pub async fn create_join_token(
        &self,
        caller: &Caller,
        request: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenReply, ControlError> {
        let wall = self.wall();
        let hash = Digest::from_slice(&request.secret_hash)
            .map_err(|e| ControlError::invalid(e.to_string()))?;
        EnrolmentCert::from_bytes(&request.enrolment_bytes)
            .map_err(|e| ControlError::invalid(e.to_string()))?;
        let latest = wall.saturating_add(MAX_TOKEN_LIFE);
        if request.expires_ms <= wall.0 || request.expires_ms > latest.0 {
            return Err(ControlError::invalid(
                "expires_ms must lie within the next 7 days",
            ));
        }
        let new = NewJoinToken {
            hash,
            expires: Millis(request.expires_ms),
            enrolment: request.enrolment_bytes.to_vec(),
            created_by: caller.key.to_string(),
        };
        self.store
            .join_tokens()
            .create(new, wall)
            .await
            .map_err(|error| match error {
                JoinError::Store(error) => ControlError::from(error),
                other => ControlError::invalid(other.to_string()),
            })?;
        self.audit(&caller.key.to_string(), "token.create", "", "")
            .await;
        Ok(v1::CreateJoinTokenReply {
            urls: self.urls.clone(),
        })
    }

    /// Join tokens, newest first; never a secret.
    ///
    /// *Errors*: accounts are away.
    pub async fn list_join_tokens(&self) -> Result<Vec<v1::JoinTokenView>, ControlError> {
        let tokens = self.store.join_tokens().list().await?;
        let view = |token: JoinToken| v1::JoinTokenView {
            secret_hash: farlane_wire::id::digest_bytes(&token.hash),
            enrolment_bytes: token.enrolment.into(),
            created_by: token.created_by,
            created_ms: token.created.0,
            expires_ms: token.expires.0,
            taken_ms: token.taken.unwrap_or_default().0,
            taken_by: token
                .taken_by
                .map(|by| Bytes::copy_from_slice(&by))
                .unwrap_or_default(),
        };
        Ok(tokens.into_iter().map(view).collect())
    }

    /// Closes a join token that nobody has used.
    ///
    /// *Errors*: malformed, none that is open, or accounts are away.
    pub async fn revoke_join_token(
        &self,
        caller: &Caller,
        hash: &[u8],
    ) -> Result<(), ControlError> {
        let hash = farlane_wire::id::digest(hash)?;
        if !self.store.join_tokens().revoke(hash).await? {
            return Err(ControlError::UnknownToken);
        }
        let actor = caller.key.to_string();
        self.audit(&actor, "token.revoke", &hash.to_string(), "")
            .await;
        Ok(())
    }

    /// Takes a node out for good: it may not come back, and what it ran is lost. With its provider's
    /// list, granters refuse it by themselves.
    ///
    /// *Errors*: unknown, not its provider's list or not made from the newest one, or no quorum.
    pub async fn remove_node(
        &self,
        caller: &Caller,
        request: &v1::RemoveNodeRequest,
    ) -> Result<(), ControlError> {
        let node = farlane_wire::id::node(&request.node)?;
        let provider = self.consensus.read(|s| s.node(&node).map(|n| n.provider));
        let provider = provider.ok_or(ControlError::UnknownNode)?;
        let mut orders = Vec::new();
        if !request.revocations_bytes.is_empty() {
            orders.push(
                self.publish(Some(node), provider, &request.revocations_bytes)?
                    .into(),
            );
        }
        let subject = Revoked::Node(node);
        orders.push(Revoke { subject }.into());
        self.order(orders).await?;
        self.audit(
            &caller.key.to_string(),
            "node.remove",
            &node.to_string(),
            "",
        )
        .await;
        Ok(())
    }

    /// Takes up a provider's list, signed anew.
    ///
    /// *Errors*: not signed, older than the newest one, leaves out a node of it, or no quorum.
    pub async fn publish_revocations(
        &self,
        caller: &Caller,
        bytes: &Bytes,
    ) -> Result<(), ControlError> {
        let list = RevocationList::from_bytes(bytes);
        let provider = list.map_err(|e| ControlError::invalid(e.to_string()))?;
        let provider = provider.provider().fingerprint();
        let order = self.publish(None, provider, bytes)?;
        self.order(vec![order.into()]).await?;
        let (actor, provider) = (caller.key.to_string(), provider.to_string());
        self.audit(&actor, "revocations.publish", &provider, "")
            .await;
        Ok(())
    }

    /// A list that names `node`, if any, after every node that the newest one names.
    fn publish(
        &self,
        node: Option<NodeId>,
        provider: Digest,
        bytes: &Bytes,
    ) -> Result<PublishRevocations, ControlError> {
        let read = |bytes: &[u8]| {
            RevocationList::from_bytes(bytes).map_err(|e| ControlError::invalid(e.to_string()))
        };
        let list = read(bytes)?;
        let known = self.consensus.read(|s| s.revocations(&provider).cloned());
        let before = known.as_ref().map(|row| read(&row.list)).transpose()?;
        let before = before.as_ref().map_or(&[][..], RevocationList::nodes);
        let whole = before
            .iter()
            .chain(&node)
            .all(|n| list.nodes().binary_search(n).is_ok());
        if list.provider().fingerprint() != provider || !whole {
            return Err(ControlError::invalid(
                "the list is not of the node's provider, or leaves a revoked node out",
            ));
        }
        Ok(PublishRevocations {
            provider,
            after: known.map_or(Millis::ZERO, |row| row.issued),
            issued: list.issued(),
            list: list.to_bytes(),
        })
    }

    /// Leaves a line in the audit; a failure is logged and holds nothing up.
    pub(crate) async fn audit(&self, actor: &str, action: &str, subject: &str, detail: &str) {
        let entry = AuditEntry {
            at: self.wall(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        };
        if let Err(error) = self.store.audit().append(entry).await {
            tracing::warn!(%error, action, "an audit entry could not be kept");
        }
    }
}
