//! A control plane of one process: takes one node, hands it work sealed as a client would, and keeps
//! what comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farlane_model::*;
use farlane_runtime::{Clock, SystemClock};
use farlane_seal::grant::{Grant, GranterContext, OpenContext, Opening};
use farlane_seal::join::{JoinFile, JoinSecret};
use farlane_seal::record::*;
use farlane_seal::{DeviceKey, EnrolmentSeed, ProviderRoot, TenantRoot};
use farlane_units::Millis;
use farlane_wire::v1::fleet_server::FleetServer;
use farlane_wire::{ErrorCode, channel, id, v1};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::service::Service;

pub const NETWORK: &[u8] = b"network-of-the-agents-tests";

/// What the control plane has seen of the node.
#[derive(Default)]
pub struct Seen {
    pub record: Option<NodeRecord>,
    pub boot: Option<BootId>,
    pub spec: Option<NodeSpec>,
    pub prekeys: Vec<Bytes>,
    pub completions: HashMap<AttemptRef, v1::Completion>,
    pub batches: Vec<v1::CompleteBatch>,
    pub blobs: HashMap<Digest, Bytes>,
    pub logs: Vec<v1::LogChunk>,
    pub started: Vec<AttemptRef>,
    pub hellos: Vec<v1::AgentHello>,
    pub updates: Vec<NodeSpec>,
    /// Nonces that came back.
    pub pongs: Vec<Bytes>,
    pub answers: Vec<v1::ChallengeAnswer>,
    pub beats: Vec<v1::Heartbeat>,
    /// Bytes of each probe.
    pub probes: Vec<usize>,
    /// The certificate shown at each connection.
    pub certificates: Vec<Vec<u8>>,
    pub renewals: u32,
    /// Those of them that came without a certificate.
    pub proofs: u32,
    /// Calls that were not answered because the network was away.
    pub turned_away: u32,
    /// Hellos that were answered with the leader's address.
    pub sent_on: u32,
    /// Hellos that were answered with that the node is unknown, and uploads that were refused.
    pub unknown: u32,
    pub refused: u32,
    /// Transfers that stood still, and uploads among them that were given up.
    pub stalled: u32,
    pub given_up: u32,
    pub to_node: Option<mpsc::Sender<Result<v1::ControlFrame, Status>>>,
    granter: Option<(BootId, GranterContext, Opening, u64)>,
}

/// How it treats the node.
pub struct Treatment {
    /// Heartbeats are answered.
    pub renews: bool,
    /// Completions are acknowledged.
    pub acknowledges: bool,
    /// Life of a lease.
    pub lease_ms: u64,
    /// Life of a certificate.
    pub certificate_ms: u64,
    /// Of the next certificates so many have ended already, whatever the network says of their life.
    pub ended_certificates: u32,
    /// No server answers, as behind a proxy that does.
    pub away: bool,
    /// The node was removed while it was not connected.
    pub removed: bool,
    /// So many of its next hellos are answered with that no such node is known.
    pub unknown: u32,
    /// Uploads are refused for this reason.
    pub refuses_uploads: Option<ErrorCode>,
    /// How far its clock is ahead of the machine's.
    pub skew_ms: i64,
    /// Servers that the node hears of.
    pub others: Vec<v1::ServerAt>,
    /// Uploads make no progress.
    pub stalls_uploads: bool,
    /// The next download makes no progress.
    pub stalls_downloads: bool,
}

impl Default for Treatment {
    fn default() -> Self {
        Self {
            renews: true,
            acknowledges: true,
            lease_ms: 10_000,
            certificate_ms: 86_400_000,
            ended_certificates: 0,
            away: false,
            removed: false,
            unknown: 0,
            refuses_uploads: None,
            skew_ms: 0,
            others: Vec::new(),
            stalls_uploads: false,
            stalls_downloads: false,
        }
    }
}

pub struct Network {
    pub url: String,
    pub authority: CertifiedIssuer<'static, KeyPair>,
    pub provider: ProviderRoot,
    pub tenant: TenantRoot,
    device: DeviceKey,
    device_record: DeviceRecord,
    manifest: Manifest,
    pub session: SessionId,
    pub seen: Mutex<Seen>,
    pub treatment: Mutex<Treatment>,
    changed: watch::Sender<u64>,
    pub hang_ups: watch::Sender<u64>,
}

pub fn now() -> Millis {
    SystemClock.wall()
}

