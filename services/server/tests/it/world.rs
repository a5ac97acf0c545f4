//! One network: a server in a runtime of its own, so that it can be killed, and who trusts whom.

use std::future::Future;
use std::time::Duration;

use farlane_model::Tier;
use farlane_runtime::{Clock, Shutdown, SystemClock};
use farlane_seal::record::{
    DeviceRecord, DeviceTerms, EnrolmentCert, EnrolmentTerms, Manifest, ManifestTerms, NodeRecord,
    ProviderPin,
};
use farlane_seal::vault::VaultSecret;
use farlane_seal::{DeviceKey, EnrolmentSeed, NodeIdentity, ProviderRoot, TenantRoot};
use farlane_server::{Running, Server, ServerConfig};
use farlane_units::Millis;

pub struct World {
    runtime: Option<tokio::runtime::Runtime>,
    pub running: Option<Running>,
    pub shutdown: Shutdown,
    config: ServerConfig,
    pub key: String,
    pub project: farlane_model::ProjectId,
    pub provider: ProviderRoot,
    pub tenant: TenantRoot,
    pub device: DeviceKey,
    pub device_record: DeviceRecord,
    pub manifest: Manifest,
    pub vault: VaultSecret,
    /// Instead of this server's own address: another server of the cluster.
    pub front: Option<String>,
    ca_pem: String,
    dir: tempfile::TempDir,
}

pub fn wall() -> Millis {
    SystemClock.wall()
}

pub fn year() -> Millis {
    wall().saturating_add(Millis(365 * 86_400_000))
}

/// Fails rather than hangs.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited 20 s for {what}"),
    }
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(dir.path());
        change(&mut config);
        let mut world = Self::unstarted(dir, config);
        world.boot().await;
        world.let_owner_in().await;
        world
    }

    pub async fn let_owner_in(&mut self) {
        let owner = self.running().bootstrap_owner(None).await.unwrap();
        (self.key, self.project) = (owner.api_key, owner.project);
    }

    pub fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Who trusts whom, and no server yet.
    pub fn unstarted(dir: tempfile::TempDir, config: ServerConfig) -> Self {
        let (provider, tenant, device) = (
            ProviderRoot::generate(),
            TenantRoot::generate(),
            DeviceKey::generate(),
        );
        let terms = DeviceTerms {
            tenant_root: tenant.public(),
            device: device.public(),
            name: "laptop".into(),
            may_grant: true,
            not_after: year(),
        };
        let device_record = DeviceRecord::sign(&tenant, terms).unwrap();
        let pin = ProviderPin {
            root: provider.public(),
            name: "own".into(),
            own: true,
        };
        let terms = ManifestTerms {
            tenant_root: tenant.public(),
            version: 1,
            not_after: year(),
            providers: vec![pin],
            devices: vec![device.public()],
            granters: vec![device.public()],
        };
        let manifest = Manifest::sign(&tenant, terms).unwrap();
        Self {
            runtime: None,
            running: None,
            shutdown: Shutdown::new(),
            config,
            key: String::new(),
            project: farlane_model::ProjectId::new(1, [0; 10]),
            provider,
            tenant,
            device,
            device_record,
            manifest,
            vault: VaultSecret::generate(),
            front: None,
            ca_pem: String::new(),
            dir,
        }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }
    pub fn urls(&self) -> Vec<String> {
        match &self.front {
            Some(url) => vec![url.clone()],
            None => self.running().urls().to_vec(),
        }
    }
    pub fn ca(&self) -> String {
        match &self.running {
            Some(running) => running.ca_pem().to_owned(),
            None => self.ca_pem.clone(),
        }
    }

    /// Starts the server, in a runtime of its own; waits while a killed one still holds its files.
    pub async fn boot(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        self.shutdown = Shutdown::new();
        for attempt in 0..100 {
            let start = Server::start(self.config.clone(), self.shutdown.clone());
            match runtime.spawn(start).await.unwrap() {
                Ok(running) => {
                    self.running = Some(running);
                    self.runtime = Some(runtime);
                    return;
                }
                Err(error) if attempt == 99 => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Ends the server without a word to anybody, flushing nothing.
    pub fn kill(&mut self) {
        self.ca_pem = self.ca();
        self.running = None;
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Kills it and starts it again.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.boot().await;
    }

    /// An enrolment of a machine, as its provider would sign it.
    pub fn enrolment(&self, region: &str) -> (NodeIdentity, NodeRecord) {
        let (seed, cert) = self.promise(region, year());
        let identity = NodeIdentity::generate();
        let record = NodeRecord::make(&identity, &seed, &cert, "host").unwrap();
        (identity, record)
    }

    /// What a join file holds: the provider's word for a machine, and the seed that proves it.
    pub fn promise(&self, region: &str, not_after: Millis) -> (EnrolmentSeed, EnrolmentCert) {
        self.promise_with(region, &[("disk", "nvme")], not_after)
    }

    /// The same with other labels.
    pub fn promise_with(
        &self,
        region: &str,
        labels: &[(&str, &str)],
        not_after: Millis,
    ) -> (EnrolmentSeed, EnrolmentCert) {
        let label = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let seed = EnrolmentSeed::generate();
        let terms = EnrolmentTerms {
            enrolment: seed.public(),
            provider: self.provider.public(),
            region: region.into(),
            tier: Tier::Namespaces,
            labels: labels.iter().map(label).collect(),
            price_usd_micros_core_hour: Some(farlane_units::UsdMicros(36_000_000)),
            not_after,
        };
        let cert = EnrolmentCert::sign(&self.provider, terms).unwrap();
        (seed, cert)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
