//! One provider, one node, one tenant, one device.

#![allow(clippy::unwrap_used)]

use farlane_model::{BootId, SessionId, Tier};
use farlane_units::Millis;

use crate::grant::{GranterContext, NodeContext, OpenContext, Opening};
use crate::prekey::PrekeyStock;
use crate::random::Randomness;
use crate::record::{
    DeviceRecord, DeviceTerms, EnrolmentCert, EnrolmentTerms, Manifest, ManifestTerms, NodeRecord,
    ProviderPin, RevocationPolicy, SignedPrekey,
};
use crate::sign::{DeviceKey, EnrolmentSeed, NodeIdentity, ProviderRoot, TenantRoot};

pub(crate) const NOW: Millis = Millis(1_763_000_000_000);
pub(crate) const NETWORK: &[u8] = b"network-of-tests";

/// BLAKE3's output stream of a seed, in the place of randomness.
pub(crate) struct Script(blake3::OutputReader);

impl Script {
    pub(crate) fn new(seed: &str) -> Self {
        Self(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
    }
    pub(crate) fn key(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.fill(&mut out);
        out
    }
}

impl Randomness for Script {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}

pub(crate) struct Cast {
    pub(crate) provider: ProviderRoot,
    pub(crate) enrolment: EnrolmentSeed,
    pub(crate) identity: NodeIdentity,
    pub(crate) record: NodeRecord,
    pub(crate) boot: BootId,
    pub(crate) tenant: TenantRoot,
    pub(crate) device: DeviceKey,
    pub(crate) device_record: DeviceRecord,
    pub(crate) manifest: Manifest,
}

impl Cast {
    /// A new cast, random.
    pub(crate) fn new() -> Self {
        Self::scripted(&mut Script::new(&hex::encode(crate::random::bytes::<16>())))
    }

    pub(crate) fn scripted(script: &mut Script) -> Self {
        let provider = ProviderRoot::from_seed(&script.key());
        let enrolment = EnrolmentSeed::from_seed(&script.key());
        let identity = NodeIdentity::from_seed(&script.key());
        let year = NOW.saturating_add(Millis(365 * 86_400_000));
        let terms = EnrolmentTerms {
            enrolment: enrolment.public(),
            provider: provider.public(),
            region: "eu-central".into(),
            tier: Tier::Namespaces,
            labels: vec![("disk".into(), "nvme".into())],
            price_usd_micros_core_hour: None,
            not_after: year,
        };
        let cert = EnrolmentCert::sign(&provider, terms).unwrap();
        let record = NodeRecord::make(&identity, &enrolment, &cert, "host").unwrap();
        let boot = BootId(script.key()[..16].try_into().unwrap());
        let tenant = TenantRoot::from_seed(&script.key());
        let device = DeviceKey::from_seed(&script.key());
        let terms = DeviceTerms {
            tenant_root: tenant.public(),
            device: device.public(),
            name: "laptop".into(),
            may_grant: true,
            not_after: year,
        };
        let device_record = DeviceRecord::sign(&tenant, terms).unwrap();
        let terms = ManifestTerms {
            tenant_root: tenant.public(),
            version: 1,
            not_after: year,
            providers: vec![ProviderPin {
                root: provider.public(),
                name: "own".into(),
                own: true,
            }],
            devices: vec![device.public()],
            granters: vec![device.public()],
        };
        let manifest = Manifest::sign(&tenant, terms).unwrap();
        Self {
            provider,
            enrolment,
            identity,
            record,
            boot,
            tenant,
            device,
            device_record,
            manifest,
        }
    }

    pub(crate) fn stock(&self) -> PrekeyStock {
        PrekeyStock::new(self.identity.clone(), self.record.clone(), self.boot)
    }

    pub(crate) fn granter(&self) -> SessionId {
        SessionId::new(NOW.0, [5; 5])
    }

    pub(crate) fn order<'a>(&'a self, prekey: &'a SignedPrekey) -> OpenContext<'a> {
        OpenContext {
            record: &self.record,
            prekey,
            revocations: None,
            revocation_policy: RevocationPolicy::WhenGiven,
            manifest: &self.manifest,
            network: NETWORK,
            granter: self.granter(),
            device: &self.device,
            device_record: &self.device_record,
            now: NOW,
        }
    }

    /// A context opened and accepted.
    pub(crate) fn context(&self) -> (GranterContext, Opening, NodeContext, PrekeyStock) {
        let mut stock = self.stock();
        let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &self.record).unwrap();
        let (granter, opening) = GranterContext::open(&self.order(&prekey)).unwrap();
        let node = stock.accept(&opening, NETWORK, NOW).unwrap();
        (granter, opening, node, stock)
    }
}
