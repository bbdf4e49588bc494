//! The line dialect as frozen tables: commands, replies and events as exact text. No output controls a terminal.
#![allow(clippy::unwrap_used)]

mod hostile;
mod moderation;

use presence::model::codes::ErrorCode;
use presence::model::{Availability, LeftReason, MemberInfo, MemberLeft, PresenceDelta, Rename, Status, UserId};
use serde_json::value::RawValue;

use super::{Decoded, LineDialect, encode_event, encode_refusal, greeting};
use crate::message::{Accepted, Body, ChatMessage};
use crate::wire::{Answer, Command, DeliveryStatus, Event, REQUEST_BYTES_MAX, Refusal, Reply, RoomItem, Token};

fn reply(dialect: &mut LineDialect, answer: Answer) -> String {
    String::from_utf8(dialect.encode_reply(&Reply { id: None, answer }).to_vec()).unwrap()
}

fn event(event: &Event) -> String {
    String::from_utf8(encode_event(event).to_vec()).unwrap()
}

fn registered(nick: &str) -> Answer {
    Answer::Registered {
        nick: nick.into(),
        user: None,
        expires_in_ms: None,
        session: "s1".into(),
        resume: Token::new("s1.secret"),
        rooms: Vec::new(),
        inbox: crate::wire::Since { epoch: "e".into(), seq: 0 },
        heartbeat_ms: 30_000,
        node: "g1".into(),
        time: 7,
    }
}

fn joined(room: &str) -> Answer {
    Answer::Joined {
        room: room.into(),
        epoch: "e1".into(),
        seq: 131,
        member_count: 3,
        recovered: false,
        topic: None,
        role: None,
        by_order: false,
    }
}

fn acked(to: &str, delivery: DeliveryStatus) -> Answer {
    Answer::Ack { to: to.into(), msg_id: "m1".into(), delivery, time: 7, duplicate: false }
}

fn message(to: &str, body: &str) -> ChatMessage {
    ChatMessage {
        to: to.into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
        msg_id: "m1".into(),
        seq: 132,
        time: 7,
        body: Body::from_raw(RawValue::from_string(body.to_owned()).unwrap()),
        accepted: Accepted::default(),
    }
}

fn member(nick: &str, status: Availability, text: &str) -> MemberInfo {
    MemberInfo { nick: nick.into(), user: None, status: Status { status, text: text.into() } }
}

/// A connection that has registered and joined `#lobby`.
fn in_lobby() -> LineDialect {
    let mut dialect = LineDialect::default();
    reply(&mut dialect, registered("ann"));
    reply(&mut dialect, joined("#lobby"));
    dialect
}

fn text_of(lines: &[u8]) -> &str {
    std::str::from_utf8(lines).unwrap().trim_end()
}

