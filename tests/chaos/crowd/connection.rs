//! One connection of a member, over WebSocket or text lines: writes requests and reads events.
//!
//! Used by the member only. It keeps no state of the chat; the member matches replies to requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::history::Jump;

/// Time limit for a connect or a write.
const IO_MAX: Duration = Duration::from_secs(5);

/// The address that a member connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberAddress {
    WebSocket(SocketAddr),
    Lines(SocketAddr),
}

/// A request of a member.
#[derive(Debug, Clone, Copy)]
pub enum MemberRequest<'a> {
    /// With a token and positions it resumes a session.
    Register {
        nick: &'a str,
        resume: Option<(&'a str, &'a ClientPositions)>,
    },
    /// With a position it requests the missed messages.
    Join {
        room: &'a str,
        since: Option<&'a ClientPosition>,
    },
    /// On the line port the message goes to the last joined room, without a key.
    Send {
        room: &'a str,
        key: &'a str,
    },
    Bye,
}

/// An event or a reply that a member receives, reduced to what the checkers need.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberEvent {
    Registered {
        node: Option<String>,
        session: Option<String>,
        token: Option<String>,
        inbox: Option<ClientPosition>,
        /// Rooms of a resumed session.
        rooms: Vec<String>,
    },
    Joined {
        room: String,
        position: Option<ClientPosition>,
    },
    Acked {
        id: u64,
        msg_id: Option<String>,
        seq: Option<u64>,
    },
    /// Without an id on the line port.
    Refused {
        id: Option<u64>,
        code: String,
    },
    Message {
        room: String,
        from: String,
        key: String,
        msg_id: Option<String>,
        seq: Option<u64>,
    },
    Jump {
        room: String,
        jump: Jump,
        epoch: Option<String>,
    },
    Left {
        room: String,
        nicks: Vec<String>,
    },
    Ended {
        reason: String,
    },
    Other,
}

/// A client's position in a room or in its inbox (`@`).
#[derive(Debug, Clone, PartialEq)]
pub struct ClientPosition {
    pub epoch: String,
    pub seq: u64,
}

/// Positions of a session, by room; `@` is the inbox.
pub type ClientPositions = BTreeMap<String, ClientPosition>;

/// An open connection of either dialect.
pub enum MemberConnection {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Lines { reader: Lines<BufReader<OwnedReadHalf>>, writer: OwnedWriteHalf },
}

impl MemberConnection {
    /// Connects to the address.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn connect(address: MemberAddress) -> Result<Self, String> {
        let connecting = async {
            match address {
                MemberAddress::WebSocket(address) => {
                    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                    let upgraded = client_async(format!("ws://{address}/ws"), stream).await;
                    upgraded.map(|(socket, _)| Self::WebSocket(Box::new(socket))).map_err(|error| error.to_string())
                }
                MemberAddress::Lines(address) => {
                    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                    let (reader, writer) = stream.into_split();
                    Ok(Self::Lines { reader: BufReader::new(reader).lines(), writer })
                }
            }
        };
        timeout(IO_MAX, connecting).await.unwrap_or_else(|_| Err("connect timed out".to_owned()))
    }

    /// Sends a request. A lost connection is reported by [`MemberConnection::next`].
    pub async fn request(&mut self, id: u64, request: MemberRequest<'_>) {
        let sending = async {
            match self {
                Self::WebSocket(socket) => drop(socket.send(Message::text(frame(id, request).to_string())).await),
                Self::Lines { writer, .. } => drop(writer.write_all(line(request).as_bytes()).await),
            }
        };
        // A stopped gateway reads nothing; the member times out on the missing reply.
        let _ = timeout(IO_MAX, sending).await;
    }

    /// Returns the next event. Cancel safe.
    pub async fn next(&mut self) -> MemberEvent {
        match self {
            Self::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => event(&serde_json::from_str(&text).unwrap_or_default()),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or_else(|| "none".to_owned(), |frame| u16::from(frame.code).to_string());
                    MemberEvent::Ended { reason: format!("closed with {code}") }
                }
                Some(Ok(_)) => MemberEvent::Other,
                Some(Err(error)) => MemberEvent::Ended { reason: error.to_string() },
                None => MemberEvent::Ended { reason: "end of the stream".to_owned() },
            },
            Self::Lines { reader, .. } => match reader.next_line().await {
                Ok(Some(text)) => line_event(&text),
                Ok(None) => MemberEvent::Ended { reason: "end of the stream".to_owned() },
                Err(error) => MemberEvent::Ended { reason: error.to_string() },
            },
        }
    }
}

fn frame(id: u64, request: MemberRequest<'_>) -> Value {
    match request {
        MemberRequest::Register { nick, resume: None } => json!({"type": "register", "id": id, "nick": nick}),
        MemberRequest::Register { nick, resume: Some((token, positions)) } => {
            let since: serde_json::Map<String, Value> =
                positions.iter().map(|(at, position)| (at.clone(), since(position))).collect();
            json!({"type": "register", "id": id, "nick": nick, "resume": token, "since": since})
        }
        MemberRequest::Join { room, since: None } => json!({"type": "join", "id": id, "room": room}),
        MemberRequest::Join { room, since: Some(position) } => {
            json!({"type": "join", "id": id, "room": room, "since": since(position)})
        }
        MemberRequest::Send { room, key } => {
            json!({"type": "send", "id": id, "to": room.trim_start_matches('@'), "body": key, "key": key})
        }
        MemberRequest::Bye => json!({"type": "bye"}),
    }
}

fn since(position: &ClientPosition) -> Value {
    json!({"epoch": position.epoch, "seq": position.seq})
}

