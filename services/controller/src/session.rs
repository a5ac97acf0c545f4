//! A client's session stream.
//!
//! Owns what a server does with each of its frames. Leaves the API key to `farlane-api`: who calls is
//! known.
//!
//! ```text
//! open ─▶ OpenSession (+ AttachGranter) ─▶ SessionOpened ─▶ results after the cursor
//!      ─▶ submissions, grants, cancellations, acknowledgements … ─▶ end: DetachGranter
//! ```

use std::sync::Arc;
use std::time::Duration;

use farlane_model::{SessionId, TaskId, TenantId};
use farlane_seal::record::DeviceRecord;
use farlane_state::{
    AckResults, AttachGranter, Cancel, Cursor, DetachGranter, MAX_BATCH, OpenSession, Order,
    Outcome, State,
};
use farlane_store::Scope;
use farlane_wire::hello::{WINDOW_BYTES, WINDOW_TASKS};
use farlane_wire::v1::client_frame::Body as FromClient;
use farlane_wire::v1::session_frame::Body as ToClient;
use farlane_wire::{id, v1};

use crate::link::{Link, MAX_WATCHED, Outbound, SessionLink, SessionPush};
use crate::planner::{Intake, unexpected};
use crate::push::PushCommand;
use crate::{Caller, ControlError, Controller, intake};

fn reads_own_alone() -> ControlError {
    ControlError::Denied {
        why:
            "the API key lacks the scope \"read\": it opens results of what was submitted with it, \
              and no others"
                .into(),
    }
}

/// Whose keys open a project's data is settled by the device that used it first.
fn others_project() -> ControlError {
    ControlError::Denied {
        why: "the project belongs to another owner, whose devices alone submit to it and grant in it: ask \
              that owner for an identity (`farlane keys create NAME --identity-out FILE` there, then \
              `farlane login FILE`), or run a network of your own (`farlane up`)"
            .into(),
    }
}

/// How long a submission waits while accounts are behind. Source: a client whose stream ends comes back
/// after a tenth of a second, and each opening is an entry of the log.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

// Whatever a client may send again, the state answers as it did before.
const _: () = assert!(WINDOW_TASKS <= farlane_state::VERDICT_WINDOW);

/// A connected client; dropping it detaches the granter.
pub struct ClientSession {
    controller: Arc<Controller>,
    link: Arc<SessionLink>,
}

impl Controller {
    /// Opens a session, or takes it up again where its cursor is.
    ///
    /// *Errors*: another server leads, the session is another project's, the device is not the
    /// tenant's, or the message is malformed.
    pub async fn open_session(
        self: &Arc<Self>,
        caller: Caller,
        open: v1::OpenSession,
    ) -> Result<(ClientSession, Outbound<v1::SessionFrame>), ControlError> {
        farlane_wire::hello::negotiate(open.hello.as_ref())?;
        self.check_leads()?;
        let session = id::session(&open.session)?;
        let granter = open.granter();
        let tenant = self.tenant_of(&caller, &open, granter)?;
        self.check_reads_session(&caller, session)?;
        if caller.tenant.is_none() {
            self.bind(&caller, tenant).await?;
        }
        let resume = open.resume.map(|c| Cursor {
            index: c.index,
            ordinal: c.ordinal,
        });
        if let Some(cursor) = resume {
            self.catch_up(cursor.index).await?;
        }
        let mut orders = vec![Order::OpenSession(OpenSession {
            session,
            project: caller.project,
            tenant,
            key: caller.key,
            wrapped_session_key: open.wrapped_session_key,
            device: open.device_bytes.clone(),
        })];
        if granter != v1::GranterKind::None {
            orders.push(Order::AttachGranter(AttachGranter {
                granter: session,
                project: caller.project,
                standing: granter == v1::GranterKind::Standing,
                device: open.device_bytes,
            }));
        }
        self.order(orders).await?;
        self.link_session(caller, session, granter, resume.unwrap_or_default())
            .await
    }

