//! The handle on a running agent.

use std::future::Future;

use farlane_model::NodeId;
use tokio::sync::{oneshot, watch};

use crate::{AgentConfig, AgentError, StartError};

/// A running agent. Dropping it does not stop it; its shutdown does.
#[derive(Debug)]
pub struct Agent {
    node: NodeId,
    connected: watch::Receiver<bool>,
    ended: oneshot::Receiver<Result<(), AgentError>>,
}

impl Agent {
    /// Probes this machine, joins the network where that has not happened yet, and serves until
    /// `shutdown` is ready. Returns once joined; the connection is made and remade in the background.
    ///
    /// *Errors*: see [`StartError`]; nothing runs then.
    pub async fn start(
        config: AgentConfig,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartError> {
        let _ = (config, shutdown);
        Err(StartError::NotJoined)
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Waits until the control plane has taken this node for the first time.
    pub async fn connected(&mut self) {
        let _ = self.connected.wait_for(|yes| *yes).await;
    }

    /// Waits until it has stopped, its workers included.
    ///
    /// *Errors*: why it stopped by itself.
    pub async fn wait(self) -> Result<(), AgentError> {
        self.ended.await.unwrap_or(Err(AgentError::Crashed))
    }
}
