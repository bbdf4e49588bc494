//! The line dialect.
use bytes::Bytes;

use super::{Event, Refusal, Reply, Request};

/// What a line turned out to be.
#[derive(Debug)]
pub enum Decoded {
    /// A request for the session.
    Request(Request),
    /// Something the dialect answers itself (help, an error of syntax): write this.
    Local(Bytes),
    /// An empty line.
    Nothing,
}

/// The state of one line connection: its current room, whether it has a nick, the request that is being answered.
/// Requests are answered one at a time: every reply is encoded before the next line is decoded.
#[derive(Debug, Default)]
pub struct Dialect {}

impl Dialect {
    /// Decodes one line, without its line end.
    pub fn decode(&mut self, _line: &str) -> Decoded {
        todo!()
    }

    /// Encodes a reply as whole lines; empty when there is nothing to say.
    pub fn encode_reply(&mut self, _reply: &Reply) -> Bytes {
        todo!()
    }
}

/// Encodes an event as whole lines.
#[must_use]
pub fn encode_event(_event: &Event) -> Bytes {
    todo!()
}

/// A refusal as a line, for what happens outside a request.
#[must_use]
pub fn encode_refusal(_refusal: &Refusal) -> Bytes {
    todo!()
}
