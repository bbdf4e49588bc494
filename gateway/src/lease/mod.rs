//! A gateway's side of its lease: the claims it holds in the registry, and the expiry of sessions that did not come back.

pub mod expiry;
pub mod local_claims;

pub use self::local_claims::LocalClaims;
