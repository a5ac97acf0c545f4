//! A node's stock of prekeys: public halves go to the control plane, private halves stay here.
//!
//! In memory only: a new boot makes new ones, and whatever was sealed to the old ones is void. A
//! one-time key is deleted once it has opened a context; a daily key remembers which openings it
//! has served, so that none is served twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use farlane_model::BootId;
use farlane_units::Millis;

use crate::grant::{AcceptError, NodeContext, Opening, verify};
use crate::hpke_suite::Secret;
use crate::random::{Randomness, System};
use crate::record::{NodeRecord, PrekeyKind, PrekeyTerms, SignedPrekey};
use crate::sign::NodeIdentity;
use crate::stream::Suite;

/// Most private halves held. Source: 64 granters an hour, for a day, and some.
pub const MAX_STOCK: usize = 2048;
/// A one-time prekey serves this long.
pub const ONE_TIME_LIFE: Millis = Millis(7 * 24 * 3_600_000);
/// A new daily key is made this often, and serves for twice as long.
pub const DAILY_EVERY: Millis = Millis(24 * 3_600_000);
/// Most openings that daily keys serve within a context's life. Source: one granter each 10 min.
const MAX_SERVED: usize = 65_536;

struct Half {
    secret: Secret,
    kind: PrekeyKind,
    not_after: Millis,
}

/// Prekeys of one boot.
pub struct PrekeyStock {
    identity: NodeIdentity,
    record: NodeRecord,
    boot: BootId,
    next: u64,
    halves: BTreeMap<u64, Half>,
    daily_made: Option<Millis>,
    /// (context's end, enc) of openings that daily keys have served.
    served: BTreeSet<(Millis, [u8; 32])>,
}

impl PrekeyStock {
    /// An empty stock. `boot` is new at every start of the agent.
    pub fn new(identity: NodeIdentity, record: NodeRecord, boot: BootId) -> Self {
        let (halves, served) = (BTreeMap::new(), BTreeSet::new());
        Self {
            identity,
            record,
            boot,
            next: 1,
            halves,
            daily_made: None,
            served,
        }
    }

    /// The boot that it is tagged with.
    pub fn boot(&self) -> BootId {
        self.boot
    }
    /// Private halves held.
    pub fn len(&self) -> usize {
        self.halves.len()
    }
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    /// Makes up to `count` one-time prekeys; fewer when the stock is full. Returns their canonical
    /// bytes.
    pub fn one_time(&mut self, count: usize, now: Millis) -> Vec<Bytes> {
        self.sweep(now);
        let room = MAX_STOCK.saturating_sub(self.halves.len());
        let not_after = now.saturating_add(ONE_TIME_LIFE);
        (0..count.min(room))
            .map(|_| self.make(&mut System, PrekeyKind::OneTime, not_after))
            .collect()
    }

    /// A new daily key, when it is time for one: the canonical bytes.
    pub fn daily(&mut self, now: Millis) -> Option<Bytes> {
        let due = self
            .daily_made
            .is_none_or(|made| now.saturating_sub(made) >= DAILY_EVERY);
        if !due {
            return None;
        }
        self.sweep(now);
        self.daily_made = Some(now);
        let not_after = now.saturating_add(DAILY_EVERY).saturating_add(DAILY_EVERY);
        Some(self.make(&mut System, PrekeyKind::Daily, not_after))
    }

    pub(crate) fn make(
        &mut self,
        random: &mut impl Randomness,
        kind: PrekeyKind,
        not_after: Millis,
    ) -> Bytes {
        let (secret, public) = Secret::generate(random);
        let id = self.next;
        self.next += 1;
        let terms = PrekeyTerms {
            node: self.record.node(),
            boot: self.boot,
            id,
            kind,
            suite: Suite::One.code(),
            public,
            not_after,
        };
        let signed = SignedPrekey::sign(&self.identity, terms)
            .expect("a prekey's fields are of fixed size and within its bounds");
        self.halves.insert(
            id,
            Half {
                secret,
                kind,
                not_after,
            },
        );
        signed.to_bytes()
    }

    fn sweep(&mut self, now: Millis) {
        self.halves.retain(|_, half| now <= half.not_after);
        self.served = self.served.split_off(&(now, [0; 32]));
    }

    /// Checks an opening and takes the prekey it names: the node's end of the context.
    ///
    /// *Errors*: it was made for another node, boot or network; no granting device of its tenant
    /// signed it; its prekey is unknown, used or too old; or it was served before. A one-time key
    /// survives all of these.
    pub fn accept(
        &mut self,
        opening: &Opening,
        network: &[u8],
        now: Millis,
    ) -> Result<NodeContext, AcceptError> {
        let verified = verify(opening, &self.record, self.boot, network, now)?;
        let (id, kind, expiry) = (
            verified.info.prekey,
            verified.info.prekey_kind,
            verified.info.expiry,
        );
        let half = self
            .halves
            .get(&id)
            .filter(|half| half.kind == kind && now <= half.not_after)
            .ok_or(AcceptError::PrekeyGone)?;
        let enc: [u8; 32] = opening.enc[..]
            .try_into()
            .map_err(|_| AcceptError::PrekeyGone)?;
        if self.served.contains(&(expiry, enc)) {
            return Err(AcceptError::Replayed);
        }
        let context = NodeContext::establish(verified, opening, &half.secret)?;
        match kind {
            PrekeyKind::OneTime => {
                self.halves.remove(&id);
            }
            PrekeyKind::Daily => {
                self.served = self.served.split_off(&(now, [0; 32]));
                if self.served.len() >= MAX_SERVED {
                    return Err(AcceptError::PrekeyGone);
                }
                self.served.insert((expiry, enc));
            }
        }
        Ok(context)
    }
}

impl fmt::Debug for PrekeyStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("PrekeyStock");
        out.field("boot", &self.boot)
            .field("held", &self.halves.len())
            .finish_non_exhaustive()
    }
}
