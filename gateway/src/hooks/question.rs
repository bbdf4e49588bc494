//! [`HookQuestion`]: a request of a client about which the application is asked.
//!
//! Values and their JSON. A remembered answer belongs to a question without its message, see [`HookQuestion::key`].

use std::sync::Arc;

use presence::host::client_address::ClientAddress;
use presence::host::metrics::Label;
use presence::model::{Nick, RoomName, SessionId};
use serde::Serialize;

use crate::identity::Grant;
use crate::message::{Body, Target};

/// A point at which the application is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Before a session begins.
    Register,
    /// Before a session enters a room.
    Join,
    /// Before a message is published.
    Send,
}

impl Label for HookKind {
    const ROWS: &'static [Self] = &[Self::Register, Self::Join, Self::Send];

    fn value(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Join => "join",
            Self::Send => "send",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// The request of a question.
#[derive(Debug)]
pub enum AskedRequest {
    /// To begin a session.
    Register,
    /// To enter a room.
    Join(RoomName),
    /// To send a message.
    Send {
        /// The room or nickname.
        to: Target,
        /// The message.
        body: Body,
        /// The client's idempotency key: a repeated message has the same.
        key: Option<String>,
    },
}

/// A question to the application.
#[derive(Debug)]
pub struct HookQuestion {
    /// The request.
    pub request: AskedRequest,
    /// The session; `None` before it begins.
    pub session: Option<SessionId>,
    /// The nickname of the session, or the one that it asks for.
    pub nick: Nick,
    /// The rights of the user's token; `None` for a guest.
    pub grant: Option<Arc<Grant>>,
    /// The address of the client, if the application may have it.
    pub address: Option<ClientAddress>,
}

/// A question as JSON.
#[derive(Default, Serialize)]
struct QuestionJson<'a> {
    hook: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    nick: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [Box<str>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl HookQuestion {
    /// Returns the point at which it is asked.
    #[must_use]
    pub fn kind(&self) -> HookKind {
        match self.request {
            AskedRequest::Register => HookKind::Register,
            AskedRequest::Join(_) => HookKind::Join,
            AskedRequest::Send { .. } => HookKind::Send,
        }
    }

    /// Returns the question of this gateway as JSON.
    pub(super) fn json(&self, node: &str) -> Vec<u8> {
        bytes(&self.shown(node))
    }

    /// Returns everything that a remembered answer depends on: the question without the message, and without the
    /// session of a user, whose sessions share answers.
    pub(super) fn key(&self) -> Box<[u8]> {
        let mut shown = QuestionJson { body: None, key: None, ..self.shown("") };
        if shown.user.is_some() {
            shown.session = None;
        }
        bytes(&shown).into()
    }

    fn shown<'a>(&'a self, node: &'a str) -> QuestionJson<'a> {
        let shown = QuestionJson {
            hook: self.kind().value(),
            node,
            session: self.session.as_ref().map(SessionId::as_str),
            nick: self.nick.as_str(),
            user: self.grant.as_ref().map(|grant| grant.user.as_str()),
            tags: self.grant.as_ref().map(|grant| &*grant.tags).filter(|tags| !tags.is_empty()),
            address: self.address.map(|address| address.to_string()),
            ..QuestionJson::default()
        };
        match &self.request {
            AskedRequest::Register => shown,
            AskedRequest::Join(room) => QuestionJson { room: Some(room.as_str()), ..shown },
            AskedRequest::Send { to, body, key } => {
                QuestionJson { to: Some(to.as_str()), body: Some(body), key: key.as_deref(), ..shown }
            }
        }
    }
}

fn bytes(question: &QuestionJson<'_>) -> Vec<u8> {
    serde_json::to_vec(question).expect("texts and a body that is JSON")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use serde_json::{Value, json};

    use super::*;
    use crate::identity::KeyFingerprint;

    /// A question of the guest Ann, or with a token of these claims.
    fn question(request: AskedRequest, session: &str, claims: Option<&str>) -> HookQuestion {
        let grant = claims.map(|claims| Arc::new(Grant::of_claims(claims, KeyFingerprint::default()).unwrap()));
        HookQuestion {
            request,
            session: Some(SessionId::from_store(session)),
            nick: Nick::parse("Ann").unwrap(),
            grant,
            address: Some(IpAddr::from([10, 0, 0, 7]).into()),
        }
    }

    fn message(to: &str, text: &str) -> AskedRequest {
        let to = Target::Room(RoomName::parse(to).unwrap());
        AskedRequest::Send { to, body: Body::from_text(text), key: Some("k".to_owned()) }
    }

    #[test]
    fn question_has_only_what_is_known() {
        let shown = |question: HookQuestion| serde_json::from_slice::<Value>(&question.json("g1")).unwrap();
        let join = question(AskedRequest::Join(RoomName::parse("#Team").unwrap()), "s1", None);
        let expected =
            json!({"hook":"join","node":"g1","session":"s1","nick":"Ann","address":"10.0.0.7","room":"#Team"});
        assert_eq!(shown(join), expected);
        let claims = r#"{"sub":"u7","exp":1,"tags":["vip"]}"#;
        let register = question(AskedRequest::Register, "s1", Some(claims));
        let register = HookQuestion { session: None, address: None, ..register };
        let expected = json!({"hook":"register","node":"g1","nick":"Ann","user":"u7","tags":["vip"]});
        assert_eq!(shown(register), expected);
        let send = shown(question(message("#a", "hi"), "s1", None));
        assert_eq!((&send["to"], &send["body"], &send["key"]), (&json!("#a"), &json!("hi"), &json!("k")));
    }

    #[test]
    fn key_ignores_message_and_sessions_of_users() {
        let user = Some(r#"{"sub":"u7","exp":1,"tags":["vip"]}"#);
        let key = |to: &str, text: &str, session: &str, claims| question(message(to, text), session, claims).key();
        assert_eq!(key("#a", "hi", "s1", None), key("#a", "ho", "s1", None));
        assert_eq!(key("#a", "hi", "s1", user), key("#a", "ho", "s2", user), "sessions of a user share answers");
        assert_ne!(key("#a", "hi", "s1", None), key("#a", "hi", "s2", None), "guests do not");
        assert_ne!(key("#a", "hi", "s1", None), key("#b", "hi", "s1", None));
        let other_tags = Some(r#"{"sub":"u7","exp":1}"#);
        assert_ne!(key("#a", "hi", "s1", user), key("#a", "hi", "s1", other_tags));
        let room = AskedRequest::Join(RoomName::parse("#a").unwrap());
        assert_ne!(question(room, "s1", None).key(), key("#a", "hi", "s1", None));
    }
}
