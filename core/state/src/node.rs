//! A node: its capacity, what is leased to it, its prekeys and contexts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{Amount, BootId, DeviceLoads, Digest, NodeId, NodeSpec, SessionId, Standing};
use farlane_units::{ByteCount, MilliCpu, Millis, UsdFemtos, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::alike::Alike;
use crate::capacity::{Capacity, Need, could_ever};
use crate::order::Moved;
use crate::row::NodeRow;

/// A context is used for this long after its issue. Source: docs/design/spine.md, "core/state".
pub const CONTEXT_LIFE: Millis = Millis(10 * 60 * 1000);
/// One-time prekeys kept of one node. Source: at one context a granter in 10 minutes, this lasts 512
/// granters for that long; 512 × 250 B is 128 KiB a node.
pub const MAX_PREKEYS: usize = 512;
/// Below this the agent is asked for more. Source: a quarter of what an agent sends at a time (64).
pub const PREKEYS_LOW: usize = 16;
/// Boots remembered a node: attempts of older ones can no longer complete.
pub(crate) const MAX_BOOTS: usize = 4;

/// One start of a node's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// As the agent drew it.
    pub id: BootId,
    /// Counts up from 1.
    pub number: u32,
}

/// Which prekey a context rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrekeyKind {
    /// Used once, then gone.
    OneTime,
    /// The signed daily key, when the stock was empty.
    Daily,
}

/// One issue of a prekey to a granter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Log index of the issue: the context's name.
    pub index: u64,
    /// Cluster time of the issue.
    pub at: Millis,
    /// What it rests on.
    pub kind: PrekeyKind,
    /// The signed prekey.
    pub prekey: Bytes,
}

/// A price that a provider's book names, from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatedPrice {
    /// Cluster time.
    pub since: Millis,
    /// Of one core for an hour; `None` where the book names none from then on.
    pub core_hour: Option<UsdMicros>,
    /// Of bytes between the servers' region and the node's.
    pub egress: EgressPrice,
}

/// What 10^9 bytes cost on their way between the servers and a node; nothing within one region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPrice {
    /// From the servers.
    pub there: UsdMicros,
    /// To the servers.
    pub back: UsdMicros,
}

impl EgressPrice {
    /// What these bytes cost.
    pub(crate) fn of(&self, moved: Moved) -> UsdFemtos {
        let there = UsdFemtos::of(moved.there, self.there);
        there.saturating_add(UsdFemtos::of(moved.back, self.back))
    }
}

/// What one lease takes of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub task: u32,
    pub backlog: bool,
    /// The GPUs that it holds, by place; none while in backlog.
    pub devices: u64,
}

/// One machine.
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Short name within the state file.
    pub number: u32,
    /// What its agent measured.
    pub spec: Arc<NodeSpec>,
    /// From its certificate.
    pub region: Arc<str>,
    /// Its provider.
    pub provider: Digest,
    /// Counts changes that void a plan.
    pub generation: u32,
    /// Recent boots, oldest first; the last one is current.
    pub boots: Vec<Boot>,
    /// Revoked for good.
    pub revoked: bool,
    /// The signed daily key.
    pub daily: Option<Bytes>,
    /// One-time prekeys by number, oldest first.
    pub one_time: VecDeque<(u64, Bytes)>,
    /// Number of the next one-time prekey.
    pub next_prekey: u64,
    /// Issued prekeys by granter.
    pub contexts: BTreeMap<SessionId, Context>,
    /// Cluster time.
    pub registered: Millis,
    /// What its provider's book names, by date; see [`Node::price_at`].
    pub prices: Vec<DatedPrice>,
    /// What audits have found.
    pub standing: Standing,
    pub(crate) leased: BTreeMap<u64, Held>,
    pub(crate) backlog: BTreeSet<u64>,
    pub(crate) capacity: Capacity,
}

/// What of a node's capacity a placement would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// With these GPUs.
    Running(u64),
    Backlog,
    Full,
}

impl Node {
    /// `None` where the row's spec cannot be read.
    pub(crate) fn from_row(id: NodeId, row: NodeRow, alike: &mut Alike) -> Option<Self> {
        Some(Self {
            id,
            number: row.number,
            spec: alike.spec(&row.spec)?,
            region: alike.text(&row.region),
            provider: row.provider,
            generation: row.generation,
            boots: row.boots,
            revoked: row.revoked,
            daily: row.daily,
            one_time: VecDeque::new(),
            next_prekey: row.next_prekey,
            contexts: BTreeMap::new(),
            registered: row.registered,
            prices: row.prices,
            standing: row.standing,
            leased: BTreeMap::new(),
            backlog: BTreeSet::new(),
            capacity: Capacity::default(),
        })
    }
    pub(crate) fn row(&self) -> NodeRow {
        NodeRow {
            number: self.number,
            spec: self.spec.to_canonical().into(),
            region: self.region.to_string(),
            provider: self.provider,
            generation: self.generation,
            boots: self.boots.clone(),
            revoked: self.revoked,
            daily: self.daily.clone(),
            next_prekey: self.next_prekey,
            registered: self.registered,
            prices: self.prices.clone(),
            standing: self.standing.clone(),
        }
    }

