//! Tables of the token of the user: when the application is asked, and what a refusal leads to.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::events::{RoomEvent, State};
use crate::machine::{Input, Machine, SessionEffect};
use crate::sign_in::TokenText;
use crate::storage::SavedSession;
use crate::wire::ClientRequest;

fn text(token: &str) -> TokenText {
    TokenText(token.to_owned())
}

/// A session that may have a first token, and may ask for others.
fn stage(token: Option<&str>, can_ask: bool) -> Stage {
    let machine = Machine::new("ann".to_owned(), 2, SavedSession::default());
    Stage::of(machine.with_user_token(token.map(text), can_ask))
}

fn give(stage: &mut Stage, token: &str) {
    stage.input(Input::Token(Some(Some(text(token)))));
}

fn fail(stage: &mut Stage) {
    stage.input(Input::Token(None));
}

/// Returns the number of questions since the last `clear`.
fn asks(stage: &Stage) -> usize {
    stage.effects().iter().filter(|effect| **effect == SessionEffect::AskToken).count()
}

fn connects(stage: &Stage) -> usize {
    stage.effects().iter().filter(|effect| matches!(effect, SessionEffect::Connect(_))).count()
}

fn last_offline(stage: &Stage) -> Option<(&str, &str, bool)> {
    stage.effects().iter().rev().find_map(|effect| match effect {
        SessionEffect::ChangeState(State::Offline { reason, message, will_retry, .. }) => {
            Some((reason.as_str(), message.as_str(), *will_retry))
        }
        _ => None,
    })
}

/// A session that is online with the token `u1` for a minute.
fn signed_in() -> Stage {
    let mut stage = stage(None, true);
    give(&mut stage, "u1");
    stage.open();
    stage.register(&[]);
    stage.reply("ping", &json!({"type": "pong"}));
    stage.clear();
    stage
}

fn expire(stage: &mut Stage, ms: &Value) {
    stage.event(&json!({"type": "expiring", "expires_in_ms": ms}));
}

/// A session in `#tea` that asks for its second token.
fn renewing() -> Stage {
    let mut stage = signed_in();
    let call = stage.join("#tea");
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
    stage.reply("members", &json!({"type": "members", "items": [], "next_cursor": null}));
    assert_eq!(stage.answer(call), Some(Ok(json!("#tea"))));
    stage.now += Duration::from_secs(60);
    stage.clear();
    expire(&mut stage, &json!(30_000));
    stage.tick();
    assert_eq!(asks(&stage), 1);
    stage
}

#[test]
fn first_token_is_asked_for_before_connecting() {
    let mut stage = stage(None, true);
    assert_eq!((asks(&stage), connects(&stage)), (1, 0));
    give(&mut stage, "u1");
    stage.open();
    assert_eq!((connects(&stage), &stage.last_request()["token"]), (1, &json!("u1")));
}

#[test]
fn given_token_is_used_before_any_question() {
    let mut stage = stage(Some("u0"), true);
    stage.open();
    assert_eq!((asks(&stage), &stage.last_request()["token"]), (0, &json!("u0")));
    stage.refuse("register", "token_expired");
    assert_eq!(asks(&stage), 1);
    give(&mut stage, "u1");
    stage.open();
    assert_eq!(stage.last_request()["token"], "u1");
}

#[test]
fn guest_registers_without_a_token() {
    let mut stage = stage(None, true);
    stage.input(Input::Token(Some(None)));
    stage.open();
    assert_eq!(stage.last_request(), json!({"type": "register", "id": 1, "nick": "ann"}));
}

#[test]
fn nickname_of_the_token_is_not_sent() {
    let machine = Machine::new(String::new(), 2, SavedSession::default());
    let mut stage = Stage::of(machine.with_user_token(Some(text("u1")), false));
    stage.open();
    assert_eq!(stage.last_request(), json!({"type": "register", "id": 1, "token": "u1"}));
    stage.register(&[]);
    stage.input(Input::Closed(None));
    stage.tick();
    stage.open();
    assert_eq!(stage.last_request().get("nick"), None);
}

