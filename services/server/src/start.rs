//! Starting and stopping, in order.
//!
//! ```text
//! certificates, port ─▶ accounts, blobs, output ─▶ consensus ─▶ (founded?) ─▶ controller ─▶ serve
//! stop: streams end ─▶ loops end ─▶ connections drain ─▶ consensus flushes ─▶ accounts close
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farlane_consensus::{Consensus, Failure, StartError};
use farlane_controller::{CarbonFeed, ControlError, Controller, LogError, LogStore, Parts};
use farlane_runtime::{Clock, Shutdown, SystemClock};
use farlane_store::{Store, StoreError};
use farlane_transfer::{BlobError, FileBlobStore, Limits};
use farlane_units::ByteCount;
use farlane_wire::channel::{
    CONNECTION_WINDOW, KEEPALIVE, KEEPALIVE_TIMEOUT, MAX_FRAME, STREAM_WINDOW,
};
use farlane_wire::v1::ServerAt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;

use crate::audit;
use crate::ca::{Authority, CaError};
use crate::carbon::Feed;
use crate::config::{ConfigError, ServerConfig};
use crate::listener::{CurrentCertificate, TlsConnection, TlsError, accept, tls_config};
use crate::opening::{found, open_consensus, open_store, voters};
use crate::owner::{self, Owner};
use crate::peers::servers_only;

/// How often the server's own certificate is made anew. Source: a fourteenth of its life.
const RENEW: Duration = Duration::from_secs(12 * 3600);
/// How long open connections may take to end after their streams were told to.
const DRAIN: Duration = Duration::from_secs(2);
/// What a project may upload in small blobs where its results fill its bound. Chosen: some thousand functions
/// of the usual ten KiB, and nothing beside the smallest bound of a network.
const BLOB_RESERVE: ByteCount = ByteCount::mib(64);

/// Why a server did not start, or not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Settings that do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder of the data folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The port cannot be had. Stop what holds it, or name another with `--listen`.
    #[error("cannot listen on {address}: {source}; name another address with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The network's certificates.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The accounts are of a network with another root: clients and machines would believe no word of
    /// this server.
    #[error(
        "{dir} holds another root certificate than the network of these accounts has; put its root.key \
         and root.pem there: from a copy of this server's folder, or from another server of the network"
    )]
    OtherAuthority {
        /// Where.
        dir: PathBuf,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Accounts.
    #[error("accounts cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// Blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Output.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// The log and the state.
    #[error(transparent)]
    Consensus(#[from] StartError),
    /// The network could not be founded.
    #[error("the network could not be founded: {0}")]
    Founding(ControlError),
    /// Serving ended by itself.
    #[error("serving ended: {0}")]
    Serving(String),
    /// The replica stopped by itself, and says why: a full disk, most often. Mend that and start the
    /// server again; nothing acknowledged is lost.
    #[error("{0}")]
    Replica(#[from] Failure),
}

impl ServerError {
    /// Whether another build of Farlane may have written what this one cannot read.
    pub fn is_of_another_build(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::OtherBuild { .. })
                | Self::Consensus(StartError::StateFile { .. } | StartError::Rows { .. })
        )
    }
}

/// Starts servers.
pub struct Server;

