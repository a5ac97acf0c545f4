//! Known answers of the standards that this room stands on.

#![allow(clippy::unwrap_used)]

use ed25519_dalek::{Signer, SigningKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use serde::Deserialize;

use crate::hpke_suite::{self, Secret};
use crate::random::Randomness;

#[derive(Deserialize)]
struct Known {
    hkdf_sha256: Vec<Hkdf>,
    hpke: Hpke,
    ed25519: Ed25519,
}
#[derive(Deserialize)]
struct Hkdf {
    source: String,
    ikm: String,
    salt: String,
    info: String,
    okm: String,
}
#[derive(Deserialize)]
struct Hpke {
    ikm_e: String,
    sk_r: String,
    pk_r: String,
    info: String,
    enc: String,
    aad: String,
    pt: String,
    ct: String,
    exports: Vec<(String, String)>,
}
#[derive(Deserialize)]
struct Ed25519 {
    seed: String,
    public: String,
    message: String,
    signature: String,
}

fn known() -> Known {
    serde_json::from_str(include_str!("../../tests/vectors/rfc.json")).unwrap()
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

struct Length(usize);
impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[test]
fn hkdf_answers_as_rfc_5869() {
    for case in known().hkdf_sha256 {
        let [ikm, salt, info, okm] =
            [case.ikm, case.salt, case.info, case.okm].map(|hex| hex::decode(hex).unwrap());
        let prk = Salt::new(HKDF_SHA256, &salt).extract(&ikm);
        let mut out = vec![0; okm.len()];
        let info = [info.as_slice()];
        prk.expand(&info, Length(out.len()))
            .unwrap()
            .fill(&mut out)
            .unwrap();
        assert_eq!(out, okm, "{}", case.source);
    }
}

/// Gives the keying material of the standard's ephemeral key, once.
struct Once(Option<[u8; 32]>);
impl Randomness for Once {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.take().expect("drawn once"));
    }
}

#[test]
fn hpke_answers_as_rfc_9180() {
    let case = known().hpke;
    let info = hex::decode(&case.info).unwrap();
    let (aad, pt) = (
        hex::decode(&case.aad).unwrap(),
        hex::decode(&case.pt).unwrap(),
    );
    let secret = Secret::from_bytes(bytes(&case.sk_r));
    assert_eq!(secret.public(), bytes(&case.pk_r));
    let mut random = Once(Some(bytes(&case.ikm_e)));
    let (enc, mut sender) = hpke_suite::sender(&mut random, &secret.public(), &info).unwrap();
    assert_eq!(enc, bytes(&case.enc));
    let ct = sender.seal(&pt, &aad).unwrap();
    assert_eq!(hex::encode(&ct), case.ct);
    let mut receiver = hpke_suite::receiver(&secret, &enc, &info).unwrap();
    assert_eq!(receiver.open(&ct, &aad).unwrap(), pt);
    for (context, value) in case.exports {
        let context = hex::decode(context).unwrap();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        sender.export(&context, &mut a).unwrap();
        receiver.export(&context, &mut b).unwrap();
        assert_eq!((a, b), (bytes(&value), bytes(&value)));
    }
}

#[test]
fn ed25519_answers_as_rfc_8032() {
    let case = known().ed25519;
    let key = SigningKey::from_bytes(&bytes(&case.seed));
    assert_eq!(key.verifying_key().to_bytes(), bytes(&case.public));
    let signature = key.sign(&hex::decode(case.message).unwrap());
    assert_eq!(hex::encode(signature.to_bytes()), case.signature);
}
