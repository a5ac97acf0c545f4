//! A tenant's manifest: which providers it trusts, and which devices are its own.

use std::ops::Deref;

use bytes::Bytes;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::form::{self, Body};
use super::{RecordError, in_time};
use crate::sign::{PublicKey, TenantRoot};

/// A provider that the tenant trusts with its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderPin {
    /// Its root.
    pub root: PublicKey,
    /// As the tenant calls it; at most 64 bytes.
    pub name: String,
    /// The tenant's own: its results may be pickles, which can execute where they are read.
    pub own: bool,
}

/// What a tenant's root says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestTerms {
    /// The tenant's root, which signs.
    pub tenant_root: PublicKey,
    /// Counts up; lower ones are refused.
    pub version: u64,
    /// Not valid later than this, in cluster time.
    pub not_after: Millis,
    /// Trusted providers; at most 256.
    pub providers: Vec<ProviderPin>,
    /// Devices of the tenant; at most 1024.
    pub devices: Vec<PublicKey>,
    /// Those of them that may grant; at most 1024.
    pub granters: Vec<PublicKey>,
}

impl Body for ManifestTerms {
    const WHAT: &'static str = "manifest";
    const LABEL: &'static [u8] = b"farlane/manifest/1";
    const MAX: usize = 128 * 1024;

    fn fits(&self) -> bool {
        self.providers.len() <= 256
            && self.devices.len() <= 1024
            && self.granters.len() <= 1024
            && self
                .providers
                .iter()
                .all(|pin| form::is_name(&pin.name, 64))
    }
}

/// [`ManifestTerms`] under the tenant root's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    terms: ManifestTerms,
    bytes: Bytes,
}

impl Manifest {
    /// Signs terms; `terms.tenant_root` is set to the root's public key.
    ///
    /// *Errors*: a field is out of its bounds.
    pub fn sign(root: &TenantRoot, mut terms: ManifestTerms) -> Result<Self, RecordError> {
        terms.tenant_root = root.public();
        let bytes = form::sign(&terms, &[root])?;
        Ok(Self { terms, bytes })
    }

    /// Reads one and checks that `tenant_root` signed it.
    ///
    /// *Errors*: unreadable, another tenant's, or the signature does not hold.
    pub fn from_bytes(bytes: &[u8], tenant_root: &PublicKey) -> Result<Self, RecordError> {
        let read = form::read::<ManifestTerms>(bytes, 1)?;
        if read.body.tenant_root != *tenant_root {
            return Err(RecordError::Misplaced {
                what: ManifestTerms::WHAT,
            });
        }
        read.check(0, tenant_root)?;
        Ok(Self {
            terms: read.body,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Takes `offered` in this one's place when it is as new or newer.
    ///
    /// *Errors*: another tenant's, a lower version, or past its time.
    pub fn replace(&mut self, offered: Manifest, now: Millis) -> Result<(), RecordError> {
        if offered.tenant_root != self.tenant_root {
            return Err(RecordError::Misplaced {
                what: ManifestTerms::WHAT,
            });
        }
        let same_version_other_words = offered.version == self.version && offered != *self;
        if offered.version < self.version || same_version_other_words {
            return Err(RecordError::Outdated {
                offered: offered.version,
                held: self.version,
            });
        }
        offered.check(now)?;
        *self = offered;
        Ok(())
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether it still holds.
    ///
    /// *Errors*: past its time.
    pub fn check(&self, now: Millis) -> Result<(), RecordError> {
        in_time(ManifestTerms::WHAT, self.terms.not_after, now)
    }
}

impl Deref for Manifest {
    type Target = ManifestTerms;
    fn deref(&self) -> &ManifestTerms {
        &self.terms
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::NOW;

    fn terms(version: u64) -> ManifestTerms {
        ManifestTerms {
            tenant_root: PublicKey([0; 32]),
            version,
            not_after: NOW.saturating_add(Millis(1000)),
            providers: vec![],
            devices: vec![],
            granters: vec![],
        }
    }

    #[test]
    fn manifests_only_go_forward() {
        let root = TenantRoot::generate();
        let signed = |version| Manifest::sign(&root, terms(version)).unwrap();
        let mut held = signed(5);
        assert_eq!(
            held.replace(signed(4), NOW),
            Err(RecordError::Outdated {
                offered: 4,
                held: 5
            })
        );
        held.replace(signed(5), NOW).unwrap();
        held.replace(signed(6), NOW).unwrap();
        let mut other = terms(6);
        other.providers.push(ProviderPin {
            root: PublicKey([1; 32]),
            name: "x".into(),
            own: true,
        });
        let other = Manifest::sign(&root, other).unwrap();
        assert!(matches!(
            held.replace(other, NOW),
            Err(RecordError::Outdated { .. })
        ));
        let late = NOW.saturating_add(Millis(1001));
        assert!(matches!(
            held.replace(signed(7), late),
            Err(RecordError::Expired { .. })
        ));
        let foreign = Manifest::sign(&TenantRoot::generate(), terms(9)).unwrap();
        assert!(matches!(
            held.replace(foreign, NOW),
            Err(RecordError::Misplaced { .. })
        ));
    }

    #[test]
    fn no_bit_of_a_manifest_may_change() {
        let root = TenantRoot::generate();
        let bytes = Manifest::sign(&root, terms(1)).unwrap().to_bytes();
        assert!(Manifest::from_bytes(&bytes, &root.public()).is_ok());
        assert!(Manifest::from_bytes(&bytes, &TenantRoot::generate().public()).is_err());
        for i in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[i] ^= 4;
            assert!(
                Manifest::from_bytes(&bad, &root.public()).is_err(),
                "byte {i}"
            );
        }
    }
}
