//! The protocol page against the code: its tables row by row, and its examples as far as a codec can check them.
//!
//! The integration tests play the examples against a gateway. Here each line of a client must decode, or be refused as
//! the page shows.
#![allow(clippy::unwrap_used)]

use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::moderation::{Moderation, ModerationAction, RemovalReason};
use presence::model::{Availability, LeftReason, MemberInfo, MemberLeft, PresenceDelta, Rename, Status, UserId};
use serde_json::Value;

use super::line::{Decoded, LineDialect};
use super::{Answer, Command, DeliveryStatus, Event, Reply, Token, json, line};
use crate::message::{Accepted, Body, ChatMessage};

const PAGE: &str = include_str!("../../PROTOCOL.md");

/// Returns the rows of the table below a heading, without its two head rows.
fn rows(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect(heading);
    let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).collect()
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

#[test]
fn error_table_matches_the_code() {
    let row = |code: &ErrorCode| {
        let temporary = yes_or_no(code.temporary());
        format!("| `{}` | {temporary} | {} | {} |", code.slug(), code.http_status(), code.message())
    };
    assert_eq!(rows("Errors"), ErrorCode::ALL.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn close_table_matches_the_code() {
    let row =
        |code: &CloseCode| format!("| {} | `{}` | {} | ", code.number(), code.slug(), yes_or_no(code.reconnect()));
    let (rows, known) = (rows("Close codes"), CloseCode::ALL.iter().map(row).collect::<Vec<_>>());
    assert_eq!(rows.len(), known.len());
    for (row, known) in rows.iter().zip(known) {
        assert!(row.strip_prefix(known.as_str()).is_some_and(|when| when.len() > 2), "{row} differs from {known}");
    }
}

/// Returns the blocks with this tag: the number of their first line, and their lines.
fn blocks(tag: &str) -> Vec<(usize, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(PAGE.lines());
    while let Some((number, fence)) = lines.next() {
        let Some(opened) = fence.strip_prefix("```") else { continue };
        let block = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if opened == tag {
            blocks.push((number, block));
        }
    }
    assert!(!blocks.is_empty(), "the page has no block {tag}");
    blocks
}

/// Splits a line of an example into its user, its sign (`>`, `<`, `+`, `-`) and its text.
fn step(line: &str) -> (&str, char, &str) {
    let at = line.find(|c: char| !c.is_alphanumeric()).expect(line);
    let mut rest = line[at..].chars();
    let sign = rest.next().unwrap();
    assert!("><+-".contains(sign) && at > 0, "{line}");
    (&line[..at], sign, rest.as_str().trim_start())
}

/// The codes that only a decoder replies with.
const DECODER_CODES: [ErrorCode; 5] =
    [ErrorCode::BadRequest, ErrorCode::UnknownType, ErrorCode::TooLarge, ErrorCode::BadNick, ErrorCode::BadRoom];

#[test]
fn json_examples_decode_or_are_refused_as_shown() {
    for (number, block) in blocks("parley") {
        for (at, example) in block.iter().enumerate() {
            let (user, '>', sent) = step(example) else { continue };
            let replies = || block[at + 1..].iter().map(|line| step(line)).filter(|(to, ..)| *to == user);
            let reply = replies().find(|(_, sign, text)| *sign == '<' && !text.starts_with(r#"{"type":"message""#));
            let decoded = json::decode(sent);
            if let Ok(super::Request { command: Command::Bye, .. }) = decoded {
                assert_eq!(replies().map(|(_, sign, _)| sign).collect::<String>(), "-", "block {number}: {example}");
                continue;
            }
            let reply: Value = serde_json::from_str(reply.expect(example).2).expect(example);
            match decoded {
                Ok(request) => {
                    let id = request.id.map(|id| serde_json::from_str::<Value>(id.get()).unwrap());
                    assert_eq!(reply.get("id"), id.as_ref(), "block {number}: {example}");
                    let is_decoders = DECODER_CODES.iter().any(|code| reply["code"] == code.slug());
                    assert!(!is_decoders, "block {number}: {example} decodes");
                }
                Err((id, refusal)) => {
                    let refused = json::encode_reply(&Reply { id, answer: Answer::Refused(refusal) });
                    let refused: Value = serde_json::from_slice(&refused).unwrap();
                    assert_eq!(reply, refused, "block {number}: {example}");
                }
            }
        }
    }
}

#[test]
fn examples_cover_every_request_and_reply() {
    let lines = || blocks("parley").into_iter().flat_map(|(_, block)| block);
    let kinds = |wanted: char| {
        let texts = lines().map(step).filter(move |(_, sign, _)| *sign == wanted);
        let objects = texts.filter_map(|(_, _, text)| serde_json::from_str::<Value>(text).ok());
        objects.map(|object| object["type"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let requests = [
        "register", "join", "leave", "send", "nick", "status", "members", "rooms", "whois", "history", "read",
        "typing", "ping", "bye",
    ];
    for request in requests {
        assert!(kinds('>').contains(request), "{request}");
    }
    let replies = [
        "registered",
        "joined",
        "left",
        "ack",
        "nick",
        "status",
        "members",
        "rooms",
        "whois",
        "history",
        "read",
        "typing",
        "pong",
        "error",
    ];
    for reply in replies {
        assert!(kinds('<').contains(reply), "{reply}");
    }
    for (_, block) in blocks("parley").into_iter().chain(blocks("lines")) {
        let mut connected = Vec::new();
        for (user, sign, text) in block.into_iter().map(step) {
            if sign == '+' {
                connected.push(user);
            }
            assert!(connected.contains(&user), "{user} is not connected");
            assert_eq!("+-".contains(sign), text.is_empty(), "{user}{sign} {text}");
        }
    }
}

fn greeting_message() -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
        msg_id: "0198f2f0".into(),
        seq: 132,
        time: 1_700_000_000_000,
        body: Body::from_text("hi"),
        accepted: Accepted::default(),
    }
}

fn kick() -> Moderation {
    Moderation {
        action: ModerationAction::Kick,
        nick: Some("bob".into()),
        user: None,
        by: Some("ann".into()),
        reason: Some("spam".into()),
        until: None,
        role: None,
        text: None,
        time: 1_700_000_000_000,
    }
}

#[test]
fn event_examples_match_the_encoder() {
    let member = |nick: &str, status, text: &str| MemberInfo {
        nick: nick.into(),
        user: None,
        status: Status { status, text: text.into() },
    };
    let delta = PresenceDelta {
        joined: vec![member("bob", Availability::Online, "")],
        left: vec![MemberLeft { nick: "eve".into(), reason: LeftReason::Closed }],
        renamed: vec![Rename { from: "joe".into(), to: "joey".into() }],
        status: vec![member("ann", Availability::Away, "lunch")],
        moderation: Vec::new(),
    };
    let of_user = ChatMessage {
        from_user: UserId::parse("user:1"),
        msg_id: "0198f2f1".into(),
        seq: 133,
        time: 1_700_000_000_001,
        ..greeting_message()
    };
    let of_application = ChatMessage {
        from: "news".into(),
        from_api: true,
        msg_id: "0198f2f2".into(),
        seq: 134,
        time: 1_700_000_000_002,
        body: Body::from_text("the match begins"),
        ..greeting_message()
    };
    let written = [
        Event::Message(greeting_message()),
        Event::Message(of_user),
        Event::Message(of_application),
        Event::Presence { room: "#lobby".into(), delta, resync: false },
        Event::Presence { room: "#lobby".into(), delta: PresenceDelta::default(), resync: true },
        Event::Gap { to: "#lobby".into(), from_seq: 121, to_seq: 130 },
        Event::Rewound { to: "#lobby".into(), epoch: "7c1e".into(), seq: 0 },
        Event::Epoch { to: "#lobby".into(), epoch: "7c1e".into(), seq: 0 },
        Event::Typing { to: "#lobby".into(), from: "ann".into() },
        Event::Moderation { room: "#lobby".into(), notice: Box::new(kick()) },
        Event::Left {
            room: "#lobby".into(),
            reason: RemovalReason::Kicked,
            by: Some("ann".into()),
            text: Some("spam".into()),
        },
        Event::Expiring { expires_in_ms: 30_000 },
        Event::Announcement {
            id: "0198f2f3".into(),
            body: Body::from_text("maintenance at noon"),
            time: 1_700_000_000_000,
        },
        Event::GoingAway { retry_after_ms: 1500 },
    ]
    .map(|event| json::encode_event(&event));
    let joined = Answer::Joined {
        room: "#lobby".into(),
        epoch: "7c1e".into(),
        seq: 131,
        member_count: 2,
        recovered: false,
        topic: None,
        role: None,
        by_order: true,
    };
    let mut written = written.to_vec();
    written.insert(11, json::encode_reply(&Reply { id: None, answer: joined }));
    let written: Vec<_> = written.iter().map(|text| vec![str::from_utf8(text).unwrap()]).collect();
    let shown: Vec<_> = blocks("json").into_iter().map(|(_, block)| block).collect();
    assert_eq!(shown, written);
}

/// Returns the answer of a gateway, for commands whose output depends on nothing else.
fn expected(command: Command) -> Option<Answer> {
    match command {
        Command::Register { nick: Some(nick), .. } => Some(Answer::Registered {
            nick: nick.as_str().into(),
            user: None,
            expires_in_ms: None,
            session: String::new(),
            resume: Token::new(""),
            rooms: Vec::new(),
            inbox: crate::wire::Since { epoch: "e".into(), seq: 0 },
            heartbeat_ms: 0,
            node: String::new(),
            time: 0,
        }),
        Command::Nick { nick } => Some(Answer::Nick { nick: nick.as_str().into() }),
        Command::Leave { room } => Some(Answer::Left { room: room.as_str().into() }),
        Command::Status(status) => Some(Answer::Status(status)),
        Command::Ping => Some(Answer::Pong),
        Command::Send { to: crate::message::Target::Nick(nick), .. } => Some(Answer::Ack {
            to: nick.as_str().into(),
            msg_id: String::new(),
            delivery: DeliveryStatus::Online,
            time: 0,
            duplicate: false,
        }),
        _ => None,
    }
}

#[test]
fn line_examples_print_as_shown() {
    for (number, block) in blocks("lines") {
        let mut dialects = std::collections::HashMap::<&str, LineDialect>::new();
        for (at, example) in block.iter().enumerate() {
            let (user, '>', line) = step(example) else { continue };
            let dialect = dialects.entry(user).or_default();
            let output = match dialect.decode(line) {
                Decoded::Nothing => panic!("block {number}: {example} is blank"),
                Decoded::Refused(refusal) => line::encode_refusal(&refusal),
                Decoded::Local(text) => text,
                Decoded::Request(request) => {
                    if let Command::Join { room, .. } = &request.command {
                        let room = room.as_str().to_owned();
                        let joined = Answer::Joined {
                            room,
                            epoch: String::new(),
                            seq: 0,
                            member_count: 0,
                            recovered: false,
                            topic: None,
                            role: None,
                            by_order: false,
                        };
                        dialect.encode_reply(&Reply { id: None, answer: joined });
                    }
                    // The rest of a list depends on the list.
                    if matches!(request.command, Command::History { .. }) {
                        let items = vec![greeting_message()];
                        let more = line == "/history 1";
                        dialect.encode_reply(&Reply {
                            id: None,
                            answer: Answer::History { to: "#hall".into(), items, more },
                        });
                    }
                    let Some(answer) = expected(request.command) else { continue };
                    dialect.encode_reply(&Reply { id: None, answer })
                }
            };
            let reply = block[at + 1..].iter().map(|line| step(line)).find(|(to, sign, _)| *to == user && *sign == '<');
            let shown = reply.expect(example).2;
            assert_eq!(String::from_utf8(output.to_vec()).unwrap(), format!("{shown}\n"), "block {number}: {example}");
        }
    }
    let greeting = line::greeting();
    assert!(greeting.starts_with(b"* "), "the page omits lines with this prefix");
}
