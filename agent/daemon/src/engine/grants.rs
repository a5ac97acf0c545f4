//! Contexts that granters opened to this node, its prekeys, and grants that came early.

use std::collections::HashMap;

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId};
use farlane_seal::NodeIdentity;
use farlane_seal::grant::{AcceptError, Grant, NodeContext, Opening};
use farlane_seal::prekey::PrekeyStock;
use farlane_seal::record::NodeRecord;
use farlane_units::Millis;
use farlane_wire::v1;

use super::attempt::Granted;

/// Grants held for assignments that have not come yet. Source: the largest backlog credit, four times.
const MAX_EARLY: usize = 4096;
/// They are held this long. Source: a placement not granted within 2 s + round trip returns.
const EARLY_LIFE_MS: u64 = 5_000;
/// Most contexts. Source: one granter each 10 minutes; 1024 are live at a project of that many users.
const MAX_CONTEXTS: usize = 1024;
/// Most contexts of one index: granters that one entry of the log served on this node.
const MAX_SHARING: usize = 64;

/// All that grants need.
#[derive(Debug)]
pub(super) struct Grants {
    stock: PrekeyStock,
    contexts: HashMap<u64, Vec<NodeContext>>,
    early: HashMap<AttemptRef, (Granted, u64)>,
}

/// A batch of grants that could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGrant {
    #[error("the grant context is not open here")]
    NoContext,
    #[error(transparent)]
    Refused(#[from] AcceptError),
}

impl Grants {
    pub(super) fn new(identity: NodeIdentity, record: NodeRecord, boot: BootId) -> Self {
        let stock = PrekeyStock::new(identity, record, boot);
        Self {
            stock,
            contexts: HashMap::new(),
            early: HashMap::new(),
        }
    }

    /// New one-time prekeys.
    pub(super) fn one_time(&mut self, count: usize, now: Millis) -> Vec<Bytes> {
        self.stock.one_time(count, now)
    }

    /// A new daily prekey, when it is time for one.
    pub(super) fn daily(&mut self, now: Millis) -> Option<Bytes> {
        self.stock.daily(now)
    }

    /// Opens a batch: each attempt with what it was granted.
    ///
    /// *Errors*: no such context, or its opening or the batch does not hold.
    pub(super) fn open(
        &mut self,
        batch: &v1::GrantBatch,
        network: &[u8],
        now: Millis,
    ) -> Result<Vec<(AttemptRef, Granted)>, NoGrant> {
        // One entry of the log may issue contexts to several granters: they share its index, and only
        // one of them opens the batch. An opening that is known already is a repetition.
        let claimed = batch.opening.as_ref().map(|opening| Opening {
            enc: opening.enc.clone(),
            info_bytes: opening.info_bytes.clone(),
            signature: opening.signature.clone(),
            device_bytes: opening.device_bytes.clone(),
        });
        if self.contexts.len() >= MAX_CONTEXTS && !self.contexts.contains_key(&batch.context) {
            return Err(NoGrant::NoContext);
        }
        let known = self.contexts.entry(batch.context).or_default();
        let granter = claimed
            .as_ref()
            .and_then(Opening::claimed)
            .map(|info| info.granter);
        if let Some(opening) = claimed
            && !known
                .iter()
                .any(|context| Some(context.info().granter) == granter)
            && known.len() < MAX_SHARING
        {
            known.push(self.stock.accept(&opening, network, now)?);
        }
        let mut failed = NoGrant::NoContext;
        let mut opened = None;
        for context in known.iter_mut() {
            match context.open(batch.counter, &batch.sealed, now) {
                Ok(grants) => {
                    opened = Some((&*context, grants));
                    break;
                }
                Err(error) => failed = error.into(),
            }
        }
        let Some((context, grants)) = opened else {
            return Err(failed);
        };
        let (tenant, own) = (context.tenant(), context.info().own_provider);
        let fresh = grants.into_iter().filter(|grant| grant.open_by >= now);
        Ok(fresh.map(|grant| granted(grant, tenant, own)).collect())
    }

    /// Holds a grant until its assignment comes.
    pub(super) fn hold(&mut self, at: AttemptRef, granted: Granted, steady_ms: u64) {
        if self.early.len() >= MAX_EARLY {
            let oldest = self.early.iter().min_by_key(|(_, (_, came))| *came);
            if let Some(oldest) = oldest.map(|(at, _)| *at) {
                self.early.remove(&oldest);
            }
        }
        self.early.insert(at, (granted, steady_ms));
    }

    /// The grant that came before its assignment.
    pub(super) fn take(&mut self, at: &AttemptRef) -> Option<Granted> {
        self.early.remove(at).map(|(granted, _)| granted)
    }

    /// Forgets what ended.
    pub(super) fn sweep(&mut self, now: Millis) {
        self.contexts.retain(|_, sharing| {
            sharing.retain(|context| context.is_open(now));
            !sharing.is_empty()
        });
        let steady = crate::clock::ClusterClock::steady();
        self.early
            .retain(|_, (_, came)| steady.saturating_sub(*came) < EARLY_LIFE_MS);
    }
}

fn granted(grant: Grant, tenant: farlane_model::TenantId, own: bool) -> (AttemptRef, Granted) {
    let Grant {
        attempt,
        spec_digest,
        payload_digest,
        key,
        ..
    } = grant;
    (
        attempt,
        Granted {
            key,
            tenant,
            own,
            spec_digest,
            payload_digest,
        },
    )
}