    async fn link_session(
        self: &Arc<Self>,
        caller: Caller,
        session: SessionId,
        granter: v1::GranterKind,
        cursor: Cursor,
    ) -> Result<(ClientSession, Outbound<v1::SessionFrame>), ControlError> {
        let (link, outbound) = Link::new();
        let link = Arc::new(SessionLink {
            link,
            session,
            project: caller.project,
            key: caller.key,
            scopes: caller.scopes,
            expires: caller.expires,
            granter,
            push: SessionPush::from(cursor).into(),
            window: Default::default(),
            ahead: Default::default(),
        });
        let (epoch, next) = self
            .consensus
            .read(|s| (s.epoch(), s.session(&session).map_or(1, |s| s.next_seq)));
        link.frame(ToClient::Opened(v1::SessionOpened {
            hello: Some(self.hello()),
            network: self.network(),
            epoch,
            cluster_time_ms: self.now().0,
            acknowledged_seq: next.saturating_sub(1),
            project: id::project_bytes(&caller.project),
            leader: String::new(),
        }));
        let client = ClientSession {
            controller: self.clone(),
            link: link.clone(),
        };
        self.tell_pusher(PushCommand::Session(link)).await?;
        Ok((client, outbound))
    }

    /// The tenant by the device's record, which must be the project's if that is bound to one.
    fn tenant_of(
        &self,
        caller: &Caller,
        open: &v1::OpenSession,
        granter: v1::GranterKind,
    ) -> Result<TenantId, ControlError> {
        let denied = |why: String| ControlError::Denied { why };
        let device =
            DeviceRecord::from_bytes(&open.device_bytes).map_err(|e| denied(e.to_string()))?;
        device
            .check(self.now())
            .map_err(|e| denied(e.to_string()))?;
        if granter != v1::GranterKind::None && !device.may_grant {
            return Err(denied("this device may not grant".into()));
        }
        let tenant = device.tenant_root.tenant();
        if caller.tenant.is_some_and(|bound| bound != tenant) {
            return Err(others_project());
        }
        Ok(tenant)
    }

    /// The first device that uses a project binds it to its tenant, for good.
    async fn bind(&self, caller: &Caller, tenant: TenantId) -> Result<(), ControlError> {
        match self
            .store
            .projects()
            .bind_tenant(caller.project, tenant)
            .await?
            == tenant
        {
            true => Ok(()),
            false => Err(others_project()),
        }
    }

    /// A session that another key opened holds results that the scope to read opens, and no other.
    fn check_reads_session(&self, caller: &Caller, session: SessionId) -> Result<(), ControlError> {
        let other = self
            .consensus
            .read(|s| s.session(&session).is_some_and(|s| s.key != caller.key));
        match other && !caller.scopes.contains(Scope::Read) {
            true => Err(reads_own_alone()),
            false => Ok(()),
        }
    }

    /// Those of the named tasks that are this project's, live or finished.
    pub(crate) fn of_project(&self, caller: &Caller, tasks: &[TaskId]) -> Vec<TaskId> {
        self.consensus.read(|state| {
            let own = |task: &&TaskId| {
                state
                    .session(&task.session())
                    .is_some_and(|s| s.project == caller.project)
            };
            tasks.iter().filter(own).copied().collect()
        })
    }

    /// Cancels live tasks of the caller's project; those that were live.
    ///
    /// *Errors*: malformed, or no quorum.
    pub async fn cancel(
        &self,
        caller: &Caller,
        tasks: &[bytes::Bytes],
        reason: String,
    ) -> Result<Vec<TaskId>, ControlError> {
        let mut named = Vec::with_capacity(tasks.len().min(MAX_WATCHED));
        for task in tasks {
            named.push(id::task(task)?);
        }
        if named.len() > MAX_WATCHED {
            return Err(ControlError::invalid(format!(
                "at most {MAX_WATCHED} tasks at once"
            )));
        }
        let mut cancelled = Vec::new();
        for some in self.of_project(caller, &named).chunks(MAX_BATCH) {
            let order = Cancel {
                project: caller.project,
                tasks: some.to_vec(),
                reason: reason.clone(),
            };
            match self.order(vec![order.into()]).await?.into_iter().next() {
                Some(Outcome::Cancelled { tasks }) => cancelled.extend(tasks),
                Some(other) => return Err(unexpected(&other)),
                None => {}
            }
        }
        Ok(cancelled)
    }
}

