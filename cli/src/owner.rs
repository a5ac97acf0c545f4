//! An owner's roots on this machine: who signs devices, pins and machines.
//!
//! Owns the folder `keys/` and what is made from it: identities, manifests, enrolment certificates.
//! None of it comes from a server, and none of it is ever sent to one.
//!
//! ```text
//! tenant.key ─signs─▶ device record, manifest ─┐
//! vault.key, device.key ───────────────────────┼─▶ Identity (what clients and granters use)
//! provider.key ─signs─▶ enrolment certificate ─┴─▶ JoinFile (what one machine joins with)
//! ```

use std::path::{Path, PathBuf};

use farlane::Identity;
use farlane_model::{NodeId, Tier};
use farlane_seal::join::{JoinFile, JoinSecret};
use farlane_seal::record::{
    DeviceRecord, DeviceTerms, EnrolmentCert, EnrolmentTerms, Manifest, ManifestTerms, ProviderPin,
    RevocationList,
};
use farlane_seal::vault::VaultSecret;
use farlane_seal::{DeviceKey, EnrolmentSeed, ProviderRoot, PublicKey, TenantRoot, private_file};
use farlane_units::{Millis, UsdMicros};

use crate::access::Access;
use crate::folders;
use crate::problem::{Exit, Problem, doing};

/// Life of device records and manifests, which are renewed at two thirds of it. Chosen: a year, so
/// that a laptop left alone for a winter still works.
const RECORD_LIFE: Millis = Millis(365 * 24 * 3600 * 1000);
/// A manifest with less life left than this is signed anew: a third.
const RENEW_BELOW: Millis = Millis(RECORD_LIFE.0 / 3);
/// How long a machine's enrolment holds. Chosen: a year; joining again is one command.
const ENROLMENT_LIFE: Millis = Millis(365 * 24 * 3600 * 1000);

/// The keys of one owner: a tenant and a provider at once.
pub struct Owner {
    folder: PathBuf,
    /// Signs devices and the manifest.
    pub tenant: TenantRoot,
    /// Signs machines.
    pub provider: ProviderRoot,
    vault: VaultSecret,
    device: DeviceKey,
}

impl Owner {
    /// The keys under `data`, made on the first call.
    ///
    /// *Errors*: a file cannot be read, written, or is damaged.
    pub fn open(data: &Path) -> Result<Self, Problem> {
        let folder = folders::keys(data);
        folders::make_private(&folder)?;
        Ok(Self {
            tenant: TenantRoot::from_seed(&key(
                &folder,
                "tenant.key",
                *TenantRoot::generate().expose(),
            )?),
            provider: ProviderRoot::from_seed(&key(
                &folder,
                "provider.key",
                *ProviderRoot::generate().expose(),
            )?),
            vault: VaultSecret::from_bytes(key(
                &folder,
                "vault.key",
                *VaultSecret::generate().expose(),
            )?),
            device: DeviceKey::from_seed(&key(
                &folder,
                "device.key",
                *DeviceKey::generate().expose(),
            )?),
            folder,
        })
    }

    /// The keys under `data`, where there are any.
    ///
    /// *Errors*: as [`Owner::open`].
    pub fn existing(data: &Path) -> Result<Option<Self>, Problem> {
        match folders::keys(data).join("tenant.key").exists() {
            true => Self::open(data).map(Some),
            false => Ok(None),
        }
    }

    /// The manifest in force: the newest one signed here, signed anew when there is none, when its
    /// own provider or device is missing, or when two thirds of its life are over.
    ///
    /// *Errors*: the file cannot be read or written.
    pub fn manifest(&self, now: Millis) -> Result<Manifest, Problem> {
        let held = self.held_manifest()?;
        let (provider, device) = (self.provider.public(), self.device.public());
        if let Some(manifest) = &held {
            let lasts = manifest.not_after > now.saturating_add(RENEW_BELOW);
            let pins_own = manifest
                .providers
                .iter()
                .any(|p| p.root == provider && p.own);
            if lasts && pins_own && manifest.granters.contains(&device) {
                return Ok(manifest.clone());
            }
        }
        let mut terms = held.map_or_else(|| self.first_terms(), |m| (*m).clone());
        if !terms.providers.iter().any(|p| p.root == provider) {
            terms.providers.push(ProviderPin {
                root: provider,
                name: "own".to_owned(),
                own: true,
            });
        }
        for list in [&mut terms.devices, &mut terms.granters] {
            if !list.contains(&device) {
                list.push(device);
            }
        }
        self.sign_manifest(terms, now)
    }

