//! What a server of the network answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farlane_model::*;
use farlane_seal::record::NodeRecord;
use farlane_seal::renewal;
use farlane_units::Millis;
use farlane_wire::v1::fleet_server::Fleet;
use farlane_wire::{ErrorCode, id, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::network::{NETWORK, Network, now};

/// One server of the network.
pub struct Service {
    pub network: Arc<Network>,
    /// Where it sends agents, as a server does that does not lead.
    pub leader: Option<String>,
}

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
        let certificate = self.network.certify(&request.csr_der)?;
        self.network.note(|seen| seen.record = Some(record));
        Ok(Response::new(v1::EnrolReply {
            certificate_pem: certificate.into(),
            expires_ms: now().0 + self.network.treatment.lock().certificate_ms,
            server_time_ms: now().0,
            network: Bytes::from_static(NETWORK),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        self.network.reached()?;
        let proven = request.peer_certs().is_none();
        let request = request.into_inner();
        let record = self.network.seen.lock().record.clone().unwrap();
        assert_eq!(request.node, id::node_bytes(&record.node()));
        let (at, csr) = (Millis(request.at_ms), &request.csr_der);
        renewal::verify(&record, NETWORK, at, csr, &request.signature, now())
            .map_err(|e| Status::unauthenticated(e.to_string()))?;
        if self.network.treatment.lock().removed {
            return Err(ErrorCode::NodeRevoked.status("the node was removed or revoked"));
        }
        let certificate = self.network.certify(csr)?;
        self.network.note(|seen| {
            seen.renewals += 1;
            seen.proofs += u32::from(proven);
        });
        Ok(Response::new(v1::RenewReply {
            certificate_pem: certificate.into(),
            expires_ms: now().0 + self.network.treatment.lock().certificate_ms,
            server_time_ms: now().0,
        }))
    }

    type ControlStream = Frames<v1::ControlFrame>;
    async fn control(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        self.network.reached()?;
        let certificates = request.peer_certs();
        let Some(shown) = certificates.as_ref().and_then(|certs| certs.first()) else {
            return Err(Status::unauthenticated("no certificate"));
        };
        let shown = shown.to_vec();
        self.network.note(|seen| seen.certificates.push(shown));
        let mut frames = request.into_inner();
        let (send, receive) = mpsc::channel(1024);
        let network = self.network.clone();
        let leader = self.leader.clone();
        let mut over = network.hang_ups.subscribe();
        over.mark_unchanged();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    frame = frames.message() => match frame {
                        Ok(Some(frame)) => network.take(frame.body.unwrap(), &send, leader.as_deref()).await,
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
            self.network.note(|seen| seen.logs.push(chunk));
            count += 1;
        }
        Ok(Response::new(v1::LogsAck { chunks: count }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::BlobReceipt>, Status> {
        if self.network.treatment.lock().stalls_uploads {
            self.network.note(|seen| seen.stalled += 1);
            // Takes nothing, and says nothing, for as long as the other side bears it.
            let _gone = Gone(self.network.clone());
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let refusal = self.network.treatment.lock().refuses_uploads;
        if let Some(code) = refusal {
            self.network.note(|seen| seen.refused += 1);
            return Err(code.status("the disk of the blobs is full"));
        }
        let mut chunks = request.into_inner();
        let (mut bytes, mut blob) = (BytesMut::new(), None);
        while let Some(chunk) = chunks.message().await? {
            blob = blob.or(chunk.blob);
            bytes.extend_from_slice(&chunk.data);
        }
        let claimed = BlobRef::try_from(blob.clone().unwrap()).unwrap();
        assert_eq!(Digest::of(&bytes), claimed.digest);
        self.network
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
        let bytes = self.network.seen.lock().blobs.get(&digest).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found("no such blob"))?;
        let (send, receive) = mpsc::channel(4);
        let stalls = std::mem::take(&mut self.network.treatment.lock().stalls_downloads);
        if stalls {
            self.network.note(|seen| seen.stalled += 1);
        }
        tokio::spawn(async move {
            if stalls {
                return send.closed().await;
            }
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

    type ProbeStream = Frames<v1::ProbeChunk>;
    async fn probe(
        &self,
        request: Request<Streaming<v1::ProbeChunk>>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let (mut chunks, mut bytes) = (request.into_inner(), Vec::new());
        while let Some(chunk) = chunks.message().await? {
            bytes.push(chunk.data);
        }
        let all = bytes.iter().map(Bytes::len).sum();
        self.network.note(|seen| seen.probes.push(all));
        let (send, receive) = mpsc::channel(4);
        tokio::spawn(async move {
            for data in bytes {
                let _ = send.send(Ok(v1::ProbeChunk { data })).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn echo(&self, _: Request<v1::EchoRequest>) -> Result<Response<v1::EchoReply>, Status> {
        assert!(self.leader.is_some(), "the leader asks by itself");
        Ok(Response::new(v1::EchoReply {}))
    }
}

impl Network {
    /// What servers say that time it is.
    fn cluster_ms(&self) -> u64 {
        now().0.saturating_add_signed(self.treatment.lock().skew_ms)
    }

    fn is_unknown(&self) -> bool {
        let mut treatment = self.treatment.lock();
        let unknown = treatment.unknown > 0;
        treatment.unknown -= u32::from(unknown);
        self.note(|seen| seen.unknown += u32::from(unknown));
        unknown
    }

    fn reached(&self) -> Result<(), Status> {
        match self.treatment.lock().away {
            true => self.note(|seen| {
                seen.turned_away += 1;
                Err(Status::unavailable("no server answers"))
            }),
            false => Ok(()),
        }
    }

    fn certify(&self, csr_der: &Bytes) -> Result<String, Status> {
        let mut csr = rcgen::CertificateSigningRequestParams::from_der(&csr_der.to_vec().into())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mut treatment = self.treatment.lock();
        if treatment.ended_certificates > 0 {
            treatment.ended_certificates -= 1;
            csr.params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        Ok(csr.signed_by(&self.authority).unwrap().pem())
    }

    async fn take(
        &self,
        body: v1::agent_frame::Body,
        send: &mpsc::Sender<Result<v1::ControlFrame, Status>>,
        leader: Option<&str>,
    ) {
        use v1::agent_frame::Body as Out;
        use v1::control_frame::Body as In;
        let renews = self.treatment.lock().renews;
        let answer = match body {
            Out::Hello(_) if leader.is_some() => {
                self.note(|seen| seen.sent_on += 1);
                Some(In::Hello(v1::ControlHello {
                    hello: Some(farlane_wire::server_hello("test")),
                    leader: leader.unwrap_or_default().to_owned(),
                    ..Default::default()
                }))
            }
            Out::Hello(_) if self.is_unknown() => Some(In::Refused(
                ErrorCode::UnknownNode.refusal("there is no such node"),
            )),
            Out::Hello(hello) => {
                let mut greeting = farlane_wire::server_hello("test");
                if let Some(limits) = &mut greeting.limits {
                    limits.lease_ms = self.treatment.lock().lease_ms;
                }
                let greeting = In::Hello(v1::ControlHello {
                    hello: Some(greeting),
                    network: Bytes::from_static(NETWORK),
                    epoch: 1,
                    cluster_time_ms: self.cluster_ms(),
                    leader: String::new(),
                    others: self.treatment.lock().others.clone(),
                });
                let body = Some(greeting);
                let _ = send.send(Ok(v1::ControlFrame { body })).await;
                // Noted after the answer: nothing that a test tells the node then overtakes it.
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
                None
            }
            Out::Heartbeat(beat) => renews.then(|| {
                self.note(|seen| seen.beats.push(beat.clone()));
                In::Heartbeat(v1::HeartbeatAck {
                    sent_ms: beat.sent_ms,
                    cluster_time_ms: self.cluster_ms(),
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
            Out::Pong(pong) => {
                self.note(|seen| seen.pongs.push(pong.nonce));
                None
            }
            Out::Answer(answer) => {
                self.note(|seen| seen.answers.push(answer));
                None
            }
            Out::Observed(_) => None,
        };
        if let Some(body) = answer {
            let _ = send.send(Ok(v1::ControlFrame { body: Some(body) })).await;
        }
    }
}

/// Notes that a call was given up.
struct Gone(Arc<Network>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.note(|seen| seen.given_up += 1);
    }
}
