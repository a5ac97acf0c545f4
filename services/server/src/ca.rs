//! The network's certificate authority: one root, one intermediate for each server.
//!
//! Owns the files under `DATA/ca` and every X.509 certificate of the network. Transport only: what a
//! node may run, and who may read what, hangs on records and manifests that no server can sign.
//!
//! ```text
//! root (10 y, key 0600) ─▶ intermediate of this server (1 y) ─┬▶ server leaf (7 d, renewed each 12 h)
//!                                                             └▶ node leaves (24 h, backdated 1 h)
//! ```

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use farlane_controller::{
    CertificateIssuer, IssueError, IssuedCertificate, NODE_CERTIFICATE_BACKDATE,
    NODE_CERTIFICATE_LIFE,
};
use farlane_model::{Digest, NodeId};
use farlane_units::Millis;
use farlane_wire::channel::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};

const DAY: u64 = 24 * 60 * 60 * 1000;
/// Life of the root. Source: the usual span of a private root.
const ROOT_LIFE: Millis = Millis(3650 * DAY);
/// Life of an intermediate, and when a start makes a new one instead. Source: the usual span.
const INTERMEDIATE_LIFE: Millis = Millis(365 * DAY);
const INTERMEDIATE_RENEW: Millis = Millis(60 * DAY);
/// Life of a server's own leaf; longer than any pause between two renewals.
const SERVER_LIFE: Millis = Millis(7 * DAY);
/// The organisational units by which a leaf's role is told.
pub(crate) const NODE_UNIT: &str = "farlane node";
pub(crate) const SERVER_UNIT: &str = "farlane server";

/// Why the authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key is damaged, or could not be made.
    #[error("the network's certificates are damaged: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The root's key and certificate are not a pair, or one is missing.
    #[error(
        "root.key and root.pem in {dir} do not belong together; put both back: from a copy of this \
         server's folder, or from another server of the network"
    )]
    Unpaired {
        /// Where.
        dir: String,
    },
    /// A certificate does not parse.
    #[error("the network's certificates are damaged: {0}")]
    Pem(String),
}

/// This server's part of the network's authority.
pub struct Authority {
    root_pem: String,
    intermediate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A server's own certificate chain and key.
pub struct ServerCertificate {
    /// Leaf, intermediate.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Opens the authority under `dir`, making the root on the first start and an intermediate when
    /// there is none with two months left.
    ///
    /// *Errors*: files that cannot be read or written, or are damaged.
    pub fn open(dir: &Path, server: u64, now: Millis) -> Result<Self, CaError> {
        make_dir(dir)?;
        let (root_key, root_pem) =
            match (read(&dir.join("root.key"))?, read(&dir.join("root.pem"))?) {
                (Some(key), Some(pem)) => kept_root(dir, &key, pem)?,
                (None, None) => make_root(dir, now)?,
                // A copy that was half done; one made anew would be another network's.
                _ => return Err(unpaired(dir)),
            };
        let common = |key: &KeyPair| common_name(server, &root_pem, key);
        let root = Issuer::from_ca_cert_pem(&root_pem, root_key)?;
        let (key, pem) = match kept_intermediate(dir, now, common)? {
            Some(kept) => kept,
            None => make_intermediate(dir, &root, now, common)?,
        };
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&pem, key)?,
            intermediate_pem: pem,
            root_pem,
        })
    }

    /// Hash of the root certificate, by which the servers of a network tell that they have the same.
    pub fn root_print(&self) -> Digest {
        Digest::of(self.root_pem.as_bytes())
    }

    /// The root certificate, which clients and nodes pin.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A leaf for this server under these names and addresses.
    ///
    /// *Errors*: a name is malformed, or signing failed.
    pub fn server_certificate(
        &self,
        server: u64,
        names: &[String],
        now: Millis,
    ) -> Result<ServerCertificate, CaError> {
        let mut all = vec![SERVER_NAME.to_owned()];
        all.extend(names.iter().filter(|n| *n != SERVER_NAME).cloned());
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name = name(&server.to_string(), SERVER_UNIT);
        span(&mut params, now, SERVER_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let intermediate = CertificateDer::from_pem_slice(self.intermediate_pem.as_bytes())
            .map_err(|e| CaError::Pem(e.to_string()))?;
        Ok(ServerCertificate {
            chain: vec![leaf.der().clone(), intermediate],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// A chain and key in PEM by which this server is a client of another.
    ///
    /// *Errors*: signing failed.
    pub fn peer_identity(&self, server: u64, now: Millis) -> Result<(String, String), CaError> {
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        params.distinguished_name = name(&server.to_string(), SERVER_UNIT);
        span(&mut params, now, INTERMEDIATE_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok((
            format!("{}{}", leaf.pem(), self.intermediate_pem),
            key.serialize_pem(),
        ))
    }
}

impl CertificateIssuer for Authority {
    fn issue(
        &self,
        node: NodeId,
        csr_der: &[u8],
        now: Millis,
        latest: Millis,
    ) -> Result<IssuedCertificate, IssueError> {
        let request = CertificateSigningRequestDer::from(csr_der.to_vec());
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|_| IssueError::BadRequest)?;
        let signing = |e: rcgen::Error| IssueError::Signing(e.to_string());
        // Only the key is taken from the request: every name is the network's to give.
        let mut params = CertificateParams::new(Vec::new()).map_err(signing)?;
        params.distinguished_name = name(&node.to_string(), NODE_UNIT);
        let expires = now.saturating_add(NODE_CERTIFICATE_LIFE).min(latest);
        span(&mut params, now, expires.saturating_sub(now));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(signing)?;
        Ok(IssuedCertificate {
            chain_pem: format!("{}{}", leaf.pem(), self.intermediate_pem),
            expires,
        })
    }
}

fn name(common: &str, unit: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name.push(DnType::OrganizationalUnitName, unit);
    name
}

fn span(params: &mut CertificateParams, now: Millis, life: Millis) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let from = now.saturating_sub(NODE_CERTIFICATE_BACKDATE);
    params.not_before = epoch + Duration::from_millis(from.0);
    params.not_after = epoch + Duration::from_millis(now.saturating_add(life).0);
}

fn authority_params(common: &str, path_length: u8, now: Millis, life: Millis) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common, "farlane network");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    span(&mut params, now, life);
    params
}