    /// Signs a changed manifest with the next version, and keeps it.
    ///
    /// *Errors*: out of bounds, or the file cannot be written.
    pub fn sign_manifest(
        &self,
        mut terms: ManifestTerms,
        now: Millis,
    ) -> Result<Manifest, Problem> {
        terms.version = terms.version.saturating_add(1);
        terms.not_after = now.saturating_add(RECORD_LIFE);
        let manifest = Manifest::sign(&self.tenant, terms).map_err(Problem::failed)?;
        let path = self.manifest_file();
        private_file::write(&path, &manifest.to_bytes()).map_err(Problem::failed)?;
        Ok(manifest)
    }

    /// The list of this provider's removed machines as of `now`: those that were ever on it, here or in
    /// what a network shows (others' lists are passed over), and `removed`. What was signed here is kept, so
    /// that a network which hides its own cannot have one signed that leaves somebody out.
    ///
    /// *Errors*: more machines than a list takes, or the file cannot be read or written.
    pub fn revocations(
        &self,
        shown: &[impl AsRef<[u8]>],
        removed: Option<NodeId>,
        now: Millis,
    ) -> Result<RevocationList, Problem> {
        let path = self.folder.join("revocations");
        // One at a time: of two that start from the same list, one would leave the other's removal out.
        let lock = std::fs::File::create(self.folder.join("revocations.lock"))?;
        lock.lock()?;
        let kept = match path.exists() {
            true => Some(private_file::read(&path).map_err(Problem::failed)?),
            false => None,
        };
        let kept = kept.map(|bytes| RevocationList::from_bytes(&bytes));
        let kept = kept.transpose().map_err(doing(path.display()))?;
        let shown = shown
            .iter()
            .map(|bytes| RevocationList::from_bytes(bytes.as_ref()));
        let own = |list: &RevocationList| list.provider() == self.provider.public();
        let (mut issued, mut nodes) = (now, Vec::from_iter(removed));
        for list in shown.flatten().chain(kept).filter(own) {
            issued = issued.max(list.issued().saturating_add(Millis(1)));
            nodes.extend_from_slice(list.nodes());
        }
        let list = RevocationList::sign(&self.provider, issued, nodes).map_err(Problem::failed)?;
        private_file::write(&path, &list.to_bytes()).map_err(Problem::failed)?;
        Ok(list)
    }

    fn manifest_file(&self) -> PathBuf {
        self.folder.join("manifest")
    }

    fn held_manifest(&self) -> Result<Option<Manifest>, Problem> {
        let path = self.manifest_file();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = private_file::read(&path).map_err(Problem::failed)?;
        let manifest = Manifest::from_bytes(&bytes, &self.tenant.public());
        manifest.map(Some).map_err(doing(path.display()))
    }

    fn first_terms(&self) -> ManifestTerms {
        ManifestTerms {
            tenant_root: self.tenant.public(),
            version: 0,
            not_after: Millis::ZERO,
            providers: Vec::new(),
            devices: Vec::new(),
            granters: Vec::new(),
        }
    }

    /// This device's identity on the network that `access` opens.
    ///
    /// *Errors*: a record cannot be signed or kept.
    pub fn identity(&self, name: &str, access: &Access, now: Millis) -> Result<Identity, Problem> {
        self.identity_of(name, access, &self.device, RECORD_LIFE, now)
    }

    /// An identity for a machine of one's own that is not this one (a build server, say), with a
    /// device key of its own that ends after `life`.
    ///
    /// *Errors*: as [`Owner::identity`].
    pub fn guest(
        &self,
        name: &str,
        access: &Access,
        life: Millis,
        now: Millis,
    ) -> Result<Identity, Problem> {
        self.identity_of(name, access, &DeviceKey::generate(), life, now)
    }

