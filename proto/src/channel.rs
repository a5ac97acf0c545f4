//! Connections: the settings both ends agree on, and the client's end of them.
//!
//! TLS is rustls with ring, against the network's own certificate authority and no other; the name
//! in a server's certificate is [`SERVER_NAME`] whatever its address, because addresses are what a
//! person can reach, not who a server is.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::code::ErrorCode;

/// The name that every server's certificate carries.
pub const SERVER_NAME: &str = "farlane";
/// Interval of HTTP/2 pings, both ways. Source: below the 30 s after which NATs begin to forget.
pub const KEEPALIVE: Duration = Duration::from_secs(10);
/// A ping unanswered for so long ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For TCP and TLS together, each address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 window of a stream. Source: 100 MB/s over a round trip of 40 ms.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// HTTP/2 window of a connection.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Largest HTTP/2 frame. Source: a batch of 256 KiB in one.
pub const MAX_FRAME: u32 = 256 * 1024;
/// Largest message decoded. Source: a batch of 512 results of 16 KiB, and its envelope.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// No address could be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There was none to try.
    #[error("no address is given")]
    NoUrl,
    /// Not an https address.
    #[error("{url:?} is not an address; write https://HOST:PORT")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// The certificate authority or the client's certificate cannot be read.
    #[error("the certificates for {url} cannot be used")]
    BadCertificates {
        /// For which address.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Nothing answered as the network should.
    #[error("{urls} cannot be reached: {reason}")]
    Unreachable {
        /// Those tried.
        urls: String,
        /// The last error with its causes, in one line.
        reason: String,
        /// The last error.
        source: tonic::transport::Error,
    },
}

/// How one address is dialled.
///
/// *Errors*: not an https address, or certificates that cannot be read.
pub fn endpoint(
    url: &str,
    ca_pem: impl AsRef<[u8]>,
    identity: Option<(&str, &str)>,
) -> Result<Endpoint, ConnectError> {
    let bad_url = || ConnectError::BadUrl {
        url: url.to_owned(),
    };
    if !url.starts_with("https://") {
        return Err(bad_url());
    }
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca_pem))
        .domain_name(SERVER_NAME)
        .timeout(CONNECT_TIMEOUT);
    if let Some((certificate_pem, key_pem)) = identity {
        tls = tls.identity(Identity::from_pem(certificate_pem, key_pem));
    }
    Endpoint::from_shared(url.to_owned())
        .map_err(|_| bad_url())?
        .tls_config(tls)
        .map_err(|source| ConnectError::BadCertificates {
            url: url.to_owned(),
            source,
        })
        .map(settings)
}

/// The agreed settings, without TLS: for tests of rooms above and tools behind a tunnel.
pub fn settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
}

/// Connects to the first of `urls` that answers as a server of the network of `ca_pem`.
///
/// `identity` is the certificate chain and key, in PEM, that the client shows (agents, servers).
/// Allow messages of [`MAX_MESSAGE`] on clients made of the channel.
///
/// *Errors*: none answers; the error names them and the last cause.
pub async fn connect(
    urls: &[String],
    ca_pem: impl AsRef<[u8]>,
    identity: Option<(&str, &str)>,
) -> Result<Channel, ConnectError> {
    let mut last = None;
    for url in urls {
        match endpoint(url, ca_pem.as_ref(), identity)?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = Some(error),
        }
    }
    let source = last.ok_or(ConnectError::NoUrl)?;
    let reason = causes(&source);
    Err(ConnectError::Unreachable {
        urls: urls.join(", "),
        reason,
        source,
    })
}

/// An error with its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        next = cause.source();
    }
    text
}

/// Authenticates a request by an API key. A key that cannot stand in a header is left out, and the
/// server answers `unauthenticated`.
pub fn authorize(metadata: &mut MetadataMap, api_key: &str) {
    if let Ok(value) = bearer_value(api_key) {
        metadata.insert("authorization", value);
    }
}

/// The API key of a request: what [`authorize`] put there.
///
/// *Errors*: there is none.
pub fn api_key(metadata: &MetadataMap) -> Result<&str, Status> {
    let missing = || ErrorCode::Unauthenticated.status("no API key was sent");
    let value = metadata.get("authorization").ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    text.strip_prefix("Bearer ")
        .filter(|key| !key.is_empty())
        .ok_or_else(missing)
}

fn bearer_value(api_key: &str) -> Result<MetadataValue<Ascii>, ErrorCode> {
    let value = format!("Bearer {api_key}").parse::<MetadataValue<Ascii>>();
    let mut value = value.map_err(|_| ErrorCode::Unauthenticated)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Authenticates every request of a client by an API key.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

/// An interceptor that sends `api_key` with every request.
///
/// *Errors*: the key has characters that no key has.
pub fn bearer(api_key: &str) -> Result<Bearer, Status> {
    let value = bearer_value(api_key);
    value
        .map(Bearer)
        .map_err(|code| code.status("the API key has characters that no key has"))
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_travel_in_the_authorization_header() {
        let mut metadata = MetadataMap::new();
        assert!(api_key(&metadata).is_err());
        authorize(&mut metadata, "flk_1_abc");
        assert_eq!(api_key(&metadata).unwrap(), "flk_1_abc");
        let request = bearer("flk_2").unwrap().call(Request::new(())).unwrap();
        assert_eq!(api_key(request.metadata()).unwrap(), "flk_2");
        assert!(!format!("{:?}", bearer("flk_2").unwrap()).contains("flk_2"));
        assert!(bearer("a\nb").is_err());
    }

    #[test]
    fn only_https_is_dialled() {
        for url in ["http://a:1", "a:1", "https://", "ftp://a"] {
            assert!(
                matches!(endpoint(url, "", None), Err(ConnectError::BadUrl { .. })),
                "{url}"
            );
        }
        assert!(endpoint("https://a:1", "", None).is_ok());
    }
}