fn make_root(dir: &Path, now: Millis) -> Result<(KeyPair, String), CaError> {
    let key = KeyPair::generate()?;
    let pem = authority_params("Farlane network root", 1, now, ROOT_LIFE)
        .self_signed(&key)?
        .pem();
    write_secret(&dir.join("root.key"), &key.serialize_pem())?;
    write_secret(&dir.join("root.pem"), &pem)?;
    Ok((key, pem))
}

/// The root of an earlier start, or of the server that it was copied from.
fn kept_root(dir: &Path, key: &str, pem: String) -> Result<(KeyPair, String), CaError> {
    let key = KeyPair::from_pem(key)?;
    let der =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| CaError::Pem(e.to_string()))?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|e| CaError::Pem(e.to_string()))?;
    match parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes() {
        true => Ok((key, pem)),
        false => Err(unpaired(dir)),
    }
}

fn unpaired(dir: &Path) -> CaError {
    CaError::Unpaired {
        dir: dir.display().to_string(),
    }
}

/// An intermediate's name. Its print keeps two of one server apart, and those of two roots.
fn common_name(server: u64, root_pem: &str, key: &KeyPair) -> String {
    let print = Digest::of(&[root_pem.as_bytes(), key.der_bytes()].concat()).to_string();
    format!("Farlane server {server} {}", &print[..8])
}

fn make_intermediate(
    dir: &Path,
    root: &Issuer<'_, KeyPair>,
    now: Millis,
    common: impl Fn(&KeyPair) -> String,
) -> Result<(KeyPair, String), CaError> {
    let key = KeyPair::generate()?;
    let pem = authority_params(&common(&key), 0, now, INTERMEDIATE_LIFE)
        .signed_by(&key, root)?
        .pem();
    write_secret(&dir.join("intermediate.key"), &key.serialize_pem())?;
    write_secret(&dir.join("intermediate.pem"), &pem)?;
    Ok((key, pem))
}

