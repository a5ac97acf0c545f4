//! Answers the network's requests for grants.
//!
//! Owns the contexts with nodes, the memory of what was granted, and [`Standing`], which grants for
//! sessions that are away. Leaves every check of records and keys to `farlane-seal`.
//!
//! ```text
//! GrantRequest{node, context, prekey?} ─▶ context known? ─ no ─▶ open (record, pins, revocations)
//!        └─ for each attempt: key known, node where and shut in as the spec asks, not granted to another
//!           node, attempts left ─▶ one sealed GrantBatch
//! ```
//!
//! A context's opening goes with every batch until a result of a task granted under it shows that
//! the node has it: the first batch may have been lost with a connection.

mod denial;
mod file;
mod recent;
mod standing;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, Digest, NodeId, NodeRequest, SessionId, TaskId, TaskSpec};
use farlane_seal::grant::{
    Admission, Grant, GrantEntry, GrantLog, GranterContext, MAX_GRANTS, OpenContext,
    attempts_allowed,
};
use farlane_seal::record::{
    NodeRecord, RecordError, RevocationList, RevocationPolicy, SignedPrekey,
};
use farlane_seal::{OpenError, PublicKey, SessionKey, TaskKey, vault, wrap};
use farlane_units::Millis;
use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Out;

use crate::session::Shared;
use denial::{Denied, Refusal, refusal};
use file::GrantFile;
use recent::Recent;
pub use standing::Standing;

/// A grant is opened on arrival; this covers a slow link and a clock that is off.
const OPEN_WITHIN: Millis = Millis(60_000);
/// One open context.
struct Context {
    inner: GranterContext,
    /// What the node's provider promises of it.
    record: NodeRecord,
    opening: v1::ContextOpening,
    /// Granted while nothing has shown that the node opened the context; empty once it has.
    unproven: HashSet<TaskId>,
    proven: bool,
}

/// Where keys come from, and what outlives the process.
enum Source {
    /// The session's own tasks.
    Session,
    /// Any task of the project.
    Standing(Box<Keeper>),
}

/// What a standing granter holds: keys from the vault, grants remembered on disk.
struct Keeper {
    file: GrantFile,
    sessions: Recent<SessionId, SessionKey>,
    /// What the control plane has shown, by digest: a task's own words, not its placement's.
    specs: Recent<Digest, Asked>,
}

/// What a spec asks of a granter.
#[derive(Clone)]
struct Asked {
    limit: u32,
    place: Arc<NodeRequest>,
}

/// A granter's contexts and memory.
pub(crate) struct Granting {
    source: Source,
    contexts: HashMap<(NodeId, u64), Context>,
    log: GrantLog,
    /// Each pinned provider's newest list seen: one that is withheld later still holds.
    revocations: HashMap<PublicKey, RevocationList>,
}

/// What is needed to grant one attempt.
struct Grantable {
    key: TaskKey,
    spec: Digest,
    payload: Digest,
    limit: u32,
    /// Where the task may run.
    place: Arc<NodeRequest>,
}

impl Granting {
    /// For a session's own tasks.
    pub fn session() -> Self {
        Self {
            source: Source::Session,
            contexts: HashMap::new(),
            log: GrantLog::new(),
            revocations: HashMap::new(),
        }
    }

    /// For any task of the project; remembers in `folder`.
    ///
    /// *Errors*: the folder cannot be used.
    pub fn standing(folder: &Path) -> std::io::Result<Self> {
        let mut log = GrantLog::new();
        let file = GrantFile::open(folder, &mut log)?;
        let source = Source::Standing(Box::new(Keeper {
            file,
            sessions: Recent::default(),
            specs: Recent::default(),
        }));
        Ok(Self {
            source,
            contexts: HashMap::new(),
            log,
            revocations: HashMap::new(),
        })
    }

    pub fn kind(&self) -> v1::GranterKind {
        match self.source {
            Source::Session => v1::GranterKind::Session,
            Source::Standing(_) => v1::GranterKind::Standing,
        }
    }

