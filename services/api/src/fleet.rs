//! What agents call. Only `Enrol` and `Renew` are open to a peer without a node's certificate.

use std::future::Future;
use std::sync::Arc;

use farlane_controller::{AgentSession, ControlError, Controller};
use farlane_model::NodeId;
use farlane_transfer::{Owner, Reach};
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::fleet_server::Fleet;
use farlane_wire::v1::{self, agent_frame};
use farlane_wire::{ErrorCode, id};
use tonic::{Request, Response, Status, Streaming};

use crate::attach::{Attached, attach};
use crate::auth::{from, node, peer_node};
use crate::joining::Joining;
use crate::{Replies, blob, logs, probe, status};

/// The handlers of `Fleet`.
pub struct FleetService {
    controller: Arc<Controller>,
    joining: Joining,
}

impl FleetService {
    /// Over this controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self {
            controller,
            joining: Joining::default(),
        }
    }

    /// The node at the other end, registered and not revoked.
    fn trusted<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let node = node(request)?;
        match self.controller.node_trusted(node) {
            true => Ok(node),
            false => Err(status(ControlError::NodeRevoked)),
        }
    }
}

impl Attached for AgentSession {
    type In = v1::AgentFrame;
    type Out = v1::ControlFrame;

    fn receive(
        &self,
        frame: v1::AgentFrame,
    ) -> impl Future<Output = Result<(), ControlError>> + Send {
        Self::receive(self, frame)
    }
    fn refuse(&self, error: &ControlError) {
        Self::refuse(self, error);
    }
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        Self::ended(self)
    }
    fn elsewhere(leader: String) -> v1::ControlFrame {
        let hello = v1::ControlHello {
            leader,
            ..Default::default()
        };
        v1::ControlFrame {
            body: Some(ToAgent::Hello(hello)),
        }
    }
    fn refusal(refusal: v1::Refusal) -> v1::ControlFrame {
        v1::ControlFrame {
            body: Some(ToAgent::Refused(refusal)),
        }
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type ControlStream = Replies<v1::ControlFrame>;
    type GetBlobStream = Replies<v1::BlobChunk>;
    type ProbeStream = Replies<v1::ProbeChunk>;

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        self.joining.admit(from(&request), self.controller.wall())?;
        Ok(Response::new(
            self.controller
                .enrol(request.into_inner())
                .await
                .map_err(status)?,
        ))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        match peer_node(&request) {
            // What it signed is asked of it either way; only strangers are held down.
            Some(node) if id::node_bytes(&node) == request.get_ref().node => {}
            Some(_) => {
                let message = "a node renews its own certificate, not another's";
                return Err(ErrorCode::PermissionDenied.status(message));
            }
            None => self.joining.admit(from(&request), self.controller.wall())?,
        }
        let reply = self.controller.renew(request.get_ref()).map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let node = node(&request)?;
        let controller = self.controller.clone();
        let open = async move |frame: v1::AgentFrame| match frame.body {
            Some(agent_frame::Body::Hello(hello)) => controller.attach_agent(node, hello).await,
            _ => Err(ControlError::invalid("a control stream begins with hello")),
        };
        Ok(Response::new(attach(request.into_inner(), open)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::LogsAck>, Status> {
        let node = self.trusted(&request)?;
        let chunks = logs::keep(&self.controller, node, request.into_inner()).await?;
        Ok(Response::new(v1::LogsAck { chunks }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::BlobReceipt>, Status> {
        let node = self.trusted(&request)?;
        let (blobs, owner) = (self.controller.blobs(), Owner::Node(node));
        let (receipt, timed) = blob::put(blobs, owner, request.into_inner()).await?;
        if let Some((bytes, time)) = timed {
            self.controller.came(node, bytes, time);
        }
        if let Some(blob) = receipt.blob.clone() {
            self.controller.was_put(node, blob.try_into()?);
        }
        Ok(Response::new(receipt))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let node = self.trusted(&request)?;
        let (blobs, reach) = (self.controller.blobs(), Reach::Everybody);
        let controller = self.controller.clone();
        let mut request = request.into_inner();
        let of = request.attempt.take().map(TryInto::try_into).transpose()?;
        let given = Box::new(move |blob, bytes| controller.gave(node, blob, bytes, of));
        let chunks = blob::get(blobs, reach, request, given).await?;
        Ok(Response::new(chunks))
    }

    async fn probe(
        &self,
        request: Request<Streaming<v1::ProbeChunk>>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let node = self.trusted(&request)?;
        if !self.controller.may_probe(node) {
            let message = "a node probes the leader, and once an hour";
            return Err(ErrorCode::QuotaExceeded.status(message));
        }
        let timed = probe::take(request.into_inner()).await?;
        if let Some((bytes, time)) = timed {
            self.controller.came(node, bytes, time);
        }
        Ok(Response::new(probe::give()))
    }

    async fn echo(
        &self,
        request: Request<v1::EchoRequest>,
    ) -> Result<Response<v1::EchoReply>, Status> {
        self.trusted(&request)?;
        Ok(Response::new(v1::EchoReply {}))
    }
}
