//! Enrolment certificates, and the records that nodes make under them.

use std::ops::Deref;

use bytes::Bytes;
use farlane_model::{Digest, NodeId, NodeRequest, Tier};
use farlane_units::{Millis, UsdMicros};
use serde::{Deserialize, Serialize};

use super::form::{self, Body};
use super::{ProviderPin, RecordError, RevocationList, RevocationPolicy, in_time};
use crate::sign::{EnrolmentSeed, NodeIdentity, ProviderRoot, PublicKey};

/// What a provider promises of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentTerms {
    /// The node's enrolment key; its hash is the node's id.
    pub enrolment: PublicKey,
    /// The provider's root, which signs.
    pub provider: PublicKey,
    /// Where the node is; at most 64 bytes.
    pub region: String,
    /// The strongest tier the provider stands for.
    pub tier: Tier,
    /// The node's labels, which its provider alone gives. Sorted by key; at most 64.
    pub labels: Vec<(String, String)>,
    /// Price of one core for an hour; absent: what the node's spec says.
    pub price_usd_micros_core_hour: Option<UsdMicros>,
    /// Not valid later than this, in cluster time.
    pub not_after: Millis,
}

impl Body for EnrolmentTerms {
    const WHAT: &'static str = "enrolment certificate";
    const LABEL: &'static [u8] = b"farlane/enrolment/1";
    const MAX: usize = 32 * 1024;

    fn fits(&self) -> bool {
        let label = |(k, v): &(String, String)| form::is_name(k, 64) && form::is_name(v, 256);
        !self.region.is_empty()
            && form::is_name(&self.region, 64)
            && self.labels.len() <= 64
            && self.labels.iter().all(label)
            && self.labels.windows(2).all(|pair| pair[0].0 < pair[1].0)
    }
}

/// [`EnrolmentTerms`] under the provider's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentCert {
    terms: EnrolmentTerms,
    bytes: Bytes,
}

impl EnrolmentCert {
    /// Signs terms; `terms.provider` is set to the root's public key.
    ///
    /// *Errors*: a field is out of its bounds.
    pub fn sign(root: &ProviderRoot, mut terms: EnrolmentTerms) -> Result<Self, RecordError> {
        terms.provider = root.public();
        let bytes = form::sign(&terms, &[root])?;
        Ok(Self { terms, bytes })
    }

    /// Reads one and checks the signature of the provider that it names.
    ///
    /// *Errors*: unreadable, or the signature does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let read = form::read::<EnrolmentTerms>(bytes, 1)?;
        read.check(0, &read.body.provider)?;
        Ok(Self {
            terms: read.body,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }
    /// The node it is for.
    pub fn node(&self) -> NodeId {
        self.terms.enrolment.node()
    }
}

impl Deref for EnrolmentCert {
    type Target = EnrolmentTerms;
    fn deref(&self) -> &EnrolmentTerms {
        &self.terms
    }
}

#[derive(Serialize, Deserialize)]
struct NodeBody {
    identity: PublicKey,
    hostname: String,
    certificate: Vec<u8>,
}

impl Body for NodeBody {
    const WHAT: &'static str = "node record";
    const LABEL: &'static [u8] = b"farlane/node/1";
    const MAX: usize = 64 * 1024;

    fn fits(&self) -> bool {
        form::is_name(&self.hostname, 255)
    }
}

/// A node: its identity key, certified by its enrolment key, and signed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    identity: PublicKey,
    hostname: String,
    certificate: EnrolmentCert,
    bytes: Bytes,
}

impl NodeRecord {
    /// Certifies a new identity; the caller erases the seed afterwards.
    ///
    /// *Errors*: the seed is not the certificate's, or the host name is too long.
    pub fn make(
        identity: &NodeIdentity,
        seed: &EnrolmentSeed,
        certificate: &EnrolmentCert,
        hostname: &str,
    ) -> Result<Self, RecordError> {
        if seed.public() != certificate.enrolment {
            return Err(RecordError::Misplaced {
                what: EnrolmentTerms::WHAT,
            });
        }
        let body = NodeBody {
            identity: identity.public(),
            hostname: hostname.to_owned(),
            certificate: certificate.bytes.to_vec(),
        };
        let bytes = form::sign(&body, &[seed, identity])?;
        let (identity, hostname) = (body.identity, body.hostname);
        Ok(Self {
            identity,
            hostname,
            certificate: certificate.clone(),
            bytes,
        })
    }

