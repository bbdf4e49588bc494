//! Resume tokens: `<session id>.<secret>`, issued at each `register` and parsed when a client resumes.
//!
//! The secret is 32 random bytes and proves the ownership of the session, so it is sent to the client and stored
//! nowhere: stores and memory hold its hash. Malformed and unknown tokens get the same error, so clients cannot tell
//! them apart.

use data_encoding::BASE64URL_NOPAD;
use presence::model::{SessionId, TokenHash};
use presence::registry::ResumeTicket;

use crate::wire::Token;

/// Length of a secret in bytes.
const SECRET_BYTES: usize = 32;
/// Length of a session id in hexadecimal digits.
const SESSION_DIGITS: usize = 32;

/// Issues a new token for a session. Returns it with the hash to store.
pub(super) fn issue(session: &SessionId) -> (Token, TokenHash) {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let text = format!("{session}.{}", BASE64URL_NOPAD.encode(&secret));
    (Token::new(text), TokenHash::of(&secret))
}

/// Parses a token; `None` if it is malformed.
pub(super) fn ticket(token: &Token) -> Option<ResumeTicket> {
    let (session, secret) = token.reveal().split_once('.')?;
    let is_id =
        session.len() == SESSION_DIGITS && session.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; SECRET_BYTES];
    let is_secret = BASE64URL_NOPAD.decode_len(secret.len()) == Ok(SECRET_BYTES)
        && BASE64URL_NOPAD.decode_mut(secret.as_bytes(), &mut bytes).is_ok();
    // The session id is checked, so it is safe in a key of the store.
    (is_id && is_secret)
        .then(|| ResumeTicket { session: SessionId::from_store(session), presented: TokenHash::of(&bytes) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_names_its_session_and_never_repeats() {
        let session = SessionId::random();
        let (token, hash) = issue(&session);
        assert_eq!(ticket(&token), Some(ResumeTicket { session: session.clone(), presented: hash.clone() }));
        let (again, other) = issue(&session);
        assert_ne!((token, hash), (again, other));
    }

    #[test]
    fn malformed_tokens_are_rejected() {
        let (token, _) = issue(&SessionId::random());
        let good = token.reveal();
        let (session, secret) = good.split_once('.').unwrap();
        for bad in [
            String::new(),
            ".".into(),
            session.into(),
            format!("{session}."),
            format!(".{secret}"),
            format!("{good}A"),
            format!("{good}="),
            format!("{good}.{secret}"),
            format!(" {good}"),
            format!("{}.{secret}", session.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")),
            format!("{}:x.{secret}", &session[2..]),
            format!("{session}.{}", &secret[1..]),
            format!("{session}.{}", "/".repeat(secret.len())),
            "x".repeat(60_000),
        ] {
            assert_eq!(ticket(&Token::new(bad.as_str())), None, "{bad:.80}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(text in any::<String>()) {
            let _ = ticket(&Token::new(text));
        }
    }
}
