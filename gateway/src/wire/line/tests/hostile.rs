//! Properties of the line dialect under hostile text: no text controls a terminal or forges a line.

use presence::model::moderation::{Moderation, RemovalReason};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// Checks that a text is whole lines without a character that controls a terminal.
fn check_harmless(text: &[u8], lines: usize) {
    let text = std::str::from_utf8(text).unwrap();
    let unsafe_char = |c: char| {
        c.is_control()
            || "\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}"
                .contains(c)
    };
    assert_eq!(text.matches('\n').count(), lines);
    assert!(text.is_empty() || text.ends_with('\n'));
    assert!(!text.contains(|c| c != '\n' && unsafe_char(c)), "{text:?}");
}

/// Text with many characters that must be escaped.
fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            any::<char>(),
            prop::char::range('\0', '\u{9f}'),
            prop::char::range('\u{2000}', '\u{2070}'),
            Just('\u{61c}')
        ],
        0..24,
    )
    .prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn any_line_decodes_to_harmless_output(lines in prop::collection::vec("(/(nick|join|leave|msg|who|whois|history|away|[a-z]*))?\\PC{0,12}.{0,12}", 1..6)) {
        let mut dialect = in_lobby();
        for line in lines {
            match dialect.decode(&line) {
                Decoded::Refused(refusal) => check_harmless(&encode_refusal(&refusal), 1),
                Decoded::Local(text) => check_harmless(&text, text.iter().filter(|&&byte| byte == b'\n').count()),
                Decoded::Request(_) | Decoded::Nothing => {}
            }
        }
    }

    #[test]
    fn foreign_text_cannot_forge_a_line(text in hostile(), name in hostile()) {
        let status = || Status { status: Availability::Away, text: text.clone() };
        let member = || MemberInfo { nick: name.clone(), user: None, status: status() };
        let message = || ChatMessage {
            to: name.clone(),
            from: name.clone(),
            from_user: None,
            from_api: false,
            msg_id: String::new(),
            seq: 1,
            time: 1,
            body: Body::from_text(&text),
            accepted: Accepted::default(),
        };
        let delta = PresenceDelta {
            joined: vec![member()],
            left: vec![MemberLeft { nick: name.clone(), reason: LeftReason::Closed }],
            renamed: vec![Rename { from: name.clone(), to: text.clone() }],
            status: vec![member()],
            moderation: Vec::new(),
        };
        check_harmless(&encode_event(&Event::Message(message())), 1);
        check_harmless(&encode_event(&Event::Presence { room: name.clone(), delta, resync: true }), 5);
        let notice = Moderation { nick: Some(name.clone()), by: Some(name.clone()), reason: Some(text.clone()), ..super::moderation::notice() };
        check_harmless(&encode_event(&Event::Moderation { room: name.clone(), notice: Box::new(notice) }), 1);
        let (by, reason) = (Some(name.clone()), RemovalReason::Banned);
        check_harmless(&encode_event(&Event::Left { room: name.clone(), reason, by, text: Some(text.clone()) }), 1);
        check_harmless(&encode_refusal(&Refusal::from(ErrorCode::BadRequest).with_detail(text.as_str())), 1);

        let mut dialect = in_lobby();
        dialect.direct_text = Some(text.as_str().into());
        for (answer, lines) in [
            (acked(&name, DeliveryStatus::Online), 1),
            (registered(&name), 1),
            (joined(&name), 1),
            (Answer::Left { room: name.clone() }, 1),
            (Answer::Nick { nick: name.clone() }, 1),
            (Answer::Status(status()), 1),
            (Answer::Whois { nick: name.clone(), user: None, status: Some(status()) }, 1),
            (Answer::Whois { nick: name.clone(), user: None, status: None }, 1),
            (Answer::Members { room: name.clone(), items: vec![member()], next_cursor: None }, 1),
            (Answer::Rooms { items: vec![RoomItem { room: name.clone(), member_count: 1 }], next_cursor: None }, 1),
            (Answer::History { to: name.clone(), items: vec![message()], more: false }, 1),
            (Answer::History { to: name.clone(), items: vec![], more: false }, 1),
        ] {
            check_harmless(reply(&mut dialect, answer).as_bytes(), lines);
        }
    }

    #[test]
    fn any_json_body_prints_as_one_line(body in r#"\{ "[a\\n]{0,3}" :[ \n\t\r]{0,4}(1e400|"(\\n|\\u001b|é){0,4}")\s?\}"#) {
        if let Ok(raw) = RawValue::from_string(body) {
            let mut message = message("#lobby", "1");
            message.body = Body::from_raw(raw);
            check_harmless(&encode_event(&Event::Message(message)), 1);
        }
    }
}
