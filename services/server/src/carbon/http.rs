//! One GET over HTTP/1.1, with or without TLS: no redirects, no cookies, no proxies.

use std::sync::Arc;

use farlane_controller::FeedError;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is asked.
#[derive(Debug)]
pub(super) struct Address {
    tls: bool,
    host: String,
    port: u16,
    /// As the `host` header has it.
    authority: String,
    path: String,
}

impl Address {
    /// *Errors*: not an address, in words.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "a file, or an address like https://grid.example/hours.csv";
        let uri: http::Uri = text.parse().map_err(|_| WANTED)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WANTED),
        };
        let authority = uri.authority().filter(|a| !a.as_str().contains('@'));
        let authority = authority.ok_or(WANTED)?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(WANTED);
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }
}

fn reach(error: impl std::fmt::Display) -> FeedError {
    FeedError::Reach {
        why: error.to_string(),
    }
}

/// What an address answers, at most `most` bytes of it. The caller bounds the time.
///
/// *Errors*: no connection, another status than 200, or more bytes than that.
pub(super) async fn get(address: &Address, most: u64) -> Result<Vec<u8>, FeedError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(reach)?;
    if !address.tls {
        return ask(stream, address, most).await;
    }
    // The Web's own roots: a feed is nobody's whom the network certifies.
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(reach)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(address.host.clone()).map_err(reach)?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(reach)?;
    ask(stream, address, most).await
}

async fn ask<S>(stream: S, address: &Address, most: u64) -> Result<Vec<u8>, FeedError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(reach)?;
    let request = Request::get(&address.path)
        .header("host", &address.authority)
        .header("accept", "application/json, text/csv")
        .header("user-agent", concat!("farlane/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(reach)?;
    let exchange = async {
        let reply = sender.send_request(request).await.map_err(reach)?;
        if reply.status() != 200 {
            let status = reply.status().as_u16();
            return Err(FeedError::Status { status });
        }
        let mut body = reply.into_body();
        if body.size_hint().lower() > most {
            return Err(FeedError::TooLarge { most });
        }
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(reach)?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() as u64 > most {
                return Err(FeedError::TooLarge { most });
            }
        }
        Ok(bytes)
    };
    // Both on this task, so that giving up ends the connection too.
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => return done,
        ended = connection => ended.map_err(reach)?,
    }
    exchange.await
}
