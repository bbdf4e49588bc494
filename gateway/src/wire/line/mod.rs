//! The line dialect: what a person types into `nc` or `telnet`, and what they read.
//!
//! The TCP door decodes and encodes replies with a [`LineDialect`] of each connection; the hub encodes events. Invariant:
//! whatever others say or call themselves, output holds no control character but the line feed at the end of each line,
//! so nobody can forge a line or drive somebody's terminal.

mod parse;
mod print;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use presence::model::RoomName;

use crate::wire::{Answer, DeliveryStatus, Reply, Request};

pub use self::print::{encode_event, encode_refusal};

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
pub struct LineDialect {
    registered: bool,
    room: Option<RoomName>,
    /// The text of the `/msg` that waits for its answer, which does not hold it.
    saying: Option<String>,
}

impl LineDialect {
    /// Decodes one line, without its line feed; a carriage return before that is taken off here.
    pub fn decode(&mut self, line: &str) -> Decoded {
        self.saying = None;
        match parse::line(self, line.strip_suffix('\r').unwrap_or(line)) {
            Ok(Some(parse::Line::Help)) => Decoded::Local(Bytes::from_static(HELP.as_bytes())),
            Ok(Some(parse::Line::Command(command))) => Decoded::Request(Request { id: None, command }),
            Ok(None) => Decoded::Nothing,
            Err(refusal) => Decoded::Local(encode_refusal(&refusal)),
        }
    }

    /// Encodes a reply as whole lines; empty when there is nothing to say.
    pub fn encode_reply(&mut self, reply: &Reply) -> Bytes {
        let saying = self.saying.take();
        match &reply.answer {
            Answer::Registered { .. } => self.registered = true,
            // A later line may name the room by any spelling; the cluster's own is as good as any.
            Answer::Joined { room, .. } => self.room = RoomName::parse(room).ok(),
            Answer::Left { room } => {
                let left = RoomName::parse(room).ok();
                self.room.take_if(|current| left.is_some_and(|left| left.key() == current.key()));
            }
            Answer::Ack { to, placed: placed @ (DeliveryStatus::Online | DeliveryStatus::Offline), .. } => {
                return print::sent(to, &saying.unwrap_or_default(), *placed);
            }
            _ => {}
        }
        print::answer(&reply.answer)
    }
}

/// The first lines on a new connection.
#[must_use]
pub fn greeting() -> Bytes {
    Bytes::from_static(b"* this is parley: say /nick NAME, then /join #room\n* /help lists all commands\n")
}

const HELP: &str = "\
* /nick NAME        take a nickname, or another one
* /join #ROOM       enter a room; what you type goes there
* /leave [#ROOM]    leave this room or another
* TEXT              say it in the room entered last; //TEXT begins with a slash
* /msg NAME TEXT    say it to one person
* /who [#ROOM]      who is there
* /rooms            which rooms have members
* /history [N]      the last N messages of this room, at most 200
* /away [TEXT]      you are away
* /back             you are here again
* /ping             is anybody there
* /quit             goodbye
";