    fn identity_of(
        &self,
        name: &str,
        access: &Access,
        key: &DeviceKey,
        life: Millis,
        now: Millis,
    ) -> Result<Identity, Problem> {
        let terms = DeviceTerms {
            tenant_root: self.tenant.public(),
            device: key.public(),
            name: name.to_owned(),
            may_grant: true,
            not_after: now.saturating_add(life),
        };
        Ok(Identity {
            name: name.to_owned(),
            urls: access.urls.clone(),
            ca_pem: access.ca_pem.clone(),
            api_key: access.api_key.clone().into(),
            project: access.project,
            network: access.network.clone(),
            tenant_root: self.tenant.public(),
            device_key: key.clone(),
            device: DeviceRecord::sign(&self.tenant, terms).map_err(Problem::failed)?,
            vault: self.vault.clone(),
            manifest: self.manifest(now)?,
        })
    }

    /// A join file for one machine: `wish` under the provider's signature.
    ///
    /// *Errors*: a field is out of its bounds.
    pub fn enrol(
        &self,
        wish: Enrolment,
        urls: Vec<String>,
        ca_pem: String,
        now: Millis,
    ) -> Result<JoinFile, Problem> {
        let seed = EnrolmentSeed::generate();
        let labels = sorted(wish.labels)?;
        let terms = EnrolmentTerms {
            enrolment: seed.public(),
            provider: self.provider.public(),
            region: wish.region,
            tier: wish.tier,
            labels,
            price_usd_micros_core_hour: wish.price,
            not_after: now.saturating_add(ENROLMENT_LIFE),
        };
        let enrolment = EnrolmentCert::sign(&self.provider, terms).map_err(Problem::failed)?;
        Ok(JoinFile {
            urls,
            ca_pem,
            secret: JoinSecret::generate(),
            seed,
            enrolment,
            expires: wish.expires,
        })
    }
}

/// Labels as a certificate has them.
///
/// *Errors*: one has two values.
pub fn sorted(mut labels: Vec<(String, String)>) -> Result<Vec<(String, String)>, Problem> {
    labels.sort();
    labels.dedup();
    match labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(labels),
        Some(pair) => Err(Problem::new(
            Exit::Usage,
            format!(
                "--label gives {:?} two values, {:?} and {:?}",
                pair[0].0, pair[0].1, pair[1].1
            ),
        )
        .next("a machine has one value of each label: leave one out")),
    }
}

/// What a provider promises of one machine.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Where it is.
    pub region: String,
    /// The strongest sandbox that it may claim.
    pub tier: Tier,
    /// What else is true of it.
    pub labels: Vec<(String, String)>,
    /// Of one core for an hour; `None` leaves it to the machine.
    pub price: Option<UsdMicros>,
    /// Until when it may join.
    pub expires: Millis,
}

/// 32 bytes in hexadecimal in a file of their own; `fresh` is written where there is none.
fn key(folder: &Path, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], Problem> {
    let path = folder.join(name);
    if !path.exists() {
        private_file::write(&path, hex(&fresh).as_bytes()).map_err(Problem::failed)?;
        return Ok(fresh);
    }
    let text = private_file::read(&path).map_err(Problem::failed)?;
    let text = String::from_utf8_lossy(&text);
    unhex(text.trim()).ok_or_else(|| {
        Problem::failed(format!(
            "{} does not hold a key of 32 bytes",
            path.display()
        ))
        .next("restore it from a backup; a new one cannot open what the old one sealed")
    })
}

/// Bytes as hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal as bytes; `None` where it is not, or has another length.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut out = [0u8; N];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

