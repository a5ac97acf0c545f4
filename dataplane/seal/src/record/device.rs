//! A tenant's devices.

use std::ops::Deref;

use bytes::Bytes;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use super::form::{self, Body};
use super::{RecordError, in_time};
use crate::sign::{PublicKey, TenantRoot};

/// What a tenant says of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTerms {
    /// The tenant's root, which signs.
    pub tenant_root: PublicKey,
    /// The device's key.
    pub device: PublicKey,
    /// For people; at most 128 bytes.
    pub name: String,
    /// Whether it may open grant contexts.
    pub may_grant: bool,
    /// Not valid later than this, in cluster time.
    pub not_after: Millis,
}

impl Body for DeviceTerms {
    const WHAT: &'static str = "device record";
    const LABEL: &'static [u8] = b"farlane/device/1";
    const MAX: usize = 1024;

    fn fits(&self) -> bool {
        form::is_name(&self.name, 128)
    }
}

/// [`DeviceTerms`] under the tenant root's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    terms: DeviceTerms,
    bytes: Bytes,
}

impl DeviceRecord {
    /// Signs terms; `terms.tenant_root` is set to the root's public key.
    ///
    /// *Errors*: the name is too long.
    pub fn sign(root: &TenantRoot, mut terms: DeviceTerms) -> Result<Self, RecordError> {
        terms.tenant_root = root.public();
        let bytes = form::sign(&terms, &[root])?;
        Ok(Self { terms, bytes })
    }

    /// Reads one and checks the signature of the tenant that it names.
    ///
    /// *Errors*: unreadable, or the signature does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let read = form::read::<DeviceTerms>(bytes, 1)?;
        read.check(0, &read.body.tenant_root)?;
        Ok(Self {
            terms: read.body,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether it still holds.
    ///
    /// *Errors*: past its time.
    pub fn check(&self, now: Millis) -> Result<(), RecordError> {
        in_time(DeviceTerms::WHAT, self.terms.not_after, now)
    }
}

impl Deref for DeviceRecord {
    type Target = DeviceTerms;
    fn deref(&self) -> &DeviceTerms {
        &self.terms
    }
}
