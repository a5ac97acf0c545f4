//! The provider's list of removed machines: signed here, published to a network, and renewed in time.
//!
//! Granters refuse a provider's machines when the newest list they have seen is older than a day, so that
//! no control plane can keep a removal from them. Whoever holds the provider's root therefore signs a
//! fresh one every few hours, changed or not.

use std::sync::Arc;
use std::time::Duration;

use farlane::{ConnectOptions, Identity, Network, v1};
use farlane_model::NodeId;
use farlane_runtime::Shutdown;
use farlane_seal::record::RevocationList;
use farlane_units::Millis;

use crate::owner::Owner;
use crate::problem::Problem;
use crate::show;

/// A list is signed anew at this age: a quarter of the 24 hours after which granters refuse it, so that
/// a night without power is no matter.
const RENEW_AT: Millis = Millis(6 * 3600 * 1000);
/// How often its age is looked at. The clock that counts is the wall's, which goes on while a machine
/// sleeps; within the 30 s that granters wait for a list of one that wakes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Whose list is kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The founder's, whose first machine is about to join.
    Founder,
    /// Anybody's with provider's keys, once a machine of theirs is on the network.
    WithMachines,
}

/// Signs the list anew and publishes it.
///
/// *Errors*: the network does not answer or refuses, or the list cannot be kept.
pub async fn publish(owner: &Owner, network: &Network) -> Result<RevocationList, Problem> {
    let reply = network.list_nodes(v1::ListNodesRequest {}).await?;
    publish_after(owner, network, &reply).await
}

async fn publish_after(
    owner: &Owner,
    network: &Network,
    reply: &v1::ListNodesReply,
) -> Result<RevocationList, Problem> {
    let list = sign(owner, &reply.revocations_bytes, None)?;
    let request = v1::PublishRevocationsRequest {
        revocations_bytes: list.to_bytes(),
    };
    network.publish_revocations(request).await?;
    Ok(list)
}

/// The owner's list as of now, with what the network shows of it and with `removed`.
///
/// *Errors*: the list cannot be signed or kept.
pub fn sign(
    owner: &Owner,
    shown: &[impl AsRef<[u8]>],
    removed: Option<NodeId>,
) -> Result<RevocationList, Problem> {
    owner.revocations(shown, removed, Millis(show::now_ms()))
}

/// Publishes at once, and again in time, until shutdown. A failure is tried again and said once.
pub async fn keep_fresh(owner: Arc<Owner>, identity: Identity, of: Of, shutdown: Shutdown) {
    let mut issued = Millis::ZERO;
    let mut told = false;
    while !shutdown.is_requested() {
        let age = Millis(show::now_ms()).saturating_sub(issued);
        if age >= RENEW_AT {
            match renew(&owner, &identity, of).await {
                Ok(Some(list)) => (issued, told) = (list.issued(), false),
                Ok(None) => {}
                Err(problem) if !told => {
                    told = true;
                    eprintln!(
                        "farlane: the list of removed machines could not be renewed: {}; trying on",
                        problem.what()
                    );
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// `None` where there is nothing to renew.
async fn renew(
    owner: &Owner,
    identity: &Identity,
    of: Of,
) -> Result<Option<RevocationList>, Problem> {
    // Each time anew: servers may have moved in six hours.
    let network = Network::connect(identity.clone(), ConnectOptions::default()).await?;
    let reply = network.list_nodes(v1::ListNodesRequest {}).await?;
    let own = owner.provider.public().fingerprint();
    let has_machines = reply.nodes.iter().any(|node| node.provider[..] == own.0);
    match of == Of::Founder || has_machines {
        true => publish_after(owner, &network, &reply).await.map(Some),
        false => Ok(None),
    }
}
