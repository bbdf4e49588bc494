//! Tables of the connection: registration, refusals, close codes, heartbeats, waiting times.

use std::time::Duration;

use serde_json::json;

use super::stage::Stage;
use crate::error::ParleyError;
use crate::events::State;
use crate::machine::connection::retry_wait;
use crate::machine::{Input, SessionEffect};
use crate::storage::SavedSession;
use crate::wire::ClientRequest;

/// Returns the names of the states, and the reasons of `offline`.
fn states(stage: &Stage) -> Vec<String> {
    let state = |effect: &SessionEffect| match effect {
        SessionEffect::ChangeState(State::Offline { reason, will_retry, .. }) => {
            Some(format!("offline {reason} {will_retry}"))
        }
        SessionEffect::ChangeState(State::Online { resumed, .. }) => Some(format!("online {resumed}")),
        SessionEffect::ChangeState(state) => Some(format!("{state:?}").to_lowercase()),
        _ => None,
    };
    stage.effects().iter().filter_map(state).collect()
}

fn connects(stage: &Stage) -> Vec<usize> {
    let connect = |effect: &SessionEffect| match effect {
        SessionEffect::Connect(address) => Some(*address),
        _ => None,
    };
    stage.effects().iter().filter_map(connect).collect()
}

#[test]
fn states_follow_the_connection() {
    let mut stage = Stage::new(SavedSession::default());
    stage.input(Input::Failed(None));
    stage.tick();
    stage.open();
    stage.register(&[]);
    stage.resume(&[]);
    stage.input(Input::Closed(Some(4003)));
    let expected = [
        "connecting",
        "offline connection_lost true",
        "connecting",
        "online false",
        "resuming",
        "online true",
        "offline kicked false",
    ];
    assert_eq!(states(&stage), expected);
    assert_eq!(connects(&stage), [0, 1, 0], "the addresses take turns");
    assert_eq!(stage.next_in(), None);
}