#[test]
fn expiring_token_is_renewed_on_its_connection() {
    let mut stage = renewing();
    expire(&mut stage, &json!(30_000));
    stage.tick();
    assert_eq!(asks(&stage), 1, "one question at once");
    give(&mut stage, "u2");
    assert_eq!(stage.last_request()["token"], "u2");
    stage.reply("refresh", &json!({"type": "refreshed", "expires_in_ms": 60_000, "left": []}));
    assert!(!stage.effects().contains(&SessionEffect::Drop));
    stage.resume(&[]);
    let registers: Vec<Value> = stage.requests().into_iter().filter(|request| request["type"] == "register").collect();
    assert_eq!((asks(&stage), &registers[0]["token"]), (1, &json!("u2")));
}

#[test]
fn short_token_is_renewed_after_half_its_life() {
    let mut stage = signed_in();
    expire(&mut stage, &json!(8_000));
    assert_eq!(stage.next_in(), Some(Duration::from_secs(4)));
}

#[test]
fn announced_time_is_never_trusted_blindly() {
    for ms in [json!(null), json!("x"), json!(-1), json!(0), json!(1e300), json!(u64::MAX)] {
        let mut stage = signed_in();
        expire(&mut stage, &ms);
        assert!(stage.next_in().is_some_and(|next| next <= Duration::from_secs(15)), "{ms}");
        stage.tick();
        assert_eq!(asks(&stage), 1, "{ms}");
    }
    let mut early = stage(Some("u1"), true);
    early.open();
    expire(&mut early, &json!(0));
    assert_eq!(early.next_in(), Some(Duration::from_secs(10)), "before the registration it has no meaning");
}

#[test]
fn rooms_that_the_new_token_forbids_are_left() {
    let mut stage = renewing();
    give(&mut stage, "u2");
    stage.reply("refresh", &json!({"type": "refreshed", "expires_in_ms": 60_000, "left": ["#TEA"]}));
    assert!(stage.effects().contains(&SessionEffect::CloseRoom("#tea".to_owned())));
}

#[test]
fn failed_refresh_is_repeated_with_its_token() {
    let mut stage = renewing();
    give(&mut stage, "u2");
    stage.reply("refresh", &json!({"type": "error", "code": "unavailable", "message": "", "retry_after_ms": 1_000}));
    assert_eq!(stage.next_in(), Some(Duration::from_millis(1_250)));
    stage.clear();
    stage.tick();
    assert_eq!((asks(&stage), &stage.last_request()["token"]), (0, &json!("u2")));
}

#[test]
fn refused_refresh_leads_to_one_more_question() {
    let mut stage = renewing();
    give(&mut stage, "u2");
    stage.refuse("refresh", "token_invalid");
    assert_eq!(asks(&stage), 2);
    give(&mut stage, "u3");
    stage.refuse("refresh", "token_invalid");
    assert_eq!((asks(&stage), stage.next_in().is_some_and(|next| next > Duration::from_secs(20))), (2, true));
    stage.input(Input::Closed(Some(4005)));
    stage.tick();
    assert_eq!(asks(&stage), 3);
}

#[test]
fn closed_connection_resumes_with_a_new_token() {
    let mut stage = renewing();
    stage.input(Input::Token(Some(None)));
    assert_eq!(stage.request_types(), Vec::<String>::new(), "a guest is not renewed");
    stage.input(Input::Closed(Some(4005)));
    stage.tick();
    assert_eq!((asks(&stage), connects(&stage)), (2, 0));
    give(&mut stage, "u2");
    stage.open();
    let register = stage.last_request();
    assert_eq!((&register["token"], &register["resume"]), (&json!("u2"), &json!("token")));
    assert_eq!(register["since"]["#tea"], json!({"epoch": "e", "seq": 3}));
    // The token is of another user.
    stage.refuse("register", "resume_failed");
    let register = stage.last_request();
    assert_eq!((&register["token"], register.get("resume")), (&json!("u2"), None));
}

#[test]
fn refused_fresh_token_is_final_at_once_more() {
    for code in ["token_invalid", "token_required"] {
        let mut stage = stage(None, true);
        let call = stage.call(ClientRequest::Ping);
        for token in ["u1", "u2"] {
            assert_eq!(stage.code(call), None);
            give(&mut stage, token);
            stage.open();
            stage.refuse("register", code);
        }
        assert_eq!((asks(&stage), stage.code(call).as_deref(), stage.next_in()), (2, Some(code), None));
        assert_eq!(last_offline(&stage), Some((code, "", false)));
    }
}

