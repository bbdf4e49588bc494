//! The line dialect, for people with `nc` or `telnet`.
//!
//! The TCP transport decodes lines and encodes replies with the [`LineDialect`] of each connection; the fan-out encodes
//! events. Invariant: output contains no control character but the line feed at the end of each line, whatever the
//! texts and names of others contain. So no user can forge a line or control the terminal of another.

mod moderation;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use presence::model::codes::ErrorCode;
use presence::model::{ListCursor, RoomName};

use crate::wire::{Answer, DeliveryStatus, Refusal, Reply, Request, Token};

pub use self::print::{encode_event, encode_refusal};

/// A decoded line.
#[derive(Debug)]
pub enum Decoded {
    /// A request for the session.
    Request(Request),
    /// A line that is not a request, such as an unknown command.
    Refused(Refusal),
    /// The output of a line that the dialect answers itself, such as help.
    Local(Bytes),
    /// An empty line.
    Nothing,
}

/// The state of one line connection. Requests are answered one at a time: every reply is encoded before the next line
/// is decoded.
#[derive(Debug, Default)]
pub struct LineDialect {
    is_registered: bool,
    /// The room that the client joined last, or its only one: the target of plain text.
    room: Option<RoomName>,
    /// The part of an earlier line that a later one needs.
    kept: Option<Box<KeptPart>>,
    /// True while a `/more` waits for its answer.
    continues: bool,
    /// The text of the `/msg` that waits for its ack, which does not contain it.
    direct_text: Option<Box<str>>,
}

/// The part of an earlier line that a later one needs: `/nick` the token of the last `/auth`, `/more` the rest of the
/// last list that was cut. Lists are shown after the registration, which uses up the token.
#[derive(Debug)]
enum KeptPart {
    Token(Token),
    Members { room: RoomName, cursor: ListCursor },
    Rooms { cursor: String },
    History { room: RoomName, before: u64, limit: usize },
}

impl LineDialect {
    /// Decodes one line without its line feed. A carriage return at its end is removed.
    pub fn decode(&mut self, line: &str) -> Decoded {
        self.direct_text = None;
        self.continues = false;
        match parse::line(self, line.strip_suffix('\r').unwrap_or(line)) {
            Ok(Some(parse::ParsedLine::Help)) => Decoded::Local(Bytes::from_static(parse::HELP.as_bytes())),
            Ok(Some(parse::ParsedLine::Auth(token))) => {
                self.kept = Some(Box::new(KeptPart::Token(token)));
                Decoded::Local(Bytes::from_static(b"* token noted: type /nick NAME\n"))
            }
            Ok(Some(parse::ParsedLine::Command(command))) => Decoded::Request(Request { id: None, command }),
            Ok(None) => Decoded::Nothing,
            Err(refusal) => Decoded::Refused(refusal),
        }
    }

    /// Encodes a reply as whole lines; empty for a reply that this dialect does not show.
    pub fn encode_reply(&mut self, reply: &Reply) -> Bytes {
        let direct_text = self.direct_text.take();
        match &reply.answer {
            Answer::Registered { .. } => {
                self.is_registered = true;
                self.kept = None;
            }
            // What a person types next is for the room that it chose.
            Answer::Joined { by_order: true, .. } if self.room.is_some() => {}
            Answer::Joined { room, .. } => self.room = RoomName::parse(room).ok(),
            Answer::Refreshed { left, .. } => {
                for left in left.iter().filter_map(|room| RoomName::parse(room).ok()) {
                    self.room.take_if(|current| left.key() == current.key());
                }
            }
            Answer::Left { room } => {
                let left = RoomName::parse(room).ok();
                self.room.take_if(|current| left.is_some_and(|left| left.key() == current.key()));
            }
            Answer::Ack { to, delivery: delivery @ (DeliveryStatus::Online | DeliveryStatus::Offline), .. } => {
                return print::sent(to, &direct_text.unwrap_or_default(), *delivery);
            }
            Answer::Members { .. } | Answer::Rooms { .. } | Answer::History { .. } => {
                let rest = rest_of(&reply.answer);
                // Another list that is complete leaves the rest of an earlier one for `/more`.
                if rest.is_some() || self.continues {
                    self.kept = rest.map(Box::new);
                }
            }
            Answer::Refused(refusal) if refusal.code == ErrorCode::NotInRoom && self.continues => {
                if let Some(KeptPart::History { room, .. }) = self.kept.as_deref() {
                    return print::left_room(room);
                }
            }
            _ => {}
        }
        print::answer(&reply.answer)
    }
}

/// Returns the part of a list that its answer leaves out; `None` if it is complete.
fn rest_of(answer: &Answer) -> Option<KeptPart> {
    match answer {
        Answer::Members { room, next_cursor: Some(cursor), .. } => {
            Some(KeptPart::Members { room: RoomName::parse(room).ok()?, cursor: cursor.parse().ok()? })
        }
        Answer::Rooms { next_cursor: Some(cursor), .. } => Some(KeptPart::Rooms { cursor: cursor.clone() }),
        Answer::History { to, items, more: true } => {
            let before = items.first()?.seq;
            Some(KeptPart::History { room: RoomName::parse(to).ok()?, before, limit: items.len() })
        }
        _ => None,
    }
}

/// Returns the line that keeps a quiet connection open behind a proxy.
#[must_use]
pub fn sign_of_life() -> Bytes {
    Bytes::from_static(b"* still connected\n")
}

/// Returns the first lines of a new connection.
#[must_use]
pub fn greeting() -> Bytes {
    Bytes::from_static(b"* this is parley: type /nick NAME, then /join #room\n* /help lists all commands\n")
}
