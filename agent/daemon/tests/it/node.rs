//! The agent under test, in this process.

use std::time::Duration;

use farlane_daemon::{Agent, AgentConfig};
use farlane_runtime::Shutdown;

use crate::network::Network;

/// A node of this network, running in this process.
pub struct Node {
    pub agent: Agent,
    shutdown: Shutdown,
}

impl Node {
    pub async fn start(network: &Network, config: AgentConfig) -> Self {
        let shutdown = Shutdown::new();
        let mut agent = Agent::start(config, shutdown.requested()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), agent.connected())
            .await
            .unwrap();
        network
            .until("prekeys", |seen| (!seen.prekeys.is_empty()).then_some(()))
            .await;
        Self { agent, shutdown }
    }

    pub async fn stop(self) {
        self.shutdown.trigger();
        self.agent.wait().await.unwrap();
    }
}

/// A config whose state folder everybody may pass, as /var/lib/farlane's parents are.
pub fn config(network: &Network, dir: &std::path::Path) -> AgentConfig {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = AgentConfig::new(dir.join("state"));
    config.join_file = Some(network.join_file());
    config.own_tenants = vec![network.tenant.public().tenant()];
    config
}
