//! A server's accounts and its replica: opened, and a new network founded.

use std::sync::Arc;

use farlane_consensus::{Config, Consensus, Member, PlainConnector};
use farlane_controller::ControlError;
use farlane_model::Digest;
use farlane_runtime::{Clock, Entropy, SystemEntropy};
use farlane_state::{Genesis, Order, Outcome, Refusal};
use farlane_store::{Pepper, Store};

use crate::ca::Authority;
use crate::config::ServerConfig;
use crate::peers::TlsConnector;
use crate::start::{ServerError, file_error};

pub(crate) async fn open_store(
    config: &ServerConfig,
    authority: &Authority,
) -> Result<Store, ServerError> {
    let path = config.data.join("pepper");
    let pepper = Pepper::load_or_create(&path).map_err(file_error(&path))?;
    let url = match config.database.as_str() {
        "" => format!("sqlite://{}", config.data.join("accounts.db").display()),
        url => url.to_owned(),
    };
    let store = Store::open(&url, pepper).await?;
    match store.is_alike("ca", &authority.root_print().0).await? {
        true => Ok(store),
        false => Err(ServerError::OtherAuthority {
            dir: config.data.join("ca"),
        }),
    }
}

pub(crate) async fn open_consensus(
    config: &ServerConfig,
    urls: &[String],
    authority: &Arc<Authority>,
    clock: Arc<dyn Clock>,
) -> Result<Consensus, ServerError> {
    let own = Member {
        id: config.id,
        url: urls.first().cloned().unwrap_or_default(),
    };
    let members: Vec<Member> = match config.members.as_slice() {
        [] => vec![own],
        some => some
            .iter()
            .map(|m| Member {
                id: m.id,
                url: m.url.clone(),
            })
            .collect(),
    };
    let alone = members.len() == 1;
    let server = config.id;
    let dialled = TlsConnector {
        authority: authority.clone(),
        server,
        clock: clock.clone(),
    };
    let raft = Config {
        id: config.id,
        dir: config.data.join("raft"),
        members,
        bootstrap: config.found,
        cache: config.cache,
        connector: if alone {
            Arc::new(PlainConnector)
        } else {
            Arc::new(dialled)
        },
    };
    Ok(Consensus::start(raft, clock).await?)
}

pub(crate) fn voters(config: &ServerConfig, urls: &[String]) -> Vec<String> {
    match config.members.as_slice() {
        [] => urls.iter().take(1).cloned().collect(),
        some => some.iter().map(|m| m.url.clone()).collect(),
    }
}

/// Names the network, once. A server that does not lead yet leaves it to the one that does.
pub(crate) async fn found(consensus: &Consensus, config: &ServerConfig) -> Result<(), ServerError> {
    if !config.found || consensus.read(|s| s.is_founded()) {
        return Ok(());
    }
    let mut name = [0; 32];
    SystemEntropy.fill(&mut name);
    let order = Order::Genesis(Genesis {
        network: Digest(name),
        epoch: 1,
        cluster_version: 1,
    });
    if config.members.len() > 1 {
        tokio::spawn(found_when_led(consensus.clone(), order));
        return Ok(());
    }
    let proposed = consensus.propose(vec![order.encode()]).await;
    let proposed = proposed.map_err(|e| ServerError::Founding(e.into()))?;
    match proposed.outcomes.first() {
        Some(Outcome::Done | Outcome::Refused(Refusal::AlreadyFounded)) => Ok(()),
        other => {
            let detail = format!("{other:?}");
            Err(ServerError::Founding(ControlError::Internal { detail }))
        }
    }
}

/// Of several founders, whoever leads first names the network.
async fn found_when_led(consensus: Consensus, order: Order) {
    let mut leadership = consensus.leadership();
    loop {
        if consensus.read(|s| s.is_founded()) {
            return;
        }
        if leadership.borrow_and_update().mine
            && consensus.propose(vec![order.encode()]).await.is_ok()
        {
            return;
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
