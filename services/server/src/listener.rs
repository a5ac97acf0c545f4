//! The one port: TLS with optional client certificates.
//!
//! Owns the accept loop, the handshakes and who a peer is by its certificate. Leaves what that peer
//! may do to `farlane-api`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use farlane_api::Peer;
use farlane_model::NodeId;
use farlane_runtime::Shutdown;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::ca::{NODE_UNIT, SERVER_UNIT, ServerCertificate};

/// A handshake that takes longer is dropped. Source: twice the slowest round trip on Earth by
/// satellite (600 ms) for each of its flights, rounded up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the listener's backlog. Each holds a few KiB.
const HANDSHAKES: usize = 256;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate does not fit.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The root cannot be read.
    #[error("TLS cannot be set up: {0}")]
    Root(String),
}

/// The certificate in force, which renewal replaces.
#[derive(Debug)]
pub(crate) struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl CurrentCertificate {
    pub(crate) fn new(certificate: ServerCertificate) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(
            certificate,
        )?))))
    }
    pub(crate) fn replace(&self, certificate: ServerCertificate) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(certificate)?));
        Ok(())
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(certificate: ServerCertificate) -> Result<CertifiedKey, TlsError> {
    let key = rustls::crypto::ring::sign::any_supported_type(&certificate.key)?;
    Ok(CertifiedKey::new(certificate.chain, key))
}

/// TLS settings: this certificate, and client certificates of this root where a peer has one.
pub(crate) fn tls_config(
    root_pem: &str,
    certificate: Arc<CurrentCertificate>,
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|e| TlsError::Root(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| TlsError::Root(e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A connection after its handshake.
pub(crate) struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for TlsConnection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts until shutdown, each handshake on its own, and hands the connections on.
pub(crate) fn accept(
    listener: TcpListener,
    config: rustls::ServerConfig,
    shutdown: &Shutdown,
) -> mpsc::Receiver<std::io::Result<TlsConnection>> {
    let (ready, connections) = mpsc::channel(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let limit = Arc::new(Semaphore::new(HANDSHAKES));
    let stop = shutdown.requested();
    shutdown.spawn(async move {
        tokio::pin!(stop);
        loop {
            let Ok(permit) = limit.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: others must close first.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(connection) = handshake(&acceptor, stream, address).await {
                    // The receiver is gone only at shutdown.
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    });
    connections
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<TlsConnection> {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = peer_of(address, stream.get_ref().1.peer_certificates());
            Some(TlsConnection { stream, peer })
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake took too long");
            None
        }
    }
}

/// Who a peer is by its certificate, whose chain and dates rustls has checked.
fn peer_of(address: SocketAddr, certificates: Option<&[CertificateDer<'_>]>) -> Peer {
    let role = certificates.and_then(<[_]>::first).and_then(|leaf| {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let unit = leaf
            .subject()
            .iter_organizational_unit()
            .next()?
            .as_str()
            .ok()?;
        let common = leaf.subject().iter_common_name().next()?.as_str().ok()?;
        match unit {
            NODE_UNIT => common.parse::<NodeId>().ok().map(|n| (Some(n), None)),
            SERVER_UNIT => common.parse::<u64>().ok().map(|s| (None, Some(s))),
            _ => None,
        }
    });
    let (node, server) = role.unwrap_or((None, None));
    Peer {
        address,
        node,
        server,
    }
}
