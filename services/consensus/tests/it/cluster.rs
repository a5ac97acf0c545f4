//! Servers with folders and URLs, that can be killed and started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farlane_consensus::{Config, Consensus, Member, PlainConnector, StartError};
use farlane_model::Digest;
use farlane_runtime::SystemClock;
use farlane_state::{Command, Genesis, Order};
use farlane_units::ByteCount;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;

/// One server in a runtime of its own, so that it can be killed as a whole.
pub struct Server {
    pub id: u64,
    pub dir: PathBuf,
    pub port: u16,
    members: Vec<Member>,
    bootstrap: bool,
    running: Option<(Runtime, Consensus)>,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

pub fn config(id: u64, dir: PathBuf, members: Vec<Member>, bootstrap: bool) -> Config {
    Config {
        id,
        dir,
        members,
        bootstrap,
        cache: ByteCount::mib(4),
        connector: Arc::new(PlainConnector),
    }
}

/// Starts a replica whose predecessor in this very process may still be ending.
async fn start_again(config: Config) -> Consensus {
    for _ in 0..500 {
        match Consensus::start(config.clone(), Arc::new(SystemClock)).await {
            Ok(consensus) => return consensus,
            Err(StartError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the folder is in use for 5 s");
}

pub fn genesis() -> Command {
    Order::Genesis(Genesis {
        network: Digest::of(b"test"),
        epoch: 1,
        cluster_version: 1,
    })
    .encode()
}

impl Server {
    pub fn new(id: u64, dir: PathBuf, port: u16, members: Vec<Member>, bootstrap: bool) -> Self {
        Self {
            id,
            dir,
            port,
            members,
            bootstrap,
            running: None,
        }
    }

    /// Starts it, or starts it again.
    pub fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = config(
            self.id,
            self.dir.clone(),
            self.members.clone(),
            self.bootstrap,
        );
        let port = self.port;
        // Blocking is fine here: each server has threads of its own.
        let consensus = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                runtime.block_on(async {
                    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
                    let consensus = start_again(config).await;
                    let service = consensus.service();
                    let incoming = TcpListenerStream::new(listener);
                    tokio::spawn(
                        tonic::transport::Server::builder()
                            .add_service(service)
                            .serve_with_incoming(incoming),
                    );
                    consensus
                })
            });
            started.join().unwrap()
        });
        self.running = Some((runtime, consensus));
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn consensus(&self) -> Consensus {
        self.running.as_ref().unwrap().1.clone()
    }

    /// Ends it in the middle of whatever it does; nothing is flushed.
    pub fn kill(&mut self) {
        if let Some((runtime, consensus)) = self.running.take() {
            // Tasks end at their next await; the threads of log and rows with the last handle.
            let ended =
                std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            ended.join().unwrap();
            drop(consensus);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Servers 1 to 3, founded together.
pub fn three(dir: &std::path::Path) -> Vec<Server> {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let members: Vec<Member> = (1..=3)
        .map(|id| Member {
            id,
            url: url(ports[id as usize - 1]),
        })
        .collect();
    let mut servers: Vec<Server> = (1..=3u64)
        .map(|id| {
            Server::new(
                id,
                dir.join(id.to_string()),
                ports[id as usize - 1],
                members.clone(),
                true,
            )
        })
        .collect();
    servers.iter_mut().for_each(Server::start);
    servers
}

/// Waits until one of the running servers may act as the leader, and gives its position.
pub async fn leader(servers: &[Server]) -> usize {
    for _ in 0..1500 {
        for (at, server) in servers.iter().enumerate() {
            if server.is_running() && server.consensus().leadership().borrow().mine {
                return at;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no leader within 15 s");
}

/// Waits until the condition holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 30 s: {what}");
}
