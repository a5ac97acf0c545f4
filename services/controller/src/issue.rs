//! The port through which a node gets its transport certificate.
//!
//! Owns the shape of the request. Leaves keys and X.509 to `farlane-server`.

use farlane_model::NodeId;
use farlane_units::Millis;

/// How long a node's transport certificate lives. Source: choice; it is renewed from two thirds of it on.
pub const NODE_CERTIFICATE_LIFE: Millis = Millis(24 * 60 * 60 * 1000);
/// How far back its validity starts, for clocks that run behind. Source: choice; `renewal` of
/// farlane-seal allows ten minutes less.
pub const NODE_CERTIFICATE_BACKDATE: Millis = Millis(60 * 60 * 1000);

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not a PKCS#10 request with a valid signature. The caller's fault.
    #[error("the certificate request cannot be read, or its signature is wrong")]
    BadRequest,
    /// Signing failed: a bug, or the key file is damaged.
    #[error("the certificate could not be signed: {0}")]
    Signing(String),
}

/// A fresh transport certificate.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// Leaf and intermediate, PEM.
    pub chain_pem: String,
    /// Wall time at which it ends.
    pub expires: Millis,
}

/// Signs nodes' transport certificates.
pub trait CertificateIssuer: Send + Sync + 'static {
    /// Certifies the request's key as this node's, not beyond `latest`.
    ///
    /// *Errors*: the request is malformed, or signing failed.
    fn issue(
        &self,
        node: NodeId,
        csr_der: &[u8],
        now: Millis,
        latest: Millis,
    ) -> Result<IssuedCertificate, IssueError>;
}
