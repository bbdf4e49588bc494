//! The stored form of a message of the API. Gateways read it as the form of `backplane/envelope.rs`, which also writes
//! that of users.

use serde::Serialize;
use serde_json::value::RawValue;

/// The parts of a message.
#[derive(Debug, Clone, Copy)]
pub struct PayloadFields<'a> {
    /// The target as clients see it.
    pub to: &'a str,
    /// The sender's name as clients see it.
    pub from: &'a str,
    /// The id of the message.
    pub msg_id: &'a str,
    /// The time of its acceptance, in Unix microseconds.
    pub accepted: u64,
    /// The name of the application's key.
    pub application: &'a str,
    /// The body.
    pub body: &'a RawValue,
}

#[derive(Serialize)]
struct PostPayload<'a> {
    to: &'a str,
    from: &'a str,
    id: &'a str,
    at: u64,
    /// Marks the message for clients; the name is for people who read the stream.
    api: &'a str,
    body: &'a RawValue,
}

/// Encodes the payload of a message of the API.
#[must_use]
pub fn payload(fields: PayloadFields<'_>) -> String {
    let PayloadFields { to, from, msg_id, accepted, application, body } = fields;
    let encoded = PostPayload { to, from, id: msg_id, at: accepted, api: application, body };
    serde_json::to_string(&encoded).expect("strings, numbers and raw JSON serialize")
}
