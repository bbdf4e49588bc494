//! [`TokenVerifier`]: verifies tokens with the configured keys and with those of a set at a URL.
//!
//! The key id of a token chooses the key, and the key decides the algorithm; the token's header has no say in it. A key
//! id that is unknown fetches the set again, rarely. Everything but that fetch is pure work of microseconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};

use super::fault::TokenFault;
use super::grant::Grant;
use super::jwks::JwksCache;
use super::keys::{KeyFingerprint, KeySet, TokenAlgorithm, VerificationKey};

/// Maximum size of a token in bytes. A larger one is not decoded.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Allowed difference between the clocks of issuer and gateway.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// The claims that every token must have, in addition to a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The issuer: the claim `iss`.
    pub issuer: String,
    /// The names of this service: one of them is in the claim `aud`.
    pub audience: Vec<String>,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct TokenVerifier {
    policy: TokenPolicy,
    keys: KeySet,
    pub(super) jwks: Option<Arc<JwksCache>>,
}

impl TokenVerifier {
    pub(super) fn new(policy: TokenPolicy, keys: KeySet, jwks: Option<Arc<JwksCache>>) -> Self {
        Self { policy, keys, jwks }
    }

    /// Verifies a token. May fetch the keys, within the time limit of a fetch.
    ///
    /// # Errors
    /// [`TokenFault`]: the reason for its refusal.
    pub async fn verify(&self, token: &str) -> Result<Grant, TokenFault> {
        let header = read_header(token)?;
        let verified = self.verify_with(&self.keys, &header, token);
        let Some(jwks) = self.jwks.as_ref().filter(|_| self.may_be_of_set(&header, &verified)) else { return verified };
        let keys = jwks.keys().await?;
        let verified = self.verify_with(&keys, &header, token);
        if verified != Err(TokenFault::UnknownKey) {
            return verified;
        }
        let keys = jwks.refreshed_for_unknown_key(&keys).await?;
        self.verify_with(&keys, &header, token)
    }

    /// Returns false if the key is neither configured nor in the set at the URL. Before the first answer of the URL
    /// every key may be in its set.
    pub(super) fn uses(&self, key: KeyFingerprint) -> bool {
        self.keys.has(key) || self.jwks.as_ref().is_some_and(|jwks| jwks.may_have(key))
    }

    /// Returns true if a token that the configured keys did not verify may have its key in the set at the URL. A key
    /// without an id is tried for every token, so its verdict does not concern a token that names another key.
    fn may_be_of_set(&self, header: &Header, verified: &Result<Grant, TokenFault>) -> bool {
        match verified {
            Err(TokenFault::UnknownKey) => true,
            Err(TokenFault::WrongAlgorithm | TokenFault::WrongSignature) => {
                header.kid.as_deref().is_some_and(|id| self.keys.named(id).next().is_none())
            }
            _ => false,
        }
    }

    /// Verifies a token with these keys. `UnknownKey` if none of them has its key id.
    fn verify_with(&self, keys: &KeySet, header: &Header, token: &str) -> Result<Grant, TokenFault> {
        let named: Vec<&VerificationKey> = header.kid.iter().flat_map(|id| keys.named(id)).collect();
        let keys = if named.is_empty() { keys.unnamed().collect() } else { named };
        let mut fault = if keys.is_empty() { TokenFault::UnknownKey } else { TokenFault::WrongAlgorithm };
        let algorithm = TokenAlgorithm::of_header(header.alg).ok_or(fault)?;
        for VerificationKey { key, fingerprint, .. } in keys.into_iter().filter(|key| key.algorithm == algorithm) {
            match decode::<Box<serde_json::value::RawValue>>(token, key, &self.validation(algorithm)) {
                Ok(decoded) => return Grant::of_claims(decoded.claims.get(), *fingerprint).and_then(issued_by_now),
                Err(error) => fault = of_error(error.kind()),
            }
            if fault != TokenFault::WrongSignature {
                break;
            }
        }
        Err(fault)
    }

    fn validation(&self, algorithm: TokenAlgorithm) -> Validation {
        let mut validation = Validation::new(algorithm.in_header());
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.policy.issuer]);
        validation.set_audience(&self.policy.audience);
        // Without this list a token without the claim would pass.
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        validation
    }
}

/// Refuses a token with a time of issue that lies ahead: no revocation would apply to it.
fn issued_by_now(grant: Grant) -> Result<Grant, TokenFault> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let latest = now + Duration::from_secs(LEEWAY_SECONDS);
    if u128::from(grant.issued) > latest.as_millis() { Err(TokenFault::BadClaim("iat")) } else { Ok(grant) }
}

fn read_header(token: &str) -> Result<Header, TokenFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::TooLarge);
    }
    decode_header(token).map_err(|_| TokenFault::Malformed)
}

fn of_error(error: &ErrorKind) -> TokenFault {
    match error {
        ErrorKind::InvalidSignature => TokenFault::WrongSignature,
        ErrorKind::InvalidAlgorithm => TokenFault::WrongAlgorithm,
        ErrorKind::ExpiredSignature => TokenFault::Expired,
        ErrorKind::ImmatureSignature => TokenFault::NotYetValid,
        ErrorKind::InvalidIssuer => TokenFault::WrongIssuer,
        ErrorKind::InvalidAudience => TokenFault::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => TokenFault::BadClaim(
            ["exp", "nbf", "sub", "iss", "aud"].into_iter().find(|known| known == claim).unwrap_or("?"),
        ),
        _ => TokenFault::Malformed,
    }
}
