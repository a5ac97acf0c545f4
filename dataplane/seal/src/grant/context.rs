//! The two ends of a grant context.

use std::fmt;

use bytes::Bytes;
use farlane_model::{NodeId, SessionId, TenantId};
use farlane_units::Millis;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::info::{GrantInfo, Opening};
use super::message::{self, Grant, MAX_GRANTS, ROW};
use super::window::Window;
use super::{AcceptError, CONTEXT_LIFE, CONTEXT_SLACK, GrantError};
use crate::hpke_suite::{self, Secret};
use crate::random::{Randomness, System};
use crate::record::{
    DeviceRecord, Manifest, NodeRecord, RevocationList, RevocationPolicy, SignedPrekey,
};
use crate::sign::{DeviceKey, PublicKey, Sign};
use crate::stream::{OpenError, Suite};

const SIGN_LABEL: &[u8] = b"farlane/opening/1";
const EXPORT_LABEL: &[u8] = b"farlane/grant-key/1";
const AAD: &[u8] = b"farlane/grants/1";
const TAG: usize = 16;
/// Most bytes of a sealed batch.
const MAX_SEALED: usize = 2 + MAX_GRANTS * ROW + TAG;

/// What a granter opens a context with.
#[derive(Debug, Clone, Copy)]
pub struct OpenContext<'a> {
    /// The node's record, from the control plane.
    pub record: &'a NodeRecord,
    /// The prekey the control plane issued.
    pub prekey: &'a SignedPrekey,
    /// The provider's revocations, where given.
    pub revocations: Option<&'a RevocationList>,
    /// What to do where they are not.
    pub revocation_policy: RevocationPolicy,
    /// The tenant's manifest, which pins providers.
    pub manifest: &'a Manifest,
    /// The network, as in the server's hello.
    pub network: &'a [u8],
    /// The granter's session.
    pub granter: SessionId,
    /// The granter's device.
    pub device: &'a DeviceKey,
    /// Its record.
    pub device_record: &'a DeviceRecord,
    /// Cluster time.
    pub now: Millis,
}

fn grant_key(mut bytes: Zeroizing<[u8; 32]>) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, &*bytes).expect("the key has 32 bytes");
    bytes.zeroize();
    LessSafeKey::new(key)
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// The granter's end: seals batches for one node.
pub struct GranterContext {
    key: LessSafeKey,
    next: u64,
    info: GrantInfo,
}

impl GranterContext {
    /// Checks record, chain, revocation, manifest and prekey, and opens a context.
    ///
    /// *Errors*: whatever does not hold; the node then gets nothing.
    pub fn open(order: &OpenContext<'_>) -> Result<(Self, Opening), GrantError> {
        Self::open_with(&mut System, order)
    }

    pub(crate) fn open_with(
        random: &mut impl Randomness,
        order: &OpenContext<'_>,
    ) -> Result<(Self, Opening), GrantError> {
        let OpenContext {
            record,
            prekey,
            manifest,
            now,
            ..
        } = *order;
        manifest.check(now)?;
        let pin = record.check(
            &manifest.providers,
            order.revocations,
            order.revocation_policy,
            now,
        )?;
        prekey.check(now)?;
        order.device_record.check(now)?;
        if prekey.node != record.node() || Suite::from_code(prekey.suite).is_none() {
            return Err(GrantError::BadPrekey);
        }
        let info = GrantInfo {
            network: order.network.to_vec(),
            tenant_root: manifest.tenant_root,
            granter: order.granter,
            node: record.node(),
            boot: prekey.boot,
            record: record.digest(),
            prekey: prekey.id,
            prekey_kind: prekey.kind,
            suite: prekey.suite,
            manifest_version: manifest.version,
            expiry: now.saturating_add(CONTEXT_LIFE),
            own_provider: pin.own,
        };
        let info_bytes = info.to_bytes();
        let hpke_info = blake3::hash(&info_bytes);
        let (enc, context) = hpke_suite::sender(random, &prekey.public, hpke_info.as_bytes())
            .ok_or(GrantError::BadPrekey)?;
        let mut exported = Zeroizing::new([0; 32]);
        context
            .export(EXPORT_LABEL, &mut *exported)
            .map_err(|_| GrantError::BadPrekey)?;
        let signature = order.device.sign(SIGN_LABEL, &[&enc, &info_bytes]);
        let opening = Opening {
            enc: Bytes::copy_from_slice(&enc),
            info_bytes: info_bytes.into(),
            signature: Bytes::copy_from_slice(&signature),
            device_bytes: order.device_record.to_bytes(),
        };
        Ok((
            Self {
                key: grant_key(exported),
                next: 1,
                info,
            },
            opening,
        ))
    }

    /// What it is bound to.
    pub fn info(&self) -> &GrantInfo {
        &self.info
    }
    /// For which node.
    pub fn node(&self) -> NodeId {
        self.info.node
    }
    /// Whether it still serves.
    pub fn is_open(&self, now: Millis) -> bool {
        now < self.info.expiry
    }

