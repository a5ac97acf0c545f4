//! Answers the network's requests for grants.
//!
//! Owns the contexts with nodes, the memory of what was granted, and [`Standing`], which grants for
//! sessions that are away. Leaves every check of records and keys to `farlane-seal`.
//!
//! ```text
//! GrantRequest{node, context, prekey?} ─▶ context known? ─ no ─▶ open (record, pins, revocations)
//!        └─ for each attempt: key known, node where and shut in as the spec asks, not granted to another
//!           node, attempts left; where it may run once, also by all that share the memory
//!                 ─▶ one sealed GrantBatch
//! ```
//!
//! A client need not be asked for the first attempt of a call that somebody waits for: it grants it ahead,
//! with the submission, to the node that got the last call of the same spec.
//!
//! A context's opening goes with every batch until a result of a task granted under it shows that
//! the node has it: the first batch may have been lost with a connection.

mod ahead;
mod denial;
mod file;
mod judge;
mod memory;
mod recent;
mod standing;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{BootId, Digest, NodeId, NodeRequest, SessionId, TaskId};
use farlane_seal::SessionKey;
use farlane_seal::grant::{Admission, Grant, GrantLog, GranterContext, MAX_GRANTS, OpenContext};
use farlane_seal::record::{
    NodeRecord, RecordError, RevocationList, RevocationPolicy, SignedPrekey,
};
use farlane_units::Millis;
use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Out;

use crate::session::Shared;
use denial::{Refusal, refusal};
use file::GrantFile;
use judge::Judged;
use memory::Memory;
use recent::Recent;
pub use standing::Standing;

/// A grant is opened on arrival; this covers a slow link and a clock that is off.
const OPEN_WITHIN: Millis = Millis(60_000);
/// A list of revocations that is missing or too old may still be on its way: an owner that was switched
/// off for a day publishes one seconds after its start, while what was queued is placed already.
const RENEWAL_GRACE: Millis = Millis(30_000);

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
    /// Shared with others: what is revoked, though it be withheld later, and what may run once.
    memory: Memory,
    /// Since when nodes have been refused for want of a list.
    stale_since: HashMap<NodeId, Millis>,
    /// Said to have ended; forgotten once their results have been looked at.
    ended: VecDeque<TaskId>,
    /// Where a spec's tasks were last placed.
    likely: Recent<Digest, (NodeId, u64)>,
}

impl Granting {
    /// For a session's own tasks. Where the shared folder cannot be used, it remembers alone.
    pub fn session(shared: &Path) -> Self {
        let memory = Memory::open(shared).unwrap_or_else(|error| {
            let path = shared.display();
            tracing::warn!(%path, %error, "grants are not remembered together with other processes");
            Memory::alone()
        });
        Self::new(Source::Session, GrantLog::new(), memory)
    }

    /// For any task of the project; remembers in `folder`, and in what others share.
    ///
    /// *Errors*: one of them cannot be used.
    pub fn standing(folder: &Path, shared: &Path) -> std::io::Result<Self> {
        let mut log = GrantLog::new();
        let file = GrantFile::open(folder, &mut log)?;
        let source = Source::Standing(Box::new(Keeper {
            file,
            sessions: Recent::default(),
            specs: Recent::default(),
        }));
        Ok(Self::new(source, log, Memory::open(shared)?))
    }

    fn new(source: Source, log: GrantLog, memory: Memory) -> Self {
        Self {
            source,
            contexts: HashMap::new(),
            log,
            memory,
            stale_since: HashMap::new(),
            ended: VecDeque::new(),
            likely: Recent::default(),
        }
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
                let attempts = match why.is_lasting() && !self.may_be_renewed(&why, now) {
                    true => attempts.collect(),
                    // Of no attempt, yet the next request shows node, prekey and revocations again.
                    false => Vec::new(),
                };
                vec![refusal(request, attempts, &why.to_string())]
            }
        }
    }

    /// Whether a node is refused for want of a list that may still come.
    fn may_be_renewed(&mut self, why: &Refusal, now: Millis) -> bool {
        let Some(node) = why.stale_for() else {
            return false;
        };
        let since = *self.stale_since.entry(node).or_insert(now);
        now.saturating_sub(since) < RENEWAL_GRACE
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
            vacant.insert(open_context(shared, node, request, &mut self.memory, now)?);
            self.stale_since.remove(&node);
        }
        let Judged {
            grants,
            first,
            denied,
        } = self.judge_all(shared, slot, request, now)?;
        if let Source::Standing(keeper) = &mut self.source {
            // On disk before it is sent.
            keeper.file.append(&first, &mut self.log)?;
        } else {
            for same in grants.chunk_by(|a, b| a.spec_digest == b.spec_digest) {
                self.likely.insert(same[0].spec_digest, slot);
            }
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
        let pins = &shared.network.identity().manifest.providers;
        if pins.iter().any(|pin| pin.root == provider)
            && self.memory.learn(list)
            && let Some(list) = self.memory.revocations(&provider)
        {
            let on_it = |node: &NodeId| list.nodes().binary_search(node).is_ok();
            self.contexts
                .retain(|(node, _), c| c.record.provider() != provider || !on_it(node));
        }
        Ok(())
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

    /// Takes note that results of these tasks came from a node.
    pub fn finished(
        &mut self,
        shared: &Shared,
        node: Option<NodeId>,
        tasks: impl Iterator<Item = TaskId>,
    ) {
        self.forget_ended(shared);
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
        // Nothing here shows a standing granter that a result is true: it remembers.
        let forgets = matches!(self.source, Source::Session);
        for task in tasks {
            if forgets {
                self.ended.push_back(task);
            }
            for context in &mut unproven {
                if context.unproven.contains(&task) {
                    context.proven = true;
                    context.unproven = HashSet::new();
                }
            }
        }
    }

    /// Forgets what was said to have ended and is awaited no longer; the rest is asked for later. While a
    /// task is awaited, its grants are remembered, whoever says that it ended.
    fn forget_ended(&mut self, shared: &Shared) {
        if self.ended.is_empty() {
            return;
        }
        let live = shared.live.lock();
        for _ in 0..self.ended.len() {
            let Some(task) = self.ended.pop_front() else {
                break;
            };
            match live.contains_key(&task) {
                true => self.ended.push_back(task),
                false => self.log.forget(&task),
            }
        }
    }
}

fn open_context(
    shared: &Shared,
    node: NodeId,
    request: &v1::GrantRequest,
    memory: &mut Memory,
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
        revocations: memory.revocations(&record.provider()),
        revocation_policy: RevocationPolicy::Required,
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