/// A server at work. It stops with the shutdown that it was started with.
pub struct Running {
    urls: Vec<String>,
    ca_pem: String,
    local_addr: SocketAddr,
    consensus: Consensus,
    store: Store,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    closing: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    /// Starts a server; it answers when this returns.
    ///
    /// *Errors*: see [`ServerError`]; nothing runs on then.
    pub async fn start(config: ServerConfig, shutdown: Shutdown) -> Result<Running, ServerError> {
        config.check()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        std::fs::create_dir_all(&config.data).map_err(file_error(&config.data))?;
        let authority = Arc::new(Authority::open(
            &config.data.join("ca"),
            config.id,
            clock.wall(),
        )?);
        let (listener, local_addr) = listen(&config).await?;
        let names = names(&config, local_addr.ip());
        let urls: Vec<String> = hosts(&config, local_addr.ip())
            .into_iter()
            .map(|host| format!("https://{}:{}", bracketed(&host), local_addr.port()))
            .collect();
        let first = authority.server_certificate(config.id, &names, clock.wall())?;
        let certificate = CurrentCertificate::new(first)?;
        let tls = tls_config(authority.root_pem(), certificate.clone())?;
        renew(
            authority.clone(),
            certificate,
            config.id,
            names,
            clock.clone(),
            &shutdown,
        );

        let store = open_store(&config, &authority).await?;
        let limits = Limits {
            blob: config.blob_limit,
            project: config.blob_project,
            reserve: BLOB_RESERVE,
            total: config.blob_total,
        };
        let blobs = FileBlobStore::open(config.blob_folder(), config.id, limits)?;
        let logs = LogStore::open(config.data.join("logs"))?;
        let consensus = open_consensus(&config, &urls, &authority, clock.clone()).await?;
        found(&consensus, &config).await?;
        let controller = Controller::start(Parts {
            consensus: consensus.clone(),
            store: store.clone(),
            blobs: Arc::new(blobs),
            logs,
            clock: clock.clone(),
            issuer: authority.clone(),
            shutdown: shutdown.clone(),
            server: config.id,
            homes: config.homes(),
            others: others(&config),
            name: format!("server {}", config.id),
            urls: urls.clone(),
            blob_limit: config.blob_limit.0,
            voters: voters(&config, &urls),
            carbon: feed(&config),
            audit: audit::settings(&config),
        });
        let incoming = accept(listener, tls, &shutdown);
        let serving = serve(controller, &consensus, incoming, &shutdown);
        let closing = shutdown.spawn(close(
            shutdown.clone(),
            serving,
            consensus.clone(),
            store.clone(),
        ));
        let ca_pem = authority.root_pem().to_owned();
        Ok(Running {
            urls,
            ca_pem,
            local_addr,
            consensus,
            store,
            clock,
            shutdown,
            closing,
        })
    }
}

impl Running {
    /// Where it is reached, the best address first.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }
    /// The network's root certificate, which clients and nodes pin.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
    /// The network's id; zero while several founding servers have not met yet.
    pub fn network(&self) -> [u8; 32] {
        self.consensus.read(|s| s.network()).0
    }
    /// Waits until the network is founded, which several servers do only together; false where the
    /// replica failed before.
    pub async fn founded(&self) -> bool {
        let founding = async {
            loop {
                let applied = self.consensus.applied_index();
                if self.consensus.read(|s| s.is_founded()) {
                    return;
                }
                self.consensus.wait_applied(applied + 1).await;
            }
        };
        tokio::select! {
            biased;
            _ = self.consensus.failed() => false,
            () = founding => true,
        }
    }
    /// The founder's project and key: `held`, if it is good still, else a new one.
    ///
    /// *Errors*: accounts cannot be read or written.
    pub async fn bootstrap_owner(&self, held: Option<&str>) -> Result<Owner, ServerError> {
        Ok(owner::ensure(&self.store, self.clock.as_ref(), held).await?)
    }
    /// Stops it, and waits until everything is on disk.
    ///
    /// *Errors*: serving had ended by itself.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.shutdown.trigger();
        self.closing
            .await
            .unwrap_or_else(|e| Err(ServerError::Serving(e.to_string())))
    }
}

pub(crate) fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> ServerError + '_ {
    move |source| ServerError::File {
        path: path.to_owned(),
        source,
    }
}

/// The servers beside this one, as agents are told of them.
fn others(config: &ServerConfig) -> Vec<ServerAt> {
    let others = config.members.iter().filter(|m| m.id != config.id);
    let others = others.map(|m| ServerAt {
        server: m.id,
        url: m.url.clone(),
    });
    others.collect()
}

/// The carbon feed that the configuration names.
fn feed(config: &ServerConfig) -> Option<Arc<dyn CarbonFeed>> {
    // What is none was refused when the setting was read.
    let feed = Feed::new(&config.carbon).ok()?;
    (!config.carbon.is_empty()).then(|| Arc::new(feed) as Arc<dyn CarbonFeed>)
}