    /// Grants what may be granted, in batches, and refuses what never will be on this node. What only
    /// cannot be granted now is passed over: it is placed anew in time.
    pub fn answer(&mut self, shared: &Shared, request: &v1::GrantRequest, now: Millis) -> Vec<Out> {
        match self.grant(shared, request, now) {
            Ok(frames) => frames,
            Err(why) => {
                tracing::warn!(%why, "work was not granted");
                let attempts = request.tasks.iter().filter_map(|t| t.attempt.clone());
                match why.is_lasting() {
                    true => vec![refusal(request, attempts.collect(), &why.to_string())],
                    false => Vec::new(),
                }
            }
        }
    }

    /// *Errors*: the node or its prekey does not hold; nothing is granted then.
    fn grant(
        &mut self,
        shared: &Shared,
        request: &v1::GrantRequest,
        now: Millis,
    ) -> Result<Vec<Out>, Refusal> {
        let node = NodeId::from_slice(&request.node).map_err(|_| Refusal::Unreadable)?;
        let slot = (node, request.context);
        self.learn(shared, &request.tasks);
        self.contexts
            .retain(|_, context| context.inner.is_open(now));
        self.take_revocations(shared, node, &request.revocations_bytes)?;
        if let Entry::Vacant(vacant) = self.contexts.entry(slot) {
            vacant.insert(open_context(shared, node, request, &self.revocations, now)?);
        }
        let mut grants = Vec::with_capacity(request.tasks.len());
        let mut first = Vec::new();
        let mut denied: BTreeMap<String, Vec<v1::AttemptRef>> = BTreeMap::new();
        for wanted in &request.tasks {
            let Some(attempt) = wanted
                .attempt
                .as_ref()
                .and_then(|a| AttemptRef::try_from(a).ok())
            else {
                return Err(Refusal::Unreadable);
            };
            let (found, admission) = match self.judge(shared, slot, attempt, wanted) {
                Ok(found) => found,
                Err(why) => {
                    tracing::warn!(task = %attempt.task, %node, %why, "not granted");
                    if why.is_lasting() {
                        denied
                            .entry(why.to_string())
                            .or_default()
                            .push(attempt.into());
                    }
                    continue;
                }
            };
            if admission == Admission::First {
                first.push(GrantEntry { attempt, node });
            }
            grants.push(Grant {
                attempt,
                open_by: now.saturating_add(OPEN_WITHIN),
                spec_digest: found.spec,
                payload_digest: found.payload,
                key: found.key,
            });
        }
        if let Source::Standing(keeper) = &mut self.source {
            // On disk before it is sent.
            keeper.file.append(&first, &mut self.log)?;
        }
        let mut frames = self.seal(slot, request, grants)?;
        frames.extend(
            denied
                .into_iter()
                .map(|(why, attempts)| refusal(request, attempts, &why)),
        );
        Ok(frames)
    }

    /// Takes a provider's list where it is newer, and ends the contexts of those on it.
    fn take_revocations(
        &mut self,
        shared: &Shared,
        node: NodeId,
        list: &[u8],
    ) -> Result<(), Refusal> {
        if list.is_empty() {
            return Ok(());
        }
        let bad = |source| Refusal::Record { node, source };
        let list = RevocationList::from_bytes(list).map_err(bad)?;
        let provider = list.provider();
        let known = self.revocations.get(&provider);
        let newer = known.is_none_or(|known| list.issued() > known.issued());
        let pins = &shared.network.identity().manifest.providers;
        if newer && pins.iter().any(|pin| pin.root == provider) {
            let on_it = |node: &NodeId| list.nodes().binary_search(node).is_ok();
            self.contexts
                .retain(|(node, _), c| c.record.provider() != provider || !on_it(node));
            self.revocations.insert(provider, list);
        }
        Ok(())
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
            .grantable(shared, attempt.task, wanted)
            .ok_or(Denied::Unknown)?;
        if let Some(context) = self.contexts.get(&slot) {
            context.record.suits(&found.place)?;
        }
        let admission = self.log.admit(attempt, slot.0, found.limit)?;
        Ok((found, admission))
    }