    /// Seals one batch: its counter, and the bytes. Ask [`super::GrantLog::admit`] first.
    ///
    /// *Errors*: more than [`MAX_GRANTS`], or the counter is used up.
    pub fn seal(&mut self, grants: &[Grant]) -> Result<(u64, Vec<u8>), GrantError> {
        if grants.len() > MAX_GRANTS {
            return Err(GrantError::TooMany);
        }
        let counter = self.next;
        self.next = counter.checked_add(1).ok_or(GrantError::ContextEnded)?;
        let mut out = Vec::with_capacity(2 + grants.len() * ROW + TAG);
        message::encode(grants, &mut out);
        self.key
            .seal_in_place_append_tag(nonce(counter), Aad::from(AAD), &mut out)
            .expect("a batch is far below what AES-GCM takes");
        Ok((counter, out))
    }
}

impl fmt::Debug for GranterContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("GranterContext");
        out.field("info", &self.info)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The node's end: opens batches of one granter.
pub struct NodeContext {
    key: LessSafeKey,
    window: Window,
    info: GrantInfo,
    device: PublicKey,
}

/// An opening whose chain, signature and binding hold; only the prekey is still missing.
pub(crate) struct Verified {
    pub(crate) info: GrantInfo,
    device: PublicKey,
}

/// Checks everything about an opening that needs no secret.
pub(crate) fn verify(
    opening: &Opening,
    record: &NodeRecord,
    boot: farlane_model::BootId,
    network: &[u8],
    now: Millis,
) -> Result<Verified, AcceptError> {
    let info = opening
        .claimed()
        .ok_or(AcceptError::Misplaced { what: "version" })?;
    let device = DeviceRecord::from_bytes(&opening.device_bytes)?;
    device.check(now)?;
    let signed: [&[u8]; 2] = [&opening.enc, &opening.info_bytes];
    if device.tenant_root != info.tenant_root
        || !device.may_grant
        || !device
            .device
            .verifies(SIGN_LABEL, &signed, &opening.signature)
    {
        return Err(AcceptError::NotSigned);
    }
    let bindings = [
        (info.node == record.node(), "node"),
        (info.record == record.digest(), "record of this node"),
        (info.boot == boot, "boot of this node"),
        (info.network == network, "network"),
        (Suite::from_code(info.suite).is_some(), "suite"),
    ];
    if let Some((_, what)) = bindings.into_iter().find(|(fits, _)| !fits) {
        return Err(AcceptError::Misplaced { what });
    }
    let latest = now
        .saturating_add(CONTEXT_LIFE)
        .saturating_add(CONTEXT_SLACK);
    if info.expiry <= now || info.expiry > latest {
        return Err(AcceptError::BadExpiry);
    }
    Ok(Verified {
        info,
        device: device.device,
    })
}

impl NodeContext {
    /// The node's end of a verified opening.
    ///
    /// *Errors*: the encapsulated key is degenerate.
    pub(crate) fn establish(
        verified: Verified,
        opening: &Opening,
        prekey: &Secret,
    ) -> Result<Self, AcceptError> {
        let hpke_info = blake3::hash(&opening.info_bytes);
        let context = hpke_suite::receiver(prekey, &opening.enc, hpke_info.as_bytes())
            .ok_or(AcceptError::Damaged(OpenError::Damaged))?;
        let mut exported = Zeroizing::new([0; 32]);
        context
            .export(EXPORT_LABEL, &mut *exported)
            .map_err(|_| AcceptError::Damaged(OpenError::Damaged))?;
        let Verified { info, device } = verified;
        Ok(Self {
            key: grant_key(exported),
            window: Window::new(),
            info,
            device,
        })
    }

    /// What it is bound to.
    pub fn info(&self) -> &GrantInfo {
        &self.info
    }
    /// Whose work it grants.
    pub fn tenant(&self) -> TenantId {
        self.info.tenant_root.tenant()
    }
    /// The tenant's root: what a provider allows or not.
    pub fn tenant_root(&self) -> PublicKey {
        self.info.tenant_root
    }
    /// The device that granted.
    pub fn device(&self) -> PublicKey {
        self.device
    }
    /// Whether it still serves.
    pub fn is_open(&self, now: Millis) -> bool {
        now < self.info.expiry
    }

    /// Opens one batch. Each grant's `open_by` is the caller's to check.
    ///
    /// *Errors*: the context ended, the batch was seen before, or a bit is wrong.
    pub fn open(
        &mut self,
        counter: u64,
        sealed: &[u8],
        now: Millis,
    ) -> Result<Vec<Grant>, AcceptError> {
        if !self.is_open(now) {
            return Err(AcceptError::BadExpiry);
        }
        if !self.window.is_fresh(counter) {
            return Err(AcceptError::Replayed);
        }
        if sealed.len() > MAX_SEALED {
            return Err(OpenError::TooLarge { limit: MAX_SEALED }.into());
        }
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let plain = self
            .key
            .open_in_place(nonce(counter), Aad::from(AAD), &mut bytes)
            .map_err(|_| OpenError::Damaged)?;
        self.window.mark(counter);
        Ok(message::decode(plain).ok_or(OpenError::NotSealed)?)
    }
}

impl fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeContext")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