#[test]
fn expired_fresh_tokens_are_waited_for() {
    let mut stage = stage(None, true);
    let mut waits = Vec::new();
    for attempt in 0..5 {
        give(&mut stage, "late");
        stage.open();
        stage.refuse("register", "token_expired");
        if attempt > 0 {
            assert_eq!(last_offline(&stage), Some(("token_expired", "", true)));
            waits.push(stage.next_in().map(|next| next.as_millis()));
            stage.tick();
        }
    }
    assert_eq!(waits, [250, 500, 1_000, 2_000].map(Some));
}

#[test]
fn token_without_a_source_ends_the_session() {
    for code in ["token_expired", "token_invalid", "token_required"] {
        let mut stage = stage(Some("u1"), false);
        stage.open();
        stage.refuse("register", code);
        assert_eq!((asks(&stage), last_offline(&stage)), (0, Some((code, "", false))));
    }
    let mut stage = stage(Some("u1"), false);
    stage.open();
    stage.register(&[]);
    expire(&mut stage, &json!(30_000));
    stage.input(Input::Closed(Some(4005)));
    assert_eq!(
        last_offline(&stage).map(|(reason, _, will_retry)| (reason, will_retry)),
        Some(("token_expired", false))
    );
}

#[test]
fn failed_question_is_a_failed_attempt() {
    let mut failed = stage(None, true);
    fail(&mut failed);
    assert_eq!(last_offline(&failed), Some(("no_token", "get_token failed", true)));
    failed.tick();
    assert_eq!(asks(&failed), 2);
    let mut silent = stage(None, true);
    silent.tick();
    assert_eq!((silent.now, last_offline(&silent).map(|state| state.0)), (Duration::from_secs(10), Some("no_token")));
    assert!(silent.effects().contains(&SessionEffect::Drop));
    give(&mut silent, "late");
    assert_eq!(connects(&silent), 0);
}

#[test]
fn failed_renewals_are_repeated_while_online() {
    let mut stage = renewing();
    for asked in 2..5 {
        fail(&mut stage);
        stage.tick();
        assert_eq!((asks(&stage), last_offline(&stage)), (asked, None));
    }
}

#[test]
fn close_never_waits_for_an_answer() {
    let mut early = stage(None, true);
    let call = early.call(ClientRequest::Ping);
    let close = early.call(ClientRequest::Bye);
    assert_eq!((early.code(call).as_deref(), early.answer(close).is_some()), (Some("closed"), true));
    give(&mut early, "late");
    assert_eq!((connects(&early), early.next_in()), (0, None));
    let mut late = renewing();
    late.call(ClientRequest::Bye);
    give(&mut late, "late");
    assert_eq!(late.last_request()["type"], "bye");
}

#[test]
fn loss_of_the_connection_ends_a_question() {
    let mut stage = renewing();
    stage.input(Input::Closed(None));
    give(&mut stage, "late");
    stage.tick();
    assert_eq!((asks(&stage), connects(&stage)), (2, 0));
}

#[test]
fn user_of_messages_and_members_is_given() {
    let mut stage = renewing();
    for (seq, user) in [(4, Some("user:7")), (5, None)] {
        let mut message = json!({"type": "message", "to": "#tea", "from": "bob", "msg_id": format!("m{seq}"), "seq": seq,
            "time": 1, "body": 1});
        if let Some(user) = user {
            message["from_user"] = json!(user);
        }
        stage.event(&message);
    }
    let users: Vec<Option<&str>> = stage
        .effects()
        .iter()
        .filter_map(|effect| match effect {
            SessionEffect::Deliver(_, RoomEvent::Message(message)) => Some(message.from_user.as_deref()),
            _ => None,
        })
        .collect();
    assert_eq!(users, [Some("user:7"), None]);
}

#[test]
fn descriptions_hide_the_token() {
    let token = Some(text("secret"));
    let request = ClientRequest::Register { nick: None, token, resume: None };
    assert!(!format!("{request:?}").contains("secret"));
    let machine =
        Machine::new("ann".to_owned(), 1, SavedSession::default()).with_user_token(Some(text("secret")), true);
    assert!(!format!("{machine:?}").contains("secret"));
}
