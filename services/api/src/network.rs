//! What clients, granters and people call.

use std::future::Future;
use std::sync::Arc;

use farlane_controller::{Caller, ClientSession, ControlError, Controller};
use farlane_transfer::{Owner, Reach};
use farlane_wire::v1::network_server::Network;
use farlane_wire::v1::session_frame::Body as ToClient;
use farlane_wire::v1::{self, client_frame};
use tonic::{Request, Response, Status, Streaming};

use crate::access::Endpoint;
use crate::attach::{Attached, attach};
use crate::auth::{Authenticated, Authenticator};
use crate::{Replies, blob, logs, status, trace};

/// The handlers of `Network`.
pub struct NetworkService {
    controller: Arc<Controller>,
    auth: Authenticator,
}

impl NetworkService {
    /// Over this controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self {
            auth: Authenticator::new(controller.clone()),
            controller,
        }
    }

    async fn caller<T>(&self, request: &Request<T>, endpoint: Endpoint) -> Result<Caller, Status> {
        Ok(self.auth.check(request, endpoint).await?.caller)
    }
}

impl Attached for ClientSession {
    type In = v1::ClientFrame;
    type Out = v1::SessionFrame;

    fn receive(
        &self,
        frame: v1::ClientFrame,
    ) -> impl Future<Output = Result<(), ControlError>> + Send {
        Self::receive(self, frame)
    }
    fn refuse(&self, error: &ControlError) {
        Self::refuse(self, error);
    }
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        Self::ended(self)
    }
    fn elsewhere(leader: String) -> v1::SessionFrame {
        let opened = v1::SessionOpened {
            leader,
            ..Default::default()
        };
        v1::SessionFrame {
            body: Some(ToClient::Opened(opened)),
        }
    }
    fn refusal(refusal: v1::Refusal) -> v1::SessionFrame {
        v1::SessionFrame {
            body: Some(ToClient::Refused(refusal)),
        }
    }
}

#[tonic::async_trait]
impl Network for NetworkService {
    type SessionStream = Replies<v1::SessionFrame>;
    type GetBlobStream = Replies<v1::BlobChunk>;
    type LogsStream = Replies<v1::LogChunk>;
    type ExportTraceStream = Replies<v1::TraceChunk>;