impl Network {
    /// `own`: whether the tenant names the provider its own.
    pub async fn start(own: bool) -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (provider, tenant) = (ProviderRoot::generate(), TenantRoot::generate());
        let device = DeviceKey::generate();
        let year = now().saturating_add(Millis(365 * 86_400_000));
        let terms = DeviceTerms {
            tenant_root: tenant.public(),
            device: device.public(),
            name: "laptop".into(),
            may_grant: true,
            not_after: year,
        };
        let device_record = DeviceRecord::sign(&tenant, terms).unwrap();
        let pin = ProviderPin {
            root: provider.public(),
            name: "lab".into(),
            own,
        };
        let terms = ManifestTerms {
            tenant_root: tenant.public(),
            version: 1,
            not_after: year,
            providers: vec![pin],
            devices: vec![device.public()],
            granters: vec![device.public()],
        };
        let manifest = Manifest::sign(&tenant, terms).unwrap();
        let network = Arc::new(Self {
            url,
            authority,
            provider,
            tenant,
            device,
            device_record,
            manifest,
            session: SessionId::new(now().0, [7; 5]),
            seen: Mutex::default(),
            treatment: Mutex::default(),
            changed: watch::Sender::new(0),
            hang_ups: watch::Sender::new(0),
        });
        network.clone().serve(listener, None);
        network
    }

    /// Another server of this network, which does not lead; its address.
    pub async fn follower(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        self.clone().serve(listener, Some(self.url.clone()));
        url
    }

    fn serve(self: Arc<Self>, listener: tokio::net::TcpListener, leader: Option<String>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![channel::SERVER_NAME.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(leaf.pem(), key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.authority.pem()))
            .client_auth_optional(true);
        let service = FleetServer::new(Service {
            network: self,
            leader,
        })
        .max_decoding_message_size(channel::MAX_MESSAGE)
        .max_encoding_message_size(channel::MAX_MESSAGE);
        let server = { Server::builder().tls_config(tls).unwrap() }
            .initial_stream_window_size(channel::STREAM_WINDOW)
            .initial_connection_window_size(channel::CONNECTION_WINDOW)
            .add_service(service);
        // As real servers do; else answers wait 40 ms for the node's acknowledgement of others.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    pub fn join_file(&self) -> String {
        self.join_file_at(&self.url)
    }

    pub fn join_file_at(&self, url: &str) -> String {
        let seed = EnrolmentSeed::generate();
        let terms = EnrolmentTerms {
            enrolment: seed.public(),
            provider: self.provider.public(),
            region: "eu-central".into(),
            tier: Tier::Namespaces,
            labels: vec![("disk".into(), "nvme".into())],
            price_usd_micros_core_hour: None,
            not_after: now().saturating_add(Millis(86_400_000)),
        };
        let file = JoinFile {
            urls: vec![url.to_owned()],
            ca_pem: self.authority.pem(),
            secret: JoinSecret::generate(),
            enrolment: EnrolmentCert::sign(&self.provider, terms).unwrap(),
            seed,
            expires: now().saturating_add(Millis(60_000)),
        };
        file.to_text().to_string()
    }

    /// Waits until `ready` of what was seen.
    pub async fn until<T>(&self, what: &str, mut ready: impl FnMut(&mut Seen) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = ready(&mut self.seen.lock()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap_or_else(|_| panic!("still waiting for {what}"))
    }

    pub fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let out = change(&mut self.seen.lock());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    pub fn put_blob(&self, bytes: Vec<u8>) -> BlobRef {
        let blob = BlobRef {
            digest: Digest::of(&bytes),
            size: farlane_units::ByteCount(bytes.len() as u64),
        };
        self.seen.lock().blobs.insert(blob.digest, bytes.into());
        blob
    }

    pub async fn tell(&self, body: v1::control_frame::Body) {
        let to_node = self
            .seen
            .lock()
            .to_node
            .clone()
            .expect("the node is connected");
        let _ = to_node
            .send(Ok(v1::ControlFrame { body: Some(body) }))
            .await;
    }

    /// Ends the node's stream, as a server that restarts does.
    pub fn hang_up(&self) {
        self.seen.lock().to_node = None;
        self.hang_ups.send_modify(|n| *n += 1);
    }

    /// Sealed grants for the node that is connected.
    pub fn grant(&self, grants: &[Grant]) -> v1::GrantBatch {
        let mut seen = self.seen.lock();
        let record = seen.record.clone().unwrap();
        let boot = seen.boot.unwrap();
        if seen
            .granter
            .as_ref()
            .is_none_or(|(known, ..)| *known != boot)
        {
            let prekey = seen.prekeys.pop().expect("a prekey is in stock");
            let prekey = SignedPrekey::from_bytes(&prekey, &record).unwrap();
            let (context, opening) = GranterContext::open(&OpenContext {
                record: &record,
                prekey: &prekey,
                revocations: None,
                revocation_policy: RevocationPolicy::WhenGiven,
                manifest: &self.manifest,
                network: NETWORK,
                granter: self.session,
                device: &self.device,
                device_record: &self.device_record,
                now: now(),
            })
            .unwrap();
            seen.granter = Some((boot, context, opening, prekey.id));
        }
        let (_, context, opening, number) = seen.granter.as_mut().unwrap();
        let (counter, sealed) = context.seal(grants).unwrap();
        v1::GrantBatch {
            node: id::node_bytes(&record.node()),
            context: *number,
            opening: Some(v1::ContextOpening {
                enc: opening.enc.clone(),
                info_bytes: opening.info_bytes.clone(),
                signature: opening.signature.clone(),
                device_bytes: opening.device_bytes.clone(),
            }),
            counter,
            sealed: sealed.into(),
            attempts: grants.iter().map(|grant| grant.attempt.into()).collect(),
        }
    }
}