    /// Reads one and checks the chain up to the provider that it names, which the caller must
    /// still trust: [`NodeRecord::check`].
    ///
    /// *Errors*: unreadable, or one of the three signatures does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let read = form::read::<NodeBody>(bytes, 2)?;
        let certificate = EnrolmentCert::from_bytes(&read.body.certificate)?;
        read.check(0, &certificate.enrolment)?;
        read.check(1, &read.body.identity)?;
        let NodeBody {
            identity, hostname, ..
        } = read.body;
        Ok(Self {
            identity,
            hostname,
            certificate,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }
    /// BLAKE3 of its canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
    /// Its id: hash of the enrolment key.
    pub fn node(&self) -> NodeId {
        self.certificate.node()
    }
    /// Its own key.
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }
    /// As the node named itself, for people.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
    /// What its provider promises.
    pub fn certificate(&self) -> &EnrolmentCert {
        &self.certificate
    }
    /// Where it is, by its certificate.
    pub fn region(&self) -> &str {
        &self.certificate.region
    }
    /// Its provider's root.
    pub fn provider(&self) -> PublicKey {
        self.certificate.provider
    }

    /// One of its labels, by its certificate.
    fn label(&self, key: &str) -> Option<&str> {
        let found = self.certificate.labels.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether to rely on it now; the pin that stands behind it.
    ///
    /// *Errors*: the provider is not pinned, the certificate ended, or the node is revoked.
    pub fn check<'p>(
        &self,
        pins: &'p [ProviderPin],
        revocations: Option<&RevocationList>,
        policy: RevocationPolicy,
        now: Millis,
    ) -> Result<&'p ProviderPin, RecordError> {
        let provider = self.provider();
        let pin = pins
            .iter()
            .find(|pin| pin.root == provider)
            .ok_or_else(|| RecordError::UnknownProvider {
                provider: provider.fingerprint(),
            })?;
        in_time(EnrolmentTerms::WHAT, self.certificate.not_after, now)?;
        match (revocations, policy) {
            (Some(list), policy) => match list.check(&provider, &self.node(), now) {
                Err(RecordError::RevocationsStale) if policy == RevocationPolicy::WhenGiven => {}
                checked => checked?,
            },
            (None, RevocationPolicy::Required) => return Err(RecordError::RevocationsStale),
            (None, RevocationPolicy::WhenGiven) => {}
        }
        Ok(pin)
    }

    /// Whether the node is where, whose, and shut in as, a task asks, by its provider's word: what a
    /// granter can check of a placement without believing the control plane.
    ///
    /// *Errors*: another region, provider or node, other labels, or too weak a tier.
    pub fn suits(&self, request: &NodeRequest) -> Result<(), RecordError> {
        let here = request.allows_region(self.region())
            && request.allows_provider(&self.provider().fingerprint())
            && request.allows_node(&self.node())
            && request
                .labels
                .iter()
                .all(|rule| rule.demand.holds(self.label(&rule.key)));
        match here && self.certificate.tier >= request.tier {
            true => Ok(()),
            false => Err(RecordError::Unsuited),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::{Cast, NOW};
    use farlane_model::{Glob, LabelRule, PythonVersion};

    #[test]
    fn a_record_reads_back_and_no_bit_may_change() {
        let cast = Cast::new();
        let bytes = cast.record.to_bytes();
        let read = NodeRecord::from_bytes(&bytes).unwrap();
        assert_eq!(read, cast.record);
        assert_eq!(read.node(), cast.enrolment.public().node());
        for i in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[i] ^= 1;
            assert!(NodeRecord::from_bytes(&bad).is_err(), "byte {i}");
        }
        assert!(NodeRecord::from_bytes(&bytes[1..]).is_err());
        assert!(NodeRecord::from_bytes(&[]).is_err());
    }

    #[test]
    fn another_seed_cannot_take_a_certificate() {
        let cast = Cast::new();
        let seed = EnrolmentSeed::generate();
        let stolen = NodeRecord::make(&cast.identity, &seed, cast.record.certificate(), "h");
        assert_eq!(
            stolen,
            Err(RecordError::Misplaced {
                what: "enrolment certificate"
            })
        );
    }

    #[test]
    fn trust_time_and_revocation_are_asked() {
        let cast = Cast::new();
        let pins = [ProviderPin {
            root: cast.provider.public(),
            name: "own".into(),
            own: true,
        }];
        let free = RevocationPolicy::WhenGiven;
        let record = &cast.record;
        assert!(record.check(&pins, None, free, NOW).unwrap().own);
        assert!(matches!(
            record.check(&[], None, free, NOW),
            Err(RecordError::UnknownProvider { .. })
        ));
        let late = record.certificate().not_after.saturating_add(Millis(1));
        assert!(matches!(
            record.check(&pins, None, free, late),
            Err(RecordError::Expired { .. })
        ));
        let must = RevocationPolicy::Required;
        assert_eq!(
            record.check(&pins, None, must, NOW),
            Err(RecordError::RevocationsStale)
        );
        let list = |nodes| RevocationList::sign(&cast.provider, NOW, nodes).unwrap();
        assert!(record.check(&pins, Some(&list(vec![])), must, NOW).is_ok());
        let revoked = list(vec![record.node()]);
        assert_eq!(
            record.check(&pins, Some(&revoked), free, NOW),
            Err(RecordError::Revoked)
        );
        let day_later = NOW.saturating_add(Millis(24 * 3_600_000 + 1));
        assert_eq!(
            record.check(&pins, Some(&list(vec![])), must, day_later),
            Err(RecordError::RevocationsStale)
        );
        assert!(
            record
                .check(&pins, Some(&list(vec![])), free, day_later)
                .is_ok()
        );
        assert_eq!(
            record.check(&pins, Some(&revoked), free, day_later),
            Err(RecordError::Revoked)
        );
        let foreign = RevocationList::sign(&ProviderRoot::generate(), NOW, vec![]).unwrap();
        assert_eq!(
            record.check(&pins, Some(&foreign), must, NOW),
            Err(RecordError::Misplaced {
                what: "revocation list"
            })
        );
    }

    #[test]
    fn region_and_tier_are_the_providers_word() {
        let record = Cast::new().record; // eu-central, namespaces
        let request = |regions: &[&str], tier| NodeRequest {
            regions: regions.iter().map(|r| Glob::new(*r).unwrap()).collect(),
            tier,
            ..NodeRequest::any(PythonVersion {
                major: 3,
                minor: 12,
            })
        };
        let suits = |regions: &[&str], tier| record.suits(&request(regions, tier)).is_ok();
        assert!(suits(&[], Tier::Process) && suits(&["us-*", "eu-*"], Tier::Namespaces));
        assert!(!suits(&["us-*"], Tier::Process) && !suits(&[], Tier::UserKernel));
        let asks = |change: fn(&mut NodeRequest, &NodeRecord)| {
            let mut request = request(&["eu-*"], Tier::Process);
            change(&mut request, &record);
            record.suits(&request).is_ok()
        };
        let globs = |one: &str| vec![Glob::new(one).unwrap()];
        assert!(asks(
            |r, _| r.residency = vec![Glob::new("*-central").unwrap()]
        ));
        let elsewhere = NodeRequest {
            residency: globs("us-*"),
            ..request(&[], Tier::Process)
        };
        assert_eq!(record.suits(&elsewhere), Err(RecordError::Unsuited));
        assert!(asks(
            |r, own| r.providers = vec![own.provider().fingerprint()]
        ));
        assert!(!asks(|r, _| r.providers = vec![Digest([7; 32])]));
        let equals = |key: &str, value: &str| vec![LabelRule::equals(key, value)];
        let labelled = NodeRequest {
            labels: equals("disk", "pretended"),
            ..request(&[], Tier::Process)
        };
        assert_eq!(record.suits(&labelled), Err(RecordError::Unsuited));
        assert!(asks(|r, own| r.keep_on = vec![own.node()]));
        assert!(!asks(|r, _| r.keep_on = vec![NodeId([7; 32])]));
    }
}