/// Serves every connection with every service.
fn serve(
    controller: Arc<Controller>,
    consensus: &Consensus,
    incoming: mpsc::Receiver<std::io::Result<TlsConnection>>,
    shutdown: &Shutdown,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let router = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(farlane_api::network_service(controller.clone()))
        .add_service(farlane_api::fleet_service(controller))
        .add_service(InterceptedService::new(consensus.service(), servers_only));
    let incoming = ReceiverStream::new(incoming);
    tokio::spawn(router.serve_with_incoming_shutdown(incoming, shutdown.requested()))
}

/// Ends what is left once the shutdown was asked for, serving ended or the replica failed.
async fn close(
    shutdown: Shutdown,
    mut serving: JoinHandle<Result<(), tonic::transport::Error>>,
    consensus: Consensus,
    store: Store,
) -> Result<(), ServerError> {
    let mut failed = None;
    let ended = tokio::select! {
        () = shutdown.requested() => tokio::time::timeout(DRAIN, &mut serving).await.ok(),
        ended = &mut serving => Some(ended),
        // A server without a replica would refuse everything for ever.
        failure = consensus.failed() => {
            failed = Some(failure);
            None
        }
    };
    shutdown.trigger();
    serving.abort();
    consensus.shutdown().await;
    store.close().await;
    if let Some(failure) = failed {
        return Err(failure.into());
    }
    match ended {
        Some(Ok(Err(error))) => Err(ServerError::Serving(error.to_string())),
        _ => Ok(()),
    }
}

/// Listens where the configuration says; a port that was chosen once is kept.
async fn listen(config: &ServerConfig) -> Result<(TcpListener, SocketAddr), ServerError> {
    let file = config.data.join("port");
    let mut address = config.listen;
    if address.port() == 0 {
        let kept = match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(file_error(&file)(e)),
        };
        address.set_port(kept);
    }
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    if config.listen.port() == 0 {
        std::fs::write(&file, format!("{}\n", local.port())).map_err(file_error(&file))?;
    }
    Ok((listener, local))
}

/// Names under which others may reach this server, the best first.
fn hosts(config: &ServerConfig, ip: IpAddr) -> Vec<String> {
    let mut hosts = config.advertise.clone();
    let own = match ip {
        ip if !ip.is_unspecified() => ip.to_string(),
        IpAddr::V4(_) => "127.0.0.1".to_owned(),
        IpAddr::V6(_) => "::1".to_owned(),
    };
    if !hosts.contains(&own) {
        hosts.push(own);
    }
    hosts
}

/// Names in this server's certificate.
fn names(config: &ServerConfig, ip: IpAddr) -> Vec<String> {
    let mut names = hosts(config, ip);
    names.push("localhost".to_owned());
    names.sort();
    names.dedup();
    names
}

fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

/// Makes the server's certificate anew, long before it ends.
fn renew(
    authority: Arc<Authority>,
    current: Arc<CurrentCertificate>,
    server: u64,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    shutdown: &Shutdown,
) {
    let stop = shutdown.requested();
    shutdown.spawn(async move {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(RENEW) => {}
            }
            let renewed = authority.server_certificate(server, &names, clock.wall());
            match renewed
                .map_err(ServerError::from)
                .and_then(|c| Ok(current.replace(c)?))
            {
                Ok(()) => tracing::debug!("the server's certificate was renewed"),
                Err(error) => {
                    tracing::error!(%error, "the server's certificate could not be renewed")
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_state::Command;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_whose_replica_fails_ends_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let running = Server::start(ServerConfig::new(dir.path()), shutdown.clone());
        let running = running.await.unwrap();
        let unknown = Command {
            kind: u16::MAX,
            version: 1,
            body: bytes::Bytes::new(),
        };
        assert!(running.consensus.propose(vec![unknown]).await.is_err());
        let ended = tokio::time::timeout(Duration::from_secs(20), shutdown.requested()).await;
        ended.unwrap();
        let error = running.stop().await.unwrap_err();
        assert!(
            matches!(&error, ServerError::Replica(failure) if failure.reason.contains("start a build")),
            "{error}"
        );
    }
}
