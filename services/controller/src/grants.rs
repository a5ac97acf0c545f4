//! Grants on their way from granters to nodes.
//!
//! Owns asking, passing on and giving up. Grants are ciphertext that only the node can open; they are
//! passed from stream to stream in memory and never logged.

use std::collections::HashMap;

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, MAX_EXIT_MESSAGE, NodeId, SessionId, TaskId};
use farlane_state::{MAX_BATCH, Return, ReturnReason, Rows, Table, TaskEnvelopeRow, keys};
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as ToClient;

use crate::link::{GRANT_RESERVE, SessionLink, SessionPush};
use crate::push::bytes_of;
use crate::{ControlError, Controller, MAX_BATCH_BYTES};

/// What a granter needs to know of one attempt's place.
pub(crate) struct Wanted {
    pub attempt: AttemptRef,
    wrapped_key: [u8; 48],
    /// Of a task that the granter did not submit: session key and canonical spec.
    foreign: Option<(Bytes, Bytes)>,
}

/// One context: a node's prekey, issued to this granter.
struct ContextView {
    boot: BootId,
    prekey: Bytes,
    revocations: Bytes,
    tasks: Vec<Wanted>,
}

impl Controller {
    /// Asks a granter for these attempts. `timed`: those not granted in time are returned.
    pub(crate) fn ask_grants(&self, granter: SessionId, attempts: Vec<AttemptRef>, timed: bool) {
        // First, so that an answer finds it; also those of a granter that is away: they go elsewhere.
        if timed {
            let now = self.clock.steady();
            self.ungranted.lock().ask(attempts.clone(), now);
        }
        if let Some(session) = self.links.session(granter) {
            for (slot, mut view) in self.contexts(granter, &attempts) {
                self.grant_ahead(&session, slot, &mut view.tasks);
                self.send_request(&session, slot, view);
            }
        }
    }

    fn contexts(
        &self,
        granter: SessionId,
        attempts: &[AttemptRef],
    ) -> HashMap<(NodeId, u64), ContextView> {
        let mut contexts: HashMap<(NodeId, u64), ContextView> = HashMap::new();
        self.consensus.read(|state| {
            for attempt in attempts {
                let Some(task) = state.task(attempt.task) else {
                    continue;
                };
                let Some(placed) = task.placed else { continue };
                if task.attempt != attempt.attempt || placed.lease.granter != granter {
                    continue;
                }
                let key = (placed.node.id, placed.lease.context);
                let view = contexts.entry(key).or_insert_with(|| {
                    let prekey = placed
                        .node
                        .contexts
                        .get(&granter)
                        .filter(|c| c.index == key.1);
                    ContextView {
                        boot: placed.boot().unwrap_or_default(),
                        prekey: prekey.map(|c| c.prekey.clone()).unwrap_or_default(),
                        revocations: state
                            .revocations(&placed.node.provider)
                            .map(|row| row.list.clone())
                            .unwrap_or_default(),
                        tasks: Vec::with_capacity(attempts.len()),
                    }
                });
                view.tasks.push(Wanted {
                    attempt: *attempt,
                    wrapped_key: *task.wrapped_key,
                    foreign: (attempt.task.session() != granter).then(|| {
                        (
                            task.session.wrapped_session_key.clone(),
                            task.spec.bytes.clone(),
                        )
                    }),
                });
            }
        });
        contexts
    }

    fn send_request(
        &self,
        session: &SessionLink,
        (node, context): (NodeId, u64),
        view: ContextView,
    ) {
        let mut push = session.push.lock();
        let mut tasks = self.requests(&mut push, &view.tasks).into_iter().peekable();
        while tasks.peek().is_some() {
            // One request is answered with one batch of grants.
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < MAX_BATCH
                && let Some(next) = tasks.next_if(|_| bytes < MAX_BATCH_BYTES)
            {
                bytes += next.spec.len() + next.wrapped_session_key.len();
                some.push(next);
            }
            let new = !push.knows_context(node, context);
            let once = |bytes: &Bytes| if new { bytes.clone() } else { Bytes::new() };
            let record = if new { self.record_of(node) } else { None };
            let request = v1::GrantRequest {
                node: bytes_of(&node.0),
                boot: bytes_of(&view.boot.0),
                context,
                record_bytes: record.unwrap_or_default(),
                prekey_bytes: once(&view.prekey),
                revocations_bytes: once(&view.revocations),
                tasks: some,
            };
            let body = Some(ToClient::GrantsWanted(request));
            if !session.link.offer(v1::SessionFrame { body }, GRANT_RESERVE) {
                // What it would have carried goes with the next one again.
                push.forget_told();
                return;
            }
            push.told_context(node, context);
        }
    }

