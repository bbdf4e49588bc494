//! Keys of tokens: [`KeyMaterial`] as it is configured, and the [`KeySet`] that a token's key is chosen from.
//!
//! Every key has one algorithm. Invariant: a key of a set is strong enough for its algorithm (RFC 7518): a secret is as
//! long as its hash, an RSA modulus has 2048 bits, a curve is the one of its algorithm.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::LazyLock;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

/// Minimum size of an RSA key, in bytes.
const RSA_BYTES: usize = 256;
/// Size of an uncompressed point of the curve P-256.
const P256_BYTES: usize = 65;
/// Size of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

/// Algorithm of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TokenAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl TokenAlgorithm {
    const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// Returns the name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn of_header(algorithm: Algorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.in_header() == algorithm)
    }

    pub(super) fn in_header(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Hs384 => Algorithm::HS384,
            Self::Hs512 => Algorithm::HS512,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }

    /// Returns the minimum length of a shared secret in bytes; `None` for algorithms with a public key.
    fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            Self::Rs256 | Self::Es256 | Self::EdDsa => None,
        }
    }
}

impl FromStr for TokenAlgorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or("expected one of HS256, HS384, HS512, RS256, ES256 and EdDSA")
    }
}

/// A key as it is configured: a shared secret, or a public key as PEM. Its debug output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMaterial {
    /// The algorithm.
    pub algorithm: TokenAlgorithm,
    /// The key id of the tokens; a key without one serves tokens whose key id no key has.
    pub id: Option<String>,
    /// The secret, or the PEM text.
    pub text: String,
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaterial").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Fingerprint of a key with its algorithm and id. Equal keys have equal ones, within one process.
/// Not zero, so that a session without one needs no space to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint(NonZeroU64);

/// The fingerprint of no key, for claims that no key has signed.
impl Default for KeyFingerprint {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl KeyFingerprint {
    fn of(algorithm: TokenAlgorithm, id: Option<&str>, key: &DecodingKey) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let parts = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => [bytes.as_slice(), &[]],
            DecodingKeyKind::RsaModulusExponent { n, e } => [n.as_slice(), e.as_slice()],
        };
        Self(NonZeroU64::MIN | STATE.hash_one((algorithm.name(), id, parts)))
    }
}

/// A key that verifies tokens of one algorithm.
#[derive(Clone)]
pub(super) struct VerificationKey {
    pub(super) algorithm: TokenAlgorithm,
    id: Option<Box<str>>,
    pub(super) key: DecodingKey,
    pub(super) fingerprint: KeyFingerprint,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl VerificationKey {
    /// Reads a configured key.
    ///
    /// # Errors
    /// A text without any part of the key.
    pub(super) fn of_material(material: &KeyMaterial) -> Result<Self, &'static str> {
        let text = material.text.as_bytes();
        if let Some(bytes) = material.algorithm.secret_bytes() {
            if text.len() < bytes {
                return Err("the secret is too short: 32 bytes for HS256, 48 for HS384, 64 for HS512");
            }
        } else if material.text.contains("PRIVATE KEY") {
            return Err("this is a private key: the gateway needs the public key");
        }
        let key = match material.algorithm {
            TokenAlgorithm::Hs256 | TokenAlgorithm::Hs384 | TokenAlgorithm::Hs512 => DecodingKey::from_secret(text),
            TokenAlgorithm::Rs256 => DecodingKey::from_rsa_pem(text),
            TokenAlgorithm::Es256 => DecodingKey::from_ec_pem(text),
            TokenAlgorithm::EdDsa => DecodingKey::from_ed_pem(text),
        };
        let key = key.map_err(|_| "this is not a public key of its algorithm in PEM")?;
        let id = material.id.as_deref().map(Into::into);
        Self::checked(material.algorithm, id, key).ok_or("the key is too short, or of another curve")
    }

    /// Reads a key of a set; `None` if it is not for signatures of a known algorithm. `secrets`: true if the set is not
    /// public, so that it may contain shared secrets.
    pub(super) fn of_jwk(jwk: &Jwk, secrets: bool) -> Option<Self> {
        let common = &jwk.common;
        let is_for_signatures = common.public_key_use == Some(PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let named = match common.key_algorithm {
            None => None,
            Some(named) => Some(TokenAlgorithm::of_header(Algorithm::try_from(named).ok()?)?),
        };
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => TokenAlgorithm::Rs256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => TokenAlgorithm::Es256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => TokenAlgorithm::EdDsa,
            AlgorithmParameters::OctetKey(_) if secrets => named.filter(|named| named.secret_bytes().is_some())?,
            _ => return None,
        };
        if !is_for_signatures || named.is_some_and(|named| named != algorithm) {
            return None;
        }
        let id = common.key_id.as_deref().map(Into::into);
        Self::checked(algorithm, id, DecodingKey::from_jwk(jwk).ok()?)
    }

    /// Returns the key if it is strong enough for its algorithm.
    fn checked(algorithm: TokenAlgorithm, id: Option<Box<str>>, key: DecodingKey) -> Option<Self> {
        let bytes = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
        };
        let is_strong = match algorithm {
            TokenAlgorithm::Rs256 => bytes >= RSA_BYTES,
            TokenAlgorithm::Es256 => bytes == P256_BYTES,
            TokenAlgorithm::EdDsa => bytes == ED25519_BYTES,
            secret => secret.secret_bytes().is_some_and(|least| bytes >= least),
        };
        let fingerprint = KeyFingerprint::of(algorithm, id.as_deref(), &key);
        is_strong.then_some(Self { algorithm, id, key, fingerprint })
    }
}

/// Keys that tokens are verified with.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet(Vec<VerificationKey>);

impl KeySet {
    pub(super) fn new(keys: Vec<VerificationKey>) -> Self {
        Self(keys)
    }

    pub(super) fn into_keys(self) -> Vec<VerificationKey> {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if a key with this fingerprint is among them.
    pub(super) fn has(&self, fingerprint: KeyFingerprint) -> bool {
        self.0.iter().any(|key| key.fingerprint == fingerprint)
    }

    /// Returns the keys with this id.
    pub(super) fn named(&self, id: &str) -> impl Iterator<Item = &VerificationKey> {
        self.0.iter().filter(move |key| key.id.as_deref() == Some(id))
    }

    /// Returns the keys without an id.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &VerificationKey> {
        self.0.iter().filter(|key| key.id.is_none())
    }
}
