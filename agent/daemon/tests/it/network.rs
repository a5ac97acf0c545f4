//! A control plane of one process: takes one node, hands it work sealed as a client would, and keeps
//! what comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farlane_model::*;
use farlane_runtime::{Clock, SystemClock};
use farlane_seal::grant::{Grant, GranterContext, OpenContext, Opening};
use farlane_seal::join::{JoinFile, JoinSecret};
use farlane_seal::record::*;
use farlane_seal::{DeviceKey, EnrolmentSeed, ProviderRoot, TenantRoot};
use farlane_units::Millis;
use farlane_wire::v1::fleet_server::{Fleet, FleetServer};
use farlane_wire::{channel, id, v1};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

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
    to_node: Option<mpsc::Sender<Result<v1::ControlFrame, Status>>>,
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
}

pub struct Network {
    pub url: String,
    authority: CertifiedIssuer<'static, KeyPair>,
    pub provider: ProviderRoot,
    pub tenant: TenantRoot,
    device: DeviceKey,
    device_record: DeviceRecord,
    manifest: Manifest,
    pub session: SessionId,
    pub seen: Mutex<Seen>,
    pub treatment: Mutex<Treatment>,
    changed: watch::Sender<u64>,
    hang_ups: watch::Sender<u64>,
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
            treatment: Mutex::new(Treatment {
                renews: true,
                acknowledges: true,
                lease_ms: 10_000,
            }),
            changed: watch::Sender::new(0),
            hang_ups: watch::Sender::new(0),
        });
        network.clone().serve(listener);
        network
    }

    fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![channel::SERVER_NAME.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(leaf.pem(), key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.authority.pem()))
            .client_auth_optional(true);
        let service = FleetServer::new(Service(self))
            .max_decoding_message_size(channel::MAX_MESSAGE)
            .max_encoding_message_size(channel::MAX_MESSAGE);
        let server = { Server::builder().tls_config(tls).unwrap() }
            .tcp_nodelay(true)
            .initial_stream_window_size(channel::STREAM_WINDOW)
            .initial_connection_window_size(channel::CONNECTION_WINDOW)
            .add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }

    pub fn join_file(&self) -> String {
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
            urls: vec![self.url.clone()],
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

    fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
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

struct Service(Arc<Network>);

type Frames<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Fleet for Service {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        let request = request.into_inner();
        let record = NodeRecord::from_bytes(&request.record_bytes)
            .map_err(|e| Status::permission_denied(e.to_string()))?;
        NodeSpec::from_canonical(&request.spec_bytes)
            .ok_or_else(|| Status::invalid_argument("spec"))?;
        let csr =
            rcgen::CertificateSigningRequestParams::from_der(&request.csr_der.to_vec().into())
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let certificate = csr.signed_by(&self.0.authority).unwrap().pem();
        self.0.note(|seen| seen.record = Some(record));
        Ok(Response::new(v1::EnrolReply {
            certificate_pem: certificate.into(),
            expires_ms: now().0 + 86_400_000,
            server_time_ms: now().0,
            network: Bytes::from_static(NETWORK),
        }))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unavailable("not in these tests"))
    }

    type ControlStream = Frames<v1::ControlFrame>;
    async fn control(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        if request.peer_certs().is_none_or(|certs| certs.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let mut frames = request.into_inner();
        let (send, receive) = mpsc::channel(1024);
        let network = self.0.clone();
        let mut over = network.hang_ups.subscribe();
        over.mark_unchanged();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    frame = frames.message() => match frame {
                        Ok(Some(frame)) => network.take(frame.body.unwrap(), &send).await,
                        _ => return,
                    },
                    _ = over.changed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::LogsAck>, Status> {
        let mut chunks = request.into_inner();
        let mut count = 0;
        while let Some(chunk) = chunks.message().await? {
            self.0.note(|seen| seen.logs.push(chunk));
            count += 1;
        }
        Ok(Response::new(v1::LogsAck { chunks: count }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::BlobReceipt>, Status> {
        let mut chunks = request.into_inner();
        let (mut bytes, mut blob) = (BytesMut::new(), None);
        while let Some(chunk) = chunks.message().await? {
            blob = blob.or(chunk.blob);
            bytes.extend_from_slice(&chunk.data);
        }
        let claimed = BlobRef::try_from(blob.clone().unwrap()).unwrap();
        assert_eq!(Digest::of(&bytes), claimed.digest);
        self.0
            .note(|seen| seen.blobs.insert(claimed.digest, bytes.freeze()));
        Ok(Response::new(v1::BlobReceipt {
            blob,
            already_there: false,
        }))
    }

    type GetBlobStream = Frames<v1::BlobChunk>;
    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let digest = id::digest(&request.into_inner().digest).unwrap();
        let bytes = self.0.seen.lock().blobs.get(&digest).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found("no such blob"))?;
        let (send, receive) = mpsc::channel(4);
        tokio::spawn(async move {
            for (i, data) in bytes.chunks(200_000).enumerate() {
                let chunk = v1::BlobChunk {
                    blob: None,
                    offset: (i * 200_000) as u64,
                    data: bytes.slice_ref(data),
                };
                let _ = send.send(Ok(chunk)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

impl Network {
    async fn take(
        &self,
        body: v1::agent_frame::Body,
        send: &mpsc::Sender<Result<v1::ControlFrame, Status>>,
    ) {
        use v1::agent_frame::Body as Out;
        use v1::control_frame::Body as In;
        let answer = match body {
            Out::Hello(hello) => {
                self.note(|seen| {
                    let boot = id::boot(&hello.boot).unwrap();
                    if seen.boot != Some(boot) {
                        seen.prekeys.clear();
                    }
                    seen.boot = Some(boot);
                    seen.spec = NodeSpec::from_canonical(&hello.spec_bytes);
                    seen.to_node = Some(send.clone());
                    seen.hellos.push(hello);
                });
                let mut greeting = farlane_wire::server_hello("test");
                if let Some(limits) = &mut greeting.limits {
                    limits.lease_ms = self.treatment.lock().lease_ms;
                }
                Some(In::Hello(v1::ControlHello {
                    hello: Some(greeting),
                    network: Bytes::from_static(NETWORK),
                    epoch: 1,
                    cluster_time_ms: now().0,
                    leader: String::new(),
                }))
            }
            Out::Heartbeat(beat) => self.treatment.lock().renews.then(|| {
                In::Heartbeat(v1::HeartbeatAck {
                    sent_ms: beat.sent_ms,
                    cluster_time_ms: now().0,
                    applied_index: 1,
                })
            }),
            Out::Prekeys(stock) => {
                self.note(|seen| seen.prekeys.extend(stock.one_time_bytes));
                None
            }
            Out::Complete(batch) => {
                let number = batch.batch;
                self.note(|seen| {
                    for item in &batch.items {
                        let at = AttemptRef::try_from(item.attempt.as_ref().unwrap()).unwrap();
                        seen.completions.entry(at).or_insert_with(|| item.clone());
                    }
                    seen.batches.push(batch);
                });
                let ack = v1::CompleteAck {
                    batch: number,
                    index: 1,
                    stale: vec![],
                };
                self.treatment
                    .lock()
                    .acknowledges
                    .then_some(In::Completed(ack))
            }
            Out::Started(started) => {
                self.note(|seen| {
                    seen.started.extend(
                        started
                            .attempts
                            .iter()
                            .map(|a| AttemptRef::try_from(a).unwrap()),
                    );
                });
                None
            }
            Out::Update(update) => {
                self.note(|seen| {
                    seen.updates
                        .extend(NodeSpec::from_canonical(&update.spec_bytes))
                });
                None
            }
            Out::Observed(_) => None,
        };
        if let Some(body) = answer {
            let _ = send.send(Ok(v1::ControlFrame { body: Some(body) })).await;
        }
    }
}
