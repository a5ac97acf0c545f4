//! Single questions of a network.
//!
//! What changes nothing is asked again while no server can be reached, as long as a connection is tried; what
//! changes something is asked once, since nobody knows whether it was heard.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farlane_model::TaskId;
use farlane_wire::{ErrorCode, v1};
use tonic::{Response, Status};

use crate::Error;
use crate::network::Network;

/// Waits between two tries of a question. Source: the same as those of the first dial.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Network {
    /// Asks until there is an answer, at most `connect_timeout`: for what changes nothing.
    ///
    /// *Errors*: no server answers in time, or it refuses.
    pub(crate) async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (begun, patience) = (Instant::now(), self.options().connect_timeout);
        let mut again = false;
        loop {
            let answer = async {
                if again {
                    // It may be another server that answers.
                    self.dial().await?;
                }
                ask().await.map_err(|status| self.refused(status))
            };
            let left = patience.saturating_sub(begun.elapsed());
            let error = match self.within(left, answer).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(error) => error,
            };
            let away = matches!(error, Error::Connection { .. });
            if !away || begun.elapsed() >= patience {
                return Err(self.unreachable(begun.elapsed(), &error));
            }
            again = true;
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Asks once: for what changes something.
    ///
    /// *Errors*: no connection, or the server refuses.
    async fn once<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let reply = ask().await.map_err(|status| self.refused(status))?;
        Ok(reply.into_inner())
    }
}

macro_rules! question {
    ($($(#[$doc:meta])* $how:ident $name:ident($request:ident) -> $reply:ident;)*) => {
        impl Network {$(
            $(#[$doc])*
            ///
            /// *Errors*: no connection, or the server refuses.
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$reply, Error> {
                self.$how(|| {
                    let (mut client, request) = (self.client(), self.request(request.clone()));
                    async move { client.$name(request).await }
                })
                .await
            }
        )*}
    };
}
question! {
    /// How the network is.
    patiently get_status(GetStatusRequest) -> StatusReply;
    /// Its nodes.
    patiently list_nodes(ListNodesRequest) -> ListNodesReply;
    /// The project's tasks, newest first.
    patiently list_tasks(ListTasksRequest) -> ListTasksReply;
    /// One task.
    patiently get_task(GetTaskRequest) -> TaskView;
    /// Why a task is where it is, or whether a spec would be feasible.
    patiently explain(ExplainRequest) -> ExplainReply;
    /// Cancels tasks; answers those that were live.
    once cancel_tasks(CancelTasksRequest) -> CancelTasksReply;
    /// A new API key; its secret is shown once.
    once create_key(CreateKeyRequest) -> CreateKeyReply;
    /// The project's API keys.
    patiently list_keys(ListKeysRequest) -> ListKeysReply;
    /// Revokes an API key.
    once revoke_key(RevokeKeyRequest) -> RevokeKeyReply;
    /// Registers the hash of a join secret.
    once create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenReply;
    /// Join tokens of the whole network.
    patiently list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensReply;
    /// Closes a join token that nobody has used.
    once revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenReply;
    /// Removes a node for good.
    once remove_node(RemoveNodeRequest) -> RemoveNodeReply;
    /// Gives a node its good standing again.
    once pardon_node(PardonNodeRequest) -> PardonNodeReply;
    /// Price books of providers, a page of them.
    patiently list_prices(ListPricesRequest) -> ListPricesReply;
    /// Replaces a provider's price book.
    once set_prices(SetPricesRequest) -> SetPricesReply;
    /// The network's regions: machines, prices, carbon.
    patiently list_regions(ListRegionsRequest) -> ListRegionsReply;
    /// Projects: what is set of them, what they hold.
    patiently list_projects(ListProjectsRequest) -> ListProjectsReply;
    /// Makes a project.
    once create_project(CreateProjectRequest) -> CreateProjectReply;
    /// Sets a project's weight and quota.
    once set_project(SetProjectRequest) -> SetProjectReply;
    /// Publishes a provider's list of revoked nodes.
    once publish_revocations(PublishRevocationsRequest) -> PublishRevocationsReply;
}

impl Network {
    /// One task's view.
    ///
    /// *Errors*: no such task, no connection, or the server refuses.
    pub async fn task(&self, task: TaskId) -> Result<v1::TaskView, Error> {
        let request = v1::GetTaskRequest {
            task: Bytes::copy_from_slice(&task.to_bytes()),
        };
        match self.get_task(request).await {
            Err(Error::Refused { code, .. }) if code == ErrorCode::UnknownTask.to_string() => {
                Err(Error::UnknownTask(task))
            }
            Err(Error::Refused { code, .. }) if code == ErrorCode::ResultExpired.to_string() => {
                Err(Error::ResultExpired(task))
            }
            other => other,
        }
    }
}