fn line(request: MemberRequest<'_>) -> String {
    match request {
        MemberRequest::Register { nick, .. } => format!("/nick {nick}\n"),
        MemberRequest::Join { room, .. } => format!("/join {room}\n"),
        MemberRequest::Send { key, .. } => format!("{key}\n"),
        MemberRequest::Bye => "/quit\n".to_owned(),
    }
}

/// Converts a frame of the JSON protocol.
fn event(value: &Value) -> MemberEvent {
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    let named = |field: &str| text(field).unwrap_or_default();
    let (id, seq) = (value["id"].as_u64(), value["seq"].as_u64());
    let position = |value: &Value| {
        Some(ClientPosition { epoch: value["epoch"].as_str()?.to_owned(), seq: value["seq"].as_u64()? })
    };
    let jump = |jump| MemberEvent::Jump { room: addressed(named("to")), jump, epoch: text("epoch") };
    match named("type").as_str() {
        "registered" => {
            let (node, session, token) = (text("node"), text("session"), text("resume"));
            let name = |room: &Value| room["room"].as_str().map(str::to_owned);
            let rooms = value["rooms"].as_array().into_iter().flatten().filter_map(name).collect();
            MemberEvent::Registered { node, session, token, inbox: position(&value["inbox"]), rooms }
        }
        "joined" => MemberEvent::Joined { room: named("room"), position: position(value) },
        "presence" => {
            let nick = |left: &Value| left["nick"].as_str().map(str::to_owned);
            let nicks = value["left"].as_array().into_iter().flatten().filter_map(nick).collect();
            MemberEvent::Left { room: named("room"), nicks }
        }
        "ack" => MemberEvent::Acked { id: id.unwrap_or_default(), msg_id: text("msg_id"), seq },
        "error" => MemberEvent::Refused { id, code: named("code") },
        "message" => {
            let (room, from, key) = (addressed(named("to")), named("from"), named("body"));
            MemberEvent::Message { room, from, key, msg_id: text("msg_id"), seq }
        }
        "gap" => {
            let number = |field: &str| value[field].as_u64().unwrap_or_default();
            jump(Jump::Gap { from: number("from_seq"), to: number("to_seq") })
        }
        "rewound" => jump(Jump::Rewound { seq: seq.unwrap_or_default() }),
        "epoch" => jump(Jump::Epoch { seq: seq.unwrap_or_default() }),
        _ => MemberEvent::Other,
    }
}

/// Converts the address of a frame to the form of the history: a nickname begins with `@`.
fn addressed(to: String) -> String {
    if to.starts_with(['#', '@']) { to } else { format!("@{to}") }
}

/// Converts a line of the line port.
fn line_event(line: &str) -> MemberEvent {
    if let Some(rest) = line.strip_prefix("* ") {
        if rest.starts_with("you are now known as ") {
            return MemberEvent::Registered { node: None, session: None, token: None, inbox: None, rooms: Vec::new() };
        }
        if let Some((room, _)) = rest.strip_prefix("you are in ").and_then(|rest| rest.split_once(',')) {
            return MemberEvent::Joined { room: room.to_owned(), position: None };
        }
        return jump(rest).unwrap_or(MemberEvent::Other);
    }
    if let Some((code, _)) = line.strip_prefix("! ").and_then(|rest| rest.split_once(':')) {
        return MemberEvent::Refused { id: None, code: code.to_owned() };
    }
    let message = line.strip_prefix('[').and_then(|rest| rest.split_once("] <"));
    let message = message.and_then(|(room, rest)| Some((room, rest.split_once("> ")?)));
    message.map_or(MemberEvent::Other, |(room, (from, key))| {
        let (room, from, key) = (room.to_owned(), from.to_owned(), key.to_owned());
        MemberEvent::Message { room, from, key, msg_id: None, seq: None }
    })
}

/// Converts a notice of the line port about a jump.
fn jump(notice: &str) -> Option<MemberEvent> {
    if let Some((room, _)) = notice.split_once(" lost its newest messages") {
        return Some(MemberEvent::Jump { room: room.to_owned(), jump: Jump::Reset, epoch: None });
    }
    let (numbers, room) = notice.strip_prefix("messages ")?.strip_suffix(" are gone")?.split_once(" of ")?;
    let (from, to) = numbers.split_once(" to ")?;
    let jump = Jump::Gap { from: from.parse().ok()?, to: to.parse().ok()? };
    Some(MemberEvent::Jump { room: room.to_owned(), jump, epoch: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_reads_events_of_both_dialects() {
        let (room, from, key) = ("#a".to_owned(), "ann".to_owned(), "ann-1".to_owned());
        let message = MemberEvent::Message { room, from, key, msg_id: None, seq: None };
        assert_eq!(line_event("[#a] <ann> ann-1"), message);
        let frame = json!({"type": "message", "to": "#a", "from": "ann", "body": "ann-1"});
        assert_eq!(event(&frame), message);
        assert_eq!(
            line_event("* you are in #a, members: 3"),
            MemberEvent::Joined { room: "#a".to_owned(), position: None }
        );
        assert_eq!(line_event("! nick_in_use: no"), MemberEvent::Refused { id: None, code: "nick_in_use".to_owned() });
        assert_eq!(line_event("* bob joined #a"), MemberEvent::Other);
        let gap = MemberEvent::Jump { room: "#a".to_owned(), jump: Jump::Gap { from: 4, to: 6 }, epoch: None };
        assert_eq!(line_event("* messages 4 to 6 of #a are gone"), gap);
        assert_eq!(event(&json!({"type": "gap", "to": "#a", "from_seq": 4, "to_seq": 6})), gap);
        let refused = event(&json!({"type": "error", "id": 4, "code": "unavailable"}));
        assert_eq!(refused, MemberEvent::Refused { id: Some(4), code: "unavailable".to_owned() });
    }
}
