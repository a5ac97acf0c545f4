//! The one HPKE suite: X25519-HKDF-SHA256, HKDF-SHA256, ChaCha20-Poly1305, mode Base (RFC 9180).

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, Zeroizing};

use crate::random::{Generator, Randomness};

/// Bytes of an encapsulated key, and of X25519 keys.
pub(crate) const ENC: usize = 32;
/// Bytes of the AEAD's tag.
pub(crate) const TAG: usize = 16;

type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Enc = <X25519HkdfSha256 as Kem>::EncappedKey;
type Sender = hpke::aead::AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>;
type Receiver = hpke::aead::AeadCtxR<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>;

/// An X25519 private key as bytes, zeroed on drop.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    pub(crate) fn generate(random: &mut impl Randomness) -> (Self, [u8; 32]) {
        let (private, public) = X25519HkdfSha256::gen_keypair_with_rng(&mut Generator(random));
        let mut bytes: [u8; 32] = private.to_bytes().into();
        let secret = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        (secret, public.to_bytes().into())
    }
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    fn key(&self) -> Private {
        Private::from_bytes(&*self.0).expect("any 32 bytes are an X25519 key")
    }
    pub(crate) fn public(&self) -> [u8; 32] {
        X25519HkdfSha256::sk_to_pk(&self.key()).to_bytes().into()
    }
}

/// A sender's context to `public`; `None` when that is no usable key (of small order).
pub(crate) fn sender(
    random: &mut impl Randomness,
    public: &[u8; 32],
    info: &[u8],
) -> Option<([u8; ENC], Sender)> {
    let public = Public::from_bytes(public).ok()?;
    let mut rng = Generator(random);
    let (enc, context): (Enc, Sender) =
        hpke::setup_sender_with_rng(&OpModeS::Base, &public, info, &mut rng).ok()?;
    Some((enc.to_bytes().into(), context))
}

/// The receiver's side; `None` when `enc` is no usable key.
pub(crate) fn receiver(secret: &Secret, enc: &[u8], info: &[u8]) -> Option<Receiver> {
    let enc = Enc::from_bytes(enc).ok()?;
    hpke::setup_receiver(&OpModeR::Base, &secret.key(), &enc, info).ok()
}
