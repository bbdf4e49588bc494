#![allow(clippy::unwrap_used)]

use super::*;

/// Returns the unframed output of the dialect.
fn written(dialect: LoadDialect, write: impl Fn(&mut DialectWriter<'_>)) -> String {
    let mut bytes = Vec::new();
    write(&mut dialect.writer(&mut bytes));
    let mut text = String::new();
    if dialect.framing() == Framing::Raw {
        return String::from_utf8(bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while let Some((frame, length)) = frame::take(rest).unwrap() {
        text += std::str::from_utf8(frame.payload).unwrap();
        text += "|";
        rest = &rest[length..];
    }
    text
}

fn interpret_with_reply(dialect: LoadDialect, unit: &str) -> (ServerMessage, String) {
    let mut bytes = Vec::new();
    let message = dialect.interpret(unit.as_bytes(), &|| vec!["#r".to_owned()], &mut dialect.writer(&mut bytes));
    let answer = frame::take(&bytes).unwrap().map(|(frame, _)| String::from_utf8(frame.payload.to_vec()).unwrap());
    (message, answer.unwrap_or_default())
}

fn interpret(dialect: LoadDialect, unit: &str) -> ServerMessage {
    interpret_with_reply(dialect, unit).0
}

const STAMP: Stamp = Stamp { due: 5, publisher: 2, number: 9 };

fn body() -> String {
    String::from_utf8(STAMP.body(40)).unwrap()
}

/// Returns the written login of ann to the rooms.
fn login(dialect: LoadDialect, rooms: &[&str], resume: Option<&ResumePoint<'_>>) -> String {
    let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
    written(dialect, |out| dialect.log_in(&ClientIdentity { nick: "ann", rooms: &rooms, resume }, out))
}

#[test]
fn login_registers_name_and_joins_room() {
    let login = |dialect: LoadDialect| login(dialect, &["#r"], None);
    let parley = r##"{"id":1,"nick":"ann","type":"register"}|{"id":2,"room":"#r","type":"join"}|"##;
    assert_eq!(login(LoadDialect::Parley), parley);
    assert_eq!(login(LoadDialect::Lines), "/nick ann\n/join #r\n");
    assert_eq!(login(LoadDialect::Ws), r##"{"join":"#r"}|"##);
    assert!(login(LoadDialect::Nats).ends_with("\r\nSUB r 1\r\nPING\r\n|"));
    assert_eq!(interpret_with_reply(LoadDialect::Socketio, r#"0{"sid":"x"}"#).1, "40");
    assert_eq!(interpret_with_reply(LoadDialect::Socketio, r#"40{"sid":"x"}"#).1, r##"420["join","#r"]"##);
}

#[test]
fn login_joins_all_rooms_of_client() {
    let joins = |dialect| login(dialect, &["#r", "#s"], None);
    assert!(
        joins(LoadDialect::Parley)
            .ends_with(r##"|{"id":2,"room":"#r","type":"join"}|{"id":2,"room":"#s","type":"join"}|"##)
    );
    assert_eq!(joins(LoadDialect::Ws), r##"{"join":"#r"}|{"join":"#s"}|"##);
    assert!(joins(LoadDialect::Nats).ends_with("\r\nSUB r 1\r\nSUB s 2\r\nPING\r\n|"));
    let answered = [LoadDialect::Parley, LoadDialect::Nats].map(|dialect| dialect.joins_answered(2));
    assert_eq!((answered, LoadDialect::Ws.joins_answered(0)), ([2, 1], 1));
}

#[test]
fn resume_sends_token_and_position_without_join() {
    let resume = ResumePoint { token: "t", epoch: "e", seq: 7 };
    let parley = r##"{"id":1,"nick":"ann","resume":"t","since":{"#r":{"epoch":"e","seq":7}},"type":"register"}|"##;
    assert_eq!(login(LoadDialect::Parley, &["#r"], Some(&resume)), parley);
    let registered =
        r##"{"type":"registered","id":1,"nick":"ann","resume":"t2","rooms":[{"room":"#r","epoch":"e","seq":9}]}"##;
    let resumed = ServerMessage::Registered { resume: Some("t2".to_owned()), restored: true };
    assert_eq!(interpret(LoadDialect::Parley, registered), resumed);
}

#[test]
fn each_dialect_writes_messages_in_its_format() {
    let published = |dialect: LoadDialect, to: &str| written(dialect, |out| dialect.publish(to, "hi", out));
    assert_eq!(published(LoadDialect::Parley, "#r"), r##"{"type":"send","id":3,"to":"#r","body":"hi"}|"##);
    assert_eq!(
        (published(LoadDialect::Lines, "#r"), published(LoadDialect::Lines, "bob")),
        ("hi\n".to_owned(), "/msg bob hi\n".to_owned())
    );
    assert_eq!(published(LoadDialect::Ws, "#r"), r##"{"to":"#r","body":"hi"}|"##);
    assert_eq!(published(LoadDialect::Socketio, "#r"), r##"42["say","#r","hi"]|"##);
    assert_eq!(published(LoadDialect::Nats, "#r"), "PUB r 2\r\nhi\r\n|");
    assert_eq!(published(LoadDialect::Bare, "#r"), "hi|");
}

#[test]
fn each_dialect_recognises_deliveries_with_their_stamp() {
    let body = body();
    let message =
        format!(r##"{{"type":"message","to":"#r","from":"b","msg_id":"m","seq":132,"time":1,"body":"{body}"}}"##);
    assert_eq!(
        interpret(LoadDialect::Parley, &message),
        ServerMessage::Delivery { seq: Some(132), stamp: Some(STAMP) }
    );
    let others = [
        (LoadDialect::Lines, format!("[#r] <b> {body}\n")),
        (LoadDialect::Lines, format!("<- b: {body}\n")),
        (LoadDialect::Ws, format!(r##"{{"room":"#r","body":"{body}"}}"##)),
        (LoadDialect::Socketio, format!(r#"42["m","{body}"]"#)),
        (LoadDialect::Nats, format!("MSG r 1 40\r\n{body}\r\n")),
        (LoadDialect::Bare, body),
    ];
    for (dialect, unit) in others {
        assert_eq!(interpret(dialect, &unit), ServerMessage::Delivery { seq: None, stamp: Some(STAMP) }, "{unit}");
    }
}

#[test]
fn parser_separates_answers_from_refusals() {
    let parley = |unit: &str| interpret(LoadDialect::Parley, unit);
    assert_eq!(
        parley(r##"{"type":"joined","id":2,"room":"#r","epoch":"e","seq":6}"##),
        ServerMessage::Joined { next: 7, epoch: Some("e".to_owned()) }
    );
    assert_eq!(
        parley(r##"{"type":"ack","id":3,"to":"#r","seq":4,"duplicate":false}"##),
        ServerMessage::Acked { seq: Some(4) }
    );
    assert_eq!(parley(r#"{"type":"pong","id":4}"#), ServerMessage::Pong);
    let refused = |step, code: &str| ServerMessage::Refused { step, code: code.to_owned() };
    assert_eq!(
        parley(r#"{"type":"error","id":3,"code":"overloaded"}"#),
        refused(RequestPurpose::Publish, "overloaded")
    );
    assert_eq!(
        parley(r#"{"type":"error","id":1,"code":"nick_in_use"}"#),
        refused(RequestPurpose::Login, "nick_in_use")
    );
    assert_eq!(
        parley(r##"{"type":"gap","to":"#r","from_seq":4,"to_seq":8}"##),
        ServerMessage::Moved { kind: "gap".to_owned(), next: 9 }
    );
    assert_eq!(parley(r##"{"type":"rewound","to":"#other","seq":8}"##), ServerMessage::Nothing);
    assert_eq!(parley(r##"{"type":"presence","room":"#r","joined":[]}"##), ServerMessage::Nothing);
    assert_eq!(parley("<html>"), refused(RequestPurpose::Login, "not_parley"));
    assert_eq!(interpret(LoadDialect::Lines, "! overloaded: later\n"), refused(RequestPurpose::Publish, "overloaded"));
    assert_eq!(
        interpret(LoadDialect::Lines, "* you are in #r, members: 3\n"),
        ServerMessage::Joined { next: 0, epoch: None }
    );
    assert_eq!(interpret(LoadDialect::Nats, "-ERR 'Slow Consumer'\r\n"), refused(RequestPurpose::Login, "nats_err"));
}

#[test]
fn client_answers_pings_and_recognises_pongs() {
    assert_eq!(interpret_with_reply(LoadDialect::Socketio, "2"), (ServerMessage::Nothing, "3".to_owned()));
    assert_eq!(interpret_with_reply(LoadDialect::Nats, "PING\r\n"), (ServerMessage::Nothing, "PONG\r\n".to_owned()));
    for (dialect, answer) in [
        (LoadDialect::Ws, r#"{"pong":1}"#),
        (LoadDialect::Socketio, "431[]"),
        (LoadDialect::Bare, "?"),
        (LoadDialect::Lines, "* pong\n"),
    ] {
        assert_eq!(interpret(dialect, answer), ServerMessage::Pong, "{answer}");
    }
}

#[test]
fn stream_parser_returns_only_whole_units() {
    let message = b"MSG r 1 5\r\nab\ncd\r\nPING\r\n";
    assert_eq!(LoadDialect::Nats.unit(message), Some(18));
    assert!((0..18).all(|cut| LoadDialect::Nats.unit(&message[..cut]).is_none()));
    assert_eq!((LoadDialect::Lines.unit(b"a\nb"), LoadDialect::Lines.unit(b"a")), (Some(2), None));
}
