//! Resume tokens: `<session id>.<secret>`, issued at each `register` and parsed when a client resumes.
//!
//! The hash covers the user too, so the session of a user resumes only for the same user.
//! The secret is 32 random bytes and proves the ownership of the session, so it is sent to the client and stored
//! nowhere: stores and memory hold its hash. Malformed and unknown tokens get the same error, so clients cannot tell
//! them apart.

use data_encoding::BASE64URL_NOPAD;
use presence::model::{SessionId, TokenHash, UserId};
use presence::registry::ResumeTicket;

use crate::wire::Token;

/// Length of a secret in bytes.
const SECRET_BYTES: usize = 32;
/// Length of a session id in hexadecimal digits.
const SESSION_DIGITS: usize = 32;

/// Issues a new token for a session of a user. Returns it with the hash to store.
pub(super) fn issue(session: &SessionId, user: Option<&UserId>) -> (Token, TokenHash) {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let text = format!("{session}.{}", BASE64URL_NOPAD.encode(&secret));
    (Token::new(text), hash(&secret, user))
}

/// Parses a token that a client presents for a user; `None` if it is malformed.
pub(super) fn ticket(token: &Token, user: Option<&UserId>) -> Option<ResumeTicket> {
    let (session, secret) = token.reveal().split_once('.')?;
    let is_id =
        session.len() == SESSION_DIGITS && session.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; SECRET_BYTES];
    let is_secret = BASE64URL_NOPAD.decode_len(secret.len()) == Ok(SECRET_BYTES)
        && BASE64URL_NOPAD.decode_mut(secret.as_bytes(), &mut bytes).is_ok();
    // The session id is checked, so it is safe in a key of the store.
    (is_id && is_secret).then(|| ResumeTicket {
        session: SessionId::from_store(session),
        presented: hash(&bytes, user),
        user: user.cloned(),
    })
}

/// Hashes a secret and the user that it is bound to. The secret has a fixed length, so two pairs never run together.
fn hash(secret: &[u8; SECRET_BYTES], user: Option<&UserId>) -> TokenHash {
    match user {
        None => TokenHash::of(secret),
        Some(user) => TokenHash::of(&[secret, user.as_str().as_bytes()].concat()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_names_its_session_and_never_repeats() {
        let session = SessionId::random();
        let (token, hash) = issue(&session, None);
        let expected = ResumeTicket { session: session.clone(), presented: hash.clone(), user: None };
        assert_eq!(ticket(&token, None), Some(expected));
        let (again, other) = issue(&session, None);
        assert_ne!((token, hash), (again, other));
    }

    #[test]
    fn token_resumes_only_for_its_user() {
        let session = SessionId::random();
        let users = [None, UserId::parse("1"), UserId::parse("2")];
        for owner in &users {
            let (token, hash) = issue(&session, owner.as_ref());
            for user in &users {
                let presented = ticket(&token, user.as_ref()).unwrap().presented;
                assert_eq!(presented == hash, user == owner, "{owner:?} {user:?}");
            }
        }
    }

    #[test]
    fn malformed_tokens_are_rejected() {
        let (token, _) = issue(&SessionId::random(), None);
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
            assert_eq!(ticket(&Token::new(bad.as_str()), None), None, "{bad:.80}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(text in any::<String>()) {
            let _ = ticket(&Token::new(text), None);
        }
    }
}
