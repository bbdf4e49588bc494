//! Resume tokens: `<session id>.<secret>`, made for each client that registers, taken apart when one comes back.
//!
//! Used by the driver. The secret is 32 random bytes; whoever has it is the session, so it is given to the client and kept
//! nowhere: stores and memory hold its hash. What is no token is told from one that is unknown to nobody.

use data_encoding::BASE64URL_NOPAD;
use presence::model::{SessionId, TokenHash};
use presence::registry::ResumeTicket;

use crate::wire::Token;

/// Random bytes of a secret.
const SECRET: usize = 32;
/// Digits of a session's id.
const SESSION: usize = 32;

/// A new token for a session, and what is kept of it.
pub(super) fn issue(session: &SessionId) -> (Token, TokenHash) {
    let secret: [u8; SECRET] = rand::random();
    let text = format!("{session}.{}", BASE64URL_NOPAD.encode(&secret));
    (Token::new(text), TokenHash::of(&secret))
}

/// What a token says; `None` when it is none of ours.
pub(super) fn ticket(token: &Token) -> Option<ResumeTicket> {
    let (session, secret) = token.reveal().split_once('.')?;
    let is_id = session.len() == SESSION && session.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; SECRET];
    let is_secret = BASE64URL_NOPAD.decode_len(secret.len()) == Ok(SECRET)
        && BASE64URL_NOPAD.decode_mut(secret.as_bytes(), &mut bytes).is_ok();
    // Checked, so that it is safe in a key of the store.
    (is_id && is_secret)
        .then(|| ResumeTicket { session: SessionId::from_store(session), presented: TokenHash::of(&bytes) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_leads_back_to_its_session_and_never_repeats() {
        let session = SessionId::random();
        let (token, hash) = issue(&session);
        assert_eq!(ticket(&token), Some(ResumeTicket { session: session.clone(), presented: hash.clone() }));
        let (again, other) = issue(&session);
        assert_ne!((token, hash), (again, other));
    }

    #[test]
    fn what_is_no_token_is_none() {
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
        fn any_text_is_taken_apart_without_panic(text in any::<String>()) {
            let _ = ticket(&Token::new(text));
        }
    }
}
