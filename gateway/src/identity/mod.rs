//! Identity: verification of the tokens (JWT, RFC 7519) with which an application vouches for its users.
//!
//! [`TokenVerifier`] turns a token into a [`Grant`], or into the [`TokenFault`] that refuses it; [`IdentityGate`] is
//! the rule of `auth.mode`. Keys come from settings, files, or a set of keys at a URL (`jwks`). Invariant: the
//! algorithm is a property of the key, never of the token. Knows no session and no dialect.

mod fault;
mod gate;
mod grant;
mod jwks;
mod keys;
mod mode;
mod refusals;
mod settings;
mod verifier;

#[cfg(test)]
mod tests;

pub use self::fault::TokenFault;
pub use self::gate::{IdentityGate, Introduction, UserToken};
pub use self::grant::{Grant, RoomRight, RoomRule};
pub use self::jwks::JwksUrl;
pub use self::keys::{KeyFingerprint, KeyMaterial, TokenAlgorithm};
pub use self::mode::AuthMode;
pub use self::settings::AuthConfig;
pub use self::verifier::{TokenPolicy, TokenVerifier};