/// Shows a decoded line: a command, `= text` if the dialect answers itself, or nothing.
fn read(dialect: &mut LineDialect, line: &str) -> String {
    let command = match dialect.decode(line) {
        Decoded::Request(request) => {
            assert!(request.id.is_none());
            request.command
        }
        Decoded::Refused(refusal) => return format!("= {}", text_of(&encode_refusal(&refusal))),
        Decoded::Local(text) => return format!("= {}", text_of(&text)),
        Decoded::Nothing => return String::new(),
    };
    match command {
        Command::Register { nick: Some(nick), resume: None, token: None } => format!("register {nick}"),
        Command::Register { nick: Some(nick), resume: None, token: Some(token) } => {
            format!("register {nick} by {}", token.reveal())
        }
        Command::Nick { nick } => format!("nick {nick}"),
        Command::Join { room, .. } => format!("join {room}"),
        Command::Leave { room } => format!("leave {room}"),
        Command::Send { to, body, key: None } => format!("send {} {}", to.as_str(), body.json()),
        Command::Status(status) => format!("status {:?} {:?}", status.status, status.text),
        Command::Members { room, limit: 100, cursor: None } => format!("members {room}"),
        Command::Whois { nick } => format!("whois {nick}"),
        Command::Rooms { limit: 100, cursor: None } => "rooms".into(),
        Command::History { room, range: crate::wire::Range::Newest, limit } => format!("history {room} {limit}"),
        Command::Moderate(command) => {
            let order = command.order;
            let role = if order.role == presence::model::moderation::RoomRole::Owner { " owner" } else { "" };
            let person = match &order.target {
                Some(presence::model::moderation::ModerationTarget::Nick(nick)) => nick.as_str(),
                _ => "",
            };
            let (room, action, text) = (command.room, order.action.as_str(), order.text);
            format!("{action} {room} {person} {:?} {text:?}{role}", order.seconds)
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn parser_accepts_every_line_command() {
    let long = format!("/away {}", "x".repeat(257));
    for (line, meaning) in [
        ("hi all", r##"send #lobby "hi all""##),
        (" /join is no command here ", r##"send #lobby " /join is no command here ""##),
        ("//shrug", r##"send #lobby "/shrug""##),
        ("//", r##"send #lobby "/""##),
        ("tab\there \"quoted\" \u{1b}[31m", r##"send #lobby "tab\there \"quoted\" \u001b[31m""##),
        ("hi\r", r##"send #lobby "hi""##),
        ("a\rb", r##"send #lobby "a\rb""##),
        ("", ""),
        ("\r", ""),
        (" \t \r", ""),
        ("/nick bob", "nick bob"),
        ("/NICK   Bob  ", "nick Bob"),
        ("/nick", "= ! bad_request: a part is missing, type /nick NAME"),
        ("/nick a b", "= ! bad_nick: the name contains a space, which is not allowed"),
        ("/join #lobby", "join #lobby"),
        ("/join lobby\r", "join #lobby"),
        ("/join\t安静", "join #安静"),
        ("/join", "= ! bad_request: a part is missing, type /join #ROOM"),
        ("/join #", "= ! bad_room: the name is empty"),
        ("/join a b", "= ! bad_request: /join takes one room, and names contain no spaces"),
        ("/join a\u{b}b", "= ! bad_request: /join takes one room, and names contain no spaces"),
        ("/leave", "leave #lobby"),
        ("/leave other", "leave #other"),
        ("/msg bob hi there", r#"send bob "hi there""#),
        ("/msg bob   /nick", r#"send bob "/nick""#),
        ("/msg #other hi", r##"send #other "hi""##),
        ("/msg bob", "= ! bad_request: a part is missing, type /msg NAME TEXT"),
        ("/msg", "= ! bad_request: a part is missing, type /msg NAME TEXT"),
        ("/msg :b hi", "= ! bad_nick: the name must not begin with the character :"),
        ("/msg b@b hi", "= ! bad_nick: the name contains the character @, which is not allowed"),
        ("/who", "members #lobby"),
        ("/who #other", "members #other"),
        ("/whois Bob", "whois Bob"),
        ("/whois", "= ! bad_request: a part is missing, type /whois NAME"),
        ("/whois #lobby", "= ! bad_nick: the name contains the character #, which is not allowed"),
        ("/rooms", "rooms"),
        ("/history", "history #lobby 20"),
        ("/history 200", "history #lobby 200"),
        ("/history 0", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/history 201", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/history +5", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/history x", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/history 99999999999999999999", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/away", r#"status Away """#),
        ("/away out for lunch ", r#"status Away "out for lunch""#),
        (
            "/away \u{7}x",
            "= ! bad_request: the text after /away has at most 256 bytes and no control and invisible characters",
        ),
        (&long, "= ! bad_request: the text after /away has at most 256 bytes and no control and invisible characters"),
        ("/back", r#"status Online """#),
        ("/ping", "ping"),
        ("/quit", "bye"),
        ("/quit so long", "bye"),
        ("/rooms #lobby", "= ! bad_request: /rooms takes no argument"),
        ("/back now", "= ! bad_request: /back takes no argument"),
        ("/ping bob", "= ! bad_request: /ping takes no argument"),
        ("/more 20", "= ! bad_request: /more takes no argument"),
        ("/more", "= ! bad_request: there is nothing more to show"),
        ("/who a b", "= ! bad_request: /who takes one room, and names contain no spaces"),
        ("/who #a\t#b", "= ! bad_request: /who takes one room, and names contain no spaces"),
        ("/leave a b", "= ! bad_request: /leave takes one room, and names contain no spaces"),
        ("/history 20 30", "= ! bad_request: type /history N with a number from 1 to 200"),
        ("/", "= ! unknown_type: there is no such command, type /help to list all"),
        ("/ nick", "= ! unknown_type: there is no such command, type /help to list all"),
        ("/frobnicate\u{1b}[2J", "= ! unknown_type: there is no such command, type /help to list all"),
    ] {
        assert_eq!(read(&mut in_lobby(), line), meaning, "{line:?}");
    }
}

#[test]
fn refusals_name_the_first_steps() {
    let mut dialect = LineDialect::default();
    assert_eq!(read(&mut dialect, "hi"), "= ! not_registered: type /nick NAME first");
    for command in ["/join b", "/leave", "/msg bob hi", "/who", "/rooms", "/history", "/more", "/away", "/back"] {
        assert_eq!(read(&mut dialect, command), "= ! not_registered: type /nick NAME first", "{command}");
    }
    assert_eq!(read(&mut dialect, "/ping"), "ping");
    assert_eq!(read(&mut dialect, "/nick ann"), "register ann");
    assert_eq!(
        reply(&mut dialect, Answer::Refused(ErrorCode::NickInUse.into())),
        "! nick_in_use: this nickname is in use\n"
    );
    assert_eq!(read(&mut dialect, "/nick ann2"), "register ann2");
    assert_eq!(reply(&mut dialect, registered("ann2")), "* you are now known as ann2\n");
    assert_eq!(read(&mut dialect, "/nick ann"), "nick ann");
    for line in ["hi", "/leave", "/who", "/history"] {
        assert_eq!(read(&mut dialect, line), "= ! not_in_room: type /join #ROOM first");
    }
}

#[test]
fn plain_text_goes_to_the_room_joined_last() {
    let mut dialect = in_lobby();
    reply(&mut dialect, joined("#Other"));
    assert_eq!(read(&mut dialect, "hi"), r##"send #Other "hi""##);
    reply(&mut dialect, Answer::Left { room: "#lobby".into() });
    assert_eq!(read(&mut dialect, "hi"), r##"send #Other "hi""##, "another room was left");
    reply(&mut dialect, Answer::Refused(ErrorCode::NotInRoom.into()));
    assert_eq!(read(&mut dialect, "hi"), r##"send #Other "hi""##, "a refusal changes nothing");
    reply(&mut dialect, Answer::Left { room: "#OTHER".into() });
    assert_eq!(read(&mut dialect, "hi"), "= ! not_in_room: type /join #ROOM first");
}

#[test]
fn more_shows_the_rest_of_the_last_list() {
    let mut dialect = in_lobby();
    let members = |next_cursor| Answer::Members {
        room: "#lobby".into(),
        items: vec![member("ann", Availability::Online, "")],
        next_cursor,
    };
    reply(&mut dialect, members(Some("7".into())));
    let Decoded::Request(request) = dialect.decode("/more") else { panic!("no request") };
    let Command::Members { room, cursor, .. } = request.command else { panic!("another list") };
    assert_eq!((room.as_str(), cursor), ("#lobby", "7".parse().ok()));
    reply(&mut dialect, members(None));
    assert_eq!(read(&mut dialect, "/more"), "= ! bad_request: there is nothing more to show");

    let items = vec![message("#lobby", r#""one""#), message("#lobby", r#""two""#)];
    reply(&mut dialect, Answer::History { to: "#lobby".into(), items, more: true });
    let Decoded::Request(request) = dialect.decode("/more") else { panic!("no request") };
    let Command::History { room, range, limit } = request.command else { panic!("another list") };
    assert_eq!((room.as_str(), range, limit), ("#lobby", crate::wire::Range::Before(132), 2));

    reply(&mut dialect, Answer::Rooms { items: vec![], next_cursor: Some("#z".into()) });
    let Decoded::Request(request) = dialect.decode("/more") else { panic!("no request") };
    assert!(matches!(request.command, Command::Rooms { cursor: Some(cursor), .. } if cursor == "#z"));
    reply(&mut dialect, Answer::Refused(ErrorCode::Unavailable.into()));
    assert!(matches!(dialect.decode("/more"), Decoded::Request(_)), "a refusal changes nothing");
    reply(&mut dialect, Answer::Rooms { items: vec![], next_cursor: None });
    assert_eq!(read(&mut dialect, "/more"), "= ! bad_request: there is nothing more to show");
}

#[test]
fn complete_list_keeps_the_rest_of_another() {
    let mut dialect = in_lobby();
    let items = || vec![message("#lobby", r#""one""#)];
    read(&mut dialect, "/history 1");
    reply(&mut dialect, Answer::History { to: "#lobby".into(), items: items(), more: true });
    read(&mut dialect, "/who");
    reply(&mut dialect, Answer::Members { room: "#lobby".into(), items: vec![], next_cursor: None });
    assert!(read(&mut dialect, "/more").starts_with("history"));
    reply(&mut dialect, Answer::History { to: "#lobby".into(), items: items(), more: false });
    assert_eq!(read(&mut dialect, "/more"), "= ! bad_request: there is nothing more to show");
}

#[test]
fn more_history_of_a_left_room_names_it() {
    let mut dialect = in_lobby();
    let items = vec![message("#lobby", r#""one""#)];
    reply(&mut dialect, Answer::History { to: "#lobby".into(), items, more: true });
    read(&mut dialect, "/leave");
    reply(&mut dialect, Answer::Left { room: "#lobby".into() });
    let refused = || Answer::Refused(ErrorCode::NotInRoom.into());
    read(&mut dialect, "/leave #other");
    assert_eq!(reply(&mut dialect, refused()), "! not_in_room: you are not in this room\n");
    read(&mut dialect, "/more");
    let text = "! not_in_room: you left #lobby, type /join #lobby to see its history\n";
    assert_eq!(reply(&mut dialect, refused()), text);
}

#[test]
fn sender_sees_a_direct_message_after_its_ack() {
    let mut dialect = in_lobby();
    read(&mut dialect, "/msg bob a\u{1b}b");
    assert_eq!(reply(&mut dialect, acked("bob", DeliveryStatus::Online)), "-> bob: a\\u{1b}b\n");
    dialect.decode("/msg bob hi");
    assert_eq!(
        reply(&mut dialect, acked("bob", DeliveryStatus::Offline)),
        "-> bob: hi (offline now, delivered when they return)\n"
    );

    read(&mut dialect, "/msg bob never");
    let refused = reply(&mut dialect, Answer::Refused(ErrorCode::NoSuchUser.into()));
    assert_eq!(refused, "! no_such_user: this nickname is not known\n");
    read(&mut dialect, "hi");
    assert_eq!(reply(&mut dialect, acked("#lobby", DeliveryStatus::Room { seq: 1 })), "");
}

#[test]
fn replies_encode_as_frozen() {
    let slow = Refusal { code: ErrorCode::Overloaded, detail: None, retry_after_ms: Some(250) };
    let rows = |next_cursor| Answer::Members {
        room: "#lobby".into(),
        items: vec![
            member("ann", Availability::Online, ""),
            member("bob", Availability::Away, "lunch\n!"),
            member("eve", Availability::Away, ""),
            member("joe", Availability::Online, "at work"),
        ],
        next_cursor,
    };
    let people = "* in #lobby: ann\n* in #lobby: bob (away: lunch\\n!)\n* in #lobby: eve (away)\n* in #lobby: joe (online: at work)\n";
    for (answer, text) in [
        (registered("ann"), "* you are now known as ann\n"),
        (Answer::Nick { nick: "bob".into() }, "* you are now known as bob\n"),
        (joined("#lobby"), "* you are in #lobby, members: 3\n"),
        (Answer::Left { room: "#lobby".into() }, "* you left #lobby\n"),
        (acked("#lobby", DeliveryStatus::Room { seq: 132 }), ""),
        (Answer::Status(Status::default()), "* you are online\n"),
        (Answer::Status(Status { status: Availability::Away, text: String::new() }), "* you are away\n"),
        (Answer::Status(Status { status: Availability::Away, text: "lunch".into() }), "* you are away: lunch\n"),
        (Answer::Whois { nick: "Bob".into(), user: None, status: Some(Status::default()) }, "* Bob is online\n"),
        (
            Answer::Whois {
                nick: "bob".into(),
                user: None,
                status: Some(Status { status: Availability::Away, text: "tea".into() }),
            },
            "* bob is away: tea\n",
        ),
        (Answer::Whois { nick: "bob".into(), user: None, status: None }, "* bob is offline\n"),
        (
            Answer::Whois { nick: "bob".into(), user: UserId::parse("user:2"), status: None },
            "* bob is offline\n* bob is the user user:2\n",
        ),
        (rows(None), people),
        (rows(Some("joe".into())), &format!("{people}* the list is longer, type /more to go on\n")),
        (
            Answer::Rooms { items: vec![RoomItem { room: "#lobby".into(), member_count: 2 }], next_cursor: None },
            "* #lobby, members: 2\n",
        ),
        (Answer::Rooms { items: vec![], next_cursor: None }, "* no rooms\n"),
        (
            Answer::History {
                to: "#lobby".into(),
                items: vec![message("#lobby", r#""one""#), message("#lobby", r#""two""#)],
                more: true,
            },
            "* #lobby has older messages, type /more to show them\n[#lobby] <ann> one\n[#lobby] <ann> two\n",
        ),
        (
            Answer::Members { room: "#nope".into(), items: vec![], next_cursor: None },
            "* no members in #nope, type /rooms to list the rooms that have members\n",
        ),
        (
            Answer::Refused(Refusal { retry_after_ms: Some(1000), ..ErrorCode::OutcomeUnknown.into() }),
            "! outcome_unknown: this may have been done or not, check before you try again\n",
        ),
        (Answer::History { to: "#lobby".into(), items: vec![], more: false }, "* no messages in #lobby\n"),
        (Answer::Pong, "* pong\n"),
        (Answer::Refused(slow), "! overloaded: the server is overloaded (try again in 1 s)\n"),
    ] {
        assert_eq!(reply(&mut in_lobby(), answer), text);
    }
}

#[test]
fn events_encode_as_frozen() {
    let left = |nick: &str, reason| MemberLeft { nick: nick.into(), reason };
    let everything = PresenceDelta {
        joined: vec![member("bob", Availability::Online, ""), member("joe", Availability::Away, "")],
        left: vec![
            left("eve", LeftReason::Left),
            left("a", LeftReason::Closed),
            left("b", LeftReason::Timeout),
            left("c", LeftReason::GatewayLost),
            left("d", LeftReason::Kicked),
        ],
        renamed: vec![Rename { from: "bob".into(), to: "bobby".into() }],
        status: vec![member("ann", Availability::Away, "lunch"), member("joe", Availability::Online, "")],
        moderation: Vec::new(),
    };
    let presence = |delta, resync| Event::Presence { room: "#lobby".into(), delta, resync };
    for (input, text) in [
        (Event::Message(message("#lobby", r#""hi""#)), "[#lobby] <ann> hi\n"),
        (Event::Message(ChatMessage { from_api: true, ..message("#lobby", "1") }), "[#lobby] <ann (api)> 1\n"),
        (Event::Message(ChatMessage { from_api: true, ..message("bob", "1") }), "<- ann (api): 1\n"),
        (Event::Message(message("bob", r#""hi""#)), "<- ann: hi\n"),
        (Event::Message(message("#lobby", r#""""#)), "[#lobby] <ann> \n"),
        (Event::Message(message("#lobby", "{ \"a\": [1,\n 2] }")), "[#lobby] <ann> {\"a\":[1,2]}\n"),
        (Event::Message(message("#lobby", "null")), "[#lobby] <ann> null\n"),
        (
            Event::Message(message("#lobby", r#""one\n[#lobby] <bob> forged\r\n\u001b[2J\u0007\u009b\u007f\t""#)),
            "[#lobby] <ann> one\\n[#lobby] <bob> forged\\u{d}\\n\\u{1b}[2J\\u{7}\\u{9b}\\u{7f}\\u{9}\n",
        ),
        (
            Event::Message(message("#lobby", r#""a\u2028b\u2029c\u202ed\u2066e\u200ff\u061c""#)),
            "[#lobby] <ann> a\\u{2028}b\\u{2029}c\\u{202e}d\\u{2066}e\\u{200f}f\\u{61c}\n",
        ),
        (Event::Message(message("#lobby", r#""👩‍🚀 שלום 你好""#)), "[#lobby] <ann> 👩‍🚀 שלום 你好\n"),
        (
            presence(everything, false),
            "* eve left #lobby\n* a left #lobby (closed)\n* b left #lobby (timeout)\n* c left #lobby (gateway_lost)\n\
             * d left #lobby (kicked)\n* bob is now known as bobby\n* bob joined #lobby\n* joe joined #lobby\n\
             * ann is away: lunch\n* joe is online\n",
        ),
        (presence(PresenceDelta::default(), true), "* users joined or left #lobby, type /who #lobby to list them\n"),
        (Event::Gap { to: "#lobby".into(), from_seq: 4, to_seq: 6 }, "* messages 4 to 6 of #lobby are gone\n"),
        (Event::Epoch { to: "#lobby".into(), epoch: "e2".into(), seq: 6 }, ""),
        (Event::Typing { to: "#lobby".into(), from: "ann".into() }, ""),
        (
            Event::Rewound { to: "#lobby".into(), epoch: "e2".into(), seq: 0 },
            "* #lobby lost its newest messages: what follows replaces them\n",
        ),
        (
            Event::Announcement { id: "a1".into(), body: Body::from_text("noon\n* ann left #lobby"), time: 7 },
            "* announcement: noon\\n* ann left #lobby\n",
        ),
        (
            Event::GoingAway { retry_after_ms: 1500 },
            "* going away: this server shuts down in 2 s, connect again after that\n",
        ),
    ] {
        assert_eq!(event(&input), text);
    }
}

#[test]
fn refusal_outside_a_request_is_a_line() {
    assert_eq!(encode_refusal(&ErrorCode::TooLarge.into()), "! too_large: the message exceeds the size limit\n");
}

#[test]
fn text_over_the_body_limit_is_too_large() {
    let too_large = "= ! too_large: the message exceeds the size limit";
    let mut dialect = in_lobby();
    assert!(read(&mut dialect, &"x".repeat(REQUEST_BYTES_MAX - 2)).starts_with("send"));
    assert_eq!(read(&mut dialect, &"x".repeat(REQUEST_BYTES_MAX - 1)), too_large);
    assert_eq!(read(&mut dialect, &"\u{1}".repeat(REQUEST_BYTES_MAX / 2)), too_large);
    assert_eq!(read(&mut dialect, &format!("/msg bob {}", "\u{1}".repeat(REQUEST_BYTES_MAX / 2))), too_large);
}

#[test]
fn token_of_auth_goes_with_nickname() {
    let mut dialect = LineDialect::default();
    assert_eq!(read(&mut dialect, "/auth"), "= ! bad_request: a part is missing, type /auth TOKEN");
    assert_eq!(read(&mut dialect, "/auth a.b.c"), "= * token noted: type /nick NAME");
    assert_eq!(read(&mut dialect, "/AUTH  d.e.f "), "= * token noted: type /nick NAME");
    for _ in 0..2 {
        assert_eq!(read(&mut dialect, "/nick bob"), "register bob by d.e.f", "a refused nickname leaves the token");
    }
    dialect.encode_reply(&Reply { id: None, answer: registered("bob") });
    assert_eq!(read(&mut dialect, "/nick Bob"), "nick Bob");
    assert_eq!(read(&mut dialect, "/auth a.b.c"), "refresh { token: token(..) }");
    assert!(!format!("{dialect:?}").contains("d.e.f"));
}

#[test]
fn renewed_token_ends_forbidden_rooms() {
    let mut dialect = in_lobby();
    let left = vec!["#Lobby".into(), "#b".into()];
    let answer = Answer::Refreshed { expires_in_ms: Some(1), left };
    let shown = String::from_utf8(dialect.encode_reply(&Reply { id: None, answer }).to_vec()).unwrap();
    let not_allowed = |room: &str| format!("* you left {room}, your token does not allow it\n");
    assert_eq!(shown, format!("* token renewed\n{}{}", not_allowed("#Lobby"), not_allowed("#b")));
    assert_eq!(read(&mut dialect, "hi"), "= ! not_in_room: type /join #ROOM first");
    let soon = event(&Event::Expiring { expires_in_ms: 29_001 });
    assert_eq!(soon, "* your token expires in 30 s, type /auth TOKEN with a new one\n");
}

#[test]
fn help_and_greeting_name_the_commands() {
    let help = read(&mut LineDialect::default(), "/help");
    for verb in [
        "auth", "nick", "join", "leave", "msg", "who", "rooms", "history", "more", "away", "back", "ping", "help",
        "quit",
    ] {
        assert!(help.contains(&format!("* /{verb} ")), "{verb}");
        assert!(!read(&mut in_lobby(), &format!("/{verb}")).contains("unknown_type"), "{verb}");
    }
    let greeting = String::from_utf8(greeting().to_vec()).unwrap();
    for command in ["/nick NAME", "/join #room", "/help"] {
        assert!(greeting.contains(command), "{command}");
    }
    assert!(greeting.lines().all(|line| line.starts_with("* ")) && greeting.ends_with('\n'));
}
