//! [`TokenFault`]: the reasons for which a token is refused.
//!
//! A client receives the code of a reason and the text of the table of codes. The reason itself goes to the log of the
//! gateway: an application's operator needs it, an attacker must not get it.

use std::fmt;
use std::time::Duration;

use presence::model::codes::ErrorCode;

/// Reason for which a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// There is none, and the mode requires one.
    Missing,
    /// It exceeds the maximum size. It was not decoded.
    TooLarge,
    /// It is not a JWT with a header that this gateway understands.
    Malformed,
    /// No key has its key id.
    UnknownKey,
    /// Its algorithm is not the one of its key.
    WrongAlgorithm,
    /// Its signature does not match.
    WrongSignature,
    /// A claim is missing or malformed.
    BadClaim(&'static str),
    /// It comes from another issuer.
    WrongIssuer,
    /// It is meant for another service.
    WrongAudience,
    /// Its `nbf` lies ahead.
    NotYetValid,
    /// Its `exp` has passed.
    Expired,
    /// It names another nickname than the client.
    WrongNick,
    /// Tokens of its user that were issued at its time are revoked.
    Revoked,
    /// The keys could not be fetched, or may not be fetched again yet.
    NoKeys {
        /// The time after which a repetition can succeed.
        retry_after: Duration,
    },
}

impl TokenFault {
    /// Returns the code that the client receives.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::TokenRequired,
            Self::Expired | Self::Revoked => ErrorCode::TokenExpired,
            Self::NoKeys { .. } => ErrorCode::Unavailable,
            _ => ErrorCode::TokenInvalid,
        }
    }
}

/// The reason as the log shows it. It contains no part of the token.
impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no token",
            Self::TooLarge => "token exceeds the maximum size",
            Self::Malformed => "token is malformed",
            Self::UnknownKey => "no key has the key id of the token",
            Self::WrongAlgorithm => "algorithm is not the one of the key",
            Self::WrongSignature => "signature does not match",
            Self::BadClaim(claim) => return write!(f, "claim {claim} is missing or malformed"),
            Self::WrongIssuer => "issuer is another one",
            Self::WrongAudience => "audience is another one",
            Self::NotYetValid => "token is not valid yet",
            Self::Expired => "token has expired",
            Self::WrongNick => "token is for another nickname",
            Self::Revoked => "token was revoked",
            Self::NoKeys { .. } => "keys are not available",
        })
    }
}
