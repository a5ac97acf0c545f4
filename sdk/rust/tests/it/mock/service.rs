//! The wire of the mock.

use super::*;

#[async_trait::async_trait]
impl Network for Mock {
    type SessionStream = Frames;
    type GetBlobStream = Chunks;
    type LogsStream = LogFrames;
    type ExportTraceStream = TraceFrames;

    async fn session(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Frames>, Status> {
        self.check(request.metadata())?;
        let mut frames = request.into_inner();
        let (tx, rx) = mpsc::unbounded_channel();
        let mock = self.clone();
        tokio::spawn(async move {
            let mut session = None;
            while let Ok(Some(message)) = frames.message().await {
                let step = match (message.body, session) {
                    (Some(In::Open(open)), None) => {
                        session = SessionId::from_slice(&open.session).ok();
                        if let Some(session) = session {
                            mock.links.lock().insert(session, tx.clone());
                        }
                        mock.open(open)
                    }
                    (Some(In::Submit(batch)), Some(session)) => mock.submit(session, batch),
                    (Some(In::Grant(batch)), Some(session)) => mock.grant(session, batch),
                    (Some(In::Watch(watch)), Some(_)) => Ok(mock.watch(watch)),
                    (Some(In::Refuse(refusal)), Some(session)) => {
                        // As a server does: what was refused is told again.
                        if let Some(state) = mock.world.lock().sessions.get_mut(&session) {
                            state.context = None;
                        }
                        mock.knobs.lock().refused.push(refusal);
                        Ok(Vec::new())
                    }
                    (Some(In::Ack(ack)), _) => {
                        mock.knobs.lock().acks_seen.extend(ack.through);
                        Ok(Vec::new())
                    }
                    (Some(In::Cancel(cancel)), _) => {
                        let tasks = cancel
                            .tasks
                            .iter()
                            .filter_map(|id| TaskId::from_slice(id).ok());
                        mock.knobs.lock().cancelled.extend(tasks);
                        Ok(Vec::new())
                    }
                    _ => Err(Status::internal("out of order")),
                };
                match step {
                    Ok(out) => {
                        out.into_iter()
                            .for_each(|body| drop(tx.send(Ok(frame(body)))));
                        if mock.knobs.lock().hang_up {
                            let _ = tx.send(Err(ErrorCode::Unavailable.status("not now")));
                            return;
                        }
                    }
                    Err(status) => {
                        let _ = tx.send(Err(status));
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(
            tokio_stream::wrappers::UnboundedReceiverStream::new(rx),
        )))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::BlobReceipt>, Status> {
        self.check(request.metadata())?;
        let mut chunks = request.into_inner();
        let (mut blob, mut bytes) = (None, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            blob = chunk.blob.or(blob);
            assert_eq!(chunk.offset, bytes.len() as u64);
            bytes.extend_from_slice(&chunk.data);
        }
        let digest = Digest::of(&bytes);
        assert!(
            stream::looks_sealed(&bytes),
            "only sealed bytes leave a client"
        );
        self.world.lock().blobs.insert(digest, bytes.into());
        Ok(Response::new(v1::BlobReceipt {
            blob,
            already_there: false,
        }))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let digest = Digest::from_slice(&request.into_inner().digest)
            .map_err(|e| Status::internal(e.to_string()))?;
        let blob = self.world.lock().blobs.get(&digest).cloned();
        let blob = blob.ok_or_else(|| ErrorCode::UnknownBlob.status("no such blob"))?;
        let chunks: Vec<_> = (0..blob.len())
            .step_by(100_000)
            .map(|at| {
                let data = blob.slice(at..blob.len().min(at + 100_000));
                Ok(v1::BlobChunk {
                    blob: None,
                    offset: at as u64,
                    data,
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn logs(&self, _: Request<v1::LogsRequest>) -> Result<Response<LogFrames>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::iter(Vec::new()))))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::TaskView>, Status> {
        self.check(request.metadata())?;
        let id = TaskId::from_slice(&request.into_inner().task)
            .map_err(|e| Status::internal(e.to_string()))?;
        let world = self.world.lock();
        let task = world
            .tasks
            .get(&id)
            .ok_or_else(|| ErrorCode::UnknownTask.status("no such task"))?;
        let batch = task.result.clone();
        let result = batch.as_ref().and_then(|b| {
            let of_task = |r: &&v1::TaskResult| {
                r.attempt
                    .as_ref()
                    .is_some_and(|a| a.task[..] == id.to_bytes())
            };
            b.results.iter().find(of_task).cloned()
        });
        Ok(Response::new(v1::TaskView {
            task: Bytes::copy_from_slice(&id.to_bytes()),
            node: batch.as_ref().map(|b| b.node.clone()).unwrap_or_default(),
            spec_bytes: task.spec.clone(),
            wrapped_key: task.envelope.wrapped_key.clone(),
            wrapped_session_key: world.sessions[&id.session()].wrapped_key.clone(),
            signature: batch.as_ref().and_then(|b| b.signature.clone()),
            record_bytes: batch.map(|b| b.record_bytes).unwrap_or_default(),
            result,
            ..Default::default()
        }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.check(request.metadata())?;
        Ok(Response::new(v1::StatusReply {
            nodes: 1,
            ..Default::default()
        }))
    }
    async fn list_prices(
        &self,
        _: Request<v1::ListPricesRequest>,
    ) -> Result<Response<v1::ListPricesReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn set_prices(
        &self,
        _: Request<v1::SetPricesRequest>,
    ) -> Result<Response<v1::SetPricesReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_projects(
        &self,
        _: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn set_project(
        &self,
        _: Request<v1::SetProjectRequest>,
    ) -> Result<Response<v1::SetProjectReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn create_project(
        &self,
        _: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::CreateProjectReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_regions(
        &self,
        _: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_tasks(
        &self,
        _: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn explain(
        &self,
        _: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn cancel_tasks(
        &self,
        _: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn create_key(
        &self,
        _: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_keys(
        &self,
        _: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn revoke_key(
        &self,
        _: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn list_join_tokens(
        &self,
        _: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn revoke_join_token(
        &self,
        _: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn pardon_node(
        &self,
        _: Request<v1::PardonNodeRequest>,
    ) -> Result<Response<v1::PardonNodeReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn publish_revocations(
        &self,
        _: Request<v1::PublishRevocationsRequest>,
    ) -> Result<Response<v1::PublishRevocationsReply>, Status> {
        Err(Status::unimplemented("mock"))
    }
    async fn export_trace(
        &self,
        _: Request<v1::ExportTraceRequest>,
    ) -> Result<Response<TraceFrames>, Status> {
        Err(Status::unimplemented("mock"))
    }
}