    fn seal(
        &mut self,
        slot: (NodeId, u64),
        request: &v1::GrantRequest,
        grants: Vec<Grant>,
    ) -> Result<Vec<Out>, Refusal> {
        let (node, context_id) = slot;
        let context = self
            .contexts
            .get_mut(&slot)
            .ok_or(Refusal::UnknownContext { node })?;
        let mut batches = Vec::with_capacity(grants.len().div_ceil(MAX_GRANTS));
        for chunk in grants.chunks(MAX_GRANTS) {
            let (counter, sealed) = context
                .inner
                .seal(chunk)
                .map_err(|source| Refusal::Grant { node, source })?;
            if !context.proven && context.unproven.len() < MAX_GRANTS {
                context
                    .unproven
                    .extend(chunk.iter().map(|grant| grant.attempt.task));
            }
            batches.push(Out::Grant(v1::GrantBatch {
                node: request.node.clone(),
                context: context_id,
                opening: (!context.proven).then(|| context.opening.clone()),
                counter,
                sealed: Bytes::from(sealed),
                attempts: chunk.iter().map(|grant| grant.attempt.into()).collect(),
            }));
        }
        Ok(batches)
    }

    /// The key and digests of an attempt; `None` where the task is not this granter's.
    fn grantable(
        &self,
        shared: &Shared,
        task: TaskId,
        wanted: &v1::GrantWanted,
    ) -> Option<Grantable> {
        let Source::Standing(keeper) = &self.source else {
            let live = shared.live.lock();
            let live = live.get(&task)?;
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
    fn learn(&mut self, shared: &Shared, tasks: &[v1::GrantWanted]) {
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

    /// Takes note that results of these tasks came from a node.
    pub fn finished(&mut self, node: Option<NodeId>, tasks: impl Iterator<Item = TaskId>) {
        let unproven: Vec<_> = match node {
            Some(node) => {
                let of_node =
                    |(slot, c): &(&(NodeId, u64), &mut Context)| slot.0 == node && !c.proven;
                self.contexts
                    .iter_mut()
                    .filter(of_node)
                    .map(|(_, c)| c)
                    .collect()
            }
            None => Vec::new(),
        };
        let mut unproven = unproven;
        let forgets = matches!(self.source, Source::Session);
        for task in tasks {
            // Nothing here shows a standing granter that a result is true: it remembers.
            if forgets {
                self.log.forget(&task);
            }
            for context in &mut unproven {
                if context.unproven.contains(&task) {
                    context.proven = true;
                    context.unproven = HashSet::new();
                }
            }
        }
    }
}

/// The digest of a spec that was named by its canonical bytes, or by digest. The node holds it against
/// the one that the client put into the payload: another spec than the task's own grants nothing.
fn spec_digest(named: &[u8]) -> Digest {
    Digest::from_slice(named).unwrap_or_else(|_| Digest::of(named))
}

fn open_context(
    shared: &Shared,
    node: NodeId,
    request: &v1::GrantRequest,
    revocations: &HashMap<PublicKey, RevocationList>,
    now: Millis,
) -> Result<Context, Refusal> {
    if request.record_bytes.is_empty() || request.prekey_bytes.is_empty() {
        return Err(Refusal::UnknownContext { node });
    }
    let bad = |source| Refusal::Record { node, source };
    let record = NodeRecord::from_bytes(&request.record_bytes).map_err(bad)?;
    if record.node() != node {
        return Err(bad(RecordError::Misplaced {
            what: "node record",
        }));
    }
    let prekey = SignedPrekey::from_bytes(&request.prekey_bytes, &record).map_err(bad)?;
    if BootId::from_slice(&request.boot).is_ok_and(|boot| boot != prekey.boot) {
        return Err(bad(RecordError::Misplaced { what: "prekey" }));
    }
    let identity = shared.network.identity();
    let order = OpenContext {
        record: &record,
        prekey: &prekey,
        revocations: revocations.get(&record.provider()),
        revocation_policy: RevocationPolicy::WhenGiven,
        manifest: &identity.manifest,
        network: &identity.network,
        granter: shared.session,
        device: &identity.device_key,
        device_record: &identity.device,
        now,
    };
    let (inner, opening) =
        GranterContext::open(&order).map_err(|source| Refusal::Grant { node, source })?;
    let opening = v1::ContextOpening {
        enc: opening.enc,
        info_bytes: opening.info_bytes,
        signature: opening.signature,
        device_bytes: opening.device_bytes,
    };
    Ok(Context {
        inner,
        record,
        opening,
        unproven: HashSet::new(),
        proven: false,
    })
}