/// The intermediate of an earlier start, if it is this root's, belongs together and has long enough to
/// live.
fn kept_intermediate(
    dir: &Path,
    now: Millis,
    common: impl Fn(&KeyPair) -> String,
) -> Result<Option<(KeyPair, String)>, CaError> {
    let (Some(key), Some(pem)) = (
        read(&dir.join("intermediate.key"))?,
        read(&dir.join("intermediate.pem"))?,
    ) else {
        return Ok(None);
    };
    let der =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| CaError::Pem(e.to_string()))?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|e| CaError::Pem(e.to_string()))?;
    let ends = parsed.validity().not_after.timestamp().saturating_mul(1000);
    let key = KeyPair::from_pem(&key)?;
    let mut named = parsed.subject().iter_common_name();
    let named = named.next().and_then(|name| name.as_str().ok());
    let fits = parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes()
        && named == Some(common(&key).as_str())
        && u64::try_from(ends).is_ok_and(|ends| ends > now.saturating_add(INTERMEDIATE_RENEW).0);
    Ok(fits.then_some((key, pem)))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> CaError + '_ {
    move |source| CaError::File {
        path: path.display().to_string(),
        source,
    }
}

fn make_dir(dir: &Path) -> Result<(), CaError> {
    fs::create_dir_all(dir).map_err(file_error(dir))
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path)(e)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), CaError> {
    let temp = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temp);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, path)
    };
    write().map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: Millis = Millis(1_790_000_000_000);

    #[test]
    fn keys_are_the_owners_alone_and_the_root_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), 1, NOW).unwrap();
        let again = Authority::open(dir.path(), 1, NOW).unwrap();
        assert_eq!(first.root_pem(), again.root_pem());
        assert_eq!(first.intermediate_pem, again.intermediate_pem);
        for key in ["root.key", "intermediate.key"] {
            let mode = fs::metadata(dir.path().join(key))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let later = NOW.saturating_add(Millis(330 * DAY));
        let renewed = Authority::open(dir.path(), 1, later).unwrap();
        assert_eq!(first.root_pem(), renewed.root_pem());
        assert_ne!(first.intermediate_pem, renewed.intermediate_pem);
    }

    #[test]
    fn a_root_copied_over_an_own_one_is_taken_whole_or_named() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Authority::open(first.path(), 1, NOW).unwrap();
        let own = Authority::open(second.path(), 2, NOW).unwrap();
        assert_ne!(one.root_print(), own.root_print());
        let copy = |file: &str| fs::copy(first.path().join(file), second.path().join(file));
        copy("root.pem").unwrap();
        let half = Authority::open(second.path(), 2, NOW).unwrap_err();
        assert!(matches!(half, CaError::Unpaired { .. }), "{half}");
        copy("root.key").unwrap();
        let two = Authority::open(second.path(), 2, NOW).unwrap();
        assert_eq!(two.root_print(), one.root_print());
        // The one made under its own root would be believed by nobody.
        assert_ne!(two.intermediate_pem, own.intermediate_pem);
        fs::remove_file(second.path().join("root.key")).unwrap();
        let half = Authority::open(second.path(), 2, NOW).unwrap_err();
        let said = half.to_string();
        assert!(said.contains(&*second.path().to_string_lossy()), "{said}");
    }

    #[test]
    fn a_node_gets_the_networks_names_and_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), 1, NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let wished = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let csr = wished.serialize_request(&key).unwrap();
        let node = NodeId([7; 32]);
        let year = NOW.saturating_add(INTERMEDIATE_LIFE);
        let issued = authority.issue(node, csr.der(), NOW, year).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(leaf.subject_alternative_name().unwrap().is_none());
        let common = leaf
            .subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str()
            .unwrap();
        assert_eq!(common, node.to_string());
        let span = leaf.validity();
        assert_eq!(
            span.not_after.timestamp() - span.not_before.timestamp(),
            25 * 3600
        );

        // The provider's word for the node ends first.
        let hour = NOW.saturating_add(Millis(3_600_000));
        let short = authority.issue(node, csr.der(), NOW, hour).unwrap();
        let der = CertificateDer::from_pem_slice(short.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        let ends = leaf.validity().not_after.timestamp();
        assert_eq!((short.expires, ends), (hour, hour.0 as i64 / 1000));

        let mut broken = csr.der().to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        assert!(matches!(
            authority.issue(node, &broken, NOW, year),
            Err(IssueError::BadRequest)
        ));
    }
}
