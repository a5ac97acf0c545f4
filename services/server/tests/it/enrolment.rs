//! What a machine keeps once it is enrolled, and how it comes to have it.

use bytes::Bytes;
use farlane_model::NodeSpec;
use farlane_seal::NodeIdentity;
use farlane_seal::join::JoinSecret;
use farlane_seal::record::NodeRecord;
use farlane_seal::renewal;
use farlane_units::Millis;
use farlane_wire::channel;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{id, v1};
use tonic::Status;
use tonic::transport::Channel;

use crate::machine::node_spec;
use crate::person::{self, with_key};
use crate::world::{World, wall};

/// What a machine keeps on its disk.
#[derive(Clone)]
pub struct Kept {
    pub seed: [u8; 32],
    pub record: NodeRecord,
    pub chain_pem: String,
    pub key_pem: String,
    pub network: Bytes,
    pub spec: NodeSpec,
}

impl Kept {
    /// By this machine's identity: a wish to have a new key certified, and the key.
    pub fn renewal(&self) -> (rcgen::KeyPair, v1::RenewRequest) {
        let (key, csr) = request();
        (key, self.renewal_of(&csr, &self.network, wall()))
    }

    pub fn renewal_of(&self, csr: &[u8], network: &[u8], at: Millis) -> v1::RenewRequest {
        let identity = NodeIdentity::from_seed(&self.seed);
        let node = self.record.node();
        let signature = renewal::sign(&identity, node, network, at, csr);
        v1::RenewRequest {
            csr_der: Bytes::copy_from_slice(csr),
            node: id::node_bytes(&node),
            at_ms: at.0,
            signature: Bytes::copy_from_slice(&signature),
        }
    }

    /// The same machine by another key and certificate.
    pub fn with(&self, key: &rcgen::KeyPair, reply: &v1::RenewReply) -> Self {
        Self {
            chain_pem: String::from_utf8(reply.certificate_pem.to_vec()).unwrap(),
            key_pem: key.serialize_pem(),
            ..self.clone()
        }
    }

    /// A connection by its certificate.
    pub async fn fleet(&self, world: &World) -> FleetClient<Channel> {
        let identity = Some((self.chain_pem.as_str(), self.key_pem.as_str()));
        let channel = channel::connect(&world.urls(), world.ca(), identity).await;
        FleetClient::new(channel.unwrap())
    }
}

/// A connection of somebody without a certificate.
pub async fn stranger(world: &World) -> FleetClient<Channel> {
    let channel = channel::connect(&world.urls(), world.ca(), None).await;
    FleetClient::new(channel.unwrap())
}

/// A key, and a request to certify it.
pub fn request() -> (rcgen::KeyPair, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    (key, csr)
}

/// Registers a join secret made for this record.
pub async fn token(world: &World, record: &NodeRecord, life_ms: u64) -> Result<JoinSecret, Status> {
    let secret = JoinSecret::generate();
    let request = v1::CreateJoinTokenRequest {
        secret_hash: id::digest_bytes(&secret.hash()),
        expires_ms: wall().0 + life_ms,
        enrolment_bytes: record.certificate().to_bytes(),
    };
    let mut api = person::api(world).await;
    let reply = api
        .create_join_token(with_key(request, &world.key))
        .await?
        .into_inner();
    assert_eq!(reply.urls, world.urls());
    Ok(secret)
}

pub async fn enrol(
    world: &World,
    secret: &JoinSecret,
    record: &NodeRecord,
    credit: u32,
) -> Result<Kept, Status> {
    enrol_as(world, secret, record, node_spec(credit)).await
}

/// The same for a machine that says this of itself.
pub async fn enrol_as(
    world: &World,
    secret: &JoinSecret,
    record: &NodeRecord,
    spec: NodeSpec,
) -> Result<Kept, Status> {
    let channel = channel::connect(&world.urls(), world.ca(), None)
        .await
        .unwrap();
    let (key, csr) = request();
    let reply = FleetClient::new(channel)
        .enrol(v1::EnrolRequest {
            hello: Some(farlane_wire::hello("test agent")),
            join_secret: Bytes::copy_from_slice(secret.expose()),
            record_bytes: record.to_bytes(),
            csr_der: csr.into(),
            spec_bytes: spec.to_canonical().into(),
        })
        .await?
        .into_inner();
    Ok(Kept {
        seed: [0; 32],
        record: record.clone(),
        chain_pem: String::from_utf8(reply.certificate_pem.to_vec()).unwrap(),
        key_pem: key.serialize_pem(),
        network: reply.network,
        spec,
    })
}
