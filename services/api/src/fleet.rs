//! What agents call. Only `Enrol` is open to a peer without a node's certificate.

use std::sync::Arc;

use farlane_controller::{AgentSession, ControlError, Controller};
use farlane_model::NodeId;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::fleet_server::Fleet;
use farlane_wire::v1::{self, agent_frame};
use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::auth::node;
use crate::{Replies, blob, logs, status};

/// The handlers of `Fleet`.
pub struct FleetService {
    controller: Arc<Controller>,
}

impl FleetService {
    /// Over this controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self { controller }
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

/// Attaches the agent whose hello comes first; its frames, or the one that says why not.
async fn attach(
    controller: Arc<Controller>,
    node: NodeId,
    mut inbound: Streaming<v1::AgentFrame>,
) -> Replies<v1::ControlFrame> {
    let attached = match inbound.message().await {
        Ok(Some(v1::AgentFrame {
            body: Some(agent_frame::Body::Hello(hello)),
        })) => controller.attach_agent(node, hello).await,
        Ok(_) => Err(ControlError::invalid("a control stream begins with hello")),
        Err(status) => return Box::pin(stream::once(async { Err(status) })),
    };
    match attached {
        Ok((agent, outbound)) => {
            tokio::spawn(receive(agent, inbound));
            Box::pin(outbound.map(Ok))
        }
        Err(error) => {
            let body = match &error {
                ControlError::NotLeader { leader } if !leader.is_empty() => {
                    ToAgent::Hello(v1::ControlHello {
                        leader: leader.clone(),
                        ..Default::default()
                    })
                }
                other => ToAgent::Refused(other.refusal()),
            };
            drop(status(error));
            Box::pin(stream::once(async {
                Ok(v1::ControlFrame { body: Some(body) })
            }))
        }
    }
}

async fn receive(agent: AgentSession, mut inbound: Streaming<v1::AgentFrame>) {
    let ended = agent.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return,
            frame = inbound.message() => match frame {
                Ok(Some(frame)) => {
                    if let Err(error) = agent.receive(frame).await {
                        agent.refuse(&error);
                        drop(status(error));
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            },
        }
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type ControlStream = Replies<v1::ControlFrame>;
    type GetBlobStream = Replies<v1::BlobChunk>;

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
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
        let node = node(&request)?;
        Ok(Response::new(
            self.controller
                .renew(node, request.get_ref())
                .map_err(status)?,
        ))
    }

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let node = node(&request)?;
        let attaching = attach(self.controller.clone(), node, request.into_inner());
        Ok(Response::new(Box::pin(stream::once(attaching).flatten())))
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
        self.trusted(&request)?;
        Ok(Response::new(
            blob::put(self.controller.blobs(), request.into_inner()).await?,
        ))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        self.trusted(&request)?;
        Ok(Response::new(
            blob::get(self.controller.blobs(), request.into_inner()).await?,
        ))
    }
}
