//! Joining a network, once, and renewing the transport certificate.
//!
//! ```text
//! join file ─▶ identity made and certified with the seed ─▶ Enrol(secret, record, CSR) ─▶ certificate
//! certificate at two thirds of its life ─▶ Renew(CSR of a new key, signed by the identity) ─▶ certificate
//! certificate ended, or not taken ─▶ the same over a connection without one
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use farlane_model::{NodeId, NodeSpec};
use farlane_runtime::{Clock, SystemClock};
use farlane_seal::NodeIdentity;
use farlane_seal::join::JoinFile;
use farlane_seal::record::NodeRecord;
use farlane_seal::renewal;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{channel, id, v1};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tonic::transport::Channel;

use crate::StartError;
use crate::folder::{Folder, Joined, NetworkFile, Transport};

/// How long an unreachable server is waited for. Source: a server that starts at the same time as
/// its agents needs about 1 s; a person waits this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clocks further apart than this break certificates, which are backdated 1 h. Source: farlane-seal, `renewal`.
const WORST_SKEW_MS: u64 = farlane_seal::renewal::MAX_SKEW.0;
/// A skew worth a warning.
const BAD_SKEW_MS: i64 = 60_000;

/// Joins with `text`, the join file's.
///
/// *Errors*: see [`StartError`]; the token is used up only where the server took it.
pub(crate) async fn join(
    folder: &Folder,
    text: &str,
    hostname: &str,
    spec: &NodeSpec,
) -> Result<Joined, StartError> {
    let bad = |e: &dyn std::fmt::Display| StartError::BadJoinFile(e.to_string());
    let file = JoinFile::from_text(text).map_err(|e| bad(&e))?;
    let identity = match folder.identity()? {
        Some(identity) => identity,
        None => NodeIdentity::generate(),
    };
    let record =
        NodeRecord::make(&identity, &file.seed, &file.enrolment, hostname).map_err(|e| bad(&e))?;
    folder.keep("identity", identity.expose())?;
    folder.keep("record", &record.to_bytes())?;
    let (key_pem, csr) = key_and_request()?;
    let request = v1::EnrolRequest {
        hello: Some(farlane_wire::hello(&software())),
        join_secret: Bytes::copy_from_slice(file.secret.expose()),
        record_bytes: record.to_bytes(),
        csr_der: csr,
        spec_bytes: spec.to_canonical().into(),
    };
    let reply = enrol(&file, request).await?;
    name_skew(reply.server_time_ms)?;
    let transport = transport(&reply.certificate_pem, key_pem, reply.expires_ms)?;
    let network = NetworkFile {
        version: 1,
        urls: file.urls,
        ca_pem: file.ca_pem,
        network: hex::encode(&reply.network),
    };
    let bytes = serde_json::to_vec(&network).map_err(|e| bad(&e))?;
    folder.keep("network.json", &bytes)?;
    folder.keep_transport(&transport)?;
    Ok(Joined {
        identity,
        record,
        network,
        network_id: reply.network,
        transport,
    })
}

async fn enrol(file: &JoinFile, request: v1::EnrolRequest) -> Result<v1::EnrolReply, StartError> {
    let began = Instant::now();
    let mut wait = Duration::from_millis(100);
    loop {
        let answer = match channel::connect(&file.urls, &file.ca_pem, None).await {
            Ok(channel) => FleetClient::new(channel).enrol(request.clone()).await,
            Err(error) => Err(tonic::Status::unavailable(error.to_string())),
        };
        let status = match answer {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) => status,
        };
        if status.code() != tonic::Code::Unavailable {
            return Err(StartError::Refused(status.message().to_owned()));
        }
        if began.elapsed() + wait > PATIENCE {
            return Err(StartError::Unreachable {
                urls: file.urls.join(", "),
                seconds: began.elapsed().as_secs(),
                why: status.message().to_owned(),
            });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

/// What a node renews its certificate by.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) identity: NodeIdentity,
    pub(crate) node: NodeId,
    pub(crate) network: Bytes,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrenewed {
    /// The server's answer, or none.
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    /// This machine's clock or system, or a certificate that cannot be read.
    #[error(transparent)]
    Here(#[from] StartError),
}

/// A new certificate, over a connection of the old one or of none.
///
/// *Errors*: the server's, or a certificate that cannot be read.
pub(crate) async fn renew(channel: Channel, proof: &Proof) -> Result<Transport, Unrenewed> {
    let (key_pem, csr_der) = key_and_request()?;
    let Proof {
        identity,
        node,
        network,
    } = proof;
    let at = SystemClock.wall();
    let signature = renewal::sign(identity, *node, network, at, &csr_der);
    let request = v1::RenewRequest {
        csr_der,
        node: id::node_bytes(node),
        at_ms: at.0,
        signature: Bytes::copy_from_slice(&signature),
    };
    let reply = FleetClient::new(channel).renew(request).await?.into_inner();
    name_skew(reply.server_time_ms)?;
    Ok(transport(
        &reply.certificate_pem,
        key_pem,
        reply.expires_ms,
    )?)
}

fn transport(pem: &Bytes, key_pem: String, expires_ms: u64) -> Result<Transport, StartError> {
    let certificate_pem = String::from_utf8(pem.to_vec())
        .map_err(|_| StartError::Refused("its certificate is not text".into()))?;
    Ok(Transport {
        certificate_pem,
        key_pem,
        issued_ms: SystemClock.wall().0,
        not_after_ms: expires_ms,
    })
}

fn key_and_request() -> Result<(String, Bytes), StartError> {
    let bad = |error: rcgen::Error| StartError::Io {
        what: "making the transport key".into(),
        source: std::io::Error::other(error),
    };
    let key = KeyPair::generate().map_err(bad)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(bad)?;
    Ok((key.serialize_pem(), Bytes::copy_from_slice(request.der())))
}

/// Refuses a clock so wrong that certificates would fail for no visible reason; warns of less.
fn name_skew(server_ms: u64) -> Result<(), StartError> {
    if server_ms == 0 {
        return Ok(());
    }
    let skew_ms = SystemClock.wall().0 as i64 - server_ms as i64;
    if skew_ms.unsigned_abs() > WORST_SKEW_MS {
        return Err(StartError::ClockSkew { skew_ms });
    }
    if skew_ms.abs() > BAD_SKEW_MS {
        tracing::warn!(skew_ms, "this machine's clock and the server's differ");
    }
    Ok(())
}

/// How this build names itself.
pub(crate) fn software() -> String {
    concat!("farlane/", env!("CARGO_PKG_VERSION"), " agent").to_owned()
}