    /// What one core costs for an hour at `at`: what the provider's book names, else the price of the
    /// node's certificate or agent, which is 0 where neither names one.
    pub fn price_at(&self, at: Millis) -> UsdMicros {
        let dated = self.prices.iter().rev().find(|p| p.since <= at);
        dated
            .and_then(|p| p.core_hour)
            .unwrap_or(self.spec.price_usd_micros_core_hour)
    }

    /// What bytes cost on their way there and back at `at`.
    pub fn egress_at(&self, at: Millis) -> EgressPrice {
        let dated = self.prices.iter().rev().find(|p| p.since <= at);
        dated.map(|p| p.egress).unwrap_or_default()
    }

    /// The current boot; `None` before the first.
    pub fn boot(&self) -> Option<BootId> {
        self.boots.last().map(|b| b.id)
    }
    pub(crate) fn boot_number(&self, id: &BootId) -> Option<u32> {
        self.boots.iter().find(|b| b.id == *id).map(|b| b.number)
    }
    /// Cores that no running lease holds.
    pub fn free_cpus(&self) -> MilliCpu {
        self.capacity.free_cpus(&self.spec)
    }
    /// Memory that no running lease holds.
    pub fn free_memory(&self) -> ByteCount {
        self.capacity.free_memory(&self.spec)
    }
    /// Scratch that no running lease holds.
    pub fn free_scratch(&self) -> ByteCount {
        self.capacity.free_scratch(&self.spec)
    }
    /// What running leases hold of its accelerators.
    pub fn devices(&self) -> &DeviceLoads {
        self.capacity.devices()
    }
    /// What of a named resource no running lease holds.
    pub fn free_amount(&self, name: &str) -> u32 {
        self.capacity.free_amount(&self.spec, name)
    }
    /// What of all its named resources no running lease holds; empty where it has none.
    pub fn free_amounts(&self) -> Vec<Amount> {
        let free = |one: &Amount| Amount {
            amount: self.free_amount(&one.name),
            ..one.clone()
        };
        self.spec.resources.iter().map(free).collect()
    }
    /// Backlog credit left.
    pub fn free_backlog(&self) -> u32 {
        (self.spec.backlog_credit as usize).saturating_sub(self.backlog.len()) as u32
    }
    /// Leases in running capacity.
    pub fn running(&self) -> usize {
        self.leased.len() - self.backlog.len()
    }
    /// Leases in backlog credit.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    pub(crate) fn room(&self, need: &Need) -> Room {
        match self.capacity.fits_now(&self.spec, need) {
            Some(devices) => Room::Running(devices),
            None if self.free_backlog() > 0 && could_ever(&self.spec, need) => Room::Backlog,
            None => Room::Full,
        }
    }
    /// Takes the room; the caller has asked for it.
    pub(crate) fn lease(&mut self, number: u64, held: Held, need: &Need) {
        self.leased.insert(number, held);
        if held.backlog {
            self.backlog.insert(number);
        } else {
            self.capacity.take(need, held.devices);
        }
    }
    pub(crate) fn release(&mut self, number: u64, need: &Need) {
        if let Some(held) = self.leased.remove(&number)
            && !self.backlog.remove(&number)
        {
            self.capacity.give_back(need, held.devices);
        }
    }
    /// Moves a lease from backlog to running if it fits; the GPUs that it then holds.
    pub(crate) fn promote(&mut self, number: u64, need: &Need) -> Option<u64> {
        let devices = self.capacity.fits_now(&self.spec, need)?;
        if !self.backlog.remove(&number) {
            return None;
        }
        if let Some(held) = self.leased.get_mut(&number) {
            held.backlog = false;
            held.devices = devices;
        }
        self.capacity.take(need, devices);
        Some(devices)
    }
    /// Prekeys and contexts of an earlier boot are void: their private halves are gone.
    pub(crate) fn void_keys(&mut self) -> (Vec<u64>, Vec<SessionId>) {
        self.daily = None;
        let prekeys = std::mem::take(&mut self.one_time)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        let contexts = std::mem::take(&mut self.contexts).into_keys().collect();
        (prekeys, contexts)
    }
}