impl ClientSession {
    /// Does what a frame asks.
    ///
    /// *Errors*: malformed, too much at once, or the server cannot go on; the stream should end with
    /// the error's refusal.
    pub async fn receive(&self, frame: v1::ClientFrame) -> Result<(), ControlError> {
        match frame.body {
            Some(FromClient::Submit(batch)) => self.submit(batch).await,
            Some(FromClient::Grant(batch)) => self.controller.relay_grants(&self.link, batch),
            Some(FromClient::Refuse(refusal)) => {
                self.controller.refuse_grants(&self.link, refusal).await
            }
            Some(FromClient::Cancel(batch)) => self.cancel(batch).await,
            Some(FromClient::Ack(ack)) => self.acknowledge(ack).await,
            Some(FromClient::Watch(watch)) => self.watch(watch).await,
            Some(FromClient::Open(_)) => Err(ControlError::invalid("a stream opens one session")),
            None => Ok(()),
        }
    }

    /// Says why, and ends the stream after it.
    pub fn refuse(&self, error: &ControlError) {
        self.link.refuse(error);
    }

    /// Resolves when the server wants the stream to end.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.link.link.ended()
    }

    async fn submit(&self, mut batch: v1::SubmitBatch) -> Result<(), ControlError> {
        if let Some(ahead) = batch.ahead.take() {
            self.controller.hold_ahead(&self.link, ahead)?;
        }
        let (tasks, bytes) = (batch.tasks.len() as u64, intake::submit_bytes(&batch));
        let order = intake::submit(self.link.session, batch)?;
        self.link
            .window
            .take(tasks, bytes, (WINDOW_TASKS, WINDOW_BYTES))?;
        if self.controller.consensus.read(State::accounts_behind) {
            // The state will refuse it, and its client comes back at once: no sooner than this.
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
        let session = self.link.clone();
        self.controller
            .hand_in(Intake::Submit {
                session,
                order,
                tasks,
                bytes,
            })
            .await
    }

    async fn cancel(&self, batch: v1::CancelBatch) -> Result<(), ControlError> {
        let cancelled = self
            .controller
            .cancel(&self.caller(), &batch.tasks, batch.reason)
            .await?;
        let tasks = cancelled.iter().map(id::task_bytes).collect();
        self.link
            .frame(ToClient::Cancelled(v1::CancelAck { tasks }));
        Ok(())
    }

    async fn acknowledge(&self, ack: v1::AckResults) -> Result<(), ControlError> {
        let through = ack.through.unwrap_or_default();
        let through = Cursor {
            index: through.index,
            ordinal: through.ordinal,
        };
        let order = AckResults {
            session: self.link.session,
            through,
        };
        self.controller.order_quietly(order.into()).await
    }

    /// What is watched is bounded by the stream, and so is the work that one frame makes: nothing of it
    /// waits in the pusher's queue.
    async fn watch(&self, watch: v1::Watch) -> Result<(), ControlError> {
        if watch.tasks.len() > MAX_WATCHED {
            let what = format!("a stream watches at most {MAX_WATCHED} tasks");
            return Err(ControlError::invalid(what));
        }
        let mut named = Vec::with_capacity(watch.tasks.len());
        for task in &watch.tasks {
            named.push(id::task(task)?);
        }
        let caller = self.caller();
        let tasks = self.controller.of_project(&caller, &named);
        if tasks.len() < named.len() {
            return Err(ControlError::UnknownTask);
        }
        for task in &tasks {
            self.controller
                .check_reads_session(&caller, task.session())?;
        }
        self.controller.links.watch(&self.link, &tasks)?;
        match self.controller.push_due(&self.link) {
            true => Ok(()),
            false => self.controller.tell_pusher(PushCommand::Behind).await,
        }
    }

    fn caller(&self) -> Caller {
        Caller {
            key: self.link.key,
            project: self.link.project,
            tenant: None,
            scopes: self.link.scopes,
            expires: self.link.expires,
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.link.link.end();
        if !self.controller.links.remove_session(&self.link)
            || self.link.granter == v1::GranterKind::None
        {
            return;
        }
        let (controller, granter) = (self.controller.clone(), self.link.session);
        tokio::spawn(async move {
            // On a server that stops or no longer leads, the next leader does it after a full term.
            let _ = controller
                .order_quietly(DetachGranter { granter }.into())
                .await;
        });
    }
}