    async fn session(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = self.caller(&request, Endpoint::Session).await?;
        let controller = self.controller.clone();
        let open = async move |frame: v1::ClientFrame| match frame.body {
            Some(client_frame::Body::Open(open)) => controller.open_session(caller, open).await,
            _ => Err(ControlError::invalid("a session begins with open")),
        };
        Ok(Response::new(attach(request.into_inner(), open)))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::BlobReceipt>, Status> {
        let caller = self.caller(&request, Endpoint::PutBlob).await?;
        let (blobs, owner) = (self.controller.blobs(), Owner::Project(caller.project));
        let (receipt, _) = blob::put(blobs, owner, request.into_inner()).await?;
        Ok(Response::new(receipt))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let caller = self.caller(&request, Endpoint::GetBlob).await?;
        let (blobs, reach) = (self.controller.blobs(), Reach::Project(caller.project));
        let given = Box::new(|_, _| ());
        let chunks = blob::get(blobs, reach, request.into_inner(), given).await?;
        Ok(Response::new(chunks))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let caller = self.caller(&request, Endpoint::Logs).await?;
        Ok(Response::new(logs::read(
            self.controller.clone(),
            caller,
            request.into_inner(),
        )?))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let Authenticated { project_name, .. } =
            self.auth.check(&request, Endpoint::GetStatus).await?;
        Ok(Response::new(self.controller.status(&project_name)))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        self.caller(&request, Endpoint::ListNodes).await?;
        Ok(Response::new(v1::ListNodesReply {
            nodes: self.controller.list_nodes(),
            revocations_bytes: self.controller.revocations(),
        }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksReply>, Status> {
        let caller = self.caller(&request, Endpoint::ListTasks).await?;
        let tasks = self
            .controller
            .list_tasks(&caller, request.get_ref())
            .map_err(status)?;
        Ok(Response::new(v1::ListTasksReply { tasks }))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::TaskView>, Status> {
        let caller = self.caller(&request, Endpoint::GetTask).await?;
        let task = self
            .controller
            .get_task(&caller, &request.get_ref().task)
            .map_err(status)?;
        Ok(Response::new(task))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainReply>, Status> {
        let caller = self.caller(&request, Endpoint::Explain).await?;
        let reply = self
            .controller
            .explain(&caller, request.get_ref())
            .map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksReply>, Status> {
        let caller = self.caller(&request, Endpoint::CancelTasks).await?;
        let v1::CancelTasksRequest { tasks, reason } = request.into_inner();
        let cancelled = self
            .controller
            .cancel(&caller, &tasks, reason)
            .await
            .map_err(status)?;
        let cancelled = cancelled.iter().map(farlane_wire::id::task_bytes).collect();
        Ok(Response::new(v1::CancelTasksReply { cancelled }))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyReply>, Status> {
        let caller = self.caller(&request, Endpoint::CreateKey).await?;
        let reply = self
            .controller
            .create_key(&caller, request.into_inner())
            .await
            .map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysReply>, Status> {
        let caller = self.caller(&request, Endpoint::ListKeys).await?;
        let keys = self.controller.list_keys(&caller).await.map_err(status)?;
        Ok(Response::new(v1::ListKeysReply { keys }))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyReply>, Status> {
        let caller = self.caller(&request, Endpoint::RevokeKey).await?;
        self.controller
            .revoke_key(&caller, &request.get_ref().id)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RevokeKeyReply {}))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenReply>, Status> {
        let caller = self.caller(&request, Endpoint::CreateJoinToken).await?;
        let reply = self
            .controller
            .create_join_token(&caller, request.into_inner())
            .await
            .map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn list_join_tokens(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensReply>, Status> {
        self.caller(&request, Endpoint::ListJoinTokens).await?;
        let tokens = self.controller.list_join_tokens().await.map_err(status)?;
        Ok(Response::new(v1::ListJoinTokensReply { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenReply>, Status> {
        let caller = self.caller(&request, Endpoint::RevokeJoinToken).await?;
        self.controller
            .revoke_join_token(&caller, &request.get_ref().secret_hash)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RevokeJoinTokenReply {}))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        let caller = self.caller(&request, Endpoint::RemoveNode).await?;
        self.controller
            .remove_node(&caller, request.get_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveNodeReply {}))
    }

    async fn pardon_node(
        &self,
        request: Request<v1::PardonNodeRequest>,
    ) -> Result<Response<v1::PardonNodeReply>, Status> {
        let caller = self.caller(&request, Endpoint::PardonNode).await?;
        self.controller
            .pardon_node(&caller, request.get_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PardonNodeReply {}))
    }

    async fn publish_revocations(
        &self,
        request: Request<v1::PublishRevocationsRequest>,
    ) -> Result<Response<v1::PublishRevocationsReply>, Status> {
        let caller = self.caller(&request, Endpoint::PublishRevocations).await?;
        self.controller
            .publish_revocations(&caller, &request.get_ref().revocations_bytes)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PublishRevocationsReply {}))
    }

    async fn list_prices(
        &self,
        request: Request<v1::ListPricesRequest>,
    ) -> Result<Response<v1::ListPricesReply>, Status> {
        self.caller(&request, Endpoint::ListPrices).await?;
        let reply = self.controller.list_prices(request.get_ref()).await;
        Ok(Response::new(reply.map_err(status)?))
    }

    async fn set_prices(
        &self,
        request: Request<v1::SetPricesRequest>,
    ) -> Result<Response<v1::SetPricesReply>, Status> {
        let caller = self.caller(&request, Endpoint::SetPrices).await?;
        let reply = self
            .controller
            .set_prices(&caller, request.get_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn list_regions(
        &self,
        request: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsReply>, Status> {
        self.caller(&request, Endpoint::ListRegions).await?;
        Ok(Response::new(self.controller.list_regions()))
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsReply>, Status> {
        let caller = self.caller(&request, Endpoint::ListProjects).await?;
        let reply = self.controller.list_projects(&caller).await;
        Ok(Response::new(reply.map_err(status)?))
    }

    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::CreateProjectReply>, Status> {
        let caller = self.caller(&request, Endpoint::CreateProject).await?;
        let reply = self
            .controller
            .create_project(&caller, request.get_ref())
            .await;
        Ok(Response::new(reply.map_err(status)?))
    }

    async fn set_project(
        &self,
        request: Request<v1::SetProjectRequest>,
    ) -> Result<Response<v1::SetProjectReply>, Status> {
        let caller = self.caller(&request, Endpoint::SetProject).await?;
        let reply = self
            .controller
            .set_project(&caller, request.get_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn export_trace(
        &self,
        request: Request<v1::ExportTraceRequest>,
    ) -> Result<Response<Self::ExportTraceStream>, Status> {
        let caller = self.caller(&request, Endpoint::ExportTrace).await?;
        let export = self
            .controller
            .export_trace(caller, request.get_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(trace::read(export)))
    }
}