    /// What a granter must know of each: of its own tasks it knows everything.
    fn requests(&self, push: &mut SessionPush, wanted: &[Wanted]) -> Vec<v1::GrantWanted> {
        let rows = self.consensus.rows();
        let mut tasks = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let mut task = v1::GrantWanted {
                attempt: Some(wanted.attempt.into()),
                ..Default::default()
            };
            if let Some((session_key, spec)) = &wanted.foreign {
                let id = wanted.attempt.task;
                let row = rows
                    .get(Table::Tasks, &keys::task(id))
                    .and_then(TaskEnvelopeRow::from_bytes);
                let Some(row) = row else { continue };
                task.spec = match push.tell_spec(row.spec) {
                    true => spec.clone(),
                    false => bytes_of(&row.spec.0),
                };
                if push.tell_session(id.session()) {
                    task.wrapped_session_key = session_key.clone();
                }
                task.payload_digest = bytes_of(&row.payload_digest.0);
                task.wrapped_key = bytes_of(&wanted.wrapped_key);
            }
            tasks.push(task);
        }
        tasks
    }

    /// Passes a granter's batch to its node. A node that is away has no use for it: what it held is
    /// asked for again when it is back.
    ///
    /// *Errors*: malformed, or the stream is no granter.
    pub(crate) fn relay_grants(
        &self,
        from: &SessionLink,
        batch: v1::GrantBatch,
    ) -> Result<(), ControlError> {
        check_granter(from)?;
        if batch.attempts.len() > MAX_BATCH || batch.sealed.len() > MAX_BATCH_BYTES {
            return Err(ControlError::TooLarge {
                what: "a batch",
                most: MAX_BATCH_BYTES as u64,
            });
        }
        let (node, attempts) = named(&batch.node, &batch.attempts)?;
        // One that was placed anew since does not keep the others back: the node looks for itself.
        let mine = self.held(from.session, node, &attempts);
        if mine.is_empty() {
            tracing::debug!(session = %from.session, "a grant names no attempt of its granter");
            return Ok(());
        }
        if let Some(agent) = self.links.agent(node)
            && agent.frame(ToAgent::Grant(batch))
        {
            self.ungranted.lock().settle(&mine);
        }
        Ok(())
    }

    /// Those of `attempts` that are leased to `node` under `granter` now.
    fn held(&self, granter: SessionId, node: NodeId, attempts: &[AttemptRef]) -> Vec<AttemptRef> {
        self.consensus.read(|state| {
            let held = |a: &&AttemptRef| {
                let placed = state
                    .task(a.task)
                    .filter(|t| t.attempt == a.attempt)
                    .and_then(|t| t.placed);
                placed.is_some_and(|p| p.lease.granter == granter && p.node.id == node)
            };
            attempts.iter().filter(held).copied().collect()
        })
    }

    /// Takes back what a granter refuses, and remembers not to try that node again. What was granted
    /// already goes on: a refusal then comes too late.
    ///
    /// *Errors*: malformed, or the stream is no granter.
    pub(crate) async fn refuse_grants(
        &self,
        from: &SessionLink,
        refusal: v1::GrantRefusal,
    ) -> Result<(), ControlError> {
        check_granter(from)?;
        if refusal.attempts.len() > MAX_BATCH || refusal.reason.len() > MAX_EXIT_MESSAGE {
            return Err(ControlError::invalid("a refusal is larger than allowed"));
        }
        let (node, attempts) = named(&refusal.node, &refusal.attempts)?;
        let mine = self.held(from.session, node, &attempts);
        let mine = self.ungranted.lock().take(mine);
        {
            // Whatever it did not take in is told again with the next request.
            let mut push = from.push.lock();
            push.forget_contexts(node);
            push.forget_told();
        }
        if mine.is_empty() {
            return Ok(());
        }
        let reason: String = refusal.reason.chars().filter(|c| !c.is_control()).collect();
        tracing::info!(granter = %from.session, %node, count = mine.len(), %reason, "grants refused");
        {
            let mut refusals = self.refusals.lock();
            for attempt in &mine {
                refusals.note(attempt.task, from.session, node, &reason);
            }
        }
        let not_granted = |attempt| (attempt, ReturnReason::NotGranted);
        let attempts = mine.into_iter().map(not_granted).collect();
        self.order_quietly(Return { attempts }.into()).await
    }

    /// Forgets what was refused of tasks that have ended.
    pub(crate) fn forget_refusals<'a>(&self, tasks: impl Iterator<Item = &'a TaskId>) {
        let mut refusals = self.refusals.lock();
        if !refusals.is_empty() {
            tasks.for_each(|task| refusals.forget(task));
        }
    }

    /// Attempts leased under this granter.
    pub(crate) fn leased_under(&self, granter: SessionId) -> Vec<AttemptRef> {
        self.consensus.read(|state| {
            let nodes = state.nodes().map(|n| n.id).collect::<Vec<_>>();
            let leased = nodes
                .into_iter()
                .flat_map(|n| state.desired(&n).collect::<Vec<_>>());
            leased
                .filter(|t| t.placed.is_some_and(|p| p.lease.granter == granter))
                .map(|t| t.attempt_ref())
                .collect()
        })
    }

    /// Returns what no granter answered for in time.
    pub(crate) fn overdue_grants(&self) -> Option<Return> {
        let overdue = self.ungranted.lock().take_overdue(self.clock.steady());
        let attempts: Vec<_> = overdue
            .into_iter()
            .map(|a| (a, ReturnReason::NotGranted))
            .collect();
        (!attempts.is_empty()).then_some(Return { attempts })
    }
}

/// *Errors*: the stream is none.
pub(crate) fn check_granter(from: &SessionLink) -> Result<(), ControlError> {
    match from.granter {
        v1::GranterKind::None => Err(ControlError::invalid(
            "this stream was not opened as a granter",
        )),
        v1::GranterKind::Session | v1::GranterKind::Standing => Ok(()),
    }
}

/// *Errors*: malformed.
pub(crate) fn named(
    node: &[u8],
    attempts: &[v1::AttemptRef],
) -> Result<(NodeId, Vec<AttemptRef>), ControlError> {
    let node = NodeId::from_slice(node).map_err(|e| ControlError::invalid(e.to_string()))?;
    let attempts = attempts.iter().map(AttemptRef::try_from);
    let attempts = attempts
        .collect::<Result<_, _>>()
        .map_err(|_| ControlError::invalid("attempts are malformed"))?;
    Ok((node, attempts))
}