/// A provider's fingerprint: its root's public key, as `farlane trust show` prints it.
pub fn fingerprint(text: &str) -> Result<PublicKey, String> {
    let bare: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .collect();
    unhex(&bare.to_ascii_lowercase())
        .map(PublicKey)
        .ok_or_else(|| {
            "a fingerprint has 64 hexadecimal digits; `farlane trust show` prints one's own"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use farlane_model::ProjectId;

    use super::*;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn access() -> Access {
        Access {
            name: "lab".into(),
            urls: vec!["https://127.0.0.1:7001".into()],
            ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
            api_key: "flk_x".into(),
            project: ProjectId::from_bytes([1; 16]),
            network: vec![1; 32],
        }
    }

    #[test]
    fn keys_are_made_once_and_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Owner::open(dir.path()).unwrap();
        let again = Owner::open(dir.path()).unwrap();
        assert_eq!(first.tenant.public(), again.tenant.public());
        assert_eq!(first.provider.public(), again.provider.public());
        for name in ["tenant.key", "provider.key", "vault.key", "device.key"] {
            let path = folders::keys(dir.path()).join(name);
            assert_eq!(
                path.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{name}"
            );
        }
        std::fs::write(folders::keys(dir.path()).join("vault.key"), "torn").unwrap();
        assert!(Owner::open(dir.path()).is_err());
    }

    #[test]
    fn the_manifest_is_signed_again_only_when_something_changed_or_ends() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::open(dir.path()).unwrap();
        let first = owner.manifest(NOW).unwrap();
        assert_eq!(first.version, 1);
        assert!(first.providers[0].own);
        assert_eq!(owner.manifest(NOW).unwrap(), first);
        let later = NOW.saturating_add(Millis(RECORD_LIFE.0 / 3 * 2 + 1));
        assert_eq!(owner.manifest(later).unwrap().version, 2);
        let mut terms = (*owner.manifest(later).unwrap()).clone();
        terms.providers.push(ProviderPin {
            root: PublicKey([9; 32]),
            name: "lab".into(),
            own: false,
        });
        owner.sign_manifest(terms, later).unwrap();
        let reopened = Owner::open(dir.path()).unwrap().manifest(later).unwrap();
        assert_eq!((reopened.version, reopened.providers.len()), (3, 2));
    }

    #[test]
    fn nobody_gets_off_the_list_of_removed_machines() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::open(dir.path()).unwrap();
        let none: [&[u8]; 0] = [];
        let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
        let first = owner.revocations(&none, Some(b), NOW).unwrap();
        assert_eq!((first.issued(), first.nodes()), (NOW, &[b][..]));
        // A network that shows nothing, and one whose list was signed on another machine.
        let again = owner.revocations(&none, None, NOW).unwrap();
        assert_eq!(again.nodes(), [b]);
        assert!(again.issued() > first.issued());
        let later = NOW.saturating_add(Millis(99));
        let there = RevocationList::sign(&owner.provider, later, vec![c]).unwrap();
        let foreign = RevocationList::sign(&ProviderRoot::generate(), later, vec![a]).unwrap();
        let shown = [there.to_bytes(), foreign.to_bytes()];
        let reopened = Owner::open(dir.path()).unwrap();
        let list = reopened.revocations(&shown, None, NOW).unwrap();
        assert_eq!(list.nodes(), [b, c]);
        assert!(list.issued() > later, "granters take only a newer one");
    }

    #[test]
    fn identities_hold_together() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::open(dir.path()).unwrap();
        let own = owner.identity("default", &access(), NOW).unwrap();
        let guest = owner.guest("ci", &access(), Millis(1000), NOW).unwrap();
        let path = dir.path().join("ci.json");
        guest.save(&path).unwrap();
        let read = Identity::load(&path).unwrap();
        assert_eq!(read.tenant(), own.tenant());
        assert_ne!(read.device.device, own.device.device);
        assert!(read.device.check(NOW.saturating_add(Millis(2000))).is_err());
        assert_eq!(read.vault.expose(), own.vault.expose());
    }

    #[test]
    fn a_join_file_carries_the_providers_promise() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::open(dir.path()).unwrap();
        let wish = Enrolment {
            region: "eu-central".into(),
            tier: Tier::Namespaces,
            labels: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
            price: Some(UsdMicros(40_000)),
            expires: NOW.saturating_add(Millis(1000)),
        };
        let file = owner
            .enrol(wish, access().urls, access().ca_pem, NOW)
            .unwrap();
        let read = JoinFile::from_text(&file.to_text()).unwrap();
        assert_eq!(read.enrolment.provider, owner.provider.public());
        assert_eq!(read.enrolment.region, "eu-central");
        assert_eq!(read.enrolment.labels[0].0, "a");
    }

    #[test]
    fn a_label_has_one_value() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let twice = vec![label("b", "2"), label("a", "1"), label("b", "2")];
        assert_eq!(sorted(twice).unwrap(), [label("a", "1"), label("b", "2")]);
        let problem = sorted(vec![label("a", "2"), label("a", "1")]).unwrap_err();
        assert!(problem.what().contains("two values"), "{}", problem.what());
    }

    #[test]
    fn fingerprints_may_be_spaced() {
        let plain = "ab".repeat(32);
        let spaced: Vec<&str> = (0..16).map(|i| &plain[4 * i..4 * i + 4]).collect();
        assert_eq!(fingerprint(&spaced.join(" ")), Ok(PublicKey([0xab; 32])));
        assert!(fingerprint(&plain[1..]).is_err() && fingerprint("ü").is_err());
    }
}
