//! Which attempts of a request are granted.
//!
//! Owns what is held against each: its keys, its place, its retries, and whether it may run once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use farlane_model::{AttemptRef, Digest, NodeId, NodeRequest, TaskId, TaskSpec};
use farlane_seal::grant::{Admission, Grant, GrantEntry, attempts_allowed};
use farlane_seal::{OpenError, TaskKey, vault, wrap};
use farlane_units::Millis;
use farlane_wire::v1;

use super::denial::{Denied, Refusal};
use super::{Asked, Granting, OPEN_WITHIN, Source};
use crate::session::Shared;
use crate::session::live::Phase;

/// What is needed to grant one attempt.
struct Grantable {
    key: TaskKey,
    spec: Digest,
    payload: Digest,
    limit: u32,
    /// Where the task may run.
    place: Arc<NodeRequest>,
}

/// A request, judged.
pub(super) struct Judged {
    pub grants: Vec<Grant>,
    /// New ones.
    pub first: Vec<GrantEntry>,
    /// What will not be granted on this node, by the reason.
    pub denied: BTreeMap<String, Vec<v1::AttemptRef>>,
}

impl Judged {
    fn deny(&mut self, attempt: AttemptRef, node: NodeId, why: &Denied) {
        tracing::warn!(task = %attempt.task, %node, %why, "not granted");
        if why.is_lasting() {
            let same = self.denied.entry(why.to_string()).or_default();
            same.push(attempt.into());
        }
    }
}

impl Granting {
    /// What of a request is granted, what of it must be remembered first, and what never will be.
    ///
    /// *Errors*: the request cannot be read.
    pub(super) fn judge_all(
        &mut self,
        shared: &Shared,
        slot: (NodeId, u64),
        request: &v1::GrantRequest,
        now: Millis,
    ) -> Result<Judged, Refusal> {
        let mut judged = Judged {
            grants: Vec::with_capacity(request.tasks.len()),
            first: Vec::new(),
            denied: BTreeMap::new(),
        };
        let mut found = Vec::with_capacity(request.tasks.len());
        for wanted in &request.tasks {
            let attempt = wanted.attempt.as_ref().map(AttemptRef::try_from);
            let Some(Ok(attempt)) = attempt else {
                return Err(Refusal::Unreadable);
            };
            match self.judge(shared, slot, attempt, wanted) {
                Ok((grantable, admission)) => found.push((attempt, grantable, admission)),
                Err(why) => judged.deny(attempt, slot.0, &why),
            }
        }
        let refused = self.refused_once(slot.0, &found);
        for (attempt, grantable, admission) in found {
            if let Some(why) = refused.get(&attempt) {
                judged.deny(attempt, slot.0, why);
                continue;
            }
            if admission == Admission::First {
                let node = slot.0;
                judged.first.push(GrantEntry { attempt, node });
            }
            judged.grants.push(Grant {
                attempt,
                open_by: now.saturating_add(OPEN_WITHIN),
                spec_digest: grantable.spec,
                payload_digest: grantable.payload,
                key: grantable.key,
            });
        }
        Ok(judged)
    }

    /// Which of those that may run once another granter of this user has granted, or cannot be
    /// remembered for all of them.
    fn refused_once(
        &mut self,
        node: NodeId,
        found: &[(AttemptRef, Grantable, Admission)],
    ) -> HashMap<AttemptRef, Denied> {
        let once = found
            .iter()
            .filter(|(_, grantable, _)| grantable.limit == 1);
        let entries: Vec<_> = once
            .map(|(attempt, ..)| GrantEntry {
                attempt: *attempt,
                node,
            })
            .collect();
        if entries.is_empty() {
            return HashMap::new();
        }
        let attempts = entries.iter().map(|entry| entry.attempt);
        match self.memory.admit_once(&entries) {
            Ok(judged) => attempts
                .zip(judged)
                .filter_map(|(attempt, judged)| Some((attempt, judged.err()?.into())))
                .collect(),
            Err(error) => {
                let why = error.to_string();
                attempts.map(|a| (a, Denied::File(why.clone()))).collect()
            }
        }
    }

    /// Whether this attempt may run on this node, as far as can be known without the control plane.
    fn judge(
        &mut self,
        shared: &Shared,
        slot: (NodeId, u64),
        attempt: AttemptRef,
        wanted: &v1::GrantWanted,
    ) -> Result<(Grantable, Admission), Denied> {
        let found = self
            .grantable(shared, slot.0, attempt, wanted)
            .ok_or(Denied::Unknown)?;
        if let Some(context) = self.contexts.get(&slot) {
            context.record.suits(&found.place)?;
        }
        let admission = self.log.admit(attempt, slot.0, found.limit)?;
        Ok((found, admission))
    }

    /// The key and digests of an attempt; `None` where the task is not this granter's.
    fn grantable(
        &self,
        shared: &Shared,
        node: NodeId,
        attempt: AttemptRef,
        wanted: &v1::GrantWanted,
    ) -> Option<Grantable> {
        let task = attempt.task;
        let Source::Standing(keeper) = &self.source else {
            let mut live = shared.live.lock();
            let live = live.get_mut(&task)?;
            if live.phase == Phase::Queued {
                // Who is asked for a grant knows it first; a return to the queue comes as news.
                (live.phase, live.attempt, live.node) =
                    (Phase::Placed, attempt.attempt, Some(node));
            }
            // Before it is known whether it is granted: too many is safe.
            live.holder.add(node);
            let (spec, payload) = (live.spec, live.payload_digest);
            return Some(Grantable {
                key: live.key.clone(),
                spec,
                payload,
                limit: live.grants,
                place: live.place.clone()?,
            });
        };
        let spec = spec_digest(&wanted.spec);
        let asked = keeper.specs.get(&spec)?;
        let session_key = keeper.sessions.get(&task.session())?;
        let key: Result<TaskKey, OpenError> =
            wrap::unwrap_task_key(session_key, task.seq(), &wanted.wrapped_key);
        Some(Grantable {
            key: key.ok()?,
            spec,
            payload: Digest::from_slice(&wanted.payload_digest).ok()?,
            limit: asked.limit,
            place: asked.place.clone(),
        })
    }

    /// Takes up what a request tells of other sessions' tasks.
    pub(super) fn learn(&mut self, shared: &Shared, tasks: &[v1::GrantWanted]) {
        let Source::Standing(keeper) = &mut self.source else {
            return;
        };
        let vault = &shared.network.identity().vault;
        for wanted in tasks {
            let task = wanted.attempt.as_ref().map(|a| TaskId::from_slice(&a.task));
            if let Some(Ok(task)) = task
                && !wanted.wrapped_session_key.is_empty()
                && let Ok(key) =
                    vault::open_session(vault, task.session(), &wanted.wrapped_session_key)
            {
                keeper.sessions.insert(task.session(), key);
            }
            if Digest::from_slice(&wanted.spec).is_err()
                && let Ok(spec) = TaskSpec::from_canonical(&wanted.spec)
            {
                let limit = attempts_allowed(&spec.retry);
                let place = Arc::new(spec.node);
                keeper
                    .specs
                    .insert(Digest::of(&wanted.spec), Asked { limit, place });
            }
        }
    }
}

/// The digest of a spec that was named by its canonical bytes, or by digest. The node holds it against
/// the one that the client put into the payload: another spec than the task's own grants nothing.
fn spec_digest(named: &[u8]) -> Digest {
    Digest::from_slice(named).unwrap_or_else(|_| Digest::of(named))
}