#[test]
fn waiting_times_double_up_to_half_a_minute() {
    let maxima: Vec<u128> = (0..8).map(|failures| retry_wait(failures, 1.0).as_millis()).collect();
    assert_eq!(maxima, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!(retry_wait(u32::MAX, 1.0), Duration::from_secs(30));
    assert_eq!(retry_wait(3, 0.0), Duration::ZERO, "full jitter");
}

#[test]
fn close_codes_decide_about_another_attempt() {
    for (number, reason, is_final) in [
        (Some(1000), "bye", true),
        (Some(1008), "rate_limited", true),
        (Some(1009), "too_big", true),
        (Some(4004), "taken_over", true),
        (Some(4006), "banned", true),
        (Some(1012), "restart", false),
        (Some(4002), "slow_consumer", false),
        (Some(4005), "token_expired", false),
        (Some(4999), "connection_lost", false),
        (None, "connection_lost", false),
    ] {
        let mut stage = Stage::new(SavedSession::default());
        stage.input(Input::Open);
        stage.input(Input::Closed(number));
        assert_eq!(states(&stage).pop(), Some(format!("offline {reason} {}", !is_final)), "{number:?}");
        assert_eq!(stage.next_in().is_none(), is_final);
    }
}

#[test]
fn wake_retries_at_once_or_checks() {
    let mut stage = Stage::online();
    stage.input(Input::Wake);
    assert_eq!(stage.request_types(), ["ping"]);
    assert_eq!(stage.next_in(), Some(Duration::from_secs(2)));
    stage.tick();
    assert_eq!((connects(&stage), stage.next_in()), (vec![], Some(Duration::from_millis(250))), "it waits");
    stage.input(Input::Wake);
    assert_eq!(connects(&stage), [1]);
    stage.input(Input::Wake);
    assert_eq!(connects(&stage), [1], "an attempt is under way");
}

#[test]
fn offline_state_has_the_server_text() {
    let mut stage = Stage::new(SavedSession::default());
    stage.input(Input::Failed(Some(ParleyError::new("unavailable", "try later"))));
    stage.tick();
    stage.open();
    stage.reply("register", &json!({"type": "error", "code": "overloaded", "message": "too many"}));
    stage.tick();
    stage.open();
    stage.reply("register", &json!({"type": "error", "code": "bad_nick", "message": "too long"}));
    let texts = stage.effects().iter().filter_map(|effect| match effect {
        SessionEffect::ChangeState(State::Offline { reason, message, .. }) => Some((reason.as_str(), message.as_str())),
        _ => None,
    });
    let expected = [("connection_lost", ""), ("overloaded", "too many"), ("bad_nick", "too long")];
    assert_eq!(Vec::from_iter(texts), expected, "a refusal says nothing about the other address");
}

#[test]
fn going_away_leads_to_an_immediate_attempt() {
    let mut stage = Stage::online();
    stage.event(&json!({"type": "going_away", "retry_after_ms": 1500}));
    let call = stage.call(ClientRequest::Whois { nick: "bob".to_owned() });
    assert_eq!(stage.request_types(), ["whois"], "requests are still answered");
    stage.input(Input::Closed(Some(1012)));
    assert_eq!(connects(&stage), [1]);
    stage.input(Input::Failed(None));
    assert_eq!(stage.next_in(), Some(Duration::from_millis(250)), "only the first attempt is immediate");
    assert_eq!(stage.answer(call), None);
}

#[test]
fn silent_connection_is_pinged_and_abandoned() {
    let mut stage = Stage::online();
    stage.event(&json!({"type": "typing", "to": "ann", "from": "bob"}));
    assert_eq!(stage.next_in(), Some(Duration::from_secs(30)), "any frame is a sign of life");
    stage.tick();
    assert_eq!(stage.request_types(), ["ping"]);
    stage.reply("ping", &json!({"type": "pong"}));
    stage.call(ClientRequest::Whois { nick: "bob".to_owned() });
    assert_eq!(stage.next_in(), Some(Duration::from_secs(5)), "a reply is due");
    stage.tick();
    stage.tick();
    assert_eq!(states(&stage), ["resuming"]);
    assert!(stage.effects().contains(&SessionEffect::Drop));
}

#[test]
fn unanswered_registration_is_given_up() {
    for opens in [false, true] {
        let mut stage = Stage::new(SavedSession::default());
        if opens {
            stage.open();
        }
        assert_eq!(stage.next_in(), Some(Duration::from_secs(10)));
        stage.tick();
        assert_eq!(states(&stage), ["connecting", "offline connection_lost true"]);
    }
}

#[test]
fn refused_nickname_ends_until_a_rename() {
    for code in ["nick_in_use", "nick_confusable", "bad_nick"] {
        let mut stage = Stage::new(SavedSession::default());
        let waiting = stage.join("#tea");
        stage.open();
        stage.refuse("register", code);
        assert_eq!(stage.code(waiting).as_deref(), Some(code), "pending calls end");
        let late = stage.join("#tea");
        assert_eq!(stage.code(late).as_deref(), Some(code));
        let rename = stage.call(ClientRequest::Nick { nick: "anna".to_owned() });
        stage.open();
        assert_eq!(stage.last_request()["nick"], "anna");
        stage.register(&[]);
        stage.reply("nick", &json!({"type": "nick", "nick": "anna"}));
        assert!(stage.answer(rename).is_some_and(|answer| answer.is_ok()));
    }
}

#[test]
fn temporary_refusal_waits_as_the_server_asks() {
    for (refusal, least) in [
        (json!({"code": "unavailable"}), Duration::ZERO),
        (json!({"code": "nick_in_use", "retry_after_ms": 60_000}), Duration::from_mins(1)),
    ] {
        let mut stage = Stage::new(SavedSession::default());
        stage.open();
        let mut error = refusal.clone();
        error["type"] = "error".into();
        stage.reply("register", &error);
        assert_eq!(stage.next_in(), Some(least + Duration::from_millis(250)), "{refusal}");
    }
}

#[test]
fn lost_registration_may_hold_its_own_nickname() {
    let mut stage = Stage::new(SavedSession::default());
    stage.open();
    stage.input(Input::Closed(None));
    stage.tick();
    stage.open();
    stage.refuse("register", "nick_in_use");
    assert_eq!(states(&stage).pop().as_deref(), Some("offline nick_in_use true"));
    for _ in 0..9 {
        stage.tick();
        stage.open();
        stage.refuse("register", "nick_in_use");
    }
    stage.tick();
    stage.open();
    stage.refuse("register", "nick_in_use");
    assert_eq!(states(&stage).pop().as_deref(), Some("offline nick_in_use false"));
}

#[test]
fn lost_session_begins_anew_over_one_connection() {
    let saved = SavedSession { token: Some("old".to_owned()), ..SavedSession::default() };
    let mut stage = Stage::new(saved);
    stage.open();
    assert_eq!(stage.last_request()["resume"], "old");
    stage.refuse("register", "resume_failed");
    let request = stage.last_request();
    assert_eq!((&request["type"], request.get("resume"), request.get("since")), (&json!("register"), None, None));
    stage.register(&[]);
    assert_eq!(stage.token(), Some("token"));
    assert_eq!(states(&stage), ["connecting", "online false"]);
}

#[test]
fn new_token_is_stored_before_any_request() {
    let mut stage = Stage::new(SavedSession::default());
    stage.open();
    stage.clear();
    // The reply needs the id of the request, which was cleared.
    stage.event(&json!({"type": "registered", "id": 1, "nick": "ann", "resume": "token", "rooms": [],
            "inbox": {"epoch": "i", "seq": 5}, "heartbeat_ms": 30_000, "node": "g1"}));
    assert_eq!(stage.effects().first(), Some(&SessionEffect::Save { at_once: true }));
    assert_eq!(stage.request_types(), ["ping"], "the server keeps a session after its first request");
}

#[test]
fn permanent_refusals_of_all_addresses_end_the_session() {
    let refusal = || Input::Failed(Some(ParleyError::new("forbidden_origin", "")));
    let mut stage = Stage::new(SavedSession::default());
    stage.input(refusal());
    assert_eq!(states(&stage).pop().as_deref(), Some("offline connection_lost true"));
    stage.tick();
    stage.input(refusal());
    assert_eq!(states(&stage).pop().as_deref(), Some("offline forbidden_origin false"));
}

#[test]
fn close_ends_every_call_and_says_bye() {
    let mut stage = Stage::in_tea();
    let sends = [stage.send("#tea", 1), stage.send("#tea", 2)];
    let close = stage.call(ClientRequest::Bye);
    assert!(sends.iter().all(|send| stage.code(*send).as_deref() == Some("closed")));
    assert_eq!(stage.request_types(), ["send", "bye"], "nothing of a lane is sent any more");
    assert_eq!(stage.answer(close), None, "it waits for the server");
    stage.input(Input::Closed(Some(1000)));
    assert!(stage.answer(close).is_some_and(|answer| answer.is_ok()));
    assert_eq!(states(&stage), ["offline closed false"]);
    let late = stage.send("#tea", 3);
    assert_eq!(stage.code(late).as_deref(), Some("closed"));
}

#[test]
fn final_close_sends_nothing_more() {
    let mut stage = Stage::in_tea();
    let sends = [stage.send("#tea", 1), stage.send("#tea", 2)];
    stage.input(Input::Closed(Some(4003)));
    assert!(sends.iter().all(|send| stage.code(*send).as_deref() == Some("kicked")));
    assert_eq!(stage.request_types(), ["send"]);
}

#[test]
fn close_without_a_connection_ends_at_once() {
    let mut stage = Stage::new(SavedSession::default());
    let close = stage.call(ClientRequest::Bye);
    assert!(stage.answer(close).is_some_and(|answer| answer.is_ok()));
    let again = stage.call(ClientRequest::Bye);
    assert!(stage.answer(again).is_some_and(|answer| answer.is_ok()));
}

#[test]
fn malformed_frames_are_ignored() {
    let mut stage = Stage::in_tea();
    for frame in [
        "[]",
        "7",
        "null",
        "{\"type\":7}",
        "{\"type\":\"message\",\"to\":\"#tea\"}",
        "{\"type\":\"error\"}",
        "{\"type\":\"dance\"}",
        "{\"type\":\"pong\",\"id\":99}",
        "{\"type\":\"error\",\"id\":99,\"code\":\"internal\"}",
        "{\"type\":\"gap\",\"to\":\"#tea\",\"from_seq\":-1,\"to_seq\":4}",
        "{\"type\":\"presence\",\"room\":7}",
    ] {
        stage.event(&serde_json::from_str(frame).expect("JSON"));
    }
    assert_eq!(stage.effects(), []);
}
