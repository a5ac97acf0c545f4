//! Channels against a real TLS server: whom they trust, and what they say when nobody answers.

#![allow(clippy::unwrap_used)]

use farlane_wire::channel::{self, ConnectError, SERVER_NAME};
use farlane_wire::v1::RaftMessage;
use farlane_wire::v1::consensus_client::ConsensusClient;
use farlane_wire::v1::consensus_server::{Consensus, ConsensusServer};
use farlane_wire::{ErrorCode, Refused};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Answers with the caller's key and whether it showed a certificate.
struct Echo;

#[tonic::async_trait]
impl Consensus for Echo {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let key = channel::api_key(request.metadata())?.to_owned();
        let shown = request.peer_certs().is_some_and(|certs| !certs.is_empty());
        Ok(Response::new(RaftMessage {
            body: format!("{key} {shown}").into(),
        }))
    }
    async fn vote(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        Err(ErrorCode::NotLeader.status("go to https://other:1"))
    }
    async fn snapshot(
        &self,
        _: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        Err(ErrorCode::Internal.status("unused"))
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
    fn pem(&self) -> String {
        self.0.pem()
    }
    /// A certificate for `name` and its key.
    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
    /// A server whose certificate is for `name`; its address.
    async fn serve(&self, name: &str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (certificate, key) = self.leaf(name);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(self.pem()))
            .client_auth_optional(true);
        let server = Server::builder().tls_config(tls).unwrap();
        let server = { server }.add_service(ConsensusServer::new(Echo));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }
}

async fn says(channel: tonic::transport::Channel) -> String {
    let bearer = channel::bearer("flk_1").unwrap();
    let mut client = ConsensusClient::with_interceptor(channel, bearer);
    let reply = client
        .append(RaftMessage::default())
        .await
        .unwrap()
        .into_inner();
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_server_of_the_network_is_reached_with_and_without_a_certificate() {
    let authority = Authority::new();
    let url = authority.serve(SERVER_NAME).await;
    let plain = channel::connect(std::slice::from_ref(&url), authority.pem(), None)
        .await
        .unwrap();
    assert_eq!(says(plain.clone()).await, "flk_1 false");
    let (certificate, key) = authority.leaf("a node");
    let urls = ["https://127.0.0.1:9".to_owned(), url];
    let shown = channel::connect(&urls, authority.pem(), Some((&certificate, &key))).await;
    assert_eq!(says(shown.unwrap()).await, "flk_1 true");

    let status = ConsensusClient::new(plain)
        .vote(RaftMessage::default())
        .await
        .unwrap_err();
    let refused = Refused::from(&status);
    assert_eq!(refused.code, ErrorCode::NotLeader);
    assert_eq!(refused.message, "go to https://other:1");
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stranger = theirs.serve(SERVER_NAME).await;
    let error = channel::connect(&[stranger], ours.pem(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
    // A node's certificate makes no server.
    let node = ours.serve("a-node").await;
    let error = channel::connect(&[node], ours.pem(), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_foreign_client_certificate_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let url = ours.serve(SERVER_NAME).await;
    let (certificate, key) = theirs.leaf("a node");
    // TLS 1.3: the client may be done before the server has judged.
    if let Ok(channel) = channel::connect(&[url], ours.pem(), Some((&certificate, &key))).await {
        assert!(
            ConsensusClient::new(channel)
                .append(RaftMessage::default())
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn where_nobody_answers_the_addresses_are_named() {
    let authority = Authority::new();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", closed.local_addr().unwrap());
    drop(closed);
    let error = channel::connect(std::slice::from_ref(&url), authority.pem(), None).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains(&url) && text.contains("refused"), "{text}");
    let none = channel::connect(&[], authority.pem(), None)
        .await
        .unwrap_err();
    assert!(matches!(none, ConnectError::NoUrl));
}
